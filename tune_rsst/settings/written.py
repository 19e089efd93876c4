"""Which settings a user gave: in a YAML file and on the command line.

In: a file and `key=value` words. Out: settings by name.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import Any

from trainables.plain_yaml import LARGEST, YamlError, mapping_in, value_of
from trainables.rsst.config import KNOBS, ConfigError
from trainables.storage.files import regular_bytes
from tune_rsst.settings.settings import settings_names

HEAD, SEAL = "# Settings of the sweep ", "# CRC-32 of the lines below: "
KNOBS_OF_A_SWEEP = tuple(name for name, knob in KNOBS.items() if not knob.single_run)


def given(file: Path | None, overrides: Sequence[str]) -> dict[str, Any]:
    """What the user wrote, merged: the file, then the overrides. Checks names, not values."""
    found: dict[str, Any] = {}
    if file is not None:
        try:
            found = mapping_in(file)
        except OSError as error:
            raise ConfigError("file", file, f"a YAML file that can be read ({error.strerror})") from None
        except YamlError as error:
            raise ConfigError("file", file, "a YAML mapping of key: value", str(error)) from None
        if "trust" in found:
            raise ConfigError("trust", found["trust"], "said on the command line", "a file can't vouch for itself")
    for item in overrides:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise ConfigError("override", item, "key=value", "the settings file comes first and ends in .yaml or .yml")
        try:
            found[name.strip()] = value_of(text)
        except YamlError as error:
            raise ConfigError(name, text, "a value as YAML has it", str(error)) from None
    for name, value in found.items():
        _known(name, value)
    return found


def from_python(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings given as Python's objects: None is `none`, a path its text, NumPy's numbers are numbers."""
    for name, value in settings.items():
        _known(name, value)
    return {name: _plain(name, value) for name, value in settings.items()}


def _plain(name: str, value: Any) -> Any:
    """`value` as a YAML file would give it."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return [_plain(name, one) for one in value]
    if isinstance(value, dict) and name == "points":
        return {key: one if one is None else _plain(name, one) for key, one in value.items()}
    if isinstance(value, PurePath):
        return str(value)
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):  # a number of NumPy's or torch's
        value = value.item()
    if not isinstance(value, str | int | float):
        raise ConfigError(name, value, "a text, a number, True, False or None")
    return value


def sealed(head: str, text: str) -> str:
    """A settings file: `head`, a comment that says what the `text` below it was when it was written, and the text."""
    return f"{head}{SEAL}{zlib.crc32(text.encode()):08x}\n{text}"


def written_by_us(file: Path) -> dict[str, Any]:
    """What a sweep's settings file holds, where nobody has changed it since; those of earlier versions have no seal."""
    try:
        content = regular_bytes(file, LARGEST).decode()
    except OSError as error:
        raise ConfigError("file", file, f"the settings that the sweep wrote ({error.strerror})") from None
    except UnicodeDecodeError:
        content = SEAL
    _, mark, rest = content.partition(SEAL)
    if mark and rest[:9] != f"{zlib.crc32(rest[9:].encode()):08x}\n":
        raise ConfigError("file", file, "the settings as the sweep wrote them", "somebody or something has changed it")
    if not mark and not content.startswith(HEAD):
        raise ConfigError("file", file, "the settings as the sweep wrote them", "it is another file")
    found = given(file, [])
    if not mark and not {"space", "trials"} <= found.keys():
        raise ConfigError("file", file, "the settings as the sweep wrote them", "a part of it is missing")
    return found


def written_in(words: Sequence[str] | None, **options: Any) -> dict[str, Any]:
    """`given` of a command line: FILE.yaml first, where there is one, then key=value, then options that were said."""
    rest = list(words or [])
    file = Path(rest.pop(0)) if rest and rest[0].endswith((".yaml", ".yml")) and "=" not in rest[0] else None
    said = {name: value for name, value in options.items() if value}
    for name, value in given(None, rest).items():
        if name in said and str(said[name]) != str(value):
            raise ConfigError(name, said[name], f"one value; {name}={value} was said too", "say it once")
    return {**given(file, rest), **said}


def _known(name: str, value: Any) -> None:
    names = [*settings_names(), *KNOBS_OF_A_SWEEP]
    if name in KNOBS and name not in names:
        raise ConfigError(name, value, "not a setting of a sweep", "a sweep keeps its trials below TUNE_RSST_HOME")
    if name not in names:
        close = get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "`tune-rsst settings` lists them"
        raise ConfigError(name, value, "a setting of the sweep or a knob of a trial", hint)
    lists = ("rungs", "warm_start", "points")
    if (isinstance(value, dict) and name != "points") or (isinstance(value, list | tuple) and name not in lists):
        raise ConfigError(name, value, "one value; all settings are in one flat list")
