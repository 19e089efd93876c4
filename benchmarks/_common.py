"""What the benchmarks share: progress with an estimate on stderr, results kept in JSON, tables, the figures' style.

In: numbers.
Out: text on stderr (progress), JSON files, Markdown tables, matplotlib axes.
No torch here.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainables.storage.files import replaced

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "figures"


class Progress:
    """One line a finished piece of work on stderr, with the time that is left at the pace so far."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total, self.done, self.began = name, total, 0, time.perf_counter()

    def step(self, what: str) -> None:
        """Say that one more of `total` pieces is done."""
        self.done += 1
        spent = time.perf_counter() - self.began
        left = spent / self.done * (self.total - self.done)
        line = f"{self.name} {self.done}/{self.total}  {what}  spent {spent:.0f} s, left about {left:.0f} s"
        print(line, file=sys.stderr, flush=True)


class Results:
    """Records in a JSON file, addressed by some of their keys; written after each, so that a run can go on later."""

    def __init__(self, path: Path, keys: Sequence[str], about: Mapping[str, Any]) -> None:
        self.path, self.keys, self._about = path, tuple(keys), dict(about)
        self.refresh()

    def refresh(self) -> None:
        """Read the file again: another process may have added to it."""
        stored = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {"records": []}
        self.about: dict[str, Any] = {**stored.get("about", {}), **self._about}
        self.records: list[dict[str, Any]] = stored["records"]

    def find(self, **address: Any) -> dict[str, Any] | None:
        """The record with exactly this address, or None."""
        wanted = self._address(address)
        return next((record for record in self.records if self._address(record) == wanted), None)

    def add(self, record: Mapping[str, Any]) -> None:
        """Keep a record beside all that the file holds by now; one process at a time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.path.parent):
            self.refresh()
            self.records.append(rounded(dict(record)))
            self._write()

    def _write(self) -> None:
        """Replace the file; one record a line."""
        lines = ",\n".join("  " + json.dumps(record, sort_keys=True) for record in self.records)
        about = json.dumps(rounded(self.about), sort_keys=True)
        with replaced(self.path) as new:
            new.write_text(f'{{"about": {about},\n "records": [\n{lines}\n]}}\n', encoding="utf-8")

    def _address(self, record: Mapping[str, Any]) -> str:
        return json.dumps([rounded(record.get(key)) for key in self.keys], sort_keys=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on `folder` itself."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def tree_of(commit: str, *names: str) -> Iterator[Path]:
    """What this clone's history has of `commit` (all of it, or the folders `names`), in a folder that goes again."""
    command = ["git", "archive", commit, *names]
    packed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=60).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


def rounded(value: Any) -> Any:
    """Floats to 6 significant digits, inside lists and dicts too: enough for every table, and files that stay small."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean."""
    return statistics.fmean(values)


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation; 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def percent(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard deviation of shares, as percent."""
    return f"{100 * mean(values):.{digits}f} ± {100 * spread(values):.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def pyplot() -> Any:
    """matplotlib.pyplot without a display, in this project's style (small, light, readable without colour alone)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.bbox": "tight",
            "font.size": 9,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
        }
    )
    return plt
