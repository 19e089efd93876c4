"""The Optuna study of a sweep: asked for trials, told how they ended. A view of the ledger, rebuilt where it disagrees.

Comes in: a space, fixed knobs, the ledger's view. Goes out: new suggestions. finished → COMPLETE, stopped early →
PRUNED (with the value of every rung it reached), failed → FAIL; a configuration that was given out before is not
trained again: its Optuna trial mirrors the first one's outcome (`repeated` in the ledger), and another is asked for.
Each suggestion is drawn by a sampler seeded with (seed, number): a resumed sweep does not repeat its random draws.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from trainables.rsst.config import ConfigError, RSSTConfig
from tune_rsst.config import SweepSettings, hide_password
from tune_rsst.pretrained import SweepWeights
from tune_rsst.spaces import Space
from tune_rsst.view import SweepView, TrialView

MAX_ASKS = 100
STATES = {
    "running": TrialState.RUNNING,
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class SpaceExhausted(RuntimeError):
    """The study gave only known or invalid configurations `MAX_ASKS` times in a row."""


@dataclass(frozen=True)
class Outcome:
    """How a trial stands, in Optuna's terms. `rungs`: rung number → value."""

    state: TrialState
    value: float | None
    rungs: dict[int, float]


@dataclass(frozen=True)
class Asked:
    """One answer of the study: a trial to train (`config`), a repeat (`repeat_of`), or why it is `invalid`."""

    number: int
    params: dict[str, Any]
    distributions: dict[str, str]
    config: RSSTConfig | None = None
    repeat_of: str | None = None
    invalid: str | None = None


def make_sampler(settings: SweepSettings, number: int, conditional: bool) -> BaseSampler:
    """The sampler of suggestion `number`."""
    seed = int.from_bytes(hashlib.sha256(f"{settings.seed}:{number}".encode()).digest()[:4], "big")
    if settings.sampler == "gp":
        return GPSampler(seed=seed, n_startup_trials=settings.startup_trials)
    if settings.sampler == "nsga2":
        return NSGAIISampler(seed=seed)
    if settings.sampler == "nsga3":
        return NSGAIIISampler(seed=seed)
    if settings.sampler == "random":
        return RandomSampler(seed=seed)
    if settings.sampler == "qmc":  # one sequence for the whole sweep; the study counts the points taken
        return QMCSampler(seed=settings.seed, scramble=True, warn_asynchronous_seeding=False)
    return TPESampler(seed=seed, n_startup_trials=settings.startup_trials, group=conditional, constant_liar=True)


class StudySearcher:
    """Ask and tell over one study. Every answer of `ask` must be written to the ledger before the next call."""

    def __init__(
        self,
        settings: SweepSettings,
        space: Space,
        weights: SweepWeights | None = None,
        *,
        storage: str | None = None,
        conditional: bool = False,
    ) -> None:
        """`storage`: a database URL, or None for a study in memory. `conditional`: parameters depend on others."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._settings, self._space, self._conditional = settings, space, conditional
        self._weights = weights or SweepWeights()
        self._storage = _opened(storage) if storage else optuna.storages.InMemoryStorage()
        self.study = self._create()
        self.rebuilt = False

    def _create(self) -> Study:
        return optuna.create_study(
            storage=self._storage, study_name=str(self._settings.name), direction="maximize", load_if_exists=True
        )

    def sync(self, view: SweepView, rungs: Mapping[str, dict[int, float]]) -> None:
        """Make the study say what the ledger says; `rungs` holds each trial's values by rung number."""
        wanted = [self._frozen(record, view, rungs) for record in _records(view)]
        if [_essence(t) for t in self.study.get_trials(deepcopy=False)] == [_essence(t) for t in wanted]:
            return
        self.rebuilt = len(self.study.trials) > 0
        optuna.delete_study(study_name=self.study.study_name, storage=self._storage)
        self.study = self._create()
        self.study.add_trials(wanted)

    def _frozen(self, record: Mapping[str, Any], view: SweepView, rungs: Mapping[str, dict[int, float]]) -> FrozenTrial:
        original = view.trials.get(record["of"]) if record["of"] else None
        seen = outcome(original, rungs.get(record["of"], {})) if original else Outcome(TrialState.FAIL, None, {})
        return create_trial(
            state=seen.state,
            value=seen.value,
            params=record["params"],
            distributions={name: json_to_distribution(text) for name, text in record["distributions"].items()},
            intermediate_values=seen.rungs,
        )

    def ask(self, known: Mapping[str, str]) -> Asked:
        """One suggestion. `known`: fingerprint → trial, for every configuration given out so far."""
        number = len(self.study.get_trials(deepcopy=False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.sampler = make_sampler(self._settings, number, self._conditional)
            trial = self.study.ask()
            invalid, config = None, None
            try:
                draw = self._space.draw(trial, self._settings.fixed)
                config = self._weights.complete(RSSTConfig.from_knobs(draw.knobs))
            except ConfigError as error:
                invalid = str(error)
                self.study.tell(trial, state=TrialState.FAIL)
        params = dict(trial.params)
        distributions = {name: distribution_to_json(d) for name, d in trial.distributions.items()}
        repeat_of = known.get(config.fingerprint) if config else None
        return Asked(trial.number, params, distributions, config, repeat_of, invalid)

    def report_rung(self, number: int, rung: int, value: float) -> None:
        """Record the value at a rung: the step is the rung, because rounds of different trials are not comparable."""
        frozen = self.study.get_trials(deepcopy=False)[number]
        if not frozen.state.is_finished() and rung not in frozen.intermediate_values:
            optuna.trial.Trial(self.study, frozen._trial_id).report(value, rung)

    def tell(self, number: int, seen: Outcome) -> None:
        """Tell the study how its trial `number` ended; a second time changes nothing."""
        if seen.state == TrialState.COMPLETE:
            self.study.tell(number, seen.value, skip_if_finished=True)
        elif seen.state.is_finished():
            for rung, value in seen.rungs.items():
                self.report_rung(number, rung, value)
            self.study.tell(number, state=seen.state, skip_if_finished=True)


def _opened(url: str) -> optuna.storages.RDBStorage:
    """The database at `url`; a sqlite file that is no database is put aside: the ledger makes the study anew.

    Raises:
        ConfigError: it can't be used.
    """
    file = Path(url.removeprefix("sqlite:///"))
    try:
        return optuna.storages.RDBStorage(url)
    except Exception as error:  # noqa: BLE001  (whatever the database's driver raises)
        if url.startswith("sqlite:///") and file.is_file():
            file.rename(file.with_name(f"{file.name}.damaged-{time.time_ns()}"))
            return optuna.storages.RDBStorage(url)
        reason = str(error).splitlines()[0]
        valid = "memory, or the URL of a database that can be reached"
        raise ConfigError("optuna_storage", hide_password(url), valid, hide_password(reason)) from None


def outcome(trial: TrialView, rungs: Mapping[int, float]) -> Outcome:
    """How `trial` stands; a finished trial without a value counts as failed."""
    state = STATES[trial.state]
    if state == TrialState.COMPLETE:
        value = trial.metrics.get("val_top1")
        return (
            Outcome(state, float(value), dict(rungs))
            if value is not None
            else Outcome(TrialState.FAIL, None, dict(rungs))
        )
    last = rungs[max(rungs)] if state == TrialState.PRUNED and rungs else None
    return Outcome(state, last, dict(rungs))


def _records(view: SweepView) -> list[dict[str, Any]]:
    """Everything that the study was asked for, in the order of its numbers; `of` is the trial whose outcome it has."""
    trials = [
        {"number": t.number, "params": t.params, "distributions": t.distributions, "of": t.trial}
        for t in view.trials.values()
    ]
    return sorted([*trials, *view.repeats], key=lambda record: int(record["number"]))


def _essence(trial: FrozenTrial) -> tuple[Any, ...]:
    return trial.state, trial.params, trial.value, trial.intermediate_values
