"""The embedded digits, the split and the statistics: numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data import load, sources
from trainables.rsst.data.split import stratified_split
from trainables.worker.images import KeptImages


def digits(**knobs: object) -> load.ImageData:
    return load.load(RSSTConfig.from_knobs({"dataset": "digits", **knobs}))


def test_digits_are_scikit_learns() -> None:
    sklearn = pytest.importorskip("sklearn.datasets")
    ours = sources.digits()[0]["all"]
    theirs = sklearn.load_digits()
    assert np.array_equal(ours.images[:, 0], np.rint(theirs.images * 255 / 16))
    assert np.array_equal(ours.labels, theirs.target)


def test_digits_split_is_70_15_15_stratified_and_complete() -> None:
    d = digits(seed=3)
    assert [len(x) for x in (d.train, d.val, d.test)] == [1259, 269, 269]
    assert d.train.images.shape == (1259, 1, 8, 8) and d.train.images.dtype == torch.uint8
    assert d.train.labels.dtype == torch.int64
    everything = sources.digits()[0]["all"]
    for digit in range(10):
        n = int((everything.labels == digit).sum())
        assert int((d.val.labels == digit).sum()) == int((d.test.labels == digit).sum()) == int(n * 0.15 + 0.5)
    together = torch.cat([d.train.images, d.val.images, d.test.images]).numpy()
    assert sorted(x.tobytes() for x in together) == sorted(x.tobytes() for x in everything.images.numpy())


def test_the_split_depends_on_the_seed_alone() -> None:
    first, again, other = digits(seed=0, lr=1e-3), digits(seed=0, lr=2e-3), digits(seed=1)
    assert first.digest == again.digest != other.digest
    assert torch.equal(first.val.images, again.val.images)


def test_split_seed_splits_and_the_seed_decides_the_rest() -> None:
    split = {seed: digits(seed=seed).digest for seed in (0, 1)}
    assert digits(seed=1, split_seed=0).digest == split[0] != split[1] == digits(seed=0, split_seed=1).digest
    apart = RSSTConfig.from_knobs({"dataset": "digits", "seed": 1, "split_seed": 0})
    kept = KeptImages()
    assert kept.of(apart) is kept.of(RSSTConfig.from_knobs({"dataset": "digits"}))
    others = [RSSTConfig.from_knobs({"dataset": "digits", "seed": seed}).fingerprint for seed in (0, 1)]
    assert apart.fingerprint not in others


@pytest.mark.parametrize("given", [-1, "x", 0.5])
def test_a_split_seed_is_a_whole_number(given: object) -> None:
    with pytest.raises(ConfigError, match=f"split_seed = {given}: valid is "):
        RSSTConfig.from_knobs({"split_seed": given})


def test_the_split_is_the_same_on_every_platform() -> None:
    train, val = stratified_split(np.arange(20) % 2, (0.3,), seed=0)
    assert val.tolist() == [2, 3, 8, 11, 13, 18]
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(20))


def test_mean_and_std_are_those_of_the_train_part() -> None:
    d = digits()
    scaled = d.train.images.double() / 255
    assert d.about.mean == pytest.approx([scaled.mean().item()], rel=1e-12)
    assert d.about.std == pytest.approx([scaled.std(correction=0).item()], rel=1e-9)


def test_digits_can_be_resized() -> None:
    assert digits(img_size=32).train.images.shape == (1259, 1, 32, 32)
