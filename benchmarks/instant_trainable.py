"""A trial that reports all its rounds in one step, without training: for benchmarks of what is around it."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.many_trials import events
from trainables.rsst.config import RSSTConfig
from trainables.worker.ray_trainable import RSSTTrainable


class Instant(RSSTTrainable):
    """All rounds of a trial at once; says which process it ran in."""

    def step(self) -> dict[str, Any]:
        config, key = RSSTConfig.from_knobs(self._assignment["knobs"]), self._assignment["trial_key"]
        value = 0.5 + 0.4 * (int(key[1:]) * 7919 % 1000) / 1000
        here = {"host": f"pid {os.getpid()}", "node": "", "epochs_there": 0}
        reports = list(events(config.rounds, value, config.kept_share_after))
        return {"trial_key": key, "events": reports, "done": True, "placed": [here]}
