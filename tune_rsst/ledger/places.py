"""Addresses in records follow a home that was moved, copied, or is mounted somewhere else.

In: what a record holds, the home it was written in, the home it lies in now.
Out: the same, with every path and sqlite address below the old home put below the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BEFORE_A_PATH = ("", "sqlite:///", "file://")


def moved(value: Any, old: str, new: str) -> Any:
    """`value`, and whatever it holds, as it is to be read in the home `new`."""
    if isinstance(value, str):
        for prefix in BEFORE_A_PATH:
            if value == prefix + old or value.startswith(f"{prefix}{old}/"):
                return prefix + new + value.removeprefix(prefix + old)
        return value
    if isinstance(value, Mapping):
        return {name: moved(one, old, new) for name, one in value.items()}
    return [moved(one, old, new) for one in value] if isinstance(value, list) else value
