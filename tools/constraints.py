"""The constraints for `make setup`: those of constraints.txt, but a torch that is installed already stays.

    .venv/bin/python tools/constraints.py > .venv/constraints.txt

A torch (a CPU build, a vendor's) whose version pyproject.toml allows is pinned to what it is, and its torchvision too.
CUDA's libraries and triton, which come with torch alone, are pinned no more, nor is a torchvision that is not there
yet: pip then takes one that fits. Without torch, and with the very torch of constraints.txt, nothing changes.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
KEPT = ("torch", "torchvision")
OF_TORCH = re.compile(r"(torch|torchvision|triton|(nvidia|cuda)-(?!ml-py)[\w-]+)==")


def installed() -> dict[str, str]:
    """Version of each of KEPT that this environment has."""
    found = {}
    for name in KEPT:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def adapted(lines: list[str], allowed: list[Requirement], there: Mapping[str, str]) -> list[str]:
    """`lines` of constraints where `there` (name → version) stays, as far as `allowed`."""
    ranges = {canonicalize_name(one.name): one.specifier for one in allowed}
    stays = {name: its for name, its in there.items() if ranges[name].contains(its, prereleases=True)}
    if "torch" not in stays or f"torch=={stays['torch']}" in lines:
        return lines
    return [*(line for line in lines if not OF_TORCH.match(line)), *(f"{name}=={its}" for name, its in stays.items())]


def main() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    there = installed()
    found = adapted(lines, [Requirement(line) for line in project["dependencies"]], there)
    if found != lines:
        print(f"torch {there['torch']} is here and stays", file=sys.stderr)
    print("\n".join(found))


if __name__ == "__main__":
    main()
