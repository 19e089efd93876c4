"""One trial of a sweep under Ray Tune: hands the trial's events to the driver. For other Tuners: tune_trainable.py.

Comes in: config = {"knobs", "store" (folder of trial stores), "trial_key", "reported" (events that the driver has),
"resources" (for Ray: {"CPU": …, "GPU": …})}, and where the sweep's home is a bucket "storage" (the sweep's address
there): the stores below "store" are then this node's own, and what is in them goes to the bucket and comes from it;
dense rounds too, but with "dense_meet" false, which says that no other trial can have this one's.
"plugins": the user's code behind knobs. "system_metrics": whether to sample how busy the machine is.
Goes out per step: {"trial_key", "events": [{"kind", …}, …], "done"}, and where there is something to say: "failed" (one
line: it can't go on), "waiting" (one line: another process has the trial's store open; the next step tries again),
"retried" ({"micro_batch_size", "reason"}: memory ran out, it goes on from its checkpoint with half the micro-batch),
"placed" ({"host", "node", "epochs_there"}: where it was opened just now, and epochs that its checkpoint holds),
"system" (samples of system_metrics.py). These three are lists, because Tune flattens dicts.
Tune's checkpoints are not used: wherever the trial is opened next, its own store says how far it came.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.experimental.internal_kv import _internal_kv_get

from trainables.errors import FAILS_AGAIN, certain, install
from trainables.plugins import Code, remember
from trainables.progress import keeper, lasting, watched
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.event import Event
from trainables.rsst.training.device import free_memory, is_out_of_memory
from trainables.rsst.trial import StoreBusy, Trial, TrialDiverged, dense_folder, open_trial
from trainables.storage.bucket import Bucket, StorageError
from trainables.storage.modes import follow
from trainables.worker.dense_mirror import DenseMirror
from trainables.worker.images import KeptImages
from trainables.worker.system_metrics import SystemMetrics
from trainables.worker.trial_mirror import TrialMirror, fetch_weights

MIN_STEP_S = 2.0
LOCK_PATIENCE_S = 20.0
BUSY_LIMIT_S = 600.0
FLUSH_S, CLOSE_S = 60.0, 15.0
DENSE_S = 5.0  # a dense round that does not get to the bucket is trained again elsewhere
NODE_DIGITS = 12
OURS = b"tune-rsst"


def environment_key() -> bytes:
    """Where the driver of this process's job keeps what its workers need of its environment."""
    return f"environment of {ray.get_runtime_context().get_job_id()}".encode()


def take_environment() -> None:
    """Put into this process's environment what its driver keeps for its workers: the keys of the bucket."""
    if ray.is_initialized() and (kept := _internal_kv_get(environment_key(), namespace=OURS)) is not None:
        os.environ.update(json.loads(kept))


class SweepTrainable(tune.Trainable):
    """Adapter of trainables/rsst/trial.py to Tune's class API; an actor runs many trials one after the other."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What Ray sets aside for the trial."""
        return tune.PlacementGroupFactory([{name: n for name, n in config["resources"].items() if n}])

    def setup(self, config: dict[str, Any]) -> None:
        """Remember what to run; the store is opened by the first step, so that a trial that can't start reports why."""
        self._assignment = config
        self._trial: Trial | None = None
        self._events: Iterator[Event] | None = None
        self._position = 0
        self._busy_since: float | None = None
        self._placed: dict[str, Any] | None = None
        self._images = KeptImages()
        self._mirror: TrialMirror | None = None
        self._dense: DenseMirror | None = None
        self._withheld: list[dict[str, Any]] = []
        self._system: SystemMetrics | None = None
        if ray.is_initialized():
            follow(Path(config["store"]).parent.parent)

    def step(self) -> dict[str, Any]:
        """Train until a round ends, or until 2 s have passed and there is something to say."""
        result: dict[str, Any] = {"trial_key": self._assignment["trial_key"], "events": [], "done": False}
        no_memory = None
        try:
            self._advance(result)
        except TrialDiverged as error:
            result |= {"failed": f"{FAILS_AGAIN}{error}", "done": True}
        except ConfigError as error:
            result |= {"failed": str(error), "done": True}
        except StoreBusy as error:
            self._wait(result, f"{error}; end that process")
        except StorageError as error:
            time.sleep(MIN_STEP_S)
            self._wait(result, str(error))
        except Exception as error:
            if is_out_of_memory(error):
                no_memory = " ".join(str(error).split())[:300] or "MemoryError"
            else:
                with suppress(OSError):
                    self._say(traceback.format_exc())
                if (reason := certain(error)) is None:
                    raise
                result |= {"failed": reason, "done": True}
        if self._mirror is not None:
            self._keep_in_the_bucket(self._mirror, result)
        if no_memory:  # not in the except clause: the error's frames hold the tensors
            self._retry_smaller(result, no_memory)
        if self._placed is not None:
            result["placed"], self._placed = [self._placed], None
        if self._system is not None and (samples := self._system.drain()):
            result["system"] = samples
        if result["done"]:
            self._close()
        return result

    def _wait(self, result: dict[str, Any], line: str) -> None:
        """A worker that was cut off may still hold the trial, or the storage is away: wait for it, but not for ever."""
        self._busy_since = self._busy_since or time.monotonic()
        if time.monotonic() - self._busy_since < BUSY_LIMIT_S:
            result["waiting"] = line
        else:
            result |= {"failed": f"for more than {BUSY_LIMIT_S:.0f} s: {line}", "done": True}

    def _keep_in_the_bucket(self, mirror: TrialMirror, result: dict[str, Any]) -> None:
        """A trial has finished when its model is in the bucket: its last events are withheld until then."""
        result["events"] = [*self._withheld, *result["events"]]
        self._withheld = []
        if not result["done"] or "failed" in result:
            mirror.wake()
        elif not self._flushed(mirror):
            self._withheld, result["events"], result["done"] = result["events"], [], False
            self._wait(result, mirror.problem or f"the results are on their way to {mirror.address}")
        else:
            self._busy_since = None

    def _flushed(self, mirror: TrialMirror) -> bool:
        with watched(keeper(self._folder)), lasting(f"sending the results to {mirror.address}"):
            return mirror.flush(FLUSH_S, results=True)

    def _retry_smaller(self, result: dict[str, Any], reason: str) -> None:
        """Once: go on from the newest checkpoint with half the micro-batch; the second time the trial has failed."""
        config = RSSTConfig.from_knobs(self._assignment["knobs"])
        size = min(config.micro_batch_size or config.batch_size, config.batch_size)
        if self._assignment.get("retried") or size < 2:
            result |= {"failed": f"out of memory with {size} images at a time: {reason}", "done": True}
            return
        self._close()
        free_memory()
        smaller = {**self._assignment["knobs"], "micro_batch_size": size // 2}
        self._assignment = {**self._assignment, "knobs": smaller, "retried": True}
        self._position = 0
        result["retried"] = [{"micro_batch_size": size // 2, "reason": reason}]
        self._say(f"out of memory with {size} images at a time; going on from the checkpoint with {size // 2}")

    def _advance(self, result: dict[str, Any]) -> None:
        began = time.monotonic()
        with watched(keeper(self._folder)):
            for event in self._open():
                self._position += 1
                if event.kind == "final":
                    result["done"] = True
                if self._position > self._assignment["reported"]:
                    result["events"].append(event.to_json())
                if event.kind != "epoch" or (result["events"] and time.monotonic() - began >= MIN_STEP_S):
                    return
        result["done"] = True

    def _open(self) -> Iterator[Event]:
        if self._events is None:
            config = RSSTConfig.from_knobs(self._assignment["knobs"])
            remember(map(Code.from_json, self._assignment.get("plugins", ())))
            root = Path(self._assignment["store"])
            self._fetch(config, root)
            data = self._images.of(config)
            more: dict[str, Any] = {"data": data, "wait_s": LOCK_PATIENCE_S, "dense": dense_folder(config)}
            more["elsewhere"] = self._dense
            self._trial = open_trial(config, root, say=self._say, **more)
            for line in data.about.lines() if not self._trial.history else ():
                self._say(line)
            self._events = self._trial.events()
            self._busy_since = None
            node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
            there = max((event.metrics.get("epochs_trained", 0) for event in self._trial.history), default=0)
            self._watch_the_machine()
            self._placed = {"host": socket.gethostname(), "node": node[:NODE_DIGITS], "epochs_there": there}
        return self._events

    def _watch_the_machine(self) -> None:
        """Sample how busy the machine is, where the sweep wants it; it is no reason for a trial to fail."""
        if self._assignment.get("system_metrics") and self._system is None:
            try:
                self._system = SystemMetrics()
            except ImportError as error:
                self._say(f"no system metrics: {error}; {install('psutil')}")

    def _fetch(self, config: RSSTConfig, root: Path) -> None:
        """Where the sweep is in a bucket: the trial's checkpoint and its weights from there, where they are newer."""
        if not self._assignment.get("storage"):
            return
        take_environment()
        bucket = Bucket(self._assignment["storage"])
        store = root / config.fingerprint
        store.mkdir(parents=True, exist_ok=True)
        mirror = TrialMirror(bucket.below("trials"), store, self._say)
        with lasting("fetching the trial from the bucket"):
            fetch_weights(bucket, config.weights, root.parent)
            mirror.fetch()
        self._mirror = mirror
        if self._assignment.get("dense_meet", True):
            self._dense = DenseMirror(bucket.below("dense"), self._say)

    @property
    def _folder(self) -> Path:
        """The trial's store."""
        return Path(self._assignment["store"]) / RSSTConfig.from_knobs(self._assignment["knobs"]).fingerprint

    def _say(self, line: str) -> None:
        """Keep what a user should read next to the trial's checkpoints; a worker has no terminal."""
        with (self._folder / "messages.log").open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take over another trial in the same process; nothing but the images is kept."""
        self._close()
        self._assignment, self._position, self._busy_since = new_config, 0, None
        return True

    def cleanup(self) -> None:
        """Release the trial's store; Tune calls it when the actor is stopped."""
        self._close()

    def _close(self) -> None:
        opened = self._trial is not None
        if self._trial is not None:
            self._trial.close()
        if self._mirror is not None:
            self._mirror.close(CLOSE_S)
        if self._dense is not None:
            self._dense.close(DENSE_S)
        if self._system is not None:
            self._system.close()
        self._trial = self._events = self._mirror = self._dense = self._system = None
        self._withheld = []
        if opened:  # a trial's tensors are in cycles
            gc.collect()
