"""Lines of runs with other seeds in a damaged ledger: those of a trial's further runs, those of `tune-rsst confirm`.

In: the ledger while it is put right (rebuild.py). Out: the same, without lines that what is left does not bear. Nothing
is trained twice for it: the runs' checkpoints are there, and a resume reads their reports again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tune_rsst.driver.race import further_run
from tune_rsst.ledger.events import REPLICATE
from tune_rsst.ledger.trial import replicates_in

if TYPE_CHECKING:
    from tune_rsst.planning.damage.rebuild import Entry, Rebuilding

REPEATS = "confirm_"


def several(ledger: Rebuilding) -> bool:
    """Whether a trial may have several runs."""
    return replicates_in(ledger.entries()[0].event["settings"]) > 1


def mend_further_runs(ledger: Rebuilding) -> None:
    """Each run stands where its first lost line is to come, and its trial has not ended where a run is to come."""
    runs: dict[str, dict[str, list[Entry]]] = {}
    for entry in ledger.entries():
        if entry.kind.startswith(REPLICATE) and "trial" in entry.event:
            name = entry.event["trial"]
            runs.setdefault(name.partition("-")[0], {}).setdefault(name, []).append(entry)
        elif entry.kind == "ended" and entry.event.get("seeds", 1) > 1:
            runs.setdefault(entry.event["trial"], {})
    for trial, its in runs.items():
        for name, lines in its.items():
            if lines[0].kind != f"{REPLICATE}suggested":
                _suggest(ledger, trial, name, lines)
        whole = sum([_is_whole(ledger, name, lines) for name, lines in its.items()])
        ends = [one for one in ledger.entries() if one.kind == "ended" and one.event["trial"] == trial]
        if ends and ends[-1].event.get("seeds", 1) != whole + 1:
            ledger.drop(ends)
            ledger.to_do.append(trial)
            ledger.lost.append(f"{trial}: lines of its further runs; a resume goes on with it")


def _suggest(ledger: Rebuilding, trial: str, run: str, lines: list[Entry]) -> None:
    """How a run was suggested follows from its trial's knobs and from its name."""
    of = next((e for e in ledger.entries() if e.kind == "suggested" and e.event["trial"] == trial), None)
    if of is None:
        return
    found = further_run(trial, of.event["knobs"], int(run.partition("-seed")[2]))
    after, before = (next(i for i, item in enumerate(ledger.items) if item is one) for one in (of, lines[0]))
    ledger.fill({"event": f"{REPLICATE}suggested", **found}, after, before, sure=True, last=True)
    there = [e for e in ledger.entries() if e.kind == f"{REPLICATE}suggested" and e.event["trial"] == run]
    lines.insert(0, there[0])
    ledger.rebuilt.append(f"{run}: how it was suggested")


def _is_whole(ledger: Rebuilding, run: str, lines: list[Entry]) -> bool:
    """Whether nothing is lost of a run that has ended; what comes after its first lost line is left out."""

    if lines[0].kind != f"{REPLICATE}suggested":
        ledger.drop(lines)
        ledger.lost.append(f"{run}: how it was suggested; a resume gives it anew")
        return False
    reports = [one for one in lines if one.kind == f"{REPLICATE}reported"]
    gone, ended = missing([one.event["seq"] for one in reports]), lines[-1].kind == f"{REPLICATE}ended"
    final = any(one.event["kind"] == "final" for one in reports)
    if gone or (ended and lines[-1].event["state"] == "finished" and not final):
        first = gone[0] if gone else len(reports)
        ends = [one for one in lines if one.kind in (f"{REPLICATE}ended", f"{REPLICATE}reopened")]
        ledger.drop([*ends, *(one for one in reports if one.event["seq"] > first)])
        ledger.lost.append(f"{run}: {len(gone) or 'the last'} of its reports; a resume trains it again from there")
        return False
    if final and not ended:
        at = next(i for i, item in enumerate(ledger.items) if item is lines[-1])
        end = {"trial": run, "state": "finished", "reason": None, "rung": None}
        ledger.fill({"event": f"{REPLICATE}ended", **end}, at, at + 1, sure=True)
        ledger.rebuilt.append(f"{run}: its end, finished")
    return final or ended


def keep_repeats(ledger: Rebuilding) -> None:
    """Lines of runs that repeat trials (`tune-rsst confirm`) stay where what they build on is there."""
    known: set[str] = set()
    for entry in [one for one in ledger.entries() if one.kind.startswith(REPEATS)]:
        if entry.kind in ("confirm_started", "confirm_suggested"):
            known.add(str(entry.event.get("trial", "")))
        elif entry.event.get("trial", "") not in known or "" not in known:
            ledger.drop([entry])
            run = entry.event.get("trial", "confirm")
            ledger.lost.append(f"{run}: its {entry.kind.removeprefix(REPEATS)}; tune-rsst confirm runs it again")


def missing(numbers: Sequence[int]) -> list[int]:
    """Numbers from 0 to the largest that are not there; none where they were never numbered from 0."""
    there = set(numbers)
    return sorted(set(range(max(there) + 1)) - there) if there and len(there) * 2 > max(there) else []
