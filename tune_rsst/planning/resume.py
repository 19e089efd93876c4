"""How an interrupted or finished sweep is planned again: resumed, extended, or with its failed trials retried.

In: the name of a sweep, or its settings. Out: a `Plan`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from trainables.rsst.config import METHOD_VERSION, ConfigError, RSSTConfig
from trainables.rsst.data.load import load as load_images
from tune_rsst.ledger.lock import driving
from tune_rsst.ledger.spending import BUDGETS, limits, used_up
from tune_rsst.ledger.view import SweepView, data_key
from tune_rsst.planning.plan import Finished, Plan, checked, with_addresses
from tune_rsst.search.pretrained import SweepWeights
from tune_rsst.settings import addresses
from tune_rsst.settings.resolved import resolve
from tune_rsst.settings.settings import HERE, RUN_ONLY, SINCE, SweepSettings, settings_names
from tune_rsst.storage import bucket, home
from tune_rsst.storage.folder import Sweep


def extension(name: str, more_trials: int, written: Mapping[str, Any] = MappingProxyType({})) -> Plan:
    """The plan to run `more_trials` more trials of the sweep `name`, finished or interrupted.

    `written`: settings of this run (RUN_ONLY) that differ from the last one's.
    """
    sweep, lines = _brought(Sweep.of(home.find(name)))
    settings, points = _settings_of_this_run(sweep, written, "extend"), len(sweep.view.points)
    if settings.sampler == "grid" and settings.trials + more_trials > points:
        valid = f"at most {points - settings.trials}: the grid has {points} points"
        raise ConfigError("extend", more_trials, valid, "what lies between them needs another grid, in a new sweep")
    settings = settings.model_copy(update={"trials": settings.trials + more_trials})
    return replace(_planned_again(sweep, settings, written, lines), more_trials=more_trials)


def second_try(name: str, trials: Sequence[str], written: Mapping[str, Any] = MappingProxyType({})) -> Plan:
    """The plan to run failed trials of the sweep again from their checkpoints: `trials`, else all that may succeed.

    `written`: as in `extension`.
    """
    sweep, lines = _brought(Sweep.of(home.find(name)))
    failed = [trial.trial for trial in sweep.view.trials.values() if trial.state == "failed"]
    if other := sorted(set(trials) - set(failed)):
        raise ConfigError("retry", other[0], f"a failed trial of {name}: {', '.join(failed) or 'there is none'}")
    if not failed:
        raise ConfigError("retry", name, "a sweep with failed trials", "it has none")
    again = tuple(t for t in failed if t in trials or not (trials or sweep.view.trials[t].fails_again))
    if not again:
        hint = f"{', '.join(failed)} would fail in the same way: name those that shall be tried nevertheless"
        raise ConfigError("retry", name, "a sweep with failed trials that may succeed", hint)
    settings = _settings_of_this_run(sweep, written, "retry")
    return replace(_planned_again(sweep, settings, written, lines), again=again)


def confirmation(name: str, written: Mapping[str, Any] = MappingProxyType({})) -> Plan:
    """The plan to repeat trials of the sweep `name`, which nobody runs now: its settings, as for a resume.

    `written`: `trust`, where the user says so.
    """
    folder = home.find(name)
    with driving(folder.path):
        pass  # else the line that says that it is run
    sweep, lines = _brought(Sweep.of(folder))
    if not sweep.view.count("finished"):
        raise ConfigError("confirm", sweep.name, "a sweep with finished trials", "it has none yet")
    return _planned_again(sweep, settings_again(sweep, written), written, lines)


def go_on(sweep: Sweep, written: Mapping[str, Any], lines: Sequence[str] = ()) -> Plan | Finished:
    """The plan to resume `sweep`. Settings that are given again must be as they were, apart from RUN_ONLY."""
    if "storage" not in written:
        sweep, more = _brought(sweep)
        lines = [*lines, *more]
    settings, finished = settings_again(sweep, written), sweep.state == "finished"
    if finished and not written.keys() - (RUN_ONLY - {"data"}):
        return Finished(sweep, settings, "\n".join(lines) or None)
    plan = _planned_again(sweep, settings, written, lines)
    if not finished and (sweep.view.unfinished or len(sweep.view.trials) < settings.trials):
        spent = used_up(sweep.view.spending, dict(settings))
        return Finished(sweep, plan.settings, plan.note, spent) if spent else plan
    return Finished(sweep, plan.settings, plan.note) if finished else plan


def how_to_resume(written: Mapping[str, Any], flag: bool) -> str:
    """never, auto or must. The flag without a name resumes a sweep if there is one (`make sweep` relies on it)."""
    how = str(written.get("resume", "never")).lower()
    if flag and how == "never":
        if "resume" in written:
            raise ConfigError("resume", "never", "auto or must together with --resume", "leave one of the two out")
        return "must" if written.get("name") and not (home.home() / str(written["name"])).is_dir() else "auto"
    if how not in ("never", "auto", "must"):
        raise ConfigError("resume", written["resume"], "never, auto or must")
    return how


def refuse_to_begin(name: object) -> None:
    if name is None:
        valid = f"a home with an interrupted sweep in it; {home.home()} has none"
        raise ConfigError("resume", "must", valid, "resume=auto begins a new one there")
    known = ", ".join(f.name for f in home.sweeps()[-5:]) or "none"
    hint = f"sweeps there: {known}; resume=auto or no --resume begins it"
    raise ConfigError("name", name, f"a sweep in {home.home()}, to go on with", hint)


def bring(written: Mapping[str, Any]) -> list[str]:
    """Copy sweeps from the given bucket, if any, into the home. Returns lines for the user."""
    lines: list[str] = []
    if address := resolve({"storage": written.get("storage")}).storage:
        name = written.get("name")
        bucket.bring(address, str(name) if name else None, lines.append)
    return lines


def to_resume(name: str | None) -> Sweep | None:
    """The named sweep, or the newest that is neither finished nor running; None if there is none."""
    known = (Sweep.of(folder) for folder in reversed(home.sweeps()) if name in (None, folder.name))
    return next((sweep for sweep in known if name or sweep.state == "interrupted"), None)


def _brought(sweep: Sweep) -> tuple[Sweep, list[str]]:
    """The sweep as its own bucket has it, if it has one; lines for the user."""
    address = sweep.view.settings.get("storage")
    if not address:
        return sweep, []
    lines = bring({"storage": address, "name": sweep.name})
    return Sweep.of(sweep.folder, sweep.lines), lines


def settings_again(sweep: Sweep, written: Mapping[str, Any]) -> SweepSettings:
    """The settings of `sweep`, with its addresses as they are now, and with what is written."""
    old, began_in = {**sweep.view.settings, "name": sweep.name}, sweep.view.start.get("home", "")
    defaults = {  # if the home has moved, they move with it
        "mlflow_tracking_uri": f"sqlite:///{began_in}/mlflow.db",
        "optuna_storage": f"sqlite:///{began_in}/{sweep.name}/optuna.db",
    }
    old = {"first": "none", **old}  # sweeps of before that was a setting
    kept = {k: v for k, v in old.items() if not (v is None and k in settings_names()) and defaults.get(k) != v}
    settings = resolve({**kept, **addresses.with_passwords(kept), **written})
    if "pruning_times" in old and "target_density" not in written and "target_density" not in old:
        settings.fixed.pop("target_density", None)
    return with_addresses(settings, sweep.folder)


def _planned_again(sweep: Sweep, settings: SweepSettings, written: Mapping[str, Any], lines: Sequence[str]) -> Plan:
    """The plan to run `sweep` with `settings`, of which only those of a run may differ from what it began with."""
    view, name = sweep.view, sweep.name
    _refuse_other_method(name, view)
    bucket.check(settings.storage)
    weights = SweepWeights.recalled(view.start.get("weights", ()), sweep.folder.weights)
    plan = checked(settings, sweep.folder, weights=weights, sweep=sweep, note="\n".join(lines) or None)
    old, new = ({**SINCE, **flat} for flat in ({**view.settings, "name": name}, plan.settings.flat()))
    changed = [f"{k} ({old.get(k)} → {new.get(k)})" for k in written if k not in RUN_ONLY and old.get(k) != new.get(k)]
    if plan.space_digest != view.start["space_digest"]:
        changed.append(f"space ({settings.space} gives other trials than it did when the sweep began)")
    if changed:
        hint = "leave these out, or start a new sweep without --resume"
        if changed == [f"trials ({old['trials']} → {new['trials']})"]:
            hint = f"for more trials: tune-rsst extend {name} N"
        raise ConfigError("--resume", name, f"the settings it began with; it differs in {', '.join(changed)}", hint)
    _refuse_other_data(view, plan.settings, "data" in written)
    return plan


def _settings_of_this_run(sweep: Sweep, written: Mapping[str, Any], command: str) -> SweepSettings:
    """As `settings_again`; `written` may hold settings of a run alone, and they must leave something to spend."""
    allowed = RUN_ONLY - {"name", "resume"}
    if other := sorted(written.keys() - allowed):
        valid = f"not given to `tune-rsst {command}`, which takes {', '.join(sorted(allowed))}"
        raise ConfigError(other[0], written[other[0]], valid)
    settings = settings_again(sweep, written)
    for name, limit in limits(dict(settings)).items():
        if used_up(sweep.view.spending, {name: limit}):
            spent = BUDGETS[name].words(BUDGETS[name].spent(sweep.view.spending), None)
            valid = f"above the {spent} that the sweep has spent, or none"
            raise ConfigError(name, f"{limit:g}", valid, f"add {name}=MORE to this command")
    return settings


def _refuse_other_method(name: str, view: SweepView) -> None:
    if view.method != METHOD_VERSION:
        hint = f"its results stay readable (tune-rsst show, report, export {name}); start a new sweep to train"
        valid = f"a sweep of method {METHOD_VERSION}, not {view.method}: their trials give other numbers"
        raise ConfigError("name", name, valid, hint)


def _refuse_other_data(view: SweepView, settings: SweepSettings, moved: bool) -> None:
    """A resume may find its data in another folder (`moved`), never other data.

    Where this machine, as the driver of a cluster, does not have the images, the check is left to the workers.
    """
    here = {name: value for name, value in settings.fixed.items() if name in HERE}
    for trial in {data_key(t.knobs): t for t in view.trials.values() if t.data_digest}.values():
        try:
            found = load_images(RSSTConfig.from_knobs({**trial.knobs, **here})).digest
        except ConfigError:
            if moved:
                raise
            continue
        if found != trial.data_digest:
            valid = f"the images that the sweep began with (digest {trial.data_digest}, not {found})"
            raise ConfigError("data", settings.fixed.get("data"), valid, "put them back, or start a new sweep")
