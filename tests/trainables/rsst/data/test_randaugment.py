"""Each operation is torchvision's; every image gets the two that were drawn for it, whatever the batch."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from trainables.rsst.data import randaugment
from trainables.rsst.data.randaugment import GEOMETRIC, NAMES, applied, drawn

THEIRS = v2.RandAugment(num_ops=1, magnitude=9, fill=128)
SPACE = {name.lower(): name for name in THEIRS._AUGMENTATION_SPACE}


def pixels(count: int = 16, channels: int = 3, side: int = 32) -> torch.Tensor:
    coarse = torch.rand(count, channels, 6, 6, generator=torch.Generator().manual_seed(0)) * 255
    return torch.nn.functional.interpolate(coarse, size=side, mode="bilinear").to(torch.uint8)


def test_the_operations_are_those_of_torchvision() -> None:
    assert {name.replace("_", "") for name in NAMES} == set(SPACE)


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "identity"])
@pytest.mark.parametrize("shape", [(3, 32), (1, 8)], ids=str)
def test_an_operation_gives_torchvisions_pixels(name: str, negative: bool, shape: tuple[int, int]) -> None:
    given, theirs = pixels(8, *shape), SPACE[name.replace("_", "")]
    magnitudes, signed = THEIRS._AUGMENTATION_SPACE[theirs]
    magnitude = magnitudes(31, shape[1], shape[1])
    strength = (-1.0 if negative and signed else 1.0) * (0.0 if magnitude is None else float(magnitude[9]))
    wanted = THEIRS._apply_image_or_video_transform(given, theirs, strength, THEIRS.interpolation, THEIRS._fill)
    if name in GEOMETRIC:
        found = randaugment.geometric(given, torch.full((8,), 2 * NAMES.index(name) + negative))
    else:
        found = randaugment.colour(name, negative)(given)
    assert found.dtype == torch.uint8
    assert int((found.int() - wanted.int()).abs().max()) <= 1, "0.27 in float32 and in float64"


def test_every_image_gets_its_own_operations_whatever_the_batch() -> None:
    given, draws = pixels(60), torch.Generator().manual_seed(0)
    rows, groups = drawn(60, draws)
    together = applied(given.clone(), rows, groups)
    for image in range(60):
        alone = given[image : image + 1]
        for code in rows[:2, image].tolist():
            name, negative = NAMES[code // 2], code % 2 == 1
            if name in GEOMETRIC:
                alone = randaugment.geometric(alone, torch.tensor([code]))
            elif name != "identity":
                alone = randaugment.colour(name, negative)(alone)
        assert torch.equal(together[image], alone[0]), image


def test_the_number_of_calls_does_not_grow_with_the_batch() -> None:
    few, many = (drawn(count, torch.Generator().manual_seed(0))[1] for count in (400, 4000))
    assert [len(slot) for slot in few] == [len(slot) for slot in many] == [17, 17]
