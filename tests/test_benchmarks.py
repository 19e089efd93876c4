"""Every benchmark can be started: nothing that it names has moved away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

IMPORT = "import importlib, sys; [importlib.import_module(f'benchmarks.{name}') for name in sys.argv[1:]]"


@pytest.mark.medium
def test_every_benchmark_imports_what_it_needs(repo_root: Path) -> None:
    names = sorted(path.stem for path in (repo_root / "benchmarks").glob("*.py") if path.stem != "__init__")
    program = [sys.executable, "-c", IMPORT, *names]
    done = subprocess.run(program, cwd=repo_root, capture_output=True, text=True, timeout=120, check=False)
    assert len(names) > 15 and done.returncode == 0, done.stderr
