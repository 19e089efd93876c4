"""Slurm's commands without Slurm: a job's nodes are processes of this machine, its time limit is whatever is asked.

`sbatch` takes from the file what `--signal` and `--requeue` say: the signal goes to the batch script alone (`B:`) or to
every process, and a job that may not be queued again is not. What is left of a job when its script ends is killed.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

KILL_WAIT_S = 60.0
GRACE_S = 3.0
SRUN = """#!/bin/bash
# Every task at once, each told its number; TERM is passed on. Ends when all have ended.
count=1
while [[ $1 == --* ]]; do
  case $1 in
    --ntasks=*) count=${1#*=} ;;
    --cpus-per-task=*) export SLURM_CPUS_PER_TASK=${1#*=} ;;
    --ntasks-per-node=1) ;;
    *) echo "srun: not known here: $1" >&2; exit 2 ;;
  esac
  shift
done
tasks=() asked=
trap 'asked=yes; kill -TERM "${tasks[@]}" 2>/dev/null' TERM
for ((number = 0; number < count; number++)); do
  SLURM_PROCID=$number SLURM_NODEID=$number "$@" &
  tasks+=($!)
  [ -z "$asked" ] || kill -TERM $!
done
for task in "${tasks[@]}"; do
  while kill -0 "$task" 2>/dev/null; do wait "$task"; done
done
"""
SCONTROL = """#!/bin/bash
[ "$*" = "requeue $SLURM_JOB_ID" ] && [ -n "$STAND_IN_REQUEUE" ] || { echo "scontrol: refused" >&2; exit 1; }
touch "$STAND_IN/requeued"
"""
SQUEUE = """#!/bin/bash
[ "$*" = "--noheader --job=$SLURM_JOB_ID --format=%T" ] && cat "$STAND_IN/state"
"""


class Slurm:
    """One job at a time. `environment`: what it is submitted with; `programs`: more stand-ins, by name."""

    def __init__(self, folder: Path, environment: dict[str, str], **programs: str) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir(parents=True)
        for name, text in {"srun": SRUN, "scontrol": SCONTROL, "squeue": SQUEUE, **programs}.items():
            file = self.bin / name.replace("_", "-")
            file.write_text(text)
            file.chmod(0o755)
        self.environment = {**environment, "PATH": f"{self.bin}{os.pathsep}{environment['PATH']}"}
        self.job = str(random.randrange(10**6))  # its ports follow from it
        self.starts = 0
        self.left: list[str] = []  # processes that were still there GRACE_S after a job's script had ended

    @property
    def log(self) -> str:
        """What all starts of the job have printed."""
        return (self.folder / "job.log").read_text()

    def sbatch(
        self,
        file: Path,
        *words: str,
        name: str,
        nodes: int,
        near_the_limit: Callable[[int], bool],
        cancelled: bool = False,
        timeout_s: float = 120.0,
    ) -> int:
        """Run the job until it has ended and is not queued again; its script's exit code.

        `near_the_limit(start)`, asked again and again: whether start 1, 2, … of it is now as near to its limit as
        `--signal` says. `cancelled`: the signal comes from a scancel.
        """
        options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)$", file.read_text(), re.MULTILINE))
        batch, number = re.fullmatch(r"(B:)?(\w+)@\d+", options["signal"]).groups()  # type: ignore[union-attr]
        (self.folder / "state").write_text("COMPLETING\n" if cancelled else "RUNNING\n")
        again = self.folder / "requeued"
        deadline = time.monotonic() + timeout_s
        while True:
            self.starts += 1
            again.unlink(missing_ok=True)
            job = self._start(file, words, name, nodes, "requeue" in options)
            signalled = None
            while job.poll() is None:
                if signalled is None and near_the_limit(self.starts):
                    signalled = time.monotonic()
                    for one in [psutil.Process(job.pid)] if batch else [*self._processes()]:
                        one.send_signal(signal.Signals[f"SIG{number}"])
                if time.monotonic() > min(deadline, (signalled or deadline) + KILL_WAIT_S):
                    self.left += [f"not ended in time: {' '.join(one.cmdline())[:90]}" for one in self._processes()]
                    self._end()
                    return -9
                time.sleep(0.05)
            grace = time.monotonic() + GRACE_S
            while (left := [" ".join(one.cmdline())[:90] for one in self._processes()]) and time.monotonic() < grace:
                time.sleep(0.05)
            self.left += left
            self._end()
            if not again.exists():
                return job.returncode

    def _start(
        self, file: Path, words: tuple[str, ...], name: str, nodes: int, requeue: bool
    ) -> subprocess.Popen[bytes]:
        of_the_job = {
            "SLURM_JOB_ID": self.job, "SLURM_JOB_NAME": name, "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_SUBMIT_DIR": str(self.folder), "SLURM_RESTART_COUNT": str(self.starts - 1),
            "SLURM_CPUS_PER_TASK": "1", "STAND_IN": str(self.folder), "STAND_IN_REQUEUE": "yes" if requeue else "",
        }  # fmt: skip
        with open(self.folder / "job.log", "a") as log:
            return subprocess.Popen(
                ["bash", str(file), *words], env={**self.environment, **of_the_job}, cwd=self.folder, stdout=log,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def _processes(self) -> Iterator[psutil.Process]:
        """What belongs to the job, by its environment: daemons leave their parent's group and session."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and process.environ().get("STAND_IN") == str(self.folder):
                    yield process

    def _end(self) -> None:
        for process in list(self._processes()):
            with contextlib.suppress(psutil.Error):
                process.kill()
