"""Adapters from Ray Tune to the driver: searcher, scheduler, callback. They hold no state and never raise.

An exception here would end the whole sweep inside Tune, so it breaks the sweep off in order (interrupt.py). Tune
pickles these objects into its own, disposable state; nothing is in the pickles.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune import Callback
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from trainables.plugins import code_for, plugins_in
from trainables.storage.secrets import is_secret
from trainables.text import LONGEST_LINE, shown
from trainables.worker.ray_trainable import SweepTrainable
from tune_rsst.runners import Tick
from tune_rsst.runners.adapter import Adapter
from tune_rsst.runners.hung import HungTrials
from tune_rsst.storage.folder import SweepFolder

if TYPE_CHECKING:
    from tune_rsst.intake import Intake


MAX_WORKER_FAILURES = 2
log = logging.getLogger(__name__)


class LedgerSearcher(Adapter, Searcher):
    """Gives out what the driver wants run, and tells it when Tune has given a trial up.

    `dense_meet`: whether trials put their dense rounds into the sweep's bucket, for others to take over.
    """

    def __init__(
        self, driver: Intake, folder: SweepFolder, resources: dict[str, float], dense_meet: bool = True
    ) -> None:
        super().__init__()
        self.driver, self._folder, self._resources = driver, folder, resources
        self._dense_meet = dense_meet
        where = driver.settings.storage
        self._storage = f"{where.rstrip('/')}/{folder.name}" if where else None
        self._keys: dict[str, str] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        return self.guarded(lambda: self._suggest(trial_id), otherwise=Searcher.FINISHED)

    def _suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if (trial := self.driver.next_trial()) is None:
            return None if self.driver.waits else Searcher.FINISHED
        self._keys[trial_id] = trial.trial
        knobs = self._folder.with_own_weights(self.driver.knobs_of(trial))
        return {
            "trial_key": trial.trial,
            "knobs": knobs,
            "plugins": [code_for(*used).to_json() for used in plugins_in(knobs)],
            "store": str(self._folder.trials),
            "storage": self._storage,
            "dense_meet": self._dense_meet,
            "reported": len(trial.seen),
            "retried": trial.micro_batch_size is not None,
            "resources": self._resources,
            "system_metrics": self.driver.settings.system_metrics,
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self._keys.pop(trial_id, None)
        if error and trial is not None:
            self.guarded(lambda: self.driver.given_up(trial))

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        return None


class LedgerScheduler(Adapter, FIFOScheduler):
    """Hands every result to the driver and passes its decision on. `hung` says why a worker is lost, if it knows."""

    def __init__(self, driver: Intake, hung: HungTrials | None = None) -> None:
        super().__init__()
        self.driver, self._hung = driver, hung

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        known = self._reports_of(result)
        stop = self.guarded(lambda: self.driver.take(result), otherwise=True)
        if self._reports_of(result) > known:  # losses count from here: a spot node may leave now and then
            trial.run_metadata.num_failures = 0
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def _reports_of(self, result: dict[str, Any]) -> int:
        return len(self.driver.view.run(result["trial_key"]).seen) if "trial_key" in result else 0

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        if "trial_key" in result:  # results with done = True come here only
            self.guarded(lambda: self.driver.take(result))

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        hung = self._hung
        if hung is None or not self.guarded(lambda: hung.ended(trial)):
            self.guarded(lambda: self.driver.worker_error(trial.config["trial_key"], _reason(trial)))


def _reason(trial: Trial) -> str:
    """The last line of what the worker raised, or of what Tune wrote down where the worker could raise nothing."""
    error = trial.get_pickled_error()
    file = Path(trial.error_file) if trial.error_file else None
    written = file.read_text(encoding="utf-8", errors="replace") if file and file.is_file() else ""
    lines = [line.strip() for line in str(error or written).splitlines() if line.strip()]
    if error is None:
        return f"the worker was lost: {lines[-1] if lines else 'its process or its node is gone'}"[:500]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"[:500]


class Ticker(Adapter, Callback):
    """Lets the live table look at the view a few times a second; writes an interruption down as soon as it is known."""

    def __init__(self, driver: Intake, tick: Tick) -> None:
        self.driver, self._tick = driver, tick

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.guarded(self.driver.leave)
        try:
            self._tick()
        except Exception:
            log.debug("the live table failed", exc_info=True)


class _OneLine(logging.Filter):
    """Makes one line of a record that has a traceback: it is of Tune's own calls, and a worker writes its own down."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and (error := record.exc_info[1]) is not None:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            said = f"{record.getMessage()}: {type(error).__name__}: {lines[0] if lines else 'no message'}"
            record.msg, record.args = shown(said, LONGEST_LINE), ()
            record.exc_info = record.exc_text = None
        return True


@contextmanager
def in_lines() -> Iterator[None]:
    """While Tune runs trials: what Ray and Tune log has no tracebacks."""
    handlers, one_line = list(logging.getLogger("ray").handlers), _OneLine()
    for handler in handlers:
        handler.addFilter(one_line)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(one_line)


def forget(place: Path) -> None:
    """Remove what is there: it may have come with the home, and holds pickles, none of which is ever to be read."""
    if place.is_symlink() or place.is_file():
        place.unlink()
    shutil.rmtree(place, ignore_errors=True)


def name_of(trial: Trial) -> str:
    """Tune's trials have the sweep's names."""
    return str(trial.config["trial_key"])


def fit(
    driver: Intake,
    folder: SweepFolder,
    resources: dict[str, float],
    at_once: int,
    tick: Tick,
    trainable: type[tune.Trainable] = SweepTrainable,
    dense_meet: bool = True,
) -> None:
    """Let Tune run what the driver gives out, `at_once` trials at a time, each with `resources` (CPU, GPU).

    `trainable` takes and gives what SweepTrainable does. `dense_meet`: as in `LedgerSearcher`.
    """
    forget(folder.tune)
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update({n for n in os.environ if is_secret(n, "")})
    hung = HungTrials(driver, folder, MAX_WORKER_FAILURES)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=LedgerSearcher(driver, folder, resources, dense_meet),
            scheduler=LedgerScheduler(driver, hung),
            num_samples=driver.runs_left,
            max_concurrent_trials=at_once,
            reuse_actors=True,
            trial_name_creator=name_of,
        ),
        run_config=tune.RunConfig(
            name="run",
            storage_path=str(folder.tune),
            callbacks=[hung, Ticker(driver, tick)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=MAX_WORKER_FAILURES),
            verbose=0,
        ),
    )
    with in_lines():
        tuner.fit()
