"""How a sweep ends: what is written, uploaded and printed; and what a kill in the last moment left out is added.

In: the plan and the driver. Out: the exit code.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from trainables.storage.secrets import hide_password
from tune_rsst.interrupt import Interruption, why
from tune_rsst.ledger.lock import driving
from tune_rsst.ledger.view import SweepView
from tune_rsst.planning.plan import Finished, Plan
from tune_rsst.results import best, commands
from tune_rsst.results.confirmed.table import failed, owed
from tune_rsst.results.table import print_confirmed, print_table, say
from tune_rsst.storage.bucket import SweepStorage, held
from tune_rsst.storage.folder import Sweep

if TYPE_CHECKING:
    from tune_rsst.driver import Confirmation, Driver
    from tune_rsst.tracking.uploader import Uploader

UPLOAD_AT_END_S, UPLOAD_AT_INTERRUPT_S = 120.0, 20.0
STORE_AT_END_S, STORE_AT_INTERRUPT_S = 120.0, 10.0


def finish_again(finished: Finished, console: Console) -> int:
    """A sweep that has ended, or whose budget has: write and upload what a kill left out, then show it."""
    from tune_rsst.tracking.uploader import Uploader

    sweep, folder, settings = finished.sweep, finished.sweep.folder, finished.settings
    with driving(folder.path), held(settings.storage, folder, partial(say, console), Interruption()) as storage:
        shutil.rmtree(folder.tune, ignore_errors=True)
        if not best.best_is_written(sweep):
            best.write_best(sweep)
        uploader = Uploader(folder, settings.flat())
        if uploader.missing():
            uploader.sync_once(UPLOAD_AT_END_S)
        if storage is not None:
            storage.start()
            if problem := storage.close(STORE_AT_END_S):
                say(console, _not_stored(sweep, problem))
                return 1
    say(console, commands.why_at_rest(folder, sweep.view, finished.spent))
    return show_table(sweep, console)


def _shortfall(plan: Plan, driver: Driver) -> str | None:
    """Why an exhausted space gave fewer trials than asked for, or None."""
    there, asked = len(driver.view.trials), plan.settings.trials
    if not driver.exhausted or there >= asked:
        return None
    if plan.settings.sampler == "grid":
        return f"the grid gave {there} of {asked} trials; the rest of its points breaks a limit, or was there already"
    over = "" if not driver.view.infeasible else ", or known to break a limit"
    return (
        f"the space gave {there} of {asked} trials, then only configurations that were there already or not valid{over}"
    )


def _not_stored(sweep: Sweep, problem: str) -> str:
    return f"{problem}; this writes the rest there: {commands.resume(sweep.folder, sweep.view.settings)}"


def conclude(
    plan: Plan, driver: Driver, uploader: Uploader, storage: SweepStorage | None, console: Console, models: bool = True
) -> int:
    """Write the end into the ledger, upload the rest, print. Another Ctrl-C only cuts the uploads short.

    Without `models` there are no files of the best trial to write.
    """
    interruption = driver.interruption
    with interruption.ignored():
        try:  # before the end is recorded: a sweep that is finished has its files
            if models:
                best.write_best(Sweep(plan.folder, driver.view, "running"))
        except OSError as error:
            interruption.break_off(f"the best trial's files could not be written ({error})")
        if interruption.cut and driver.complete and not interruption.broken:
            _tell_the_last(driver, console)
        if not interruption.broken:
            _record_the_end(driver, interruption.problem or _shortfall(plan, driver) or driver.halted)
    over = _over(driver)
    at_rest = over or driver.halted is not None
    unstored, missing = _closed(uploader, storage, at_rest)
    if not interruption.broken:
        _name_runs(driver, console)
    if over and not interruption.broken:
        code = show_table(Sweep(plan.folder, driver.view, "finished"), console)
        if short := _shortfall(plan, driver):
            say(console, f"The sweep is shorter than asked: {short}")
            code = code if driver.view.trials else 1
    elif (why := driver.halted) and not (interruption.problem or interruption.terminated):
        code = show_table(Sweep(plan.folder, driver.view, "interrupted"), console)
        say(console, f"\n{commands.why_at_rest(plan.folder, driver.view, why)}")
    else:
        code = interruption.exit_code
        _say_how_to_go_on(plan, driver, console)
    lacking = _say_what_is_missing(plan, driver.view, uploader, unstored, missing, console)
    return code or lacking


def conclude_confirmation(
    plan: Plan,
    driver: Confirmation,
    view: SweepView,
    uploader: Uploader,
    storage: SweepStorage | None,
    console: Console,
    models: bool = True,
) -> int:
    """As `conclude`, of `tune-rsst confirm`: best.yaml and the best model are those of what it has chosen by now."""
    interruption = driver.interruption
    with interruption.ignored():
        try:
            if models:
                best.write_best(Sweep(plan.folder, view, "running"))
        except OSError as error:
            interruption.break_off(f"the best trial's files could not be written ({error})")
        if not interruption.broken:
            driver.interrupted(interruption.problem)
    unstored, missing = _closed(uploader, storage, driver.complete)
    sweep = Sweep(plan.folder, view, view.state(running=False))
    print_confirmed(console, sweep)
    code = 3 if failed(view) else 0
    if not driver.complete or interruption.broken:
        code = interruption.exit_code
        head = f"It broke off: {interruption.problem}. " if interruption.problem else "Interrupted. "
        ended = f"{driver.total - driver.remaining} of {driver.total} runs have ended"
        say(console, f"{head}{ended}; nothing is lost. Go on with: {commands.confirm(sweep)}")
    lacking = _say_what_is_missing(plan, view, uploader, unstored, missing, console)
    return code or lacking


def _closed(uploader: Uploader, storage: SweepStorage | None, at_rest: bool) -> tuple[str | None, int]:
    """Send the rest to bucket and MLflow: why the bucket does not have all, lines that MLflow does not have."""
    unstored: str | None = "interrupted before the bucket had everything" if storage else None
    missing = 1
    with suppress(KeyboardInterrupt):
        unstored = storage.close(STORE_AT_END_S if at_rest else STORE_AT_INTERRUPT_S) if storage else None
    with suppress(KeyboardInterrupt):
        missing = uploader.close(UPLOAD_AT_END_S if at_rest else UPLOAD_AT_INTERRUPT_S)
    return unstored, missing


def _tell_the_last(driver: Driver, console: Console) -> None:
    """A sweep that has ended is never resumed, which would tell the study of the trial that ended last."""
    from tune_rsst.search.study import StudySearcher

    try:
        StudySearcher.sync(driver.searcher, driver.view, driver.rungs)  # waits for no database
    except Exception as error:  # noqa: BLE001  (whatever the database's driver raises)
        say(console, f"Optuna's study may lack the trial that ended last ({why(error)})")


def _name_runs(driver: Driver, console: Console) -> None:
    """Tell Optuna's study the runs in MLflow that came too late for its trials. Nothing depends on it."""
    try:
        driver.searcher.name_runs()
    except Exception as error:  # noqa: BLE001  (whatever the database's driver raises)
        reason = hide_password(str(error).splitlines()[0]) if str(error) else type(error).__name__
        say(console, f"Optuna's study does not name every run in MLflow ({reason})")


def _say_what_is_missing(
    plan: Plan, view: SweepView, uploader: Uploader, unstored: str | None, missing: int, console: Console
) -> int:
    """1 where the bucket does not have everything, else 0."""
    if unstored:
        say(console, _not_stored(Sweep(plan.folder, view, "interrupted"), unstored))
    if uploader.refused:
        say(console, f"MLflow refused a part of what it was sent ({uploader.refused[-1]}); the ledger has it")
    if missing:
        reason = f" ({uploader.problems[-1]})" if uploader.problems else ""
        sync = commands.tune_rsst(plan.folder, "sync", plan.folder.name)
        say(console, f"MLflow does not have everything yet{reason}; this uploads the rest: {sync}")
    return 1 if unstored else 0


def _over(driver: Driver) -> bool:
    """Whether all trials have ended, and all runs that confirm the best of them."""
    return driver.complete and owed(driver.view, driver.settings) is None


def _record_the_end(driver: Driver, reason: str | None) -> None:
    driver.leave()
    if _over(driver):
        driver.record("sweep_ended", **({"reason": reason} if reason else {}))
    elif reason or not driver.interruption.written:
        driver.record("interrupted", **({"reason": reason} if reason else {}))


def _say_how_to_go_on(plan: Plan, driver: Driver, console: Console) -> None:
    problem = driver.interruption.problem
    command = dict(commands.next_commands(Sweep(plan.folder, driver.view, "interrupted")))
    ended = len(driver.view.trials) - len(driver.view.unfinished)
    head = f"The sweep broke off: {problem}. " if problem else "Interrupted. "
    counted = f"{ended} of {plan.settings.trials} trials have ended"
    if driver.complete and (wanted := owed(driver.view, driver.settings)):
        counted += f", {len(wanted.left(driver.view))} runs that confirm the best are left"
    say(console, f"{head}{counted}; nothing is lost. Go on with: {command[commands.RESUME]}")


def show_table(sweep: Sweep, console: Console) -> int:
    print_table(console, sweep)
    return 3 if sweep.view.count("failed") else 0
