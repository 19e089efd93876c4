"""A trial that reports all its rounds in one step, without training: for benchmarks of what is around it."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.many_trials import accuracy, events
from trainables.rsst.config import RSSTConfig
from trainables.worker.ray_trainable import SweepTrainable


class Instant(SweepTrainable):
    """All rounds of a trial at once; says which process it ran in. Opens no store."""

    def setup(self, config: dict[str, Any]) -> None:
        self.config = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        config, key = RSSTConfig.from_knobs(self.config["knobs"]), self.config["trial_key"]
        reports = list(events(config.rounds, accuracy(int(key[1:])), config.kept_share_after))
        here = {"host": f"pid {os.getpid()}", "node": "", "epochs_there": 0}
        return {"trial_key": key, "events": reports, "done": True, "placed": [here]}

    def cleanup(self) -> None:
        """Nothing is open."""
