"""A disk that is full from one write on: at each point where a sweep writes, and what is there afterwards.

    python -m tests.chaos.full_disk            each point the first and the last time that it comes (some minutes)

In: nothing; small sweeps of toys in one process, through the program's own `conduct.run`, without MLflow.
Out: a Markdown table with a row for each point: how it ended (exit code and its last line), and what a resume with
room on the disk made of it against a sweep that was left alone: trials, metrics and models. Exit code 1 where one
differs, a traceback was printed or a temporary file was left.

Every file of a sweep is written through `trainables.storage.files` (flushed, then renamed) or is a line of the ledger:
a point is the function that asked for it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console

from benchmarks._common import Progress, table
from tests.chaos import toy_sweep
from tests.trainables import toy
from trainables.errors import ConfigError
from trainables.storage import files
from tune_rsst import conduct
from tune_rsst.ledger import file as ledger_file
from tune_rsst.planning import begin
from tune_rsst.planning.plan import Plan
from tune_rsst.runners import serial
from tune_rsst.settings import written
from tune_rsst.storage.folder import Sweep

OURS = ("/tune_rsst/", "/trainables/")
WORDS = ("name=toys", "trials=3", "target_density=0.4", "stopping=none", "optuna_storage=memory")


class NoUploader:
    """In the place of the uploader to MLflow, whose database is not ours to fail."""

    parent_run_id = None
    problems: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    def __init__(self, *_: Any, **__: Any) -> None:
        """Takes what the uploader takes."""

    def start(self, after_s: float = 0.0) -> None:
        """Nothing to start."""

    def run_ids(self) -> dict[str, str]:
        """Nobody has a run."""
        return {}

    def notify(self, hurry: bool = False) -> None:
        """Nobody to tell."""

    def close(self, timeout_s: float) -> int:
        """Nothing is missing."""
        return 0

    missing = sync_once = lambda *_: 0


@dataclass
class Disk:
    """Counts writes by their point; full from the `at`-th time of `point` on, where it is given."""

    point: str = ""
    at: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    full: bool = False

    def write(self) -> None:
        """One more write by whoever asks; it fails where the disk is full."""
        point = _asker()
        self.seen[point] = self.seen.get(point, 0) + 1
        self.full = self.full or (point == self.point and self.seen[point] == self.at)
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _asker() -> str:
    """module:function of ours that wants something written, out of the frames above."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        inside = any(one in name for one in OURS) and not name.endswith(("storage/files.py", "storage/state_files.py"))
        if inside and not name.endswith("ledger/file.py"):
            return f"{Path(name).stem}:{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


@contextlib.contextmanager
def writing_to(disk: Disk) -> Iterator[None]:
    """All writes of this process ask `disk`."""
    flush, write = files._flush, os.write

    def flushed(path: Path) -> None:
        disk.write()
        flush(path)

    def line(fd: int, data: bytes) -> int:
        disk.write()
        return write(fd, data)

    others = {name: getattr(os, name) for name in dir(os) if not name.startswith("__")}
    own_os = type("os", (), {**others, "write": staticmethod(line)})
    with patch.object(files, "_flush", flushed), patch.object(ledger_file, "os", own_os):
        yield


def sweep(home: Path, *, resume: bool = False) -> tuple[int, str]:
    """The exit code and what was printed; a resume takes the settings of its ledger."""
    text = io.StringIO()
    words = [f"space={home.parent / 'toy_space.py'}:toys", *WORDS, *(["resume=auto"] if resume else [])]
    plan = begin.make_plan(written.written_in(words), None, False)
    console = Console(file=text, width=200)
    if not isinstance(plan, Plan):
        return conduct.run(plan, console), text.getvalue()
    runner = partial(serial.run, folder=plan.folder)
    return conduct.run(plan, console, runner), text.getvalue()


def outcome(home: Path) -> tuple[Any, dict[str, str]]:
    """What the sweep says, and the sha256 of each trial's model."""
    found = Sweep.of(begin.SweepFolder(home / "toys"))
    trials = found.view.trials.values()
    files_of = {trial.trial: found.folder.store(trial.fingerprint) / "model.safetensors" for trial in trials}
    models = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files_of.items()}
    return toy_sweep.said(found.view), models


@contextlib.contextmanager
def home_of_its_own() -> Iterator[Path]:
    """An empty home with the space beside it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        home = Path(folder) / "home"
        (home.parent / "toy_space.py").write_text(toy_sweep.SPACE, encoding="utf-8")
        own = {"TUNE_RSST_HOME": str(home), "TUNE_RSST_CACHE": f"{folder}/cache", "RAY_ADDRESS": ""}
        stack.enter_context(patch.dict(os.environ, own))
        stack.enter_context(patch("tune_rsst.tracking.uploader.Uploader", NoUploader))
        yield home


def points() -> tuple[dict[str, int], Any]:
    """How often each point comes in a sweep that is left alone, and its outcome."""
    disk = Disk()
    with home_of_its_own() as home:
        with writing_to(disk):
            code, text = sweep(home)
        assert code == 0, text
        return disk.seen, outcome(home)


def tried(point: str, at: int, right: Any) -> tuple[list[str], bool]:
    """A row of the table, and whether all is as it should be."""
    with home_of_its_own() as home:
        with writing_to(Disk(point, at)):
            try:
                code, text = sweep(home)
            except ConfigError as error:  # before anything runs: the command line makes one line of it
                code, text = 2, f"error: {error}"
            except OSError as error:
                code, text = 1, f"error: {error}"
        again, more = sweep(home, resume=True)
        found = outcome(home)
        left = [path.name for path in home.rglob("*") if files.is_temporary(path)]
    lines = [line for line in text.splitlines() if line.strip()]
    same = again == 0 and found == right
    fine = same and code != 0 and "Traceback" not in text + more and not left
    said = next((line for line in reversed(lines) if "space left" in line), lines[-1] if lines else "")
    return [point, str(at), str(code), said[:90], "the same" if same else f"differs ({again})", " ".join(left)], fine


def main() -> int:
    """All points, first and last."""
    toy.install()
    seen, right = points()
    wanted = [(point, at) for point, count in seen.items() for at in sorted({1, count})]
    progress, rows, all_fine = Progress("full disk", len(wanted)), [], True
    for point, at in wanted:
        row, fine = tried(point, at, right)
        rows.append(row)
        all_fine &= fine
        progress.step(f"{point} {at}")
    print(table(["point", "time", "exit code", "its line", "after a resume", "left over"], rows))
    return 0 if all_fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
