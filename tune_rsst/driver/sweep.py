"""What the driver decides: which trial comes next, and which one is stopped. Its ledger is written first. Knows no Ray.

In: the ledger of the sweep (empty or not) and results of the workers.
Out: what to run next, what to stop.
After a restart the same ledger gives the same state. Trials without an end are given out again with the same
parameters. Rungs are refilled in the order in which they were filled. A decision that was not written is made again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from trainables.rsst.config import METHOD_VERSION
from tune_rsst.driver.confirm import Confirmation
from tune_rsst.driver.patient import PatientSearcher
from tune_rsst.driver.race import Race
from tune_rsst.intake import Follower, Intake
from tune_rsst.interrupt import Interruption
from tune_rsst.ledger.events import REPLICATE, check
from tune_rsst.ledger.file import Ledger
from tune_rsst.ledger.repeats.wanted import Wanted
from tune_rsst.ledger.spending import used_up
from tune_rsst.ledger.tail import LedgerTail
from tune_rsst.ledger.view import TrialView, trial_key
from tune_rsst.search.halving import Rungs, replay
from tune_rsst.search.limits import KnownSizes
from tune_rsst.search.study import MAX_ASKS, MAX_ASKS_UNDER_LIMITS, StudySearcher, infeasible, outcome
from tune_rsst.search.suggestions import Space
from tune_rsst.settings.addresses import without_secrets
from tune_rsst.settings.settings import SweepSettings
from tune_rsst.storage.folder import SweepFolder

if TYPE_CHECKING:
    from tune_rsst.search.pretrained import SweepWeights


class Driver(Intake):
    """The sweep's one decision maker. All of its state is a function of the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        settings: SweepSettings,
        searcher: StudySearcher,
        interruption: Interruption | None = None,
        followers: Sequence[Follower] = (),
    ) -> None:
        """Replay `ledger`; `followers` hear of each line that is written."""
        super().__init__()
        self._ledger, self.settings, self.searcher = ledger, settings, searcher
        self.interruption, self._followers = interruption or Interruption(), followers
        self.interruption.write_down = self.leave
        self._lock = threading.RLock()
        self._compared = Rungs.of(settings)
        self.halving, self.rungs = self._compared.halving, self._compared.reached
        self.view = replay(ledger.events, self._compared, str(ledger.path.parent.parent))
        self.exhausted = False
        self._given: set[str] = set()
        self._left_over: list[TrialView] = []
        self._race = Race(settings.replicates, searcher.objective)
        self._sizes = KnownSizes(searcher.objective)
        self.expect_images_of(self.view.trials.values())
        self._known = {t.fingerprint: t.trial for t in (*self.view.former.values(), *self.view.trials.values())}
        if self.view.name:
            searcher.claim(LedgerTail(ledger.path).uid())
        self._take_up()

    def reopen(self, trials: Iterable[str]) -> None:
        """Give failed trials out again. Before the first trial is asked for."""
        for trial in trials:
            for run in self.view.trials[trial].runs.values():
                if run.state == "failed":
                    self._write("reopened", trial=run.trial)
            self._write("reopened", trial=trial)
        self._take_up()

    def _take_up(self) -> None:
        """What is unfinished is to be run. A crash can fall between a report and its consequence: draw it now."""
        for run in self.view.unfinished_replicas:
            if run.final is not None:
                self._write("ended", trial=run.trial, state="finished", reason=None, rung=None)
        for trial in self.view.unfinished:
            if trial.final is not None:
                self._go_on(trial)
            elif decision := self._compared.due.get(trial.trial):
                end = {"state": decision.state, "reason": decision.reason, "rung": decision.rung}
                self._write("ended", trial=trial.trial, **end)
        self._left_over = self._race.open_runs(self.view)
        if self.view.name:
            self.searcher.sync(self.view, self.rungs)

    def record(self, event: str, **fields: Any) -> None:
        """Write an event of the sweep itself (sweep_started, interrupted, resumed, sweep_ended)."""
        self._write(event, **fields)
        if event == "sweep_started":
            self.searcher.claim(LedgerTail(self._ledger.path).uid())
            self._known |= {t.fingerprint: t.trial for t in self.view.former.values()}
            self.searcher.sync(self.view, self.rungs)

    def leave(self) -> None:
        """Where the process may be killed within seconds: write once that the sweep is interrupted."""
        with self._lock:
            if not self.complete and self.interruption.claim():
                self._write("interrupted")

    def repeat(self, wanted: Wanted) -> Confirmation:
        """The last part of a sweep, once all trials have ended: some of them again with fresh seeds."""
        how = (self.settings, wanted, self.interruption, self._followers)
        return Confirmation(self._ledger, self.view, *how, at_the_end=True)

    def _write(self, event: str, **fields: Any) -> None:
        event = f"{REPLICATE}{event}" if fields.get("trial") in self.view.replicas else event
        check(event, fields)
        with self._lock:
            self.view.apply(self._ledger.append(event, **fields))
        for follower in self._followers:
            follower.notify(self.interruption.terminated)

    # --- what to run -----------------------------------------------------------------------------------------------

    @property
    def remaining(self) -> int:
        """Trials that have not ended, those not suggested yet included."""
        ended = len(self.view.trials) - len(self.view.unfinished)
        return max(0, self.settings.trials - ended)

    @property
    def total(self) -> int:
        """Trials that the sweep is to have."""
        return self.settings.trials

    @property
    def runs_left(self) -> int:
        """As `Intake.runs_left`: a trial has up to `replicates` runs."""
        return self._race.runs_left(self.view, self.remaining)

    @property
    def waits(self) -> bool:
        """Whether what runs now may bring more, though nothing is to begin: another seed of its trial."""
        return self.settings.replicates > 1 and bool(self._given) and self.spent is None

    @property
    def complete(self) -> bool:
        """Nothing is left to run."""
        return not self.view.unfinished and (self.exhausted or self.remaining == 0)

    @property
    def spent(self) -> str | None:
        """Which budget is spent, in words, or None. From then on no trial begins and no round does."""
        return used_up(self.view.spending, dict(self.settings))

    @property
    def halted(self) -> str | None:
        """`spent`, once every trial that was given out has ended or paused."""
        return None if self._given or self.complete else self.spent

    def next_trial(self) -> TrialView | None:
        """A trial to run: first those that an earlier driver left unfinished, then new ones; None at the end."""
        trial = None if self.spent else self._next_trial()
        if trial is not None:
            self._given.add(trial.trial)
        return trial

    def _next_trial(self) -> TrialView | None:
        while self._left_over:
            run = self._left_over.pop(0)
            if not run.over:
                return run
        if len(self.view.trials) >= self.settings.trials or self.exhausted:
            return None
        return self._new_trial()

    def _new_trial(self) -> TrialView | None:
        known = self._known
        asks = MAX_ASKS_UNDER_LIMITS if self._sizes.limits else MAX_ASKS
        for _ in range(asks + self.searcher.points_left):
            if self.settings.sampler == "grid" and not self.searcher.points_left:
                break
            asked = self.searcher.ask(known)
            self._refuse_other_number(asked.number)
            said = asked.record()
            repeated = self.view.known(asked.repeat_of)
            if asked.config is None or repeated is not None:
                self._write("repeated", **said, of=asked.repeat_of, reason=asked.invalid)
                if repeated is not None:
                    self._tell(asked.number, repeated)
                continue
            trial, config = trial_key(asked.number), asked.config
            sizes = self._sizes.of(config)
            if reason := self._sizes.broken(sizes):
                self._write("infeasible", **said, fingerprint=config.fingerprint, metrics=sizes, reason=reason)
                self.searcher.tell(asked.number, infeasible(sizes, self.searcher.objective))
                continue
            about = {"knobs": config.knobs(), "fingerprint": config.fingerprint, "rounds": config.rounds}
            self._write("suggested", trial=trial, **said, **about)
            self._known[config.fingerprint] = trial
            self.searcher.note(asked.number, self.view.trials[trial])
            return self.view.trials[trial]
        self.exhausted = True
        return None

    def _refuse_other_number(self, number: int) -> None:
        expected = len(self.view.former) + len(self.view.trials)
        expected += len(self.view.repeats) + len(self.view.infeasible)
        if number != expected:
            numbers = f"it numbers the next trial {number}, and the ledger {expected}"
            raise RuntimeError(f"Optuna's study was changed by another program: {numbers}; end that program and resume")

    # --- what came back (intake.py) ----------------------------------------------------------------------------------

    def take(self, result: Mapping[str, Any]) -> bool:
        """As `Intake.take`; a trial that stands between two rounds pauses where a budget is spent.

        One that has only its test left is let go on. A worker that has just opened a trial has trained nothing here.
        """
        over, trial = super().take(result), self.view.run(result["trial_key"])
        if not over:
            self.searcher.note_run(trial.number, self.view.trials[trial.replicates or trial.trial])
        if over or (why := self.spent) is None or len(trial.round_events) >= trial.rounds:
            return over
        last = (result.get("events") or [{"kind": None}])[-1]["kind"]
        if not result.get("placed") and last not in ("start", "round"):
            return False
        if trial.trial in self._given:
            self._given.discard(trial.trial)
            self._write("paused", trial=trial.trial, reason=why)
        return True

    def entered(self, trial: TrialView, metrics: Mapping[str, Any]) -> None:
        """A hardened round: its trial may have entered a rung, and may have to stop there; by its first run alone."""
        decision = None if trial.replicates else self._compared.compare(trial, metrics)
        if decision:
            self.searcher.report_rung(trial.number, decision.rung, decision.value)
            if decision.stop:
                self.end(trial, decision.state, decision.reason, decision.rung)

    def end(self, trial: TrialView, state: str, reason: str | None = None, rung: int | None = None) -> None:
        """A run is over. Where its trial is too: tell the study, for the trial and for everything that repeated it."""
        own, run = trial.replicates is None, trial
        if not own or state != "finished":
            super().end(run, state, reason, rung)
        self._given.discard(run.trial)
        trial = self.view.trials[run.replicates or run.trial]
        if trial.unfinished:
            self._left_over += self._go_on(trial)
        if not trial.unfinished:
            self._tell(trial.number, trial)
            for number in self.view.repeats_of.get(trial.trial, ()):
                self._tell(number, trial)

    def _go_on(self, trial: TrialView) -> list[TrialView]:
        """Where all of a trial's runs have ended: write its end, or another one, which is returned."""
        if not all(run.over for run in trial.all_runs):
            return []
        if (end := self._race.end_of(self.view, trial)) is not None:
            seeds = {"seeds": len(trial.all_runs)} if trial.seeds > 1 else {}
            self._write("ended", trial=trial.trial, state=end.state, reason=end.reason, rung=None, **seeds)
            return []
        another = self._race.next_of(trial)
        self._write("replicate_suggested", **another)
        return [self.view.replicas[another["trial"]]]

    def _tell(self, number: int, trial: TrialView) -> None:
        self.searcher.note(number, trial)
        self.searcher.tell(number, outcome(trial, self.rungs.get(trial.trial, {}), self.searcher.objective))


def assemble(
    ledger: Ledger,
    settings: SweepSettings,
    space: Space,
    weights: SweepWeights | None = None,
    *,
    conditional: bool = False,
    about: Mapping[str, Any] | None = None,
    interruption: Interruption | None = None,
    followers: Sequence[Follower] = (),
    say: Callable[[str], None] = print,
) -> Driver:
    """A sweep that any runner can play: the driver over `ledger`, with its study where `optuna_storage` says.

    `say` gets lines to read. An empty ledger begins with `sweep_started`, which says what `about` has too.
    """
    study = None if settings.optuna_storage == "memory" else settings.optuna_storage
    own = study == SweepFolder(ledger.path.parent).study
    kind = partial(PatientSearcher, say=say) if study and not study.startswith("sqlite") else StudySearcher
    searcher = kind(settings, space, weights, storage=study, own_file=own, conditional=conditional)
    driver = Driver(ledger, settings, searcher, interruption, followers)
    if not driver.view.name:
        said: dict[str, Any] = {
            "name": settings.name,
            "settings": without_secrets(settings.flat()),
            "space": settings.space,
        }
        said |= {"method": METHOD_VERSION, "home": str(ledger.path.parent.parent)}
        driver.record("sweep_started", **said | dict(about or {}))
    return driver
