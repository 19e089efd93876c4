"""Rooms and levels of the packages: what imports what, counted between folders.

    python -m benchmarks.rooms [tune_rsst] [trainables.rsst]

A room is a folder of the package, or a module in its root. Imports for types only are not counted, those inside
functions are. A room's level is 1 + the highest level of the rooms that it imports.
"""

from __future__ import annotations

import argparse
from collections import Counter

import grimp


def rooms(package: str) -> Counter[tuple[str, str]]:
    """(importing room, imported room) → imports between their modules."""
    graph = grimp.build_graph(package.split(".")[0], exclude_type_checking_imports=True)
    inside = [module for module in graph.modules if module.startswith(f"{package}.")]
    found: Counter[tuple[str, str]] = Counter()
    for module in inside:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = room(package, module), room(package, imported)
            if imported.startswith(f"{package}.") and pair[0] != pair[1]:
                found[pair] += 1
    return found


def room(package: str, module: str) -> str:
    """The first name below the package."""
    return module.removeprefix(f"{package}.").split(".")[0]


def levels(pairs: Counter[tuple[str, str]]) -> dict[str, int]:
    """Each room's level; rooms that import nothing are on level 1.

    Raises:
        ValueError: rooms import each other in a ring.
    """
    below = {name: {lower for upper, lower in pairs if upper == name} for pair in pairs for name in pair}
    found: dict[str, int] = {}
    while len(found) < len(below):
        ready = [name for name, lower in below.items() if name not in found and lower <= found.keys()]
        if not ready:
            raise ValueError(f"a ring among {sorted(below.keys() - found.keys())}")
        found |= {name: 1 + max((found[lower] for lower in below[name]), default=0) for name in ready}
    return found


def main() -> None:
    """Print the rooms of each package by level, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", default=["tune_rsst", "trainables.rsst"])
    for package in parser.parse_args().packages:
        pairs = rooms(package)
        level = levels(pairs)
        print(
            f"{package}: {len(level)} rooms on {max(level.values())} levels, {len(pairs)} pairs of rooms import, "
            f"{sum(pairs.values())} imports between them"
        )
        for name in sorted(level, key=lambda one: (-level[one], one)):
            into = ", ".join(f"{lower} {n}" for (upper, lower), n in sorted(pairs.items()) if upper == name)
            print(f"  {level[name]:2d} {name:12} {into}")


if __name__ == "__main__":
    main()
