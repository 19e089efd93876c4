"""The error of both packages for bad input: one line, exit code 2."""

from __future__ import annotations

from typing import Any

from trainables.text import LONGEST_LINE, shown


class ConfigError(ValueError):
    """Bad input, in one line: key, value, what is valid, what to do. The fields are as they were given."""

    def __init__(self, key: str, value: object, valid: str, hint: str = "") -> None:
        self.key, self.value, self.valid, self.hint = key, value, valid, hint
        said = f"valid is {valid}" + (f"; {hint}" if hint else "")
        super().__init__(f"{shown(key)} = {shown(value)}: {shown(said, LONGEST_LINE)}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.value, self.valid, self.hint)
