"""One trial in anyone's `tune.Tuner`: config = knobs by their names, results = flat dicts, checkpoints that Tune keeps.

In: a config of knobs (`python -m trainables --help` lists them); what is left out comes from the guide's values.
Out per step: a result of flat_trial.py, one for each epoch and each round. Metric to search by: val_top1, max.
A checkpoint goes on bit for bit where it was saved, on any node; without one Tune begins the trial again.
The sweep's own adapter, which goes on by itself after every kill, is ray_trainable.py.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import ray
from ray import tune

from trainables.rsst.config import KNOBS
from trainables.worker.flat_trial import FlatTrial, check
from trainables.worker.images import KeptImages


class RSSTTrainable(tune.Trainable):
    """RSST for `tune.Tuner(RSSTTrainable, param_space=knobs)`; docs/python.md has a script.

    With reuse_actors the images stay in the process from trial to trial. A trial's knobs can't change while it trains:
    PBT's exploit is refused.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """num_threads CPUs; a GPU where `device` asks for one, or is auto and the cluster has one."""
        check(config)
        device = config.get("device", "auto")
        there = ray.is_initialized() and ray.cluster_resources().get("GPU", 0) >= 1
        gpu = {"GPU": 1} if device == "cuda" or (device == "auto" and there) else {}
        return tune.PlacementGroupFactory(
            [{"CPU": int(config.get("num_threads", KNOBS["num_threads"].default)), **gpu}]
        )

    def setup(self, config: dict[str, Any]) -> None:
        """Remember the knobs; the first step opens the trial, so that one that can't start says why."""
        self._knobs = config
        self._images = KeptImages()
        self._flat: FlatTrial | None = None

    def step(self) -> dict[str, Any]:
        """Train until an epoch or a round ends."""
        return self._opened().next_result()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the trial's state, and the models that it has so far."""
        self._opened().save_to(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on where the checkpoint was saved; one of a trial with other knobs is refused."""
        self._opened().go_on_from(Path(checkpoint))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take over another trial in the same process; nothing but the images is kept."""
        self.cleanup()
        self._knobs = new_config
        return True

    def cleanup(self) -> None:
        """Release the trial's store; Tune calls it when the actor is stopped."""
        if self._flat is not None:
            self._flat.close()
            self._flat = None
            gc.collect()  # a trial's tensors are in cycles

    def _opened(self) -> FlatTrial:
        if self._flat is None:
            self._flat = FlatTrial(self._knobs, Path(self.logdir) / "rsst", self._images)
        return self._flat
