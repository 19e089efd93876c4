"""How a new sweep is planned: its folder, its space, what it takes over from earlier sweeps.

In: settings. Out: a `Plan`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trainables.rsst.config import ConfigError
from tune_rsst.planning.plan import Plan, _addresses, _ask_again_for_passwords, _checked, where_sqlite_is_unsafe
from tune_rsst.planning.resume import _bring, _how_to_resume, _refuse_to_begin, _resumed, _to_resume
from tune_rsst.planning.warm_start import gather
from tune_rsst.settings import settings as config
from tune_rsst.settings.settings import SweepSettings
from tune_rsst.storage import bucket, home
from tune_rsst.storage.folder import SweepFolder

LEARN_FROM_FORMER = ("tpe", "gp")


def make_plan(written: Mapping[str, Any], name: str | None, resume: bool) -> Plan:
    """Decide what to run. `resume` is the bare flag: resume=must for a named sweep, resume=auto without a name."""
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
    bucket.check(settings.storage)
    folder = _new_folder(settings)
    settings = settings.model_copy(update={"name": folder.name, **_addresses(settings, folder)})
    if settings.warm_start and settings.sampler not in LEARN_FROM_FORMER:
        valid = f"{' or '.join(LEARN_FROM_FORMER)} with warm_start"
        raise ConfigError("sampler", settings.sampler, valid, "this one draws without looking at former trials")
    notes = [f"nothing to go on with in {home.home()}: a new sweep, {folder.name}"] if how != "never" else []
    notes += where_sqlite_is_unsafe(settings)
    plan = _checked(settings, folder, note="\n".join(notes) or None)
    return replace(plan, warm=gather(plan.settings, plan.space, plan.weights))


def _new_folder(settings: SweepSettings) -> SweepFolder:
    if settings.name is not None:
        path = home.home() / settings.name
        here = any(known.name == settings.name for known in home.sweeps())
        if here or bucket.holds(settings.storage, settings.name):
            raise ConfigError("name", settings.name, "the name of no sweep yet", "add --resume to go on with that one")
        return SweepFolder(path)
    word = settings.space.rpartition(":")[2]
    base = f"{word}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = [base, *(f"{base}-{n}" for n in range(2, 1000))]
    return SweepFolder(next(home.home() / n for n in names if not (home.home() / n).exists()))
