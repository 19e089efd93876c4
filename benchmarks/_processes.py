"""A command and all that it starts, timed: seconds on the clock and on all cores. Part of other benchmarks.

In: a command line, its environment. Out: `Spent`.
Ray's processes lose their parent and end after the command; this process adopts them, so that they are counted too.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

LIMIT_S, LOOK_S = 1800.0, 0.2
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of <linux/prctl.h>: processes whose parent has ended become ours


@dataclass(frozen=True)
class Spent:
    """When a command began and ended (seconds since 1970), and the CPU seconds of all its processes."""

    began: float
    ended: float
    cpu_s: float

    @property
    def wall_s(self) -> float:
        """From the command to the prompt."""
        return self.ended - self.began


def timed(command: Sequence[str], more: Mapping[str, str], folder: Path) -> Spent:
    """Run `command` in `folder` with `more` in its environment, to its end and to that of all that it started.

    Raises:
        SystemExit: its exit code is not 0; holds the end of its output.
    """
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    with (folder / "output.txt").open("w+") as output, _Watch() as watch:
        began = time.time()
        where = {"cwd": folder, "stdout": output, "stderr": output}
        done = subprocess.run(command, env=os.environ | more, **where, timeout=LIMIT_S)
        ended = time.time()
        _wait_for_orphans()
        if done.returncode:
            output.seek(0)
            raise SystemExit(f"exit code {done.returncode}: {output.read()[-2000:]}")
    return Spent(began, ended, watch.cpu_s)


class _Watch:
    """CPU seconds of all processes below this one, looked at every LOOK_S while the context lasts.

    What a process has spent is lost to the kernel's own sums where its parent does not wait for it, as Ray's does not.
    What it spends after the last look at it is not counted.
    """

    def __init__(self) -> None:
        self._spent: dict[tuple[int, int], float] = {}  # process id and start → seconds
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def cpu_s(self) -> float:
        """Their sum so far."""
        return sum(self._spent.values())

    def _watch(self) -> None:
        while not self._left.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        found: dict[int, tuple[int, int, float]] = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
                used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                found[int(name)] = int(fields[1]), int(fields[19]), used
        below = {os.getpid()}
        while more := {pid for pid, (parent, *_) in found.items() if parent in below} - below:
            below |= more
        for pid in below - {os.getpid()}:
            _, start, used = found[pid]
            self._spent[pid, start] = used

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._left.set()
        self._thread.join()


def _wait_for_orphans(limit_s: float = 30.0) -> None:
    """For Ray's processes, which end after the command."""
    until = time.monotonic() + limit_s
    with suppress(ChildProcessError):
        while time.monotonic() < until:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.05)


def machine(*distributions: str) -> dict[str, str]:
    """The processor, its cores, and versions of Python and `distributions`: for a table's head."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        cpu = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    found = {"cpu": cpu, "cores": str(os.cpu_count()), "python": platform.python_version()}
    return found | {name: version(name) for name in distributions}
