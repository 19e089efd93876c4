"""What `tune-rsst sweep` is about to do: a new sweep or one that goes on, checked before anything is written.

Comes in: the settings that the user wrote, --name and --resume. Goes out: a `Plan`. A resumed sweep keeps the settings
of its ledger; what the user writes again must be the same, apart from the settings of a run (config.RUN_ONLY).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data import describe
from tune_rsst import config, home, spaces
from tune_rsst.config import RUN_ONLY, SweepSettings
from tune_rsst.home import SweepFolder
from tune_rsst.ledger import is_running
from tune_rsst.pretrained import SweepWeights
from tune_rsst.results import load
from tune_rsst.spaces import Space
from tune_rsst.tracking import check_tracking_uri

PASSWORD_MARK = ":***@"


@dataclass(frozen=True)
class Plan:
    """A sweep that can be run: settings are complete, the space gives valid trials, the weights were found."""

    settings: SweepSettings
    space: Space
    space_digest: str
    conditional: bool
    folder: SweepFolder
    weights: SweepWeights
    resumes: bool
    finished: bool = False
    note: str | None = None


def make_plan(written: Mapping[str, Any], name: str | None, resume: bool) -> Plan:
    """Decide what to run.

    Raises:
        ConfigError: bad input, a name that is taken, a resume that would change the search.
        LedgerError: the ledger of the sweep to resume is damaged.
    """
    written = {**written, **({"name": name} if name else {})}
    target = _to_resume(written.get("name")) if resume else None
    if target is not None:
        return _resumed(target, written)
    settings = config.resolve(written)
    folder = _new_folder(settings)
    settings = settings.model_copy(update={"name": folder.name, **_addresses(settings, folder)})
    note = f"nothing to go on with in {home.home()}: a new sweep, {folder.name}" if resume else None
    return _checked(settings, folder, note=note)


def _checked(
    settings: SweepSettings,
    folder: SweepFolder,
    *,
    weights: SweepWeights | None = None,
    resumes: bool = False,
    note: str | None = None,
) -> Plan:
    space = spaces.find(settings.space)
    drawn = list(spaces.samples(space, settings.fixed, spaces.VALIDATION_DRAWS))
    if any(not draw.params for draw, _ in drawn):
        hint = "every knob in it is fixed: free one, or run it with python -m trainables"
        raise ConfigError("space", space.address, "a space with something to search", hint)
    _refuse_unsuitable_data(found for _, found in drawn)
    settings = config.with_checked_knobs(settings, drawn[0][1].knobs())
    weights = weights or SweepWeights()
    weights.look_for(found for _, found in drawn)
    conditional = len({frozenset(draw.params) for draw, _ in drawn}) > 1
    return Plan(settings, space, space.digest(), conditional, folder, weights, resumes, note=note)


def _refuse_unsuitable_data(configs: Iterable[RSSTConfig]) -> None:
    """A sweep compares what was learned; a data set that is there for speed tests has nothing to learn."""
    for dataset, folder in {(c.dataset, c.data) for c in configs}:
        if not describe(dataset, folder).sweepable:
            raise ConfigError("dataset", dataset, "a data set with something to learn", "this one is for speed tests")


def _addresses(settings: SweepSettings, folder: SweepFolder) -> dict[str, str]:
    """Where the records go, with the defaults filled in."""
    return {
        "mlflow_tracking_uri": check_tracking_uri(settings.mlflow_tracking_uri or home.default_tracking_uri()),
        "optuna_storage": settings.optuna_storage or folder.study,
    }


def _new_folder(settings: SweepSettings) -> SweepFolder:
    if settings.name is not None:
        path = home.home() / settings.name
        if any(known.name == settings.name for known in home.sweeps()):
            raise ConfigError("name", settings.name, "the name of no sweep yet", "add --resume to go on with that one")
        return SweepFolder(path)
    word = settings.space.rpartition(":")[2]
    base = f"{word}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = [base, *(f"{base}-{n}" for n in range(2, 1000))]
    return SweepFolder(next(home.home() / n for n in names if not (home.home() / n).exists()))


def _to_resume(name: str | None) -> SweepFolder | None:
    """The named sweep, or the newest that is neither finished nor running; None where there is none."""
    known = home.sweeps()
    if name is not None:
        return next((f for f in known if f.name == name), None)
    for folder in reversed(known):
        if not is_running(folder.path) and load(folder)[1] == "interrupted":
            return folder
    return None


def _resumed(folder: SweepFolder, written: Mapping[str, Any]) -> Plan:
    view, state = load(folder)
    old = {**view.settings, "name": folder.name}
    moved = _defaults_of(str(view.start.get("home", "")), folder.name)
    kept = {k: v for k, v in old.items() if not (v is None and k in config.settings_names()) and moved.get(k) != v}
    settings = config.resolve({**kept, **written})
    if "pruning_times" in old and "target_density" not in written and "target_density" not in old:
        settings.fixed.pop("target_density", None)
    _ask_again_for_passwords(settings)
    settings = settings.model_copy(update=_addresses(settings, folder))
    if state == "finished":
        space = Space(settings.space, lambda trial: {})
        return Plan(settings, space, "", False, folder, SweepWeights(), resumes=True, finished=True)
    weights = SweepWeights.recalled(view.start.get("weights", ()), folder.path / "weights")
    plan = _checked(settings, folder, weights=weights, resumes=True)
    new = plan.settings.flat()
    changed = [f"{k} ({old.get(k)} → {new.get(k)})" for k in written if k not in RUN_ONLY and old.get(k) != new.get(k)]
    if plan.space_digest != view.start["space_digest"]:
        changed.append(f"space ({settings.space} gives other trials than it did when the sweep began)")
    if changed:
        hint = "leave these out, or start a new sweep without --resume"
        raise ConfigError(
            "--resume", folder.name, f"the settings it began with; it differs in {', '.join(changed)}", hint
        )
    return plan


def _defaults_of(former_home: str, name: str) -> dict[str, str]:
    """The addresses that a sweep got by default in its home; where the home has been moved, they move with it."""
    return {
        "mlflow_tracking_uri": f"sqlite:///{former_home}/mlflow.db",
        "optuna_storage": f"sqlite:///{former_home}/{name}/optuna.db",
    }


def _ask_again_for_passwords(settings: SweepSettings) -> None:
    for name in ("optuna_storage", "mlflow_tracking_uri"):
        value = getattr(settings, name)
        if value and PASSWORD_MARK in value:
            raise ConfigError(
                name, value, "an address with its password", f"passwords are not kept: give {name}= again"
            )
