"""What `tune-rsst sweep` is about to do: a new sweep or one that goes on, checked before anything is written.

Comes in: the settings that the user wrote, --name and --resume. Goes out: a `Plan`. A resumed sweep keeps the settings
of its ledger; what the user writes again must be the same, apart from the settings of a run (config.RUN_ONLY).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data import load as load_images
from trainables.system_metrics import INSTALL, missing_library
from tune_rsst import config, home, objective, spaces, storage
from tune_rsst.config import HERE, RUN_ONLY, SweepSettings
from tune_rsst.filesystem import network_filesystem
from tune_rsst.home import PASSWORD_IN, PASSWORD_MARK, SweepFolder
from tune_rsst.ledger import is_running
from tune_rsst.plan_checks import refuse_unsuitable_data, refuse_what_is_no_model, where_sqlite_is_unsafe
from tune_rsst.pretrained import SweepWeights
from tune_rsst.results import load
from tune_rsst.spaces import Space
from tune_rsst.tracking import check_tracking_uri
from tune_rsst.view import SweepView, data_key
from tune_rsst.warm_start import WarmStart, gather

LEARN_FROM_FORMER = ("tpe", "gp")


@dataclass(frozen=True)
class Plan:
    """A sweep that can be run: settings are complete, the space gives valid trials, the weights were found.

    `starts`: what its trials will begin from, pretrained, scratch or both. `again`: failed trials to be tried again.
    """

    settings: SweepSettings
    space: Space
    space_digest: str
    conditional: bool
    folder: SweepFolder
    weights: SweepWeights
    resumes: bool
    finished: bool = False
    note: str | None = None
    more_trials: int = 0
    warm: WarmStart = field(default_factory=WarmStart)
    starts: tuple[str, ...] = ()
    again: tuple[str, ...] = ()


def make_plan(written: Mapping[str, Any], name: str | None, resume: bool) -> Plan:
    """Decide what to run. `resume` is the bare flag: as resume=must for a named sweep, as resume=auto without a name.

    Raises:
        ConfigError: bad input, a name that is taken, nothing to go on with, a resume that would change the search.
        LedgerError: the ledger of the sweep to resume is damaged.
    """
    written = {**written, **({"name": name} if name else {})}
    how = _how_to_resume(written, resume)
    said = _bring(written) if how != "never" else []
    target = _to_resume(written.get("name")) if how != "never" else None
    if target is not None:
        return _resumed(target, written, said=said)
    if how == "must":
        _refuse_to_begin(written.get("name"))
    settings = config.resolve(written)
    _ask_again_for_passwords(settings)
    storage.check(settings.storage)
    folder = _new_folder(settings)
    settings = settings.model_copy(update={"name": folder.name, **_addresses(settings, folder)})
    if settings.warm_start and settings.sampler not in LEARN_FROM_FORMER:
        valid = f"{' or '.join(LEARN_FROM_FORMER)} with warm_start"
        raise ConfigError("sampler", settings.sampler, valid, "this one draws without looking at former trials")
    notes = [f"nothing to go on with in {home.home()}: a new sweep, {folder.name}"] if how != "never" else []
    notes += where_sqlite_is_unsafe(settings)
    plan = _checked(settings, folder, note="\n".join(notes) or None)
    return replace(plan, warm=gather(plan.settings, plan.space, plan.weights))


def extension(name: str, more_trials: int) -> Plan:
    """The plan to go on with the sweep `name`, finished or interrupted, by `more_trials` trials more.

    Raises:
        ConfigError: there is no such sweep.
        LedgerError: its ledger is damaged.
    """
    return _resumed(home.find(name), {}, more_trials=more_trials)


def second_try(name: str, trials: Sequence[str]) -> Plan:
    """The plan to run failed trials of the sweep `name` again, from their checkpoints: all of them, or `trials`.

    Raises:
        ConfigError: there is no such sweep, or one of the trials has not failed.
        LedgerError: the sweep's ledger is damaged.
    """
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


def _checked(
    settings: SweepSettings,
    folder: SweepFolder,
    *,
    weights: SweepWeights | None = None,
    resumes: bool = False,
    note: str | None = None,
) -> Plan:
    objective.check(settings)
    if settings.system_metrics and (missing := missing_library()):
        raise ConfigError("system_metrics", True, f"false, or {missing} installed on every node", INSTALL)
    space = objective.sized(spaces.find(settings.space), settings)
    drawn = list(spaces.samples(space, settings.fixed_in_trials, spaces.VALIDATION_DRAWS))
    if any(not draw.params for draw, _ in drawn):
        hint = "every knob in it is fixed: free one, or run it with python -m trainables"
        raise ConfigError("space", space.address, "a space with something to search", hint)
    spaces.check_parameters(space, settings.fixed_in_trials)
    refuse_unsuitable_data(found for _, found in drawn)
    refuse_what_is_no_model(found for _, found in drawn)
    settings = config.with_checked_knobs(settings, drawn[0][1].knobs())
    weights = weights or SweepWeights()
    weights.look_for(found for _, found in drawn)
    starts = tuple(sorted({"pretrained" if weights.complete(c).weights_digest else "scratch" for _, c in drawn}))
    objective.check_sampler(settings.sampler, conditional := len({frozenset(draw.params) for draw, _ in drawn}) > 1)
    return Plan(settings, space, space.digest(), conditional, folder, weights, resumes, note=note, starts=starts)


def _addresses(settings: SweepSettings, folder: SweepFolder) -> dict[str, str]:
    """Where the records go, with the defaults filled in. The study needs no file: the ledger makes it anew."""
    default = "memory" if network_filesystem(folder.path) else folder.study
    return {
        "mlflow_tracking_uri": check_tracking_uri(settings.mlflow_tracking_uri or home.default_tracking_uri()),
        "optuna_storage": settings.optuna_storage or os.environ.get("OPTUNA_STORAGE") or default,
    }


def _new_folder(settings: SweepSettings) -> SweepFolder:
    if settings.name is not None:
        path = home.home() / settings.name
        here = any(known.name == settings.name for known in home.sweeps())
        if here or storage.holds(settings.storage, settings.name):
            raise ConfigError("name", settings.name, "the name of no sweep yet", "add --resume to go on with that one")
        return SweepFolder(path)
    word = settings.space.rpartition(":")[2]
    base = f"{word}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = [base, *(f"{base}-{n}" for n in range(2, 1000))]
    return SweepFolder(next(home.home() / n for n in names if not (home.home() / n).exists()))


def _bring(written: Mapping[str, Any]) -> list[str]:
    """What lies in the bucket that the user named comes into the home. Lines to say."""
    said: list[str] = []
    if address := config.resolve({"storage": written.get("storage")}).storage:
        name = written.get("name")
        storage.bring(address, str(name) if name else None, said.append)
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
    settings = config.resolve({**kept, **home.with_passwords(kept), **written})
    if "pruning_times" in old and "target_density" not in written and "target_density" not in old:
        settings.fixed.pop("target_density", None)
    _ask_again_for_passwords(settings)
    settings = settings.model_copy(update=_addresses(settings, folder))
    if more_trials:
        settings = settings.model_copy(update={"trials": settings.trials + more_trials})
    elif state == "finished" and not reopened and not written.keys() - RUN_ONLY:
        space = Space(settings.space, lambda trial: {})
        return Plan(settings, space, "", False, folder, SweepWeights(), resumes=True, finished=True, note=note)
    storage.check(settings.storage)
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

    Raises:
        ConfigError: the images are not those that the sweep's trials began with.
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


def _ask_again_for_passwords(settings: SweepSettings) -> None:
    for name in PASSWORD_IN:
        value = getattr(settings, name)
        if value and PASSWORD_MARK in value:
            raise ConfigError(
                name, value, "an address with its password", f"passwords are not kept: set {PASSWORD_IN[name]} again"
            )
