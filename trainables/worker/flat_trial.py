"""One trial as flat results, for whoever schedules trials: Ray Tune, Ray Train, a loop of one's own. Knows no Ray.

In: knobs by their names; a folder for the trial's store.
Out: one flat dict after each epoch and each round, from the first on. Every one has
    val_top1           after an epoch: of the network as it is, before its doomed are removed; after a round: hardened
    kept_share, density, params, gmacs   of the network that the last finished round left (before: of the dense one)
    kind, round, epoch, epochs_trained   epoch, round or final, and where the trial stands
    init_effective     what the weights really started from
    done               true in the last one, which also has test_top1
and what else trainables/rsst/metrics.py has for it: numbers and names, no lists.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from trainables.rsst.config import KNOBS, KNOBS_BY_NAME, ConfigError, RSSTConfig, checked, decisions
from trainables.rsst.event import Event
from trainables.rsst.metrics import is_words
from trainables.rsst.model.saved import ARCHITECTURE, MODEL, PREPROCESSING, REPORT
from trainables.rsst.rounds import MODELS
from trainables.rsst.runs.run import memory_told, warn_of
from trainables.rsst.store.reading import checkpoint_names
from trainables.rsst.trial import Trial, dense_folder, open_trial
from trainables.storage.files import replaced
from trainables.storage.forms import WrongForm, record, text, whole
from trainables.storage.state_files import read_state, write_state
from trainables.worker.images import KeptImages

POSITION = "position.json"
WHERE = record({"fingerprint": text(most=100), "events": whole(), "knobs": KNOBS_BY_NAME})
LOCK_PATIENCE_S = 20.0
CARRIED = ("kept_share", "density", "params", "gmacs", "init_effective", "device")
RESULTS = (MODELS, MODEL, ARCHITECTURE, PREPROCESSING, REPORT)


def check(knobs: Mapping[str, Any]) -> None:
    """Refuse what no trial can have, each knob by itself, and paths that a worker would look for elsewhere."""
    for key, value in knobs.items():
        found = checked(key, value)
        a_path = KNOBS[key].path or (key == "dataset" and found != value)
        if a_path and found is not None and not Path(value).expanduser().is_absolute():
            hint = f"a worker runs in another folder; give {Path(value).absolute()}"
            raise ConfigError(key, value, "an absolute path", hint)


class FlatTrial:
    """A trial whose store is `root`/FINGERPRINT; what is there already is gone on from, and reported again."""

    def __init__(self, knobs: Mapping[str, Any], root: Path, images: KeptImages | None = None) -> None:
        self.config = RSSTConfig.from_knobs(knobs)
        if self.config.save_dir is not None:
            raise ConfigError(
                "save_dir", self.config.save_dir, "none here", "leave it out: the caller keeps the results"
            )
        self._said = decisions(dict(knobs), [self.config])
        self._root, self._images = root, images or KeptImages()
        self._trial: Trial | None = None
        self._events: Iterator[Event] | None = None
        self._taken = 0
        self._carried: dict[str, Any] = {"kept_share": 1.0, "density": 1.0}

    @property
    def folder(self) -> Path:
        """The trial's store: its newest state; when it has finished, its model and report.json too."""
        return self._root / self.config.fingerprint

    def next_result(self) -> dict[str, Any]:
        """Train until an epoch or a round ends; ask no more after a result with `done`.

        Raises:
            TrialDiverged: a loss was not finite.
            StoreBusy: another process has the trial's store open.
            RuntimeError: among others, memory ran out; the line says which knob to make smaller.
        """
        with memory_told(self.config):
            event = self._next()
            if event.kind == "start":
                event = self._next()
            if event.kind == "round" and event.metrics["round"] == self.config.rounds - 1:
                event = self._next()  # the final report is the last round's, and more
        return self._flat(event)

    def save_to(self, folder: Path) -> None:
        """Write a checkpoint into the existing `folder`: newest state, models, how far (position.json)."""
        if self._trial is not None:
            self._trial.save()
        here = {entry.name for entry in self.folder.iterdir()} if self.folder.is_dir() else set()
        for name in (*checkpoint_names(here)[:1], *(here.intersection(RESULTS))):
            _copy(self.folder / name, folder / name)
        position = {"fingerprint": self.config.fingerprint, "events": self._taken, "knobs": self.config.knobs()}
        write_state(folder / POSITION, position)

    def go_on_from(self, folder: Path) -> None:
        """Stand where the trial stood that wrote the checkpoint in `folder`; one of other knobs is refused."""
        try:
            position = read_state(folder / POSITION, WHERE)
        except (OSError, WrongForm) as error:
            raise ConfigError("checkpoint", folder, "one that RSSTTrainable has written", str(error)) from None
        if position["fingerprint"] != self.config.fingerprint:
            raise ConfigError("checkpoint", folder.name, "one of a trial with the same knobs", self._other(position))
        self.close()
        self.folder.mkdir(parents=True, exist_ok=True)
        for entry in folder.iterdir():
            if entry.name != POSITION:
                _copy(entry, self.folder / entry.name)
        for _ in range(position["events"]):
            self._next()

    def close(self) -> None:
        """Release the trial's store for other processes."""
        if self._trial is not None:
            self._trial.close()
        self._trial, self._events, self._taken = None, None, 0

    def __enter__(self) -> FlatTrial:
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()

    def _other(self, position: Mapping[str, Any]) -> str:
        """Which knobs another trial has, and who brings such a checkpoint here."""
        then, now = position["knobs"], self.config.knobs()
        acting = (name for name, knob in KNOBS.items() if knob.in_fingerprint and then.get(name) != now[name])
        differ = ", ".join(f"{name} {then.get(name)}, here {now[name]}" for name in acting)
        return (
            f"it has {differ or 'another method'}: a trial's knobs can't change while it trains, so PBT's exploit is "
            "refused; use ASHA, or another scheduler that stops trials"
        )

    def _next(self) -> Event:
        event = next(self._open())
        self._taken += 1
        warn_of(event)
        self._carried |= {name: event.metrics[name] for name in CARRIED if name in event.metrics}
        return event

    def _open(self) -> Iterator[Event]:
        if self._events is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            data = self._images.of(self.config)
            more: dict[str, Any] = {"data": data, "wait_s": LOCK_PATIENCE_S, "dense": dense_folder(self.config)}
            self._trial = open_trial(self.config, self._root, say=_say, **more)
            for line in [*self._said, *data.about.lines()] if not self._trial.history else ():
                _say(line)
            self._events = self._trial.events()
        return self._events

    def _flat(self, event: Event) -> dict[str, Any]:
        m = {name: value for name, value in event.metrics.items() if isinstance(value, str | int | float)}
        shown = {name: value for name, value in m.items() if not is_words(name)}
        if event.kind == "epoch":
            shown["val_top1"] = shown["val_top1_before_hardening"]
        return {**self._carried, **shown, "kind": event.kind, "done": event.kind == "final"}


def train(
    config: Mapping[str, Any], report: Callable[[dict[str, Any]], Any] | None = None, store: str | Path | None = None
) -> dict[str, Any]:
    """Train one trial to its end in this process; `report` gets every result. Returns the last one.

    `report` may be `ray.train.report` in a training loop of a TorchTrainer with one worker, or `tune.report`.
    `store` is a folder that keeps the trial's state and model (in a folder of its own there): called again with the
    same, it goes on where it was killed, and reports again what it had reported. None: nothing is kept.
    """
    with tempfile.TemporaryDirectory() as temporary, FlatTrial(config, Path(store or temporary)) as trial:
        while True:
            result = trial.next_result()
            if report is not None:
                report(result)
            if result["done"]:
                return result


def _say(line: str) -> None:
    print(line, flush=True)


def _copy(source: Path, target: Path) -> None:
    """Copy a file, or a folder and what is in it; what is there already stays."""
    if source.is_dir():
        target.mkdir(exist_ok=True)
        for entry in source.iterdir():
            _copy(entry, target / entry.name)
    elif not target.exists():
        with replaced(target) as new:
            shutil.copyfile(source, new)
