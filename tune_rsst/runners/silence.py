"""Which running trial hangs: for how long each has said nothing, and for how long it may. Knows no Ray.

In: what is heard of a trial (its results; the sign that its worker leaves in its store, where it works at something
long); a clock. Out: seconds of silence, and the limit.

A trial hangs when it has said nothing for max(hung_after_s, 5 × its median round). Until its first round has ended, and
each time a worker opens it, until the first result, hung_first_round_s counts in its place: a process starts, reads
weights and images. A dense round that was taken over took no time and is no round here.
Silence is counted in the steps of whoever counts it. Where that was stopped itself (a laptop asleep, a busy machine),
at most `LONGEST_STEP_S` of the pause count: results that came meanwhile were not read yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from tune_rsst.ledger.view import TrialView

ROUNDS_OF_SILENCE = 5
LONGEST_STEP_S = 2.0


def own_rounds_s(trial: TrialView) -> list[float]:
    """Seconds of the rounds that the trial trained itself."""
    return [float(m["seconds"]) for m in trial.round_events[1 if trial.adopted else 0 :] if "seconds" in m]


def limit_s(
    hung_after_s: float | None, hung_first_round_s: float | None, rounds_s: Iterable[float], *, spoke: bool
) -> float | None:
    """Seconds that a trial may say nothing; None: for ever. `spoke`: a result has come since a worker has opened it."""
    known = list(rounds_s)
    if hung_after_s is None:
        return None
    usual = max(hung_after_s, ROUNDS_OF_SILENCE * median(known)) if known else 0.0
    if known and spoke:
        return usual
    return None if hung_first_round_s is None else max(hung_first_round_s, usual)


@dataclass
class _Watched:
    attempt: str
    silent_s: float = 0.0
    spoke: bool = False
    sign: bytes | None = None


class Silence:
    """For how long each running trial has said nothing. `attempt`: the process that runs it now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._at = clock, clock()
        self._trials: dict[str, _Watched] = {}

    def passes(self, running: dict[str, str]) -> None:
        """Time has passed. `running`: trial → attempt; others are forgotten."""
        now = self._clock()
        step, self._at = min(max(0.0, now - self._at), LONGEST_STEP_S), now
        before = self._trials
        self._trials = {
            trial: before[trial] if trial in before and before[trial].attempt == attempt else _Watched(attempt)
            for trial, attempt in running.items()
        }
        for watched in self._trials.values():
            watched.silent_s += step

    def heard(self, trial: str) -> None:
        """A result of the trial has come."""
        if watched := self._trials.get(trial):
            watched.silent_s, watched.spoke = 0.0, True

    def saw(self, trial: str, sign: bytes | None) -> None:
        """What the trial's worker has left in its store. Another one than before is a sign of life."""
        watched = self._trials.get(trial)
        if watched is not None and sign is not None and sign != watched.sign:
            watched.silent_s, watched.sign = 0.0, sign

    def of(self, trial: str) -> tuple[float, bool, bytes | None]:
        """Seconds of silence; whether it spoke in this attempt; its last sign."""
        watched = self._trials[trial]
        return watched.silent_s, watched.spoke, watched.sign
