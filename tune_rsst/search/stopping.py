"""A stopping rule of the user's: it sees the reports of a trial and of all others, and says whether the trial stops.

In: a plug-in `rule(reports, others)`, asked after each hardened round but the last. `reports`: what this trial has
reported, oldest round first; `others`: trial → the same. Out: True, or a reason, to stop; False or None to go on.
The decision is written at once. A restart asks again only about a report that is the ledger's last line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from trainables.plugins import PluginError, calling, load, said
from trainables.text import shown
from tune_rsst.ledger.view import TrialView

Reports = Sequence[Mapping[str, Any]]


@dataclass
class StoppingRule:
    """The rule `value`, and what every trial has reported so far."""

    value: str
    seen: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people."""
        return said(self.value)

    def note(self, trial: TrialView) -> None:
        """Take in what the trial has reported since."""
        mine = self.seen.setdefault(trial.trial, [])
        mine += map(MappingProxyType, trial.round_events[len(mine) :])

    def asked(self, trial: str) -> str | None:
        """Why the trial stops; None: it goes on.

        Raises:
            PluginError: the rule raised, or gave another answer.
        """
        others = {name: tuple(reports) for name, reports in self.seen.items() if name != trial}
        return self.answer(tuple(self.seen[trial]), others)

    def answer(self, reports: Reports, others: Mapping[str, Reports]) -> str | None:
        """What the rule says, in words.

        Raises:
            PluginError: the rule raised, or gave another answer.
        """
        rule = load("stopping", self.value, 2)
        with calling("stopping", self.value):
            found = rule(reports, MappingProxyType(others))
            found = found.item() if hasattr(found, "item") else found  # NumPy's and torch's bool
        if found is None or found is False:
            return None
        if found is True:
            return "it says so"
        if isinstance(found, str) and found:
            return shown(found)
        raise PluginError(f"stopping {self.name}: it gave {shown(repr(found))}, not true, false or a reason")
