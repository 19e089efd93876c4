"""What a sweep has spent, as its ledger tells it, over all lives of its driver; and whether a budget of it is spent.

In: the ledger's lines in order, kills and resumes included; settings by name.
Out: epochs, seconds and GPU hours; lines for people.

- Epochs: each that a trial reported as trained, once. An epoch that was taken over from another trial's dense round
  costs nothing. One that a kill took before its checkpoint, and that is trained again, counts once.
- Seconds: from the line that begins a life of the driver (`sweep_started`, `resumed`) to the line that ends it
  (`interrupted`, `sweep_ended`) or, where it was killed, to its last line. Times between two lives do not count.
- GPU hours: for each trial the seconds from a worker's opening it to its end, to its pause or to the end of that life
  of the driver, by the share of a GPU that it had (`gpus_per_trial`; auto: as measured).

A trial's further runs (setting `replicates`) count as trials do. Runs that repeat trials (`tune-rsst confirm`, also at
the end of a sweep) are in none of these.

A clock that was set back adds nothing; one that was set forward adds what it jumped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trainables.text import counted, duration
from tune_rsst.ledger.events import REPLICATE

BEGIN_A_LIFE, END_A_LIFE = ("sweep_started", "resumed"), ("interrupted", "sweep_ended", "confirm_started")
BEFORE_A_LIFE = ("ended", "reopened", "extended", "repaired")
"""A new driver may write these before its `resumed`: the time up to them can be that of nobody."""


@dataclass
class Spending:
    """What was spent up to the newest line of the ledger."""

    epochs: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    _alive: bool = field(default=False, repr=False)
    _at: float = field(default=0.0, repr=False)
    _gpus: float = field(default=0.0, repr=False)
    _held: set[str] = field(default_factory=set, repr=False)

    @property
    def gpu_hours(self) -> float:
        """GPU seconds in hours."""
        return self.gpu_seconds / 3600

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take the time of a line in. Epochs are counted by whoever knows which reports are new: `view.py`."""
        kind, time = event["event"].removeprefix(REPLICATE), float(event["time"])
        another = kind == "suggested" and "of" in event  # its trial's run before it has come to its end
        if kind in BEGIN_A_LIFE:
            self._alive, self._at = True, time
            self._held.clear()
            self._told_gpus(event.get("settings", {}).get("gpus_per_trial"))
        elif kind not in BEFORE_A_LIFE and not another and self._alive:
            passed = max(0.0, time - self._at)
            self.seconds += passed
            self.gpu_seconds += passed * self._gpus * len(self._held)
            self._at, self._alive = time, kind not in END_A_LIFE
        if kind == "placed":
            self._held.add(event["trial"])
        elif kind in ("ended", "paused") or another:
            self._held.discard(event["of"] if another else event["trial"])
        elif kind == "measured":
            self._told_gpus(event["gpus_per_trial"])

    def _told_gpus(self, gpus: Any) -> None:
        if isinstance(gpus, int | float):
            self._gpus = float(gpus)


class Budget(NamedTuple):
    """`spent`: how much of it is spent; `words`: an amount for people, of a limit where there is one."""

    spent: Callable[[Spending], float]
    words: Callable[[float, float | None], str]


def _epochs(spent: float, limit: float | None) -> str:
    return f"{spent:,.0f} of {limit:,.0f} epochs" if limit is not None else counted(round(spent), "epoch")


def _time(spent: float, limit: float | None) -> str:
    return f"{duration(spent)} of {duration(limit)}" if limit is not None else duration(spent)


def _gpu_hours(spent: float, limit: float | None) -> str:
    return f"{spent:.3g} of {limit:.3g} GPU hours" if limit is not None else f"{spent:.3g} GPU hours"


BUDGETS: Mapping[str, Budget] = {
    "epoch_budget": Budget(lambda spent: spent.epochs, _epochs),
    "time_budget_s": Budget(lambda spent: spent.seconds, _time),
    "gpu_hours_budget": Budget(lambda spent: spent.gpu_hours, _gpu_hours),
}
"""Setting → what it limits."""


def limits(settings: Mapping[str, Any]) -> dict[str, float]:
    """The budgets that a sweep has."""
    return {name: float(settings[name]) for name in BUDGETS if settings.get(name) is not None}


def used_up(spent: Spending, settings: Mapping[str, Any]) -> str | None:
    """Which budget is spent, in words, or None: "epoch_budget = 100 is spent (104 epochs)"."""
    for name, limit in limits(settings).items():
        if (amount := BUDGETS[name].spent(spent)) >= limit:
            return f"{name} = {limit:g} is spent ({BUDGETS[name].words(amount, None)})"
    return None


def raised(spent: Spending, settings: Mapping[str, Any]) -> list[str]:
    """The budgets that are spent, as a resume may have them: what was spent and as much again as there was."""
    over = {name: (BUDGETS[name].spent(spent), limit) for name, limit in limits(settings).items()}
    return [f"{name}={_up(name, amount + limit)}" for name, (amount, limit) in over.items() if amount >= limit]


def _up(name: str, amount: float) -> str:
    """`amount` as a setting, rounded up."""
    return f"{math.ceil(amount * 1000) / 1000:.3f}" if name == "gpu_hours_budget" else str(math.ceil(amount))


def of_budgets(spent: Spending, settings: Mapping[str, Any]) -> list[str]:
    """ "60 of 100 epochs": for each budget that there is."""
    return [BUDGETS[name].words(BUDGETS[name].spent(spent), limit) for name, limit in limits(settings).items()]


def told(spent: Spending, settings: Mapping[str, Any]) -> str:
    """ "60 of 100 epochs, 3 min 20 s": everything that was spent, with the budgets that there are."""
    found = limits(settings)
    amounts = {name: budget.spent(spent) for name, budget in BUDGETS.items()}
    kept = [name for name in BUDGETS if name in found or amounts[name] or name != "gpu_hours_budget"]
    return ", ".join(BUDGETS[name].words(amounts[name], found.get(name)) for name in kept)


def as_json(spent: Spending, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What was spent and the budgets, by name; a budget that there is none of is null."""
    amounts = {"epochs": spent.epochs, "seconds": round(spent.seconds, 3), "gpu_hours": round(spent.gpu_hours, 6)}
    return {**amounts, **{name: settings.get(name) for name in BUDGETS}}
