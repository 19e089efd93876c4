"""The plug-ins of a sweep: which code a plan may run for them, and that it does what it must.

In: settings, trials drawn from its space, and the sweep that goes on, if one does. Out: what to copy into the sweep.
The rule is that of a space's file (trainables/user_code/source.py, `to_run`): who begins a sweep names the file. Who
goes on with one runs a file outside the home that has the digest still, or, where `trust` is said, the sweep's copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainables import plugins
from trainables.plugins import Address
from trainables.rsst.config import ConfigError
from trainables.user_code.source import Source
from tune_rsst.ledger.objective import Aim
from tune_rsst.search import plugin_checks
from tune_rsst.settings.settings import SweepSettings
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep, SweepFolder

Used = tuple[str, str]
"""A setting or knob, and the plug-in that it holds."""


def in_settings(settings: Mapping[str, Any]) -> list[Used]:
    """The plug-ins in a mapping of settings and knobs."""
    values = {**settings, "objective": Aim.of(str(settings.get("objective", ""))).plugin}
    return [(key, values[key]) for key in plugins.GROUPS if plugins.is_plugin(values.get(key))]


def prepared(
    settings: SweepSettings, knobs: Iterable[Mapping[str, Any]], folder: SweepFolder, sweep: Sweep | None
) -> Sequence[Source]:
    """The files behind the plug-ins of the settings and of trials with `knobs`; each plug-in has been tried.

    From here on this process may run them, whatever becomes of their files.
    """
    found: dict[Used, Source | None] = {}
    for used in (one for values in (settings.flat(), *knobs) for one in in_settings(values)):
        if used not in found:
            found[used] = _allowed(*used, settings, folder, sweep)
    plugin_checks.check(settings)
    return [source for source in found.values() if source is not None]


def refuse_unasked(written: Mapping[str, Any], named: Iterable[str]) -> None:
    """`doctor` runs no plug-in that a settings file alone names; `named`: what the command line has, too."""
    for key in plugins.GROUPS.keys() - set(named) if not written.get("trust") else ():
        value = str(written.get(key, ""))
        if ".py:" in value:
            hint = f"add --trust, or {key}={value}, and its code is run"
            raise ConfigError(key, value, "named on the command line: doctor runs no code that a file names", hint)


def refuse_uncopied(settings: SweepSettings, folder: SweepFolder) -> None:
    """Refuse to run a plug-in unless the sweep in `folder` has a copy of it; the ledger tells nothing of it."""
    for key, value in in_settings(settings.flat()):
        address = Address.of(value)
        if address and address.file and (not (folder.code / str(address.digest)).is_dir() or _in_the_home(address)):
            valid = f"a file outside the home that {folder.code} has a copy of"
            raise ConfigError(key, address.short, valid, "put the file back as it was when the sweep began")


def _allowed(key: str, value: str, settings: SweepSettings, folder: SweepFolder, sweep: Sweep | None) -> Source | None:
    address = Address.of(value)
    assert address is not None and address.digest, "settings and knobs are checked"
    problem = None
    try:
        if sweep is not None and _in_the_home(address):
            raise ConfigError(key, address.short, "a file outside TUNE_RSST_HOME", "it may have come with the sweep")
        code = plugins.code_for(key, value)
    except ConfigError as error:
        problem = error
    if problem is not None:
        code = _copy(key, address, problem, settings, folder, sweep)
    plugins.remember([code])
    return Source.of(Path(address.file)) if address.file and problem is None else None


def _copy(
    key: str, address: Address, problem: ConfigError, settings: SweepSettings, folder: SweepFolder, sweep: Sweep | None
) -> plugins.Code:
    if sweep is None or not address.file:
        raise problem
    kept = plugins.copied(folder.code, address.file, str(address.digest))
    copy = folder.code / str(address.digest)
    if kept is not None and settings.trust:
        return kept
    hint = f"look at the sweep's copy, {copy}, and add --trust to run that" if kept else f"{copy} is gone or changed"
    valid = f"the file that the sweep began with, digest {address.digest}"
    raise ConfigError(key, address.short, valid, f"{problem.hint}: {hint}")


def _in_the_home(address: Address) -> bool:
    return address.file is not None and home.home().resolve() in Path(address.file).resolve().parents
