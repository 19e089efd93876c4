"""What `tune-rsst confirm` decides: which run repeats which trial with which seed. Nothing is stopped early.

In: the ledger of a sweep, which it alone writes meanwhile; what is wanted. Out: runs to carry out.
After a kill the same ledger gives the same runs: those that have ended are not given out again, the others go on from
their checkpoints. The sweep's study and rungs never hear of them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from trainables.rsst.config import RSSTConfig
from tune_rsst.intake import Follower, Intake
from tune_rsst.interrupt import Interruption
from tune_rsst.ledger.events import check
from tune_rsst.ledger.file import Ledger
from tune_rsst.ledger.repeats.wanted import Wanted
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.settings.settings import SweepSettings


class Confirmation(Intake):
    """Gives out the runs that are wanted and have not ended."""

    called = "runs"

    def __init__(
        self,
        ledger: Ledger,
        sweep: SweepView,
        settings: SweepSettings,
        wanted: Wanted,
        interruption: Interruption | None = None,
        followers: Sequence[Follower] = (),
        *,
        at_the_end: bool = False,
    ) -> None:
        """Write what is wanted; `sweep` is the view of `ledger`.

        Runs that failed, and would not for certain fail again, are tried again. `at_the_end`: it is the last part of a
        sweep, and an interruption is one of the sweep.
        """
        super().__init__()
        self._ledger, self._sweep, self.settings = ledger, sweep, settings
        self.interruption, self._followers = interruption or Interruption(), followers
        self.interruption.write_down = self.leave
        self._interrupted = "interrupted" if at_the_end else "confirm_interrupted"
        self._lock = threading.RLock()
        self.wanted = wanted
        self.expect_images_of(sweep.trials.values())
        self._begin()
        assert sweep.confirm is not None
        self.view = sweep.confirm
        self._left_over = [self.view.trials[run] for run in wanted.left(sweep)]

    def _begin(self) -> None:
        wanted, sweep = self.wanted, self._sweep
        lists = {"trials": list(wanted.trials), "seeds": list(wanted.seeds)}  # as the line is read
        self.record("confirm_started", **lists, split=wanted.split)
        assert sweep.confirm is not None
        runs = sweep.confirm.trials
        for run, of, seed in wanted.runs():
            if run not in runs:
                config = RSSTConfig.from_knobs(wanted.knobs(sweep.trials[of], seed))
                about = {"knobs": config.knobs(), "fingerprint": config.fingerprint, "rounds": config.rounds}
                self.record("confirm_suggested", trial=run, of=of, seed=seed, **about)
            elif runs[run].unfinished and runs[run].final is not None:  # a crash fell between the report and this
                self._write("ended", trial=run, state="finished", reason=None, rung=None)
            elif runs[run].state == "failed" and not runs[run].fails_again:
                self._write("reopened", trial=run)

    def record(self, event: str, **fields: Any) -> None:
        """Write an event of the sweep's ledger."""
        check(event, fields)
        with self._lock:
            self._sweep.apply(self._ledger.append(event, **fields))
        for follower in self._followers:
            follower.notify(self.interruption.terminated)

    def _write(self, event: str, **fields: Any) -> None:
        self.record(f"confirm_{event}", **fields)

    @property
    def remaining(self) -> int:
        """Wanted runs that have not ended."""
        return len(self.wanted.left(self._sweep))

    @property
    def total(self) -> int:
        """Runs that are wanted, those that have ended included."""
        return len(self.wanted.trials) * len(self.wanted.seeds)

    @property
    def complete(self) -> bool:
        """Every wanted run has ended."""
        return not self.remaining

    def next_trial(self) -> TrialView | None:
        """A wanted run that was not given out yet; None at the end."""
        return self._left_over.pop(0) if self._left_over else None

    def entered(self, trial: TrialView, metrics: Mapping[str, Any]) -> None:
        """A hardened round: nothing follows, each run comes to its end."""

    def leave(self) -> None:
        """Where the process may be killed within seconds: write once that it is interrupted."""
        with self._lock:
            if not self.complete and self.interruption.claim():
                self.record(self._interrupted)

    def interrupted(self, reason: str | None) -> None:
        """Write, where it is not written yet, that it stopped before its end."""
        self.leave()
        if not self.complete and not self.interruption.written:
            self.record(self._interrupted, **({"reason": reason} if reason else {}))
