"""The sweep that the chaos suite disturbs: the digits on two workers of a local Ray, or undisturbed in one process.

    python -m tests.chaos.lives.subject HOME TRIALS     # the same suggestions, undisturbed and without Ray

In: an empty home, how many trials. Out: processes that run it; which processes belong to it, by what they do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.lives import forked, services
from tests.chaos.lives.services import STORAGE, Services
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


MODES = ("plain", "toys", "services", "clock", "disk")
FAKETIME = "faketime/libfaketimeMT.so.1"  # below a folder of libraries
DISK_MIB = 256
# libfaketime 0.9.10 takes time.sleep for one until a moment of the moved clock, and refuses it.
SLEEP = """
import select, time
time.sleep = lambda seconds: select.select((), (), (), seconds) and None
"""


@dataclass(frozen=True)
class Subject:
    """A sweep in a home of its own. `temporary`: where its processes put temporary files.

    `services`: where it keeps its study, its records and its home. `clock`: a file that says by how many seconds the
    clock of its processes is ahead. `disk`: the home, where it is a small file system of its own.
    """

    home: Path
    temporary: Path
    trials: int
    services: Services | None = None
    clock: Path | None = None
    disk: Path | None = None

    @classmethod
    def below(cls, place: Path, trials: int) -> Subject:
        """One in the new folder `place`."""
        found = cls(place / "home", place / "tmp", trials)
        for folder in (found.home, found.temporary):
            folder.mkdir(parents=True)
        found.space.write_text(SPACE, encoding="utf-8")
        return found

    @classmethod
    @contextmanager
    def of_mode(cls, mode: str, place: Path, trials: int) -> Iterator[Subject]:
        """One in the new folder `place`, as `mode` has it: one of MODES that is not missing here."""
        plain, used, clock, disk = cls.below(place, trials), None, None, None
        try:
            if mode == "services":
                used = Services(place / "services")
            elif mode == "clock":
                clock = place / "clock"
                clock.write_text("+0\n")
                (place / "sitecustomize.py").write_text(SLEEP, encoding="utf-8")
            elif mode == "disk":
                disk = plain.home
                subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(disk)], check=True)
            yield cls(plain.home, plain.temporary, trials, used, clock, disk)
        finally:
            if used is not None:
                used.close()
            if disk is not None:
                subprocess.run(["umount", "-l", str(disk)], check=False)

    @property
    def place(self) -> Path:
        """For what is not the sweep's own: logs, its space."""
        return self.temporary.parent

    @property
    def folder(self) -> SweepFolder:
        return SweepFolder(self.home / NAME)

    @property
    def space(self) -> Path:
        return self.place / "small_space.py"

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
            *([f"storage={STORAGE}"] if self.services else []),
        ]

    @property
    def environment(self) -> dict[str, str]:
        """Of every process of the sweep; by its home it is known as one."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_", "AWS_"))}
        cache = str(self.place / "cache")
        own = {"TUNE_RSST_HOME": str(self.home), "TUNE_RSST_CACHE": cache, "TMPDIR": str(self.temporary)}
        if self.services is not None:
            own |= self.services.environment
        if self.clock is not None:
            own |= {"LD_PRELOAD": str(faketime()), "FAKETIME_TIMESTAMP_FILE": str(self.clock)}
            own |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_CACHE_DURATION": "1"}
        path = f"{ROOT}:{self.place}" if self.clock else str(ROOT)
        return {**kept, **own, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def start(self, log: Path, *words: str) -> subprocess.Popen[bytes]:
        """`tune-rsst WORDS`; without words: the sweep begins, or goes on."""
        command = [sys.executable, "-m", "tune_rsst", *(words or ("sweep", *self.words, "resume=auto"))]
        return self._started(log, command)

    def ask(self, log: Path, *words: str) -> Any:
        """`tune-rsst WORDS`, as `start`, in a fork of this process."""
        forked.load()
        return forked.Forked(partial(forked.command, *words), self.environment, log)

    def start_undisturbed(self, log: Path) -> subprocess.Popen[bytes]:
        """The whole sweep in one process."""
        return self._started(log, [sys.executable, "-m", __spec__.name, str(self.home), str(self.trials)])

    def _started(self, log: Path, command: list[str]) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.place,
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


def faketime() -> Path | None:
    """The library that moves a process's clock; None where it is not."""
    return next((path for path in sorted(Path("/usr/lib").glob(f"*/{FAKETIME}"))), None)


def why_not(mode: str) -> str | None:
    """Why this machine has not what `mode` needs, or None."""
    if mode == "services":
        return services.missing()
    if mode == "clock" and faketime() is None:
        return f"{FAKETIME} is not here: the package libfaketime has it"
    if mode == "disk" and os.geteuid() != 0:
        return "only root mounts a small file system"
    return None


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
