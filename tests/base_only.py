"""Lets this process import what the base of pyproject.toml brings, and nothing else that is installed.

`import tests.base_only` first. Forbidden is every installed top-level module that no distribution of the base holds.
"""

from __future__ import annotations

import sys
from importlib.metadata import packages_distributions
from types import ModuleType
from typing import Any

from benchmarks.install_size import canonical, needed, project

OURS_HERE = {"trainables", "tests", "benchmarks"}


def forbidden(*more: str) -> set[str]:
    """Top-level modules of this environment that a fresh one with the base (and `more`) alone does not have."""
    base = needed([*project()[0], *more])
    return {
        module
        for module, distributions in packages_distributions().items()
        if not base & {canonical(name) for name in distributions} and module not in OURS_HERE
    }


class BaseOnly:
    """A finder that finds what another one does, but nothing forbidden."""

    def __init__(self, finder: Any, names: set[str]) -> None:
        self._finder, self._names = finder, names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        return None if name.partition(".")[0] in self._names else self._finder.find_spec(name, path, target)


NAMES = forbidden()
for loaded in [name for name in sys.modules if name.partition(".")[0] in NAMES]:
    del sys.modules[loaded]
sys.meta_path[:] = [BaseOnly(finder, NAMES) for finder in sys.meta_path]
