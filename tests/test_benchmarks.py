"""Every benchmark can be started: nothing that it names has moved away."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest


@pytest.mark.medium
def test_every_benchmark_imports_what_it_needs(repo_root: Path) -> None:
    names = sorted(path.stem for path in (repo_root / "benchmarks").glob("*.py") if path.stem != "__init__")
    found = [importlib.import_module(f"benchmarks.{name}") for name in names]
    assert len(names) > 15 and all(module.__doc__ for module in found)
