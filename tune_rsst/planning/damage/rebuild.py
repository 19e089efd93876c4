"""Lines of a damaged ledger that follow for certain from what else there is: checkpoints, the study, the space.

In: the lines that are left and the gaps between them (salvage.py), who answers for suggestions, where trials' reports
lie.
Out: the same with lines in the gaps, what was rebuilt, and what is lost, which says what a resume does about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainables.rsst.event import Event
from tune_rsst.ledger.content import wrong
from tune_rsst.ledger.view import trial_key
from tune_rsst.planning.damage import runs
from tune_rsst.planning.damage.salvage import Gap, Whole
from tune_rsst.search.halving import Rungs, replay

ASKED = ("suggested", "repeated", "infeasible")
LOST_LINE = "its line in the ledger was lost"


@dataclass
class Entry:
    """An event, and the line that it was read from; None where it is rebuilt."""

    event: dict[str, Any]
    whole: Whole | None = None

    @property
    def kind(self) -> str:
        """The event's kind."""
        return str(self.event["event"])


Items = list[Entry | Gap]
Asked = Callable[[int, Mapping[str, str]], dict[str, Any] | None]
"""(number, fingerprint → trial of those known) → the line of that suggestion without its time, or None."""
History = Callable[[str], Sequence[Mapping[str, Any]]]
"""A trial's fingerprint → its reports as they lie on the disk, oldest first."""


@dataclass
class Rebuilding:
    """The ledger while it is put right. `items` begin with `sweep_started`."""

    items: Items
    asked: Asked
    history: History
    rungs: Callable[[], Rungs]
    numbers: Callable[[], Iterable[int]]
    """Numbers of all suggestions that the study holds."""
    rebuilt: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    to_do: list[str] = field(default_factory=list)
    """Trials that a resume goes on with, or gives anew."""

    @classmethod
    def of(
        cls,
        items: Iterable[Whole | Gap],
        asked: Asked,
        history: History,
        rungs: Callable[[], Rungs],
        numbers: Callable[[], Iterable[int]],
    ) -> Rebuilding:
        """Of what was salvaged; a line whose content does not fit its kind is a gap too."""
        found: Items = []
        for item in items:
            if isinstance(item, Gap):
                found.append(item)
            elif reason := wrong(item.line.event):
                found.append(Gap(1, [f"{item.line.event['event'][:40]}: {reason}"]))
            else:
                found.append(Entry(item.line.event, item))
        return cls(found, asked, history, rungs, numbers)

    def run(self) -> None:
        """Fill the gaps, and say what could not be."""
        self._suggestions()
        self._reports()
        runs.mend_further_runs(self)
        runs.keep_repeats(self)
        self._ends()
        self._say_what_is_lost()

    # --- looking ---------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """The lines, without the gaps."""
        return [item for item in self.items if isinstance(item, Entry)]

    def fill(
        self, event: Mapping[str, Any], after: int, before: int, *, sure: bool = False, last: bool = False
    ) -> bool:
        """Put a rebuilt `event` into a gap between two places, the first or the `last` one.

        `sure`: it was there; without a gap between them it goes right before the second place.
        """
        there = [i for i in range(after + 1, before) if isinstance(self.items[i], Gap)]
        if not there and not sure:
            return False
        at = before if not there else there[-1] if last else there[0]
        time = next((item.event["time"] for item in reversed(self.items[:at]) if isinstance(item, Entry)), 0.0)
        gap = self.items[at] if there else next((one for one in self.items if isinstance(one, Gap)), None)
        self.items.insert(at, Entry({"event": event["event"], "time": time, **event}))
        if isinstance(gap, Gap):
            gap.lines -= 1
            gap.hints = [hint for hint in gap.hints if not hint.startswith(str(event["event"]))]
            self.items = [one for one in self.items if one is not gap or gap.lines]
        return True

    # --- suggestions -------------------------------------------------------------------------------------------------

    def _suggestions(self) -> None:
        start = self.entries()[0].event
        former = len(start.get("warm_start", ()))
        known = {entry.event["number"] for entry in self.entries() if entry.kind in ASKED}
        own = [entry for entry in self.entries() if not entry.kind.startswith(runs.REPEATS)]
        named = {entry.event["trial"].partition("-")[0] for entry in own if "trial" in entry.event}
        trials = {entry.event["trial"] for entry in self.entries() if entry.kind == "suggested"}
        wanted = {int(trial[1:]) for trial in named - trials}
        if isinstance(self.items[-1], Gap) and self.items[-1].lines <= 0:  # nobody knows how many there were
            wanted |= set(self.numbers())
        for number in sorted(set(range(former, max(known | wanted, default=-1) + 1)) - known):
            self._suggestion(number, trial_key(number) in named)

    def _suggestion(self, number: int, named: bool) -> None:
        trial = trial_key(number)
        fingerprints = {
            entry.event["fingerprint"]: entry.event["trial"]
            for entry in self.entries()
            if entry.kind == "suggested" and entry.event["number"] < number
        }
        found = self.asked(number, fingerprints)
        if found is None or (named and found["event"] != "suggested"):
            kept = [e for e in self.items if not isinstance(e, Entry) or e.event.get("trial") != trial]
            self.items = [e for e in kept if not isinstance(e, Entry) or e.event.get("of") != trial]
            self.lost.append(f"{trial}: {LOST_LINE} and can't be rebuilt, so it is left out")
            self.to_do.append(trial)
            found = {"event": "repeated", "number": number, "params": {}, "distributions": {}, "of": None}
            found["reason"] = LOST_LINE
        else:
            self.rebuilt.append(f"{trial}: how it was {found['event']}")
        before = next(
            (
                at
                for at, item in enumerate(self.items)
                if isinstance(item, Entry)
                and (item.event.get("trial") == trial or (item.kind in ASKED and item.event["number"] > number))
            ),
            len(self.items),
        )
        earlier = [
            at
            for at, item in enumerate(self.items[:before])
            if isinstance(item, Entry) and (item.kind in ASKED and item.event["number"] < number)
        ]
        self.fill(found, earlier[-1] if earlier else 0, before, sure=True, last=True)

    # --- reports and ends ----------------------------------------------------------------------------------------

    def _of(self, trial: str) -> list[tuple[int, Entry]]:
        """Places and lines of a trial, but those that tell of nothing that is lost."""
        kinds = ("suggested", "reported", "ended", "reopened")
        return [
            (at, item)
            for at, item in enumerate(self.items)
            if isinstance(item, Entry) and item.event.get("trial") == trial and item.kind in kinds
        ]

    def _reports(self) -> None:
        for suggested in [entry.event for entry in self.entries() if entry.kind == "suggested"]:
            trial, count = suggested["trial"], 0
            history = [Event.from_json(event) for event in self.history(suggested["fingerprint"])]
            order = {event.key: at for at, event in enumerate(history)}
            for seq, event in enumerate(history):
                lines = self._of(trial)
                keys = {at: _key(entry) for at, entry in lines if entry.kind == "reported"}
                if event.key in keys.values():
                    continue
                after = max([at for at, key in keys.items() if order.get(key, -1) < seq], default=lines[0][0])
                later = [(at, entry) for at, entry in lines if at > after]
                report = {"event": "reported", "trial": trial, "seq": seq, "kind": event.kind}
                report["metrics"] = event.metrics
                sure = bool(later) and (later[0][1].kind == "reported" or later[0][1].event.get("state") == "finished")
                count += self.fill(report, after, later[0][0] if later else len(self.items), sure=sure)
            if count:
                self.rebuilt.append(f"{trial}: {count} reports, from its checkpoint")

    def _ends(self) -> None:
        due, over = {}, any(entry.kind == "sweep_ended" for entry in self.entries())
        if over or any(isinstance(item, Gap) for item in self.items):
            rungs = self.rungs()
            replay([entry.event for entry in self.entries()], rungs, ask=False)
            due = rungs.due
        for trial in [entry.event["trial"] for entry in self.entries() if entry.kind == "suggested"]:
            lines = self._of(trial)
            at, last = lines[-1]
            if last.kind != "reported":
                continue
            end: dict[str, Any] = {"event": "ended", "trial": trial, "state": "finished", "reason": None, "rung": None}
            if last.event["kind"] == "final" and runs.several(self):
                continue  # its further runs decide
            if last.event["kind"] != "final":
                if trial not in due:
                    continue
                end |= {"state": "stopped", "reason": due[trial].reason, "rung": due[trial].rung}
            gap = next((i for i in range(at, len(self.items)) if isinstance(self.items[i], Gap)), None)
            if self.fill(end, at, at + 1 if gap is None else gap + 1, sure=over):
                self.rebuilt.append(f"{trial}: its end, {end['state']}")

    # --- what is lost ------------------------------------------------------------------------------------------------

    def _say_what_is_lost(self) -> None:
        over = any(entry.kind == "sweep_ended" for entry in self.entries())
        for trial in [entry.event["trial"] for entry in self.entries() if entry.kind == "suggested"]:
            lines = [entry for _, entry in self._of(trial)]
            gone = runs.missing([entry.event["seq"] for entry in lines if "seq" in entry.event])
            ended = lines[-1].event["state"] if lines[-1].kind == "ended" else None
            ended = "finished" if ended == "stopped" and "seeds" in lines[-1].event else ended  # it fell behind
            final = any(entry.kind == "reported" and entry.event["kind"] == "final" for entry in lines)
            if ended in ("stopped", "failed"):
                self.lost += [f"{trial}: {len(gone)} of its reports"] if gone else []
            elif gone or (ended and not final):
                self._train_again(trial, lines, gone[0] if gone else len(lines))
                what = f"{len(gone)} of its reports" if gone else "its final report"
                self.lost.append(f"{trial}: {what}; a resume trains it again from there")
            elif over and ended is None:
                self.to_do.append(trial)
                self.lost.append(f"{trial}: how it ended; a resume goes on with it")
        for gap in [item for item in self.items if isinstance(item, Gap)]:
            said = f" ({', '.join(gap.hints)})" if gap.hints else ""
            words = "some lines" if gap.lines <= 0 else "a line" if gap.lines == 1 else f"{gap.lines} lines"
            self.lost.append(f"{words} that nothing else tells of{said}")
        self.items = list(self.entries())

    def drop(self, lines: Iterable[Entry]) -> None:
        """Leave these lines out."""
        gone = {id(one) for one in lines}
        self.items = [item for item in self.items if id(item) not in gone]

    def _train_again(self, trial: str, lines: Sequence[Entry], first: int) -> None:
        """The trial stands where report `first` is to come: what came after it comes again."""
        self.drop(one for one in lines if one.kind == "ended" or one.event.get("seq", -1) > first)
        self.to_do.append(trial)


def _key(entry: Entry) -> tuple[str, int, int]:
    return Event(entry.event["kind"], entry.event["metrics"]).key
