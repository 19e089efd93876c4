"""Augmentation: pure in (images, seed), each policy does what it says, nothing global moves."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from trainables.rsst.data.augment import DOWN, MIRRORED, POLICIES, RIGHT, augmented, drawn
from trainables.rsst.data.batches import Batch, TrialImages
from trainables.rsst.data.split import Split


def images(count: int = 24, channels: int = 3, side: int = 16) -> TrialImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, channels, side, side), generator=generator, dtype=torch.uint8)
    split = Split(pixels, torch.arange(count) % 5)
    return TrialImages(split, split, split, torch.full((channels, 1, 1), 0.5), torch.full((channels, 1, 1), 0.25), 5)


def run(policy: str, seed: int, given: TrialImages) -> Batch:
    order = torch.arange(len(given.train))
    return augmented(given, policy, drawn(policy, order, given.train.images.shape[-1], seed))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_pure_in_inputs_and_seed(policy: str, channels: int) -> None:
    given = images(channels=channels)
    before = given.train.images.clone()
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    first, again, other = (run(policy, seed, given) for seed in (7, 7, 8))
    assert torch.equal(given.train.images, before)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1] and random.getstate() == states[2]
    assert torch.equal(first.images, again.images) and torch.equal(first.targets, again.targets)
    assert first.images.shape == before.shape and first.images.dtype == torch.float32
    assert torch.equal(first.images, other.images) == (policy == "none")


def test_every_policy_gives_another_batch() -> None:
    seen = [run(policy, 1, images()).images for policy in POLICIES]
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


@pytest.mark.parametrize("side", [5, 8, 33])
@pytest.mark.parametrize("policy", ["flip", "crop", "standard"])
def test_one_gather_is_pad_cut_and_mirror_bit_for_bit(policy: str, side: int) -> None:
    """Image by image, the long way: normalise, pad with zeros, cut out, mirror."""
    given, pad = images(40, side=side), 4
    chosen = torch.randperm(40, generator=torch.Generator().manual_seed(1))[:30]
    draws = drawn(policy, chosen, side, 3)
    padded = torch.nn.functional.pad(given.batch(given.train).images, (pad,) * 4)
    found = augmented(given, policy, draws).images
    for at, image in enumerate(chosen.tolist()):
        down, right, mirrored = draws.rows[[DOWN, RIGHT, MIRRORED], at].tolist()
        cut = padded[image, :, pad + down : pad + down + side, pad + right : pad + right + side]
        assert torch.equal(found[at], cut.flip(2) if mirrored else cut), at


def test_flip_mirrors_about_half_of_the_images_and_changes_nothing_else() -> None:
    given = images(400)
    plain, out = given.batch(given.train), run("flip", 3, given)
    kept = (out.images == plain.images).flatten(1).all(1)
    mirrored = (out.images == plain.images.flip(3)).flatten(1).all(1)
    assert bool((kept | mirrored).all()) and 150 < int(mirrored.sum()) < 250
    assert torch.equal(out.targets, plain.targets)


def test_crop_is_a_shift_by_at_most_an_eighth_of_the_side() -> None:
    shifts = drawn("crop", torch.arange(400), 16, 3).rows[[DOWN, RIGHT]]
    assert set(shifts.flatten().tolist()) == {-2, -1, 0, 1, 2}
    assert int(drawn("crop", torch.arange(400), 224, 3).rows[DOWN].abs().max()) == 4


def test_strong_gives_probabilities_that_mix_two_labels() -> None:
    kinds = set()
    for seed in range(6):
        draws = drawn("strong", torch.arange(24), 16, seed)
        out = augmented(images(), "strong", draws)
        assert draws.mix is not None
        kinds.add(draws.mix.box is None)
        assert out.targets.shape == (24, 5) and torch.allclose(out.targets.sum(1), torch.ones(24))
        assert bool(((out.targets > 0).sum(1) <= 2).all()) and bool(torch.isfinite(out.images).all())
    assert kinds == {True, False}, "mixup and cutmix"


def test_strong_erases_a_quarter_of_the_images_with_the_mean() -> None:
    rows = drawn("strong", torch.arange(2000), 16, 0).rows
    top, left, bottom, right = rows[4:8]
    erased = bottom > top
    assert 400 < int(erased.sum()) < 600 and bool((right[erased] > left[erased]).all())
    assert int(bottom.max()) <= 16 and int(right.max()) <= 16
    flat = images(200)
    flat.train.images.fill_(255)
    out = augmented(flat, "strong", drawn("strong", torch.arange(200), 16, 0)).images
    assert 20 < int((out == 0).flatten(1).any(1).sum()) < 120


def test_strong_takes_an_odd_last_batch_and_tiny_grey_images() -> None:
    out = run("strong", 0, images(7, channels=1, side=8))
    assert out.images.shape == (7, 1, 8, 8) and out.targets.shape == (7, 5)
