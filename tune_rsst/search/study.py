"""The Optuna study of a sweep: suggests trials, learns how they ended. A view of the ledger, rebuilt if it disagrees.

In: a space, fixed knobs, the ledger's view. Out: suggestions.
- finished → COMPLETE (with constraints), stopped early → PRUNED (one objective: with the value of every rung it
  reached), failed → FAIL. Values are means over the trial's seeds; where it got no more of them, over those it had.
- A configuration that is known to break a limit is not trained: PRUNED without a value, with its constraints
  (`infeasible`).
- A known configuration is not trained again: its Optuna trial mirrors the first one's outcome (`repeated`).
- What nsga2, nsga3 and qmc keep in the study is in the ledger too (`Suggestion.sampler`): a rebuilt study has it.
- A study holds its sweep's uid. Another sweep's study in the same database is refused, never changed.
- Which run of MLflow a trial has comes from outside, seconds later, and decides nothing. Optuna lets nobody add to a
  trial that has ended: runs that came too late are named by the study itself (`name_runs`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from trainables.rsst.config import ConfigError, RSSTConfig
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.search.samplers import make_sampler, state_after
from tune_rsst.search.study_database import opened, refuse_study_of_another, renewed
from tune_rsst.search.suggestions import Space, about, by, records
from tune_rsst.settings.settings import SweepSettings

if TYPE_CHECKING:
    from tune_rsst.search.pretrained import SweepWeights

MAX_ASKS = 100
MAX_ASKS_UNDER_LIMITS = 400  # suggestions that are known to break a limit cost nothing but the asking
UID = "sweep_uid"
RUN, RUNS = "mlflow_run_id", "mlflow_run_ids"
STATES = {
    "running": TrialState.RUNNING,
    "interrupted": TrialState.RUNNING,
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class Outcome:
    """How a trial stands, in Optuna's terms. `rungs`: rung number → value."""

    state: TrialState
    values: tuple[float, ...] | None
    rungs: dict[int, float]
    constraints: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Suggestion:
    """One answer of the study: a trial to train (`config`), a repeat (`repeat_of`), or why it is `invalid`."""

    number: int
    params: dict[str, Any]
    distributions: dict[str, str]
    config: RSSTConfig | None = None
    repeat_of: str | None = None
    invalid: str | None = None
    sampler: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """For the ledger."""
        fields = {"number": self.number, "params": self.params, "distributions": self.distributions}
        return fields | ({"sampler": self.sampler} if self.sampler else {})


class StudySearcher:
    """Ask and tell over one study. Every answer of `ask` must be written to the ledger before the next call."""

    mlflow_runs: Callable[[], Mapping[str, str]]
    """Trial → its run in MLflow, those that are known by now; the sweep's own under an empty name."""

    def __init__(
        self,
        settings: SweepSettings,
        space: Space,
        weights: SweepWeights | None = None,
        *,
        storage: str | None = None,
        own_file: bool = False,
        conditional: bool = False,
    ) -> None:
        """`weights`: None: each trial finds its own. `storage`: a database URL, None: in memory; `own_file`: sqlite
        in the sweep's own folder. `conditional`: parameters depend on others.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._settings, self._space, self._conditional = settings, space, conditional
        self.objective = Objective.of(settings.flat())
        self._weights = weights
        self._address, self._own_file, self._uid = storage, own_file or storage is None, ""
        self._storage = opened(storage, own_file) if storage else optuna.storages.InMemoryStorage()
        self.study = self._create()
        self.rebuilt = False
        self.mlflow_runs = dict
        self._runs_before: dict[str, str] = {}
        self._points: Sequence[Mapping[str, Any]] = ()
        self._former = 0

    def _create(self) -> Study:
        return optuna.create_study(
            storage=self._storage,
            study_name=str(self._settings.name),
            directions=self.objective.directions,
            load_if_exists=True,
        )

    def claim(self, uid: str) -> None:
        """From now on the study is that of the sweep `uid`."""
        self._or_anew(lambda: self._claim(uid))

    def _or_anew(self, work: Callable[[], None]) -> None:
        """Do it; where the sweep's own file turns out to be damaged, with a new one: the ledger has the study."""
        try:
            work()
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001  (whatever the database's driver raises)
            self._storage = renewed(str(self._address), error, self._own_file)
            self.study = self._create()
            work()

    def _claim(self, uid: str) -> None:
        owner = self.study.user_attrs.get(UID)
        foreign = owner not in (None, uid) or (owner is None and len(self.study.trials) > 0)
        if foreign and not self._own_file:
            refuse_study_of_another(str(self.study.study_name), str(self._address))
        self._uid = uid
        if owner != uid or not self.study.metric_names:
            self._mark()

    def _mark(self) -> None:
        """Write down whose study it is, and what its values are."""
        self.study.set_user_attr(UID, self._uid)
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            self.study.set_metric_names(list(self.objective.metrics))

    def sync(self, view: SweepView, rungs: Mapping[str, dict[int, float]]) -> None:
        """Make the claimed study agree with the ledger; `rungs`: each trial's values by rung number."""
        self._points, self._former = view.points, len(view.former)
        self._or_anew(lambda: self._sync(view, rungs))

    def _sync(self, view: SweepView, rungs: Mapping[str, dict[int, float]]) -> None:
        asked, there = records(view), self.study.get_trials(deepcopy=False)
        said = {t.user_attrs.get("trial"): t.user_attrs[RUN] for t in there if RUN in t.user_attrs}
        self._runs_before = {**self.study.user_attrs.get(RUNS, {}), **said}
        wanted = [self._frozen(record, view, rungs) for record in asked]
        directions = tuple(direction.name.lower() for direction in self.study.directions)
        if [_essence(t) for t in there] == [_essence(t) for t in wanted] and directions == self.objective.directions:
            return
        self.rebuilt = len(there) > 0
        optuna.delete_study(study_name=self.study.study_name, storage=self._storage)
        self.study = self._create()
        self._mark()
        self.study.add_trials(wanted)
        state: dict[str, Any] = {}  # the sampler's, after the last record that had any
        for record in asked:
            state |= record.get("sampler", {}).get("study", {})
        for name, value in state.items():
            self._storage.set_study_system_attr(self.study._study_id, name, value)

    def _frozen(self, record: Mapping[str, Any], view: SweepView, rungs: Mapping[str, dict[int, float]]) -> FrozenTrial:
        original = view.known(record.get("of"))
        seen = Outcome(TrialState.FAIL, None, {})
        if original:
            seen = outcome(original, rungs.get(record["of"], {}), self.objective)
        elif "metrics" in record:
            seen = infeasible(record["metrics"], self.objective)
        return create_trial(
            state=seen.state,
            values=seen.values,
            params=record["params"],
            distributions={name: json_to_distribution(text) for name, text in record["distributions"].items()},
            user_attrs=by(view.suggested_by(record["number"])) | (self._about(original) if original else {}),
            system_attrs=dict(record.get("sampler", {}).get("trial", {})),
            intermediate_values=seen.rungs,
            constraints=seen.constraints,
        )

    @property
    def points_left(self) -> int:
        """Points that were to be tried first, and were not given out yet."""
        return max(0, len(self._points) + self._former - len(self.study.get_trials(deepcopy=False)))

    def ask(self, known: Mapping[str, str]) -> Suggestion:
        """One suggestion. `known`: fingerprint → trial, for every configuration given out so far."""
        number = len(self.study.get_trials(deepcopy=False))
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            self.study.sampler = make_sampler(self._settings, number, self._conditional)
            if self.points_left:
                point = self._points[number - self._former]
                self.study.enqueue_trial(point["params"], by(point["by"]))
            trial = self.study.ask()
            invalid, config = None, None
            try:
                draw = self._space.draw(trial, self._settings.fixed_in_trials)
                config = self._space.configured(draw, self._settings.fixed_in_trials)
                config = self._weights.complete(config) if self._weights else config
            except ConfigError as error:
                invalid = str(error)
                self.study.tell(trial, state=TrialState.FAIL)
        params = dict(trial.params)
        distributions = {name: distribution_to_json(d) for name, d in trial.distributions.items()}
        repeat_of = known.get(config.fingerprint) if config else None
        state = state_after(self.study, trial.number, str(self._settings.sampler))
        return Suggestion(trial.number, params, distributions, config, repeat_of, invalid, state)

    def report_rung(self, number: int, rung: int, value: float) -> None:
        """Record the value at a rung: the step is the rung, because rounds of different trials are not comparable.

        A study of several objectives takes none (Optuna raises NotImplementedError): there the ledger alone has them.
        """
        if len(self.objective.directions) > 1:
            return
        frozen = self.study.get_trials(deepcopy=False)[number]
        if not frozen.state.is_finished() and rung not in frozen.intermediate_values:
            optuna.trial.Trial(self.study, frozen._trial_id).report(value, rung)

    def _about(self, trial: TrialView) -> dict[str, Any]:
        run = self.mlflow_runs().get(trial.trial) or self._runs_before.get(trial.trial)
        return about(trial) | ({RUN: run} if run else {})

    def note(self, number: int, trial: TrialView) -> None:
        """Write on the study's trial which one of the sweep it is, its size and its run in MLflow, where that is known.

        One that has ended stays as it is.
        """
        frozen = self.study.get_trials(deepcopy=False)[number]
        new = {} if frozen.state.is_finished() else self._about(trial)
        for name, value in new.items() - frozen.user_attrs.items():
            optuna.trial.Trial(self.study, frozen._trial_id).set_user_attr(name, value)

    def note_run(self, number: int, trial: TrialView) -> None:
        """As `note`, once its run in MLflow is known; until then, and from then on, it costs nothing."""
        run = self.mlflow_runs().get(trial.trial)
        if run and self._runs_before.get(trial.trial) != run:
            self.note(number, trial)
            self._runs_before[trial.trial] = run

    def name_runs(self) -> None:
        """Write on the study its run in MLflow, and those of its trials that had ended before theirs was known."""
        known, late = self.mlflow_runs(), {}
        for trial in self.study.get_trials(deepcopy=False):
            run = known.get(name := trial.user_attrs.get("trial", ""))
            if name and run and trial.user_attrs.get(RUN) != run:
                late[name] = run
        for attribute, value in ((RUN, known.get("")), (RUNS, late)):
            if value and self.study.user_attrs.get(attribute) != value:
                self.study.set_user_attr(attribute, value)

    def tell(self, number: int, seen: Outcome) -> None:
        """Tell the study how its trial `number` ended; a second time changes nothing."""
        frozen = self.study.get_trials(deepcopy=False)[number]
        if not frozen.state.is_finished():
            for name, over in seen.constraints.items():
                optuna.trial.Trial(self.study, frozen._trial_id).set_constraint(name, over)
        if seen.state == TrialState.COMPLETE:
            self.study.tell(number, seen.values, skip_if_finished=True)
        elif seen.state.is_finished():
            for rung, value in seen.rungs.items():
                self.report_rung(number, rung, value)
            self.study.tell(number, state=seen.state, skip_if_finished=True)


def outcome(trial: TrialView, rungs: Mapping[int, float], objective: Objective) -> Outcome:
    """How `trial` stands; a finished trial without a value counts as failed.

    With several objectives a stopped trial is PRUNED without values, rungs and constraints: its size and accuracy are
    those of an intermediate model, which must not be compared with finished ones.
    """
    state, several = STATES["finished" if trial.fell_behind else trial.state], len(objective.directions) > 1
    at_rungs = {} if several else dict(rungs)
    if state == TrialState.COMPLETE:
        values = objective.values(trial.metrics)
        if values is None:
            return Outcome(TrialState.FAIL, None, at_rungs)
        return Outcome(state, values, at_rungs, objective.constraints(trial.metrics))
    last = (rungs[max(rungs)],) if state == TrialState.PRUNED and at_rungs else None
    return Outcome(state, last, at_rungs)


def infeasible(metrics: Mapping[str, Any], objective: Objective) -> Outcome:
    """How a suggestion stands that was not trained, because its last model breaks a limit."""
    return Outcome(TrialState.PRUNED, None, {}, objective.known_constraints(metrics))


def _essence(trial: FrozenTrial) -> tuple[Any, ...]:
    return trial.state, trial.params, trial.distributions, trial.values, trial.intermediate_values, trial.constraints
