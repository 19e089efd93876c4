"""The plug-ins of a sweep: which code a plan may run for them, and that it does what it must.

In: settings, trials drawn from its space, and the sweep that goes on, if one does. Out: what to copy into the sweep.
The rule is that of a space's file (trainables/user_code/source.py, `to_run`): who begins a sweep names the file. Who
goes on with one runs a file outside the home that has the digest still, or, where `trust` is said, the sweep's copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables import plugins
from trainables.plugins import Address, Permission, has_digest, plugins_in
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.pruning import own_parts
from trainables.user_code.source import Source
from tune_rsst.ledger.objective import Aim
from tune_rsst.planning import plugin_checks
from tune_rsst.settings.settings import SweepSettings
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep, SweepFolder


def in_settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The plug-ins in a mapping of settings and knobs: (name, value)."""
    return plugins_in({**settings, "objective": Aim.of(str(settings.get("objective", ""))).plugin})


@dataclass
class OwnPlugins:
    """The plug-ins of a plan: (name, value) → the files behind it, where they are to be copied into the sweep."""

    permission: Permission
    found: dict[tuple[str, str], Source | None] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: SweepSettings, folder: SweepFolder, sweep: Sweep | None) -> OwnPlugins:
        """Those of the settings and of the trials that there are; before the space is asked, which may name them.

        A knob of a new sweep has no digest by then: it gets one with the other checks of its value, and is `tried`.
        """
        goes_on = sweep is not None
        permission = Permission([folder.code] if goes_on else [], home.home() if goes_on else None, settings.trust)
        made = cls(permission)
        there = [trial.knobs for trial in sweep.view.trials.values()] if sweep else []
        for values in (settings.flat(), *there):
            made._permit(values)
        return made

    def _permit(self, values: Mapping[str, Any]) -> None:
        for used in in_settings(values):
            if used not in self.found and has_digest(used[1]):
                self.found[used] = self.permission.grant(*used)

    def tried(self, settings: SweepSettings, draws: Sequence[RSSTConfig]) -> Sequence[Source]:
        """The files behind all plug-ins, those of `draws` too; each has been called on something small.

        From here on this process may run them, whatever becomes of their files.
        """
        for values in (settings.flat(), *(config.knobs() for config in draws)):
            self._permit(values)
        plugin_checks.check(settings)
        for config in {tuple(plugins_in(c.knobs())): c for c in draws}.values():
            own_parts.check(config)
        return [source for source in self.found.values() if source is not None]


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


def _in_the_home(address: Address) -> bool:
    return address.file is not None and home.home().resolve() in Path(address.file).resolve().parents
