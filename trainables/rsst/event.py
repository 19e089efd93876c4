"""One report of a trial: the same value in the round loop, a checkpoint's history, a worker's result and the ledger.

In: what the round loop measured, or the JSON that `to_json` made of it.
Out: kind and metrics; from the round loop also the trial's state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from trainables.rsst.state import TrialState

Metrics = dict[str, Any]
Kind = Literal["start", "epoch", "round", "final"]


def _no_state() -> TrialState:
    raise RuntimeError("this event was read back: it has no state")


@dataclass(frozen=True)
class Event:
    """One report. `snapshot()` is the trial's state right after it; call it before asking for the next event."""

    kind: Kind
    metrics: Metrics
    snapshot: Callable[[], TrialState] = field(default=_no_state, repr=False, compare=False)

    @property
    def key(self) -> tuple[str, int, int]:
        """Kind, round and epoch: no other event of the trial has the same."""
        return self.kind, int(self.metrics.get("round", -1)), int(self.metrics.get("epoch", -1))

    def to_json(self) -> dict[str, Any]:
        """One flat dict; the kind is in it under "kind"."""
        return {"kind": self.kind, **self.metrics}

    @classmethod
    def from_json(cls, found: Mapping[str, Any], snapshot: Callable[[], TrialState] = _no_state) -> Event:
        """The event that `to_json` made `found` of."""
        metrics = dict(found)
        return cls(metrics.pop("kind"), metrics, snapshot)
