"""The guide's first-epoch check: pretrained above 50 %, scratch below 10 % on CIFAR-100."""

from __future__ import annotations

import pytest

from trainables.first_epoch import first_epoch_check, typical_scratch


@pytest.mark.parametrize(
    ("init", "dataset", "classes", "top1", "warned"),
    [
        ("pretrained", "cifar100", 100, 0.55, False),
        ("pretrained", "cifar100", 100, 0.08, True),
        ("scratch", "cifar100", 100, 0.08, False),
        ("pretrained", "digits", 10, 0.84, True),  # scratch starts of vit_tiny reached as much
        ("pretrained", "digits", 10, 0.9, False),
        ("pretrained", "folder", 5, 0.59, True),
        ("pretrained", "folder", 5, 0.61, False),
    ],
)
def test_a_pretrained_start_that_looks_random_is_warned_of(
    init: str, dataset: str, classes: int, top1: float, warned: bool
) -> None:
    line, warning = first_epoch_check(init, dataset, classes, top1)
    assert (warning is not None) == warned
    assert f"{top1:.2%}" in line and init in line


def test_two_classes_leave_room_for_better() -> None:
    assert typical_scratch("folder", 2) == 0.9
