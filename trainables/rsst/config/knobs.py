"""What a knob is: its description, how a text becomes its value, and the one line a bad value gets.

In: a knob and a value from a flag, a YAML file or a search space.
Out: the value in the knob's type, or a `ConfigError`.
The knobs themselves stand in config.py.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from typing import Any

from trainables.errors import ConfigError
from trainables.terminal import is_text

Check = tuple[str, Callable[[Any], bool]]
Condition = tuple[str, Callable[[Any], bool]]
"""When a knob acts, in words that follow "acts with", and whether it does so in an `RSSTConfig`."""


@dataclass(frozen=True)
class Knob:
    """What the rest of the program may know about one knob.

    default         None where it depends on arch, dataset or pretrained (see presets.py)
    in_fingerprint  whether it changes the trial's numbers
    acts_when       it acts in such configurations alone; None: in all
    same_as         the value that gives the same numbers in a given `RSSTConfig`; None: its own
    unit            of a number; "" where it has none
    short           a shorter name for heads of tables and names of runs; "": its own
    path            a path on this machine
    of_the_run      belongs to the run rather than to the search: it may change from one resume to the next
    of_the_images   which images, and how they are split, depends on it
    single_run      only for a trial that runs alone; a sweep decides it itself
    in_rerun        needed to run the same trial again
    decides_presets  the guide's values of other knobs depend on it
    """

    name: str
    type: type
    optional: bool
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    check: Check | None = None
    in_fingerprint: bool = True
    acts_when: Condition | None = None
    same_as: Callable[[Any], Any] | None = None
    unit: str = ""
    short: str = ""
    path: bool = False
    of_the_run: bool = False
    of_the_images: bool = False
    single_run: bool = False
    in_rerun: bool = True
    decides_presets: bool = False

    def acts(self, config: Any) -> bool:
        """Whether it does anything in this configuration."""
        return self.acts_when is None or self.acts_when[1](config)

    @property
    def heading(self) -> str:
        """The name with its unit, for heads of columns and axes."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


def table_of(declared: Any) -> dict[str, Knob]:
    """The knobs that the fields of a dataclass declare, by name."""
    hints = typing.get_type_hints(declared)
    table = {}
    for f in fields(declared):
        parts = [t for t in typing.get_args(hints[f.name]) or (hints[f.name],) if t is not type(None)]
        optional = len(typing.get_args(hints[f.name])) > 1
        default = None if f.default is MISSING else f.default
        table[f.name] = Knob(f.name, parts[0], optional, default, **f.metadata)
    return table


def converted(knob: Knob, value: Any) -> Any:
    """`value` as the knob's type. Strings are read ("1e-3", "true"); a float that is whole counts as an int."""
    if value is None or (knob.optional and isinstance(value, str) and value.lower() in ("none", "null", "")):
        if knob.optional:
            return None
        raise ConfigError(knob.name, value, _type_name(knob), "leave the key out to get the default")
    try:
        if knob.type is bool:
            if isinstance(value, bool):
                return value
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[str(value).lower()]
        if isinstance(value, bool):
            raise ValueError
        if knob.type is int:
            if isinstance(value, int) or (isinstance(value, str) and value.lstrip("+-").isdecimal()):
                return int(value)  # not by way of a float, which has 53 bits
            if not float(value).is_integer():
                raise ValueError
            return int(float(value))
        if knob.type is float:
            number = float(value)
            if not math.isfinite(number):
                raise ValueError
            return number + 0.0  # -0.0 is 0.0
    except (KeyError, ValueError, TypeError, OverflowError):
        raise ConfigError(knob.name, value, _type_name(knob)) from None
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ConfigError(knob.name, value, _type_name(knob))
    if not is_text(str(value)) or "\0" in str(value):
        raise ConfigError(knob.name, value, "a text in UTF-8 without zero bytes")
    return str(value)


def _type_name(knob: Knob) -> str:
    if knob.choices:
        return " or ".join(knob.choices)
    return {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}[knob.type]


def check_range(knob: Knob, value: Any) -> None:
    """Raise a ConfigError unless `value` (None passes) is one of the knob's choices and within its check."""
    if value is None:
        return
    if knob.choices and value not in knob.choices:
        close = get_close_matches(str(value), knob.choices, n=1)
        raise ConfigError(knob.name, value, " or ".join(knob.choices), f"did you mean {close[0]}?" if close else "")
    if knob.check is not None and not knob.check[1](value):
        raise ConfigError(knob.name, value, knob.check[0])
