"""Runs a planned sweep from the folder's lock to the final table; new or resumed, on Ray or another runner.

In: a `Plan`. Out: the exit code (0 every trial finished or was stopped early, or a budget is spent, 3 some failed, 130
interrupted and resumable, 1 anything else). A resume is a fresh Tuner over the same ledger: Tune's own state is never
read. What happens at Ctrl-C: interrupt.py.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from rich.console import Console

from trainables import provenance
from trainables.provenance import origin
from trainables.rsst.config import ConfigError
from tune_rsst.ending import (
    STORE_AT_INTERRUPT_S,
    UPLOAD_AT_INTERRUPT_S,
    conclude,
    conclude_confirmation,
    finish_again,
)
from tune_rsst.interrupt import Interruption, why
from tune_rsst.ledger.file import Ledger
from tune_rsst.ledger.lock import driving
from tune_rsst.ledger.view import SweepView
from tune_rsst.planning import preflight
from tune_rsst.planning.plan import Finished, Plan
from tune_rsst.results.confirmed import table as confirmed
from tune_rsst.results.live import LiveTable
from tune_rsst.results.table import say
from tune_rsst.runners import Runner, Tick, capacity, local_ray, ray_cluster
from tune_rsst.settings.addresses import without_secrets
from tune_rsst.settings.settings import RUN_ONLY
from tune_rsst.storage import home
from tune_rsst.storage.bucket import SweepStorage, held

UPLOAD_AFTER_S = 5.0  # MLflow takes seconds to import, which Ray's start needs more

if TYPE_CHECKING:
    from tune_rsst.driver import Confirmation, Driver
    from tune_rsst.intake import Follower
    from tune_rsst.tracking.uploader import Uploader


def run(
    plan: Plan | Finished,
    console: Console,
    runner: Runner | None = None,
    *,
    models: bool = True,
    tell: Callable[[str], object] = lambda problem: None,
) -> int:
    """Run `plan` to its end or to an interruption; print the table and say what to do next.

    `runner` runs the trials; None: Ray Tune (`on_ray`). `models`: whether trials leave models; without them no files of
    the best trial are written, and no pictures are drawn for MLflow. `tell` gets why it broke off, where it did.
    """
    if isinstance(plan, Finished):
        local_ray.forget_sessions()  # where Ray ended the driver, nobody else would
        return finish_again(plan, console)
    folder = plan.folder
    home.check_writable()
    preflight.check(plan, partial(say, console))
    home.make(folder.path)
    interruption = Interruption()
    with driving(folder.path), held(plan.settings.storage, folder, partial(say, console), interruption) as storage:
        ledger = Ledger(folder.ledger, plan.sweep.lines if plan.sweep else None)
        plan.write_settings()
        plan.copy_files()
        if storage is not None:
            storage.start()
        driver, uploader = _assemble(plan, ledger, storage, interruption, models, partial(say, console))
        try:
            _train(plan, driver, console, runner)
        except ConfigError as error:
            driver.record("interrupted", reason=str(error))
            if storage is not None:
                storage.close(STORE_AT_INTERRUPT_S)
            uploader.close(UPLOAD_AT_INTERRUPT_S)
            ledger.close()
            raise
        try:
            return conclude(plan, driver, uploader, storage, console, models)
        finally:
            ledger.close()
            shutil.rmtree(folder.tune, ignore_errors=True)
            if interruption.problem:
                tell(interruption.problem)


def confirm(
    plan: Plan,
    top: int,
    seeds: int,
    console: Console,
    runner: Runner | None = None,
    *,
    split: bool = False,
    models: bool = True,
) -> int:
    """Train the best `top` finished trials of a sweep again, each with `seeds` fresh seeds; print the table.

    `plan`: the sweep's, as for a resume. `runner`, `models` and the exit code: as in `run` (3: a run failed).
    """
    folder, interruption = plan.folder, Interruption()
    home.check_writable()
    preflight.check(plan, partial(say, console))
    with driving(folder.path), held(plan.settings.storage, folder, partial(say, console), interruption) as storage:
        ledger = Ledger(folder.ledger, plan.sweep.lines if plan.sweep else None)
        try:
            view = SweepView.of(ledger.events, str(folder.path.parent))
            wanted = confirmed.wanted(view, top, seeds, split, partial(say, console))
            if storage is not None:
                storage.start()
            from tune_rsst.driver import Confirmation
            from tune_rsst.tracking.uploader import Uploader

            uploader = Uploader(folder, plan.settings.flat(), files=models)
            followers: list[Follower] = [uploader, storage] if storage else [uploader]
            uploader.start(UPLOAD_AFTER_S)
            driver = Confirmation(ledger, view, plan.settings, wanted, interruption, followers)
            try:
                _train(plan, driver, console, runner)
            finally:
                code = conclude_confirmation(plan, driver, view, uploader, storage, console, models)
            return code
        finally:
            ledger.close()
            shutil.rmtree(folder.tune, ignore_errors=True)


def _assemble(
    plan: Plan,
    ledger: Ledger,
    storage: SweepStorage | None,
    interruption: Interruption,
    models: bool = True,
    say_here: Callable[[str], None] = print,
) -> tuple[Driver, Uploader]:
    from tune_rsst.driver import assemble
    from tune_rsst.tracking.uploader import Uploader

    settings, folder = plan.settings, plan.folder
    uploader = Uploader(folder, settings.flat(), files=models)
    about = {**plan.record(), "seed": settings.seed, "versions": provenance.versions(), **origin()}
    begun = bool(ledger.events)
    driver = assemble(
        ledger,
        settings,
        plan.space,
        plan.weights,
        conditional=plan.conditional,
        about=about,
        interruption=interruption,
        followers=[uploader, storage] if storage else [uploader],
        say=say_here,
    )
    driver.searcher.mlflow_runs = uploader.run_ids
    if begun:
        driver.reopen(plan.again)
        if plan.more_trials:
            driver.record("extended", trials=settings.trials, by=plan.more_trials)
        own = {name: value for name, value in without_secrets(settings.flat()).items() if name in RUN_ONLY}
        driver.record("resumed", versions=provenance.versions(), settings=own, home=str(folder.path.parent))
    uploader.start(UPLOAD_AFTER_S)
    return driver, uploader


def _parts(driver: Driver | Confirmation, say_here: Callable[[str], None]) -> Iterator[Driver | Confirmation]:
    """What there is to run, one part after the other: a sweep's trials, then the runs that confirm its best."""
    from tune_rsst.driver import Driver

    if not driver.complete:
        yield driver
    halt = driver.interruption
    if halt.broken or halt.problem or halt.terminated or not driver.complete or not isinstance(driver, Driver):
        return
    if (wanted := confirmed.owed(driver.view, driver.settings)) is not None:
        say_here(confirmed.begin(driver.view, wanted))
        yield driver.repeat(wanted)


def _train(plan: Plan, driver: Driver | Confirmation, console: Console, runner: Runner | None = None) -> None:
    """Let the runner run what the driver gives out, to the end or to an interruption."""
    parts, interruption = _parts(driver, partial(say, console)), driver.interruption
    if interruption.broken or (first := next(parts, None)) is None:
        return
    try:
        with ExitStack() as place:
            if runner is None:
                runner = place.enter_context(on_ray(plan, first, partial(say, console)))
            else:
                place.enter_context(interruption.listening())
            for part in chain([first], parts):
                with LiveTable(part.view, part.total, console, plan.folder, part.called) as table:
                    runner(part, table.tick)
                    table.tick(force=True)
    except KeyboardInterrupt:
        interruption.cut = True
    except ConfigError:
        raise
    except Exception as error:
        logging.getLogger(__name__).debug("the sweep broke off", exc_info=True)
        interruption.fail(why(error))


@contextmanager
def on_ray(
    plan: Plan,
    driver: Driver | Confirmation,
    say_here: Callable[[str], None],
    trainable: Callable[[], type] | None = None,
) -> Iterator[Runner]:
    """The sweep's Ray, local or a cluster, for as long as the context lasts. Yields the runner that uses it.

    `trainable` gives the class that runs a trial (None: SweepTrainable); it is called where Ray may be imported.
    """
    where = "the cluster" if ray_cluster.address(plan.settings) else "a local Ray"
    left = f"{driver.remaining} of {driver.total} {driver.called} to run"
    say_here(f"Sweep {plan.folder.name}: {left}; starting {where} …\nFolder: {plan.folder.path}")
    workers = capacity.workers_at_first(plan.settings, driver.runs_left)
    try:
        with (
            local_ray.ray_folder() as ray_folder,
            ray_cluster.connected(plan.settings, str(ray_folder), driver.interruption, workers),
        ):
            yield partial(_fit, plan, say_here, trainable)
    finally:
        local_ray.forget_sessions()


def _fit(
    plan: Plan,
    say_here: Callable[[str], None],
    trainable: Callable[[], type] | None,
    driver: Driver | Confirmation,
    tick: Tick,
) -> None:
    from tune_rsst.runners.ray_tune import SweepTrainable, fit

    on_cluster = ray_cluster.address(plan.settings) is not None
    nodes = capacity.alive_nodes()
    cpus, gpus = _resources(plan, driver, nodes, say_here)
    if on_cluster:
        nodes = capacity.wait_for_room(cpus, gpus, say_here)
    at_once = capacity.trials_at_once(plan.settings, cpus, gpus, nodes, cluster=on_cluster)
    if on_cluster:
        preflight.check_a_worker(plan, cpus, gpus, say_here)
    runs_trials = trainable() if trainable else SweepTrainable
    with nullcontext() if on_cluster else local_ray.plain_workers():
        fit(driver, plan.folder, {"CPU": cpus, "GPU": gpus}, at_once, tick, runs_trials, plan.dense_meet)


def _resources(
    plan: Plan, driver: Driver | Confirmation, nodes: Sequence[capacity.Node], say_here: Callable[[str], None]
) -> tuple[float, float]:
    """CPUs and GPUs of a trial; auto is measured on a worker, with a GPU if there is one, and recorded."""
    cpus, gpus = plan.settings.cpus_per_trial, plan.settings.gpus_per_trial
    if cpus != "auto" and gpus != "auto":
        return float(cpus), float(gpus)
    import ray

    from trainables.rsst.measure import CHILD_LIMIT_S, measure_in_child
    from tune_rsst.planning.estimate import largest_trial
    from tune_rsst.runners import resources

    config, node = largest_trial(plan), capacity.roomiest(nodes)
    on_gpu = gpus != 0 and node.get("GPU", 0) >= 1
    task = ray.remote(num_cpus=1, num_gpus=1 if on_gpu else 0, max_calls=1)(measure_in_child)
    try:
        found = ray.get(task.remote(config), timeout=CHILD_LIMIT_S + 60)
    except ray.exceptions.RayTaskError as error:  # it is the task's own error too, but prints the worker's stack
        raise error.cause from None
    decided = resources.resolve(cpus, gpus, found, config.num_threads, node)
    if plan.settings.gpu_hours_budget is not None and not decided[1]:
        valid = "given where trials get a GPU; gpus_per_trial = auto gave them none"
        raise ConfigError("gpu_hours_budget", plan.settings.gpu_hours_budget, valid)
    driver.record("measured", cpus_per_trial=decided[0], gpus_per_trial=decided[1], measured=asdict(found))
    memory = f"{found.peak_mib:,.0f} MiB" + (f", {found.gpu_mib:,.0f} MiB on the GPU" if on_gpu else "")
    say_here(f"Measured: a trial's step takes {memory}; each trial gets {decided[0]:g} CPU and {decided[1]:g} GPU")
    return decided
