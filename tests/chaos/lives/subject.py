"""The sweep that the chaos suite disturbs: the digits on two workers of a local Ray, or undisturbed in one process.

    python -m tests.chaos.lives.subject HOME TRIALS     # the same suggestions, undisturbed and without Ray

In: an empty home, how many trials. Out: processes that run it; which processes belong to it, by what they do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from tune_rsst.storage.folder import SweepFolder

ROOT = Path(__file__).resolve().parents[3]
NAME = "chaos"
SPACE = """
def small(trial):
    return {"dataset": "digits", "epochs": 2, "batch_size": 128, "warmup": 0, "pruning_times": 3,
            "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)}
"""
# What a process of a sweep has in its command line, and what it is.
ROLES = {
    "ray::SweepTrainable": "worker",
    "tune_rsst.report.pictures": "pictures",
    "/gcs/gcs_server ": "control store",
    "/raylet/raylet ": "raylet",
}


@dataclass(frozen=True)
class Subject:
    """A sweep in a home of its own. `temporary`: where its processes put temporary files."""

    home: Path
    temporary: Path
    trials: int

    @classmethod
    def below(cls, place: Path, trials: int) -> Subject:
        """One in the new folder `place`."""
        found = cls(place / "home", place / "tmp", trials)
        for folder in (found.home, found.temporary):
            folder.mkdir(parents=True)
        found.space.write_text(SPACE, encoding="utf-8")
        return found

    @property
    def folder(self) -> SweepFolder:
        return SweepFolder(self.home / NAME)

    @property
    def space(self) -> Path:
        return self.home.with_name("small_space.py")

    @property
    def words(self) -> list[str]:
        """Settings of the sweep: every suggestion is given, nothing is stopped early."""
        points = ", ".join(f"{{lr: {0.001 * (1 + 0.25 * n):g}}}" for n in range(self.trials))
        fixed = ["sampler=random", "stopping=none", "confirm=0", "target_density=0.45", f"trials={self.trials}"]
        return [
            f"space={self.space}:small",
            f"name={NAME}",
            f"points=[{points}]",
            *fixed,
            "max_concurrent_trials=2",
        ]

    @property
    def environment(self) -> dict[str, str]:
        """Of every process of the sweep; by its home it is known as one."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        cache = str(self.home.with_name("cache"))
        own = {"TUNE_RSST_HOME": str(self.home), "TUNE_RSST_CACHE": cache, "TMPDIR": str(self.temporary)}
        return {**kept, **own, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(self, log: Path, *words: str) -> subprocess.Popen[bytes]:
        """`tune-rsst WORDS`; without words: the sweep begins, or goes on."""
        command = [sys.executable, "-m", "tune_rsst", *(words or ("sweep", *self.words, "resume=auto"))]
        return self._started(log, command)

    def start_undisturbed(self, log: Path) -> subprocess.Popen[bytes]:
        """The whole sweep in one process."""
        return self._started(log, [sys.executable, "-m", __spec__.name, str(self.home), str(self.trials)])

    def _started(self, log: Path, command: list[str]) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.home.parent,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def processes(self) -> dict[psutil.Process, str]:
        """Every process of the sweep, the driver's descendants and those that have lost it; and what it is."""
        found, mark = {}, f"TUNE_RSST_HOME={self.home}\0".encode()
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if mark in Path(f"/proc/{process.pid}/environ").read_bytes() and process.status() != "zombie":
                    command = " ".join(process.cmdline()) + " "
                    found[process] = next((role for word, role in ROLES.items() if word in command), "other")
        return found

    def trains(self) -> bool:
        """Whether its trials are about to run, or run."""
        return bool(self.of_role("worker"))

    def of_role(self, role: str) -> list[psutil.Process]:
        """Its processes that are that, oldest first."""
        return sorted((one for one, what in self.processes().items() if what == role), key=lambda one: one.pid)


def undisturbed(home: Path, trials: int) -> int:
    """The sweep from its beginning to its end in this process, with its uploads; the exit code."""
    from tune_rsst.conduct import run
    from tune_rsst.planning.begin import make_plan
    from tune_rsst.planning.plan import Plan
    from tune_rsst.results.table import make_console
    from tune_rsst.runners import serial
    from tune_rsst.settings.written import written_in

    subject = Subject(home, home.parent / "tmp", trials)
    plan = make_plan(written_in(subject.words), None, resume=False)
    assert isinstance(plan, Plan)
    return run(plan, make_console(), partial(serial.run, folder=plan.folder))


if __name__ == "__main__":
    sys.exit(undisturbed(Path(sys.argv[1]), int(sys.argv[2])))
