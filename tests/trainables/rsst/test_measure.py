"""What a trial's steps take, measured in a process of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.measure import measure_in_child


@pytest.mark.medium
def test_a_real_step_is_measured_in_a_process_of_its_own() -> None:
    found = measure_in_child(RSSTConfig.from_knobs({"dataset": "digits", "target_density": 0.3}), at_once=2)
    assert found.device in ("cpu", "cuda") and 0 < found.train_small_s < 1 and 0 < found.train_s < 1
    assert 100 < found.peak_mib < 4000
    with pytest.raises(ConfigError, match="arch = "):
        measure_in_child(replace(RSSTConfig.from_knobs({"dataset": "digits"}), arch="no_such_vit"))
