"""What a reader of many files has to say: each kind of remark once, with its number and the first place.

In: remarks as they come up. Out: lines.
"""

from __future__ import annotations

import os
from pathlib import Path

from trainables.text import shown


class Remarks:
    """Remarks about files below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, what: str, place: Path | str) -> None:
        """One more of `what`, at a path or in words."""
        where = shown(place) if isinstance(place, str) else self.inside(place)
        count, first = self._found.get(what, (0, where))
        self._found[what] = (count + 1, first)

    def inside(self, path: Path) -> str:
        """`path` as seen from the root."""
        return shown(os.path.relpath(path, self._root))

    def lines(self) -> tuple[str, ...]:
        """Every kind of remark, in the order in which they came up first."""
        return tuple(
            f"{what}: {first}" if count == 1 else f"{what}: {count:,}, the first is {first}"
            for what, (count, first) in self._found.items()
        )
