"""What a trial reports beside its accuracy: the dense model's, the drop against it, and every class."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from tests.trainables import toy
from trainables.rsst.data.load import ImageData
from trainables.rsst.data.split import Split
from trainables.rsst.event import Event
from trainables.rsst.experiment import run
from trainables.rsst.metrics import METRICS, shown, uneven

pytestmark = pytest.mark.usefixtures("toy")

WAYS: list[dict[str, Any]] = [
    {},
    {"struct": "refill"},
    {"granularity": "element", "criteria": "magnitude", "scope": "global"},
    {"granularity": "head", "scope": "global", "criteria": "saliency"},
    {"rewind": "none"},
    {"pruning_times": 1},
]


def metrics_of(events: list[Event], kind: str) -> list[dict[str, Any]]:
    return [event.metrics for event in events if event.kind == kind]


@pytest.mark.parametrize("knobs", WAYS, ids=str)
def test_every_result_stands_beside_the_dense_one(knobs: dict[str, Any]) -> None:
    events = list(run(toy.config(**knobs), toy.images()))
    rounds, [final] = metrics_of(events, "round"), metrics_of(events, "final")
    for metrics in (*rounds, final):
        assert metrics["dense_top1"] == rounds[0]["val_top1"]
        assert metrics["top1_drop"] == rounds[0]["val_top1"] - metrics["val_top1"]
        assert_classes(metrics, "val", toy.images().val)
    assert rounds[0]["top1_drop"] == 0.0
    assert_classes(final, "test", toy.images().test)


def assert_classes(metrics: dict[str, Any], part: str, split: Split) -> None:
    """The classes' accuracies add up to that of all images, and their mean is the balanced one."""
    counts = torch.bincount(split.labels, minlength=10).tolist()
    known = [(share, n) for share, n in zip(metrics[f"{part}_class_accuracy"], counts, strict=True) if n]
    assert math.isclose(sum(share * n for share, n in known) / len(split), metrics[f"{part}_top1"])
    assert math.isclose(sum(share for share, _ in known) / len(known), metrics[f"{part}_balanced_accuracy"])


def test_a_trial_that_goes_on_reports_the_same_classes() -> None:
    config, data = toy.config(), toy.images()
    whole = list(run(config, data))
    for at, event in enumerate(run(config, data)):
        if at in (1, 4, 6):  # within the first round, within the second one, after it
            state = event.snapshot()
            assert toy.told(run(config, data, state)) == toy.told(whole[at + 1 :])


def counted(data: ImageData, part: str, counts: list[int]) -> ImageData:
    """`data` whose `part` has so many images of each class, the same one again and again."""
    split = getattr(data, part)
    firsts = [int((split.labels == label).nonzero()[0]) for label in range(10)]
    return dataclasses.replace(data, **{part: split[torch.tensor(firsts).repeat_interleave(torch.tensor(counts))]})


@pytest.mark.parametrize(("part", "expected"), [("train", 1.0), ("val", 3.0), ("test", 3.0)])
def test_classes_are_uneven_where_what_is_measured_is(part: str, expected: float) -> None:
    data = counted(counted(toy.images(), "val", [2] * 10), "test", [3] * 10)
    start = next(iter(run(toy.config(), counted(data, part, [1] * 9 + [3])))).metrics
    assert start["class_ratio"] == expected and uneven(start) is (expected >= 1.5)
    assert uneven({"class_ratio": 1.5}) and not uneven({"class_ratio": 1.49}) and not uneven({})


def test_only_uneven_classes_bring_their_columns() -> None:
    some = {name for name, metric in METRICS.items() if metric.uneven}
    assert some == {"val_balanced_accuracy", "test_balanced_accuracy"}
    aims = {name for name, metric in METRICS.items() if metric.aim}
    assert aims == {"val_top5", "val_loss", "objective"}
    several = {name for name, metric in METRICS.items() if metric.several}
    always = set(METRICS) - some - aims - several
    assert set(shown([{"class_ratio": 1.0}, {}])) == always
    assert set(shown([{"class_ratio": 1.0}, {"class_ratio": 3.0}])) == always | some
    assert set(shown([{}], "val_loss")) == always | {"val_loss"}
    assert several and set(shown([{"seeds": 1}, {}])) == always | several
