"""How an interrupted or finished sweep is planned again: resumed, extended, or with its failed trials retried.

In: the name of a sweep, or its settings. Out: a `Plan`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data.load import load as load_images
from tune_rsst.ledger.lock import is_running
from tune_rsst.ledger.view import SweepView, data_key
from tune_rsst.planning.plan import Plan, _addresses, _ask_again_for_passwords, _checked
from tune_rsst.search.pretrained import SweepWeights
from tune_rsst.search.spaces import Space
from tune_rsst.settings import addresses
from tune_rsst.settings import settings as config
from tune_rsst.settings.settings import HERE, RUN_ONLY, SweepSettings
from tune_rsst.storage import bucket, home
from tune_rsst.storage.folder import SweepFolder, load


def extension(name: str, more_trials: int) -> Plan:
    """The plan to go on with the sweep `name`, finished or interrupted, by `more_trials` trials more."""
    return _resumed(home.find(name), {}, more_trials=more_trials)


def second_try(name: str, trials: Sequence[str]) -> Plan:
    """The plan to run failed trials of the sweep `name` again, from their checkpoints: all of them, or `trials`."""
    folder = home.find(name)
    failed = [trial.trial for trial in load(folder)[0].trials.values() if trial.state == "failed"]
    if other := sorted(set(trials) - set(failed)):
        raise ConfigError("retry", other[0], f"a failed trial of {name}: {', '.join(failed) or 'there is none'}")
    if not failed:
        raise ConfigError("retry", name, "a sweep with failed trials", "it has none")
    return replace(_resumed(folder, {}, reopened=True), again=tuple(t for t in failed if t in trials or not trials))


def _how_to_resume(written: Mapping[str, Any], flag: bool) -> str:
    """never, auto or must. The flag without a name goes on where there is something (the contract of `make sweep`)."""
    how = str(written.get("resume", "never")).lower()
    if flag and how == "never":
        if "resume" in written:
            raise ConfigError("resume", "never", "auto or must together with --resume", "leave one of the two out")
        return "must" if written.get("name") and not (home.home() / str(written["name"])).is_dir() else "auto"
    if how not in ("never", "auto", "must"):
        raise ConfigError("resume", written["resume"], "never, auto or must")
    return how


def _refuse_to_begin(name: object) -> None:
    if name is None:
        valid = f"a home with an interrupted sweep in it; {home.home()} has none"
        raise ConfigError("resume", "must", valid, "resume=auto begins a new one there")
    known = ", ".join(f.name for f in home.sweeps()[-5:]) or "none"
    hint = f"sweeps there: {known}; resume=auto or no --resume begins it"
    raise ConfigError("name", name, f"a sweep in {home.home()}, to go on with", hint)


def _bring(written: Mapping[str, Any]) -> list[str]:
    """What lies in the bucket that the user named comes into the home. Lines to say."""
    said: list[str] = []
    if address := config.resolve({"storage": written.get("storage")}).storage:
        name = written.get("name")
        bucket.bring(address, str(name) if name else None, said.append)
    return said


def _to_resume(name: str | None) -> SweepFolder | None:
    """The named sweep, or the newest that is neither finished nor running; None where there is none."""
    known = home.sweeps()
    if name is not None:
        return next((f for f in known if f.name == name), None)
    for folder in reversed(known):
        if not is_running(folder.path) and load(folder)[1] == "interrupted":
            return folder
    return None


def _resumed(
    folder: SweepFolder,
    written: Mapping[str, Any],
    more_trials: int = 0,
    said: Iterable[str] = (),
    *,
    reopened: bool = False,
) -> Plan:
    view, state = load(folder)
    if (there := view.settings.get("storage")) and "storage" not in written:
        said = [*said, *_bring({"storage": there, "name": folder.name})]
        view, state = load(folder)
    note = "\n".join(said) or None
    old = {**view.settings, "name": folder.name}
    moved = _defaults_of(str(view.start.get("home", "")), folder.name)
    kept = {k: v for k, v in old.items() if not (v is None and k in config.settings_names()) and moved.get(k) != v}
    settings = config.resolve({**kept, **addresses.with_passwords(kept), **written})
    if "pruning_times" in old and "target_density" not in written and "target_density" not in old:
        settings.fixed.pop("target_density", None)
    _ask_again_for_passwords(settings)
    settings = settings.model_copy(update=_addresses(settings, folder))
    if more_trials:
        settings = settings.model_copy(update={"trials": settings.trials + more_trials})
    elif state == "finished" and not reopened and not written.keys() - RUN_ONLY:
        space = Space(settings.space, lambda trial: {})
        return Plan(settings, space, "", False, folder, SweepWeights(), resumes=True, finished=True, note=note)
    bucket.check(settings.storage)
    weights = SweepWeights.recalled(view.start.get("weights", ()), folder.weights)
    plan = _checked(settings, folder, weights=weights, resumes=True, note=note)
    new = plan.settings.flat()
    changed = [f"{k} ({old.get(k)} → {new.get(k)})" for k in written if k not in RUN_ONLY and old.get(k) != new.get(k)]
    if plan.space_digest != view.start["space_digest"]:
        changed.append(f"space ({settings.space} gives other trials than it did when the sweep began)")
    if changed:
        hint = "leave these out, or start a new sweep without --resume"
        if changed == [f"trials ({old['trials']} → {new['trials']})"]:
            hint = f"for more trials: tune-rsst extend {folder.name} N"
        raise ConfigError(
            "--resume", folder.name, f"the settings it began with; it differs in {', '.join(changed)}", hint
        )
    _refuse_other_data(view, plan.settings, "data" in written)
    finished = state == "finished" and not more_trials and not reopened
    return replace(plan, more_trials=more_trials, finished=finished)


def _refuse_other_data(view: SweepView, settings: SweepSettings, moved: bool) -> None:
    """A resume may find its data in another folder, never other data.

    Without data= the check is left to the workers where this machine does not have the images (the driver of a
    cluster).
    """
    for trial in {data_key(t.knobs): t for t in view.trials.values() if t.data_digest}.values():
        here = {name: value for name, value in settings.fixed.items() if name in HERE}
        try:
            found = load_images(RSSTConfig.from_knobs({**trial.knobs, **here})).digest
        except ConfigError:
            if moved:
                raise
            continue
        if found != trial.data_digest:
            valid = f"the images that the sweep began with (digest {trial.data_digest}, not {found})"
            raise ConfigError("data", settings.fixed.get("data"), valid, "put them back, or start a new sweep")


def _defaults_of(former_home: str, name: str) -> dict[str, str]:
    """The addresses that a sweep got by default in its home; where the home has been moved, they move with it."""
    return {
        "mlflow_tracking_uri": f"sqlite:///{former_home}/mlflow.db",
        "optuna_storage": f"sqlite:///{former_home}/{name}/optuna.db",
    }
