"""A space in a file of the user's: which file a plan runs, and what the sweep keeps of it.

In: settings, and the sweep that goes on, if one does. Out: the space, and its `Source`.
trainables/user_code/source.py has the rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainables.rsst.config import ConfigError
from trainables.user_code.source import Source, to_run
from tune_rsst.search.suggestions import Space, find
from tune_rsst.settings.settings import SweepSettings
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep, SweepFolder


def file_in(address: str) -> Path | None:
    """The file of a space at path/to/file.py:function; None of a published one or an installed module's."""
    place = address.rpartition(":")[0]
    return Path(place) if place.endswith(".py") else None


def refuse_unasked(written: Mapping[str, Any], named: bool) -> None:
    """`doctor` runs no code that a settings file alone names; `named`: the command line has the space, too."""
    space = str(written.get("space", ""))
    if file_in(space) and not named and not written.get("trust"):
        hint = f"add --trust, or space={space}, and its code is run"
        raise ConfigError("space", space, "named on the command line: doctor runs no code that a file names", hint)


def own_space(
    settings: SweepSettings, folder: SweepFolder, sweep: Sweep | None
) -> tuple[SweepSettings, Space, Source | None]:
    """The settings with the address that the sweep began with, the space to run, and its source, if it has one.

    A file that the user names now, in another place, is the same space where its digest is the same.
    """
    path = file_in(settings.space)
    if path is None:
        return settings, find(settings.space), None
    if sweep is None:
        return settings, find(settings.space), _source(settings.space, path)
    address, record = str(sweep.view.settings.get("space")), sweep.view.start.get("sources", {}).get("space")
    before, _, function = address.rpartition(":")
    if file_in(address) is None or settings.space.rpartition(":")[2] != function:
        return settings, find(settings.space), None  # another space: whoever compares the settings says so
    found = to_run("space", record, [path, Path(before)], folder.code, home.home(), settings.trust)
    space = replace(find(f"{found}:{function}"), address=address)
    return settings.model_copy(update={"space": address}), space, Source.of(found)


def refuse_uncopied(settings: SweepSettings, folder: SweepFolder) -> None:
    """Refuse to run a file unless the sweep in `folder` has a copy with its digest; the ledger tells nothing of it."""
    path = file_in(settings.space)
    if path is not None:
        try:
            known = (folder.code / Source.of(path).digest[:16]).is_dir()
        except (OSError, ValueError):
            known = False
        if not known or home.home().resolve() in path.resolve().parents:
            valid = f"a file outside the home that {folder.code} has a copy of"
            raise ConfigError("space", settings.space, valid, "put the file back as it was when the sweep began")


def _source(address: str, path: Path) -> Source:
    try:
        return Source.of(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError("space", address, "a file that can be copied into the sweep", reason) from None
