"""One report of a trial: the same value in the round loop, a checkpoint's history, a worker's result and the ledger.

In: what the round loop measured, or the JSON that `to_json` made of it; a trial's report.json.
Out: kind and metrics; from the round loop also the trial's state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainables.storage.forms import Form, anything, listed, mapping, maybe, number, one_of, record, text, whole
from trainables.storage.state_files import read_state

if TYPE_CHECKING:
    from trainables.rsst.state import TrialState

Metrics = dict[str, Any]
Kind = Literal["start", "epoch", "round", "final"]


_OFTEN: dict[str, Form] = {"round": whole(), "epoch": whole(), "epochs_trained": whole()}
_BY_KIND: dict[str, Form] = {
    "start": record({}, _OFTEN | {"lines": listed(text()), "images": mapping()}, more=True),
    "epoch": record({"round": whole(), "epoch": whole(), "seconds": number}, _OFTEN, more=True),
    "round": record({"round": whole(), "val_top1": number, "round_gap": number}, _OFTEN, more=True),
    "final": record({"round": whole()}, _OFTEN, more=True),
}
_SOME_KIND = record({"kind": one_of(*_BY_KIND)}, more=True)


def _report(value: Any, where: str) -> None:
    _SOME_KIND(value, where)
    _BY_KIND[value["kind"]](value, where)


REPORT: Form = _report
"""What `Event.to_json` gives: all that is indexed without a further look is there."""
WRITTEN_REPORT: Form = record(
    {"config": mapping(), "fingerprint": text(most=100), "start": mapping(), "rounds": listed(mapping())}
    | {"epochs": listed(mapping()), "final": mapping()},
    {"method": whole(1), "idle": listed(text()), "init_effective": anything, "weights_digest": maybe(text())}
    | {"test_top1": anything},
)
"""What report.json holds (trainables/rsst/reports.py); no other name, so that a damaged checksum is none."""


def read_report(path: Path) -> Metrics:
    """What the report.json of a run or a trial holds, without its checksum; earlier versions had none.

    Raises:
        OSError, WrongForm: it can't be read, or is not what was written.
    """
    found: Metrics = read_state(path, WRITTEN_REPORT, seal="may")
    return found


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
