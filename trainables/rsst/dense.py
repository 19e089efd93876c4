"""Dense rounds, each trained once: who comes later with the same round 0 takes its weights and its epochs over.

In: a trial that stands in round 0, by the key of everything that decides its numbers there (`Running.dense_key`).
Out: the state at the end of that round, where a trial of this node has trained it; else the right to train it.

FOLDER/KEY/       a checkpoint store of one checkpoint; FOLDER lies in the node's cache and may be deleted at any time
FOLDER/KEY/lock   held by who trains this round; the others wait, and the kernel releases it when its holder dies

A state that is damaged is trained again. What is taken over is bit for bit what the trial would have computed itself.
Nodes that share nothing but a bucket find each other's rounds `Elsewhere`; two that train the same one at the same time
both do so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trainables.progress import lasting
from trainables.rsst.event import REPORT
from trainables.rsst.state import TrialState
from trainables.rsst.store.checkpoint import CheckpointStore, StoreBusy
from trainables.storage.files import remove_folder
from trainables.storage.forms import listed, record, text, whole
from trainables.storage.locks import is_held

DENSE_STATE = record(
    {
        "fingerprint": text(most=100),
        "trained_by": text(most=100),
        "round": whole(),
        "epoch": whole(),
        "history": listed(REPORT),
    }
)
"""What is kept of a dense round, as `Running.dense_state` gives it."""
KEPT = 32  # dense rounds in a folder; the ones that were used last stay
WAITING = "waiting for a dense round that another trial trains"


@dataclass(frozen=True)
class Turn:
    """What a trial finds: `state`, to be taken over; else it trains and gives the result to `keep`."""

    state: TrialState | None
    keep: Callable[[TrialState], None]


class Elsewhere(Protocol):
    """Dense rounds of other nodes. Where they can't be had nothing is raised: the trial trains its own."""

    def fetch(self, folder: Path) -> None:
        """Bring the state of the round in `folder`, where there is one, into it; its name is the round's key."""

    def keep(self, folder: Path) -> None:
        """Let other nodes have the state in `folder`. Returns at once."""


class DenseRounds:
    """The dense rounds in `folder`; `say` gets a line for each damaged one, and where the folder can't be used.

    A round that is not there is looked for `elsewhere`, and goes there.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], elsewhere: Elsewhere | None = None) -> None:
        self._folder, self._say, self._elsewhere = folder, say, elsewhere

    @contextmanager
    def turn(self, key: str, *, begun: bool) -> Iterator[Turn]:
        """The round of `key`; waits while another process trains it. A trial that has `begun` its own does not wait."""
        with ExitStack() as lock:
            yield self._found(key, begun, lock)

    def _found(self, key: str, begun: bool, lock: ExitStack) -> Turn:
        try:
            store = CheckpointStore(self._folder, key, self._say, DENSE_STATE)
            try:
                lock.enter_context(store.locked())
            except StoreBusy:
                if begun:
                    return Turn(None, lambda state: None)
                with lasting(WAITING):
                    lock.enter_context(store.locked(wait_s=None))
            state = store.newest()
            if state is None and self._elsewhere is not None:
                self._elsewhere.fetch(store.folder)
                state = store.newest()
        except OSError as error:
            self._say(f"dense rounds are not shared: {error}")
            return Turn(None, lambda state: None)
        if state is None:
            return Turn(None, lambda trained: self._keep(store, trained))
        lock.close()  # whoever waits need not wait for the trial that has it already
        with suppress(OSError):
            store.folder.touch()
        return Turn(state, lambda trained: None)

    def _keep(self, store: CheckpointStore, state: TrialState) -> None:
        try:
            store.save(state)
            if self._elsewhere is not None:
                self._elsewhere.keep(store.folder)
            known = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
            for old in known[KEPT:]:
                if not is_held(old / "lock"):
                    remove_folder(old)
        except OSError as error:
            self._say(f"a dense round is not kept for other trials: {error}")
