"""The error of both packages for bad input: one line, exit code 2. Which failures of a trial are certain."""

from __future__ import annotations

import re
from typing import Any

from trainables.text import LONGEST_LINE, shown

FAILS_AGAIN = "it would fail again: "
"""How the reason of a failed trial begins that no second try would help."""
_OF_THE_PROGRAM = (TypeError, ValueError, LookupError, ArithmeticError, AssertionError, AttributeError)


class ConfigError(ValueError):
    """Bad input, in one line: key, value, what is valid, what to do. The fields are as they were given."""

    def __init__(self, key: str, value: object, valid: str, hint: str = "") -> None:
        self.key, self.value, self.valid, self.hint = key, value, valid, hint
        said = f"valid is {valid}" + (f"; {hint}" if hint else "")
        super().__init__(f"{shown(key)} = {shown(value)}: {shown(said, LONGEST_LINE)}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.value, self.valid, self.hint)


class PluginError(RuntimeError):
    """A function of the user's raised, or gave what it must not; one line with its name."""


def certain(error: Exception) -> str | None:
    """The reason of a trial that fails so wherever it is tried: its numbers or its model; None where it may not.

    Files, memory, devices and other processes may be well again; bad input may be put right (`ConfigError`).
    """
    if isinstance(error, PluginError):
        return f"{FAILS_AGAIN}{error}"
    of_shapes = type(error) is RuntimeError and re.search(
        r"shapes? |size of tensor|must match the size|dtype", str(error)
    )
    if isinstance(error, ConfigError) or not (isinstance(error, _OF_THE_PROGRAM) or of_shapes):
        return None
    return f"{FAILS_AGAIN}{type(error).__name__}: {shown(error)}"
