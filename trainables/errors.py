"""The error of both packages for bad input: one line, exit code 2."""

from __future__ import annotations

from typing import Any


class ConfigError(ValueError):
    """Bad input, in one line: key, value, what is valid, what to do."""

    def __init__(self, key: str, value: object, valid: str, hint: str = "") -> None:
        self.key, self.value, self.valid, self.hint = key, value, valid, hint
        super().__init__(f"{key} = {value}: valid is {valid}" + (f"; {hint}" if hint else ""))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.value, self.valid, self.hint)
