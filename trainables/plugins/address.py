"""What stands in a knob or a setting for a plug-in, and what people are shown of it.

In: what the user wrote: path/to/file.py:function, or the name of an entry point. Out: the same with the digest of its
source, which is the value from then on: FILE:function@DIGEST or NAME@DIGEST. Nothing is executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points

from trainables.errors import ConfigError
from trainables.plugins.source import Code
from trainables.storage.files import expanded
from trainables.text import shown

GROUPS: Mapping[str, str] = {
    "criteria": "tune_rsst.criteria",
    "RST_schedule": "tune_rsst.ramps",
    "dataset": "tune_rsst.datasets",
    "stopping": "tune_rsst.stopping",
    "objective": "tune_rsst.objectives",
}
"""Knob or setting that takes plug-ins → group of their entry points."""
FORM = "path/to/file.py:function"
ARRAYS = "arrays"
"""Name of a data set that was given in Python: its digest is over images and labels, there is no code."""
_STAND_IN: dict[str, str] = {}
_VALUE = re.compile(r"(?:(?P<file>.+\.py):)?(?P<name>[A-Za-z_][\w.-]*)(?:@(?P<digest>[0-9a-f]{16}))?", re.S)


@dataclass(frozen=True)
class Address:
    """A plug-in's value, taken apart. `file` is None for an entry point; `name` is its own, or that of the function."""

    file: str | None
    name: str
    digest: str | None

    @classmethod
    def of(cls, value: str) -> Address | None:
        """None where `value` has not the form of one: without a digest only a file can be told from other words."""
        found = _VALUE.fullmatch(value)
        if found is None or not (found["file"] or found["digest"]):
            return None
        return cls(found["file"], found["name"], found["digest"])

    @property
    def main(self) -> str:
        """The name of its file; empty for an entry point."""
        return (self.file or "").replace("\\", "/").rpartition("/")[2]

    @property
    def short(self) -> str:
        """For people: FILE:function, or the name of the entry point."""
        return f"{self.main}:{self.name}" if self.file else self.name

    @property
    def identity(self) -> str:
        """The same for equal sources, wherever their file lies and whatever it is called."""
        return f"{self.name}@{self.digest}"


def is_plugin(value: object) -> bool:
    """Whether a value of a knob or a setting is a plug-in's."""
    return isinstance(value, str) and Address.of(value) is not None


def has_digest(value: str) -> bool:
    """Whether a plug-in's value says which source it is."""
    found = Address.of(value)
    return found is not None and found.digest is not None


def said(value: object) -> str:
    """The value for people: a plug-in by its name (an objective's with min: or max:), anything else as text."""
    text = str(value)
    direction, _, rest = text.partition(":")
    if direction in ("min", "max") and is_plugin(rest):
        return f"{direction}:{said(rest)}"
    found = Address.of(text) if isinstance(value, str) else None
    return text if found is None else found.short


def named(key: str, value: str, known: Sequence[str], written: str = "") -> str:
    """The value of `key` with its digest, where it is a plug-in; itself where it is one of `known`.

    What has a digest already is not looked for again. `written`: what the user wrote, where `value` is a part of it.
    """
    if value in known:
        return value
    found, entries = Address.of(value), entries_of(key)
    if found is None and value in entries:
        return f"{value}@{read(key, Address(None, value, None)).digest}"
    if found is None:
        names = [*known, *entries]
        close = get_close_matches(value, names, n=1)
        raise ConfigError(
            key, written or value, " or ".join([*names, FORM]), f"did you mean {close[0]}?" if close else ""
        )
    if found.digest:
        return value
    place = expanded(str(found.file))
    if digest := _STAND_IN.get(f"{place}:{found.name}"):
        return f"{place}:{found.name}@{digest}"
    return f"{place}:{found.name}@{read(key, Address(str(place), found.name, None)).digest}"


def stand_in(address: Address) -> None:
    """From now on its file and function mean its digest, whatever lies there: a copy is trusted in its place."""
    _STAND_IN[f"{address.file}:{address.name}"] = str(address.digest)


def read(key: str, address: Address) -> Code:
    """The source that lies there now."""
    try:
        if address.file:
            return Code.at(expanded(address.file))
        entry = entries_of(key).get(address.name)
        if entry is None and (key, address.name) == ("dataset", ARRAYS):
            raise ValueError("these images were given in Python: give them again, trainables.rsst.run(config, data)")
        if entry is None:
            raise ValueError(f"nothing that is installed has it in the group {GROUPS[key]}")
        return Code.installed(entry.module)
    except (OSError, ValueError, SyntaxError, ImportError) as error:
        reason = getattr(error, "strerror", None) or shown(error)
        raise ConfigError(key, address.short, f"{FORM}, or an entry point, that can be read", reason) from None


def entries_of(key: str) -> dict[str, EntryPoint]:
    """What installed packages offer for `key`, by name."""
    return {entry.name: entry for entry in entry_points(group=GROUPS[key])}
