"""How a new sweep is planned: its folder, its space, what it takes over from earlier sweeps.

In: settings. Out: a `Plan`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.config.models import NAMED, few_tokens, grid_words
from tune_rsst.planning.plan import Finished, Plan, checked, where_sqlite_is_unsafe, with_addresses
from tune_rsst.planning.resume import bring, go_on, how_to_resume, refuse_to_begin, to_resume
from tune_rsst.planning.warm_start import gather
from tune_rsst.settings.resolved import resolve
from tune_rsst.settings.settings import SweepSettings
from tune_rsst.storage import bucket, home
from tune_rsst.storage.folder import SweepFolder

LONGEST_WORD = 60
LEARN_FROM_EARLIER = ("tpe", "gp")


def make_plan(written: Mapping[str, Any], name: str | None, resume: bool) -> Plan | Finished:
    """Decide what to run. `resume` is the bare flag: resume=must for a named sweep, resume=auto without a name."""
    written = {**written, **({"name": name} if name else {})}
    how = how_to_resume(written, resume)
    if how == "never":
        return new_plan(written)
    lines = bring(written)
    if (sweep := to_resume(written.get("name"))) is not None:
        return go_on(sweep, written, lines)
    if how == "must":
        refuse_to_begin(written.get("name"))
    return new_plan(written, begins_instead=True)


def new_plan(written: Mapping[str, Any], *, begins_instead: bool = False) -> Plan:
    """The plan of a new sweep. `begins_instead`: there was none to resume, and its note says so."""
    settings = resolve(written)
    if settings.shared_group is not None:
        home.share(settings.shared_group)
    bucket.check(settings.storage)
    folder = _new_folder(settings)
    settings = with_addresses(settings.model_copy(update={"name": folder.name}), folder)
    if settings.warm_start and settings.sampler not in LEARN_FROM_EARLIER:
        valid = f"{' or '.join(LEARN_FROM_EARLIER)} with warm_start"
        raise ConfigError("sampler", settings.sampler, valid, "this one draws without looking at former trials")
    notes = [f"nothing to go on with in {home.home()}: a new sweep, {folder.name}"] if begins_instead else []
    notes += where_sqlite_is_unsafe(settings)
    plan = checked(settings, folder)
    notes += _grids(plan.draws)
    if plan.source is not None and home.home().resolve() in plan.source.path.resolve().parents:
        notes.append(f"space = {settings.space} lies in TUNE_RSST_HOME: to go on with this sweep needs --trust")
    notes += plan.weights.lines()
    warm = gather(plan.settings, plan.space, plan.weights)
    notes += [line for line in (plan.note, warm.line) if line]
    return replace(plan, warm=warm, note="\n".join(notes) or None)


def _grids(draws: Iterable[RSSTConfig]) -> list[str]:
    """What the trials' models see, where timm's configuration decides it, and where it is too coarse."""
    lines = {f"{c.arch}: {grid_words(c)}": None for c in draws if c.arch not in NAMED}
    return [*lines, *{f"WARNING {line}": None for c in draws if (line := few_tokens(c))}]


def _new_folder(settings: SweepSettings) -> SweepFolder:
    if settings.name is not None:
        path = home.home() / settings.name
        here = any(known.name == settings.name for known in home.sweeps())
        if here or bucket.holds(settings.storage, settings.name):
            raise ConfigError("name", settings.name, "the name of no sweep yet", "add --resume to go on with that one")
        home.refuse_taken(settings.name)
        return SweepFolder(path)
    word = re.sub(r"[^A-Za-z0-9]+", "-", settings.space.rpartition(":")[2]).strip("-")[:LONGEST_WORD] or "sweep"
    base = f"{word}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = [base, *(f"{base}-{n}" for n in range(2, 1000))]
    return SweepFolder(next(home.home() / n for n in names if not (home.home() / n).exists()))
