"""Does a sweep of many short trials leak? Memory, descriptors, threads and files, trial by trial, from outside.

    python -m benchmarks.soak                           300 trials on a local Ray, two workers (about 8 minutes)
    python -m benchmarks.soak --serial --trials 2000    one process without Ray (about 15 minutes)

Real trials of a small ViT on 96 images (two rounds of one epoch), everything else is a user's sweep: ledger, study,
checkpoints, MLflow in sqlite, pictures.
Out: a Markdown table with a row every 50 trials: of the driver and of the workers resident memory (MiB), open
descriptors and threads, each the median of the window's looks; of Ray's session folder files and MB; files of the home
for each trial that has ended. Then the last row against the one at trial 50. Exit code 1 where one has grown by more
than a tenth.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks._common import ROOT, Progress, table

WINDOW, LOOK_EVERY_S, LIMIT_S, MOST = 50, 0.5, 7200.0, 1.10
ENDED = b'"event":"ended"'
OF_ALL = ("MiB", "descriptors", "threads")
HEAD = ("trials", *OF_ALL, *(f"workers' {name}" for name in OF_ALL), "Ray's files", "Ray's MB", "files a trial")
PLAIN = {
    "target_density": 0.6,
    "pruning_times": 2,
    "sampler": "random",
    "stopping": "none",
    "confirm": "0",
    "system_metrics": "false",
}


def space(trial: Any) -> dict[str, Any]:
    """Two rounds of one epoch of a small ViT; no two trials alike."""
    return {"arch": "vit_digits", "epochs": 1, "warmup": 0, "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)}


def few(data: object) -> dict[str, Any]:
    """The first 144 digits."""
    from trainables.rsst.data.sources import digits

    everything = digits()[0]["all"]
    images, labels = everything.images, everything.labels
    ends = {"train": slice(0, 96), "val": slice(96, 120), "test": slice(120, 144)}
    return {part: (images[where], labels[where]) for part, where in ends.items()}


def words(trials: int) -> list[str]:
    """The settings of the sweep."""
    here = Path(__file__).resolve()
    given = {"space": f"{here}:space", "dataset": f"{here}:few", "name": "soak", "trials": trials}
    return [f"{name}={value}" for name, value in {**given, **PLAIN}.items()]


def _of(processes: Sequence[psutil.Process]) -> tuple[float, float, float]:
    """MiB, descriptors and threads of all of them together."""
    found = [(p.memory_info().rss / 2**20, p.num_fds(), p.num_threads()) for p in processes]
    return tuple(map(sum, zip(*found, strict=True))) if found else (0.0, 0.0, 0.0)  # type: ignore[return-value]


def _files(folder: Path) -> list[Path]:
    return [Path(place, name) for place, _, names in os.walk(folder) for name in names]


def _size(files: Sequence[Path]) -> int:
    total = 0
    for path in files:
        with suppress(OSError):
            total += path.lstat().st_size
    return total


def watched(child: subprocess.Popen[bytes], home: Path, trials: int) -> list[list[float]]:
    """A row as in HEAD for every WINDOW trials, while the sweep runs."""
    progress, driver = Progress("soak", trials // WINDOW), psutil.Process(child.pid)
    rows: list[list[float]] = []
    looks: list[tuple[float, ...]] = []
    until, ended = time.monotonic() + LIMIT_S, 0
    ledger = home / "soak" / "ledger.jsonl"
    while child.poll() is None and time.monotonic() < until:
        time.sleep(LOOK_EVERY_S)
        with suppress(psutil.Error, OSError):
            workers = [p for p in driver.children(recursive=True) if p.name().startswith("ray::SweepTrain")]
            looks.append((*_of([driver]), *_of(workers)))
            ended = ledger.read_bytes().count(ENDED)
        if looks and ended >= WINDOW * (len(rows) + 1):
            session, own = _files(home / ".ray"), len(_files(home / "soak"))
            middle = map(statistics.median, zip(*looks, strict=True))
            rows.append([ended, *middle, len(session), _size(session) / 1e6, own / ended])
            looks = []
            progress.step(f"{ended} trials, driver {rows[-1][1]:.0f} MiB")
    return rows


def grown(rows: Sequence[Sequence[float]]) -> list[float]:
    """The last row as a ratio to the first; 1 where there is nothing in both."""
    return [last / first if first else 1.0 + last for first, last in zip(rows[0], rows[-1], strict=True)][1:]


def main() -> int:
    """Run, watch, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--serial", action="store_true", help="without Ray, in one process")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        home = Path(folder) / "home"
        own = {"TUNE_RSST_HOME": str(home), "TUNE_RSST_CACHE": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
        program = ["benchmarks._serial"] if given.serial else ["tune_rsst", "sweep"]
        command = [sys.executable, "-m", *program, *words(given.trials)]
        with (Path(folder) / "output.txt").open("wb+") as output:
            with subprocess.Popen(command, cwd=ROOT, env=os.environ | own, stdout=output, stderr=output) as child:
                try:
                    rows = watched(child, home, given.trials)
                finally:
                    child.terminate()
            if child.returncode or len(rows) < 2:
                output.seek(0)
                raise SystemExit(f"exit code {child.returncode}: {output.read()[-2000:].decode()}")
    print(table(HEAD, [[f"{value:.0f}" if value >= 20 else f"{value:.2f}" for value in row] for row in rows]))
    ratios = grown(rows)
    parts = [f"{name} ×{ratio:.2f}" for name, ratio in zip(HEAD[1:], ratios, strict=True)]
    print(f"\nLast row to first: {', '.join(parts)}")
    return int(max(ratios) > MOST)


if __name__ == "__main__":
    raise SystemExit(main())
