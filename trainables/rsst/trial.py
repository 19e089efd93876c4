"""One trial with its state on disk: what every edge (single-GPU mode, Ray, tests) runs.

In: a config and the folder of trial stores.
Out: all events of the trial from its first epoch on; those that the store holds already are replayed, the rest is
    computed. A state is looked at with the images and the weights file that are there now: others are refused.
State is saved before a round's event is handed out, and so is the round's model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType

from trainables.progress import lasting
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data.load import ImageData, load
from trainables.rsst.data.node_cache import cache_folder
from trainables.rsst.dense import DenseRounds, Elsewhere
from trainables.rsst.event import Event
from trainables.rsst.experiment import run
from trainables.rsst.model.saved import save_pruned
from trainables.rsst.pruning.whole_state import TRIAL_STATE, refuse_misfit
from trainables.rsst.reports import report_of
from trainables.rsst.rounds import facts_of, keep_round
from trainables.rsst.running import refuse_other_images, refuse_other_weights
from trainables.rsst.state import TrialState
from trainables.rsst.store.checkpoint import CheckpointStore
from trainables.rsst.store.checkpoint import StoreBusy as StoreBusy
from trainables.rsst.store.reading import STATE, checkpoint_names
from trainables.rsst.training.device import choose_device, environment
from trainables.rsst.training.epoch import TrialDiverged as TrialDiverged
from trainables.storage.forms import record, whole
from trainables.storage.state_files import read_state, replace_state

SAVING = "writing a checkpoint"
_METHOD = record({}, {"method": whole(1)}, more=True)


def dense_folder(config: RSSTConfig) -> Path | None:
    """Where this node's trials share their dense rounds; None where `config` does not want it."""
    return cache_folder() / "dense" if config.share_dense else None


class Trial:
    """A trial that is open in this process; use it as a context manager, or call `close`."""

    def __init__(
        self,
        config: RSSTConfig,
        store: CheckpointStore,
        say: Callable[[str], None],
        checkpoint_every_s: float,
        data: ImageData | None,
        dense: DenseRounds | None,
    ) -> None:
        self.config, self.folder = config, store.folder
        self._store, self._say, self._every_s, self._data, self._dense = store, say, checkpoint_every_s, data, dense
        self._lock = ExitStack()
        self._live: Generator[Event] | None = None
        self._unsaved: tuple[str, TrialState] | None = None
        self._state = store.newest()
        if self._state is not None:
            self._data = self._looked_at(self._state)

    @property
    def history(self) -> list[Event]:
        """Events that the newest complete checkpoint holds, oldest first."""
        past = self._state.meta["history"] if self._state else ()
        return [Event.from_json(event, self._replayed) for event in past]

    def events(self) -> Iterator[Event]:
        """All events from the start: replayed ones first, then live ones. A finished trial is only replayed.

        Raises:
            TrialDiverged: a loss, a weight, a score or a metric is not finite.
        """
        state = self._state
        if state is not None and state.finished:  # first: whoever stops at the final event must find the files
            self._write_results(state)
        yield from self.history
        if state is not None and state.finished:
            return
        if state is not None:
            self._warn_of_other_environment(state)
        saved_at = time.monotonic()
        self._live = run(self.config, self._data or load(self.config), state, self._dense)
        for event in self._live:
            if event.kind in ("round", "final") or time.monotonic() - saved_at >= self._every_s:
                self._unsaved = event.kind, event.snapshot()
                with lasting(SAVING):
                    self.save()
                saved_at = time.monotonic()
            elif event.kind == "epoch":
                self._unsaved = event.kind, event.snapshot()
            yield event

    def save(self) -> None:
        """Write what the last event leaves on the disk, where that is not done: a round's model before its checkpoint.

        An interruption leaves it to be done again: whoever is interrupted here closes the trial, and that saves.

        Raises:
            OSError: the disk is full or cannot be written; what was saved before is as it was.
        """
        if self._unsaved is None:
            return
        kind, state = self._unsaved
        if kind == "round":
            keep_round(state, self.config.keep_rounds, self.folder)
        self._store.save(state)
        self._state = state
        if kind == "final":
            self._write_results(state)
        self._unsaved = None

    def close(self) -> None:
        """Save the epochs since the last checkpoint; release the store, and the dense round, for other processes."""
        with suppress(OSError):  # a full disk: what was saved before stays
            self.save()
        if self._live is not None:
            self._live.close()
        self._lock.close()

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()

    def _replayed(self) -> TrialState:
        assert self._state is not None, "a replayed event comes from a state"
        return self._state

    def _looked_at(self, state: TrialState) -> ImageData:
        """The images, once they and a weights file are known to be those that the numbers in `state` came from."""
        try:
            data = self._data or load(self.config)
            refuse_other_images(self.config, data, state)
            refuse_other_weights(self.config, state)
        except ConfigError as error:
            if not state.finished:
                raise
            hint = f"{error.hint}; the trial is finished, its numbers are in its report.json".lstrip("; ")
            raise ConfigError(error.key, error.value, error.valid, hint) from None
        return data

    def _write_results(self, state: TrialState) -> None:
        save_pruned(facts_of(state), state.group("weights"), self.folder)
        replace_state(self.folder / "report.json", report_of(self.config, self.history))

    def _warn_of_other_environment(self, state: TrialState) -> None:
        then, now = state.meta["environment"], environment(self.config, choose_device(self.config))
        if other := [f"{key} {then.get(key, 'not recorded')} → {now[key]}" for key in now if then.get(key) != now[key]]:
            self._say(f"going on in another environment, bits may differ: {', '.join(other)}")


def open_trial(
    config: RSSTConfig,
    root: Path,
    *,
    say: Callable[[str], None],
    checkpoint_every_s: float = 30.0,
    data: ImageData | None = None,
    wait_s: float = 0.0,
    dense: Path | None = None,
    elsewhere: Elsewhere | None = None,
) -> Trial:
    """Open the trial's store `root`/`config.fingerprint` and lock it; other images or weights than it has are refused.

    `say` gets lines a user should read; `data` saves loading it again; `wait_s` is how long to wait for the lock.
    `dense`: the folder of dense rounds that this trial shares with others (`dense_folder`); None: it trains its own.
    `elsewhere`: where other nodes have theirs.

    Raises:
        StoreBusy: another process has the trial open.
        OSError: the store cannot be made or read.
    """
    store = CheckpointStore(root, config.fingerprint, say, TRIAL_STATE, partial(refuse_misfit, config))
    with ExitStack() as lock:
        lock.enter_context(store.locked(wait_s))
        shared = DenseRounds(dense, say, elsewhere) if dense else None
        trial = Trial(config, store, say, checkpoint_every_s, data, shared)
        trial._lock = lock.pop_all()
    return trial


def method_of(folder: Path) -> int | None:
    """The METHOD_VERSION that the newest checkpoint of a trial's store was trained by; None where there is none."""
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    for name in checkpoint_names(names):
        with suppress(OSError, ValueError):
            return int(read_state(folder / name / STATE, _METHOD, seal="none").get("method", 1))
    return None
