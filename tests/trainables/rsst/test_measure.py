"""What a trial's steps take, measured in a process of its own."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest

from trainables.rsst import measure
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.measure import measure_in_child
from trainables.rsst.model.vit import build
from trainables.rsst.training import epoch


@pytest.mark.medium
def test_a_real_step_is_measured_in_a_process_of_its_own() -> None:
    found = measure_in_child(RSSTConfig.from_knobs({"dataset": "digits", "target_density": 0.3}), at_once=2)
    assert found.device in ("cpu", "cuda") and 0 < found.train_small_s < 1 and 0 < found.train_s < 1
    assert 100 < found.peak_mib < 4000
    with pytest.raises(ConfigError, match="arch = "):
        measure_in_child(replace(RSSTConfig.from_knobs({"dataset": "digits"}), arch="no_such_vit"))


@pytest.mark.parametrize(
    ("compiles", "took", "per_image"),
    [
        (False, (3.0, 1.0), 1.0 / 64),
        (False, (9.0, 1.0), 9.0 / 32),
        (True, (90.0, 3.0, 1.0), 1.0 / 64),
        (True, (90.0, 9.0, 1.0), 9.0 / 32),
    ],
    ids=str,
)
def test_neither_the_first_pass_nor_compiling_is_timed(
    compiles: bool, took: tuple[float, ...], per_image: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that only training moves; of a batch that takes more than 5 s that one is enough."""
    config = RSSTConfig.from_knobs({"dataset": "digits", "batch_size": 32, "compile": compiles})
    images = measure._random_images(config, (1, 8, 8), 10, "cpu")
    times, now = itertools.chain(took, itertools.repeat(took[-1])), [0.0]

    def train_epoch(*_: object) -> None:
        now[0] += next(times)

    monkeypatch.setattr(epoch, "train_epoch", train_epoch)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    model = measure.architecture_of(config)
    assert measure._seconds_per_image(config, build(model), images, 0.5) == pytest.approx(per_image)
