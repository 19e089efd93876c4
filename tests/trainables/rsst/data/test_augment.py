"""Augmentation: pure in (inputs, seed), each policy does what it says, nothing global moves."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from trainables.rsst.data.augment import POLICIES, augment
from trainables.rsst.data.batches import Batch

MEAN, STD = torch.full((1, 1, 1), 0.5), torch.full((1, 1, 1), 0.25)


def batch(count: int = 24, channels: int = 3, side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, channels, side, side), generator=generator).float()
    return (pixels / 255 - MEAN) / STD, torch.arange(count) % 5


def run(policy: str, seed: int, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    changed = augment(Batch(images, labels), policy, 5, seed, mean=MEAN, std=STD)
    return changed.images, changed.targets


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_pure_in_inputs_and_seed(policy: str, channels: int) -> None:
    images, labels = batch(channels=channels)
    before = images.clone()
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    first, again, other = (run(policy, seed, images, labels) for seed in (7, 7, 8))
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1] and random.getstate() == states[2]
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert first[0].shape == images.shape and first[0].dtype == images.dtype
    assert torch.equal(first[0], other[0]) == (policy == "none")


def test_every_policy_gives_another_batch() -> None:
    images, labels = batch()
    seen = [run(policy, 1, images, labels)[0] for policy in POLICIES]
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_flip_mirrors_about_half_of_the_images_and_changes_nothing_else() -> None:
    images, labels = batch(400)
    out, targets = run("flip", 3, images, labels)
    kept = (out == images).flatten(1).all(1)
    mirrored = (out == images.flip(3)).flatten(1).all(1)
    assert bool((kept | mirrored).all()) and 150 < int(mirrored.sum()) < 250
    assert torch.equal(targets, labels)


def test_crop_is_a_shift_by_at_most_an_eighth_of_the_side() -> None:
    images, labels = batch(60)
    out, _ = run("crop", 3, images, labels)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    shifts = [padded[:, :, y : y + 16, x : x + 16] for y in range(5) for x in range(5)]
    matches = torch.stack([(out == s).flatten(1).all(1) for s in shifts])
    assert bool(matches.any(0).all()) and int(matches.any(1).sum()) > 15


def test_strong_gives_probabilities_that_mix_two_labels() -> None:
    images, labels = batch()
    for seed in range(6):
        out, targets = run("strong", seed, images, labels)
        assert targets.shape == (24, 5) and torch.allclose(targets.sum(1), torch.ones(24))
        assert bool(((targets > 0).sum(1) <= 2).all()) and bool(torch.isfinite(out).all())


def test_strong_takes_an_odd_last_batch_and_tiny_grey_images() -> None:
    images, labels = batch(7, channels=1, side=8)
    out, targets = run("strong", 0, images, labels)
    assert out.shape == images.shape and targets.shape == (7, 5)


def test_what_it_refuses() -> None:
    images, labels = batch()
    with pytest.raises(ValueError, match="policy = twirl"):
        run("twirl", 0, images, labels)
    with pytest.raises(ValueError, match="mean and std"):
        augment(Batch(images, labels), "strong", 5, 0)
