"""How much the base and each extra install: distributions and bytes, as this environment has them.

    python -m benchmarks.install_size

What an extra needs is followed through the metadata of what is installed; files are those that the installer wrote
down, without `.pyc`: pip makes these and uv does not. An extra that is not installed here is left out.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
OURS = "tune-rsst"
OF_A_GPU = re.compile(r"(nvidia|cuda)-|triton$")
NOT_FOR_USERS = ("bench", "dev")


def project() -> tuple[list[str], dict[str, list[str]]]:
    """The requirements of the base, and those of each extra."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found["dependencies"], found["optional-dependencies"]


def canonical(name: str) -> str:
    """One spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(requirements: Iterable[str]) -> set[str]:
    """The distributions that `requirements` bring, over all levels, those of our own extras included.

    Raises:
        PackageNotFoundError: one of them is not installed.
    """
    found: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    due = [Requirement(line) for line in requirements]
    while due:
        wanted = due.pop()
        name, extras = canonical(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name == OURS:
            due += [Requirement(line) for extra in extras for line in project()[1][extra]]
            continue
        found.add(name)
        environments = [{"extra": extra} for extra in ("", *extras)]
        for line in distribution(name).requires or []:
            needs = Requirement(line)
            if needs.marker is None or any(map(needs.marker.evaluate, environments)):
                due.append(needs)
    return found


def mib(distributions: Iterable[str]) -> float:
    """What their files take, without `.pyc`."""
    there = ((name, file) for name in distributions for file in distribution(name).files or ())
    files = [Path(str(distribution(name).locate_file(file))) for name, file in there if file.suffix != ".pyc"]
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


def rows() -> Iterator[tuple[str, int, float]]:
    """(what, distributions, MiB): the base, of it what serves a GPU alone, then base and extra for each extra."""
    base, extras = project()
    ours = needed(base)
    yield "base", len(ours), mib(ours)
    for_gpus = {name for name in ours if OF_A_GPU.match(name)}
    yield "  of it CUDA's libraries and triton", len(for_gpus), mib(for_gpus)
    for extra, lines in extras.items():
        if extra in NOT_FOR_USERS:
            continue
        try:
            more = needed(lines) - ours
        except PackageNotFoundError as missing:
            print(f"{extra}: {missing.name} is not installed here", file=sys.stderr)
            continue
        yield f"{extra} adds", len(more), mib(more)


def main() -> None:
    print(f"{'':<38}{'distributions':>14}{'MiB':>9}")
    for what, count, size in rows():
        print(f"{what:<38}{count:>14}{size:>9,.0f}")


if __name__ == "__main__":
    main()
