"""A command and all that it starts, timed: seconds on the clock and on all cores. Part of other benchmarks.

In: a command line, its environment. Out: `Spent`.
Ray's processes lose their parent and end after the command; while this process adopts them, they are counted too.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

LIMIT_S = 1800.0
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
    with (folder / "output.txt").open("w+") as output:
        before, began = _cpu_s(), time.time()
        where = {"cwd": folder, "stdout": output, "stderr": output}
        done = subprocess.run(command, env=os.environ | more, **where, timeout=LIMIT_S)
        ended = time.time()
        _wait_for_orphans()
        if done.returncode:
            output.seek(0)
            raise SystemExit(f"exit code {done.returncode}: {output.read()[-2000:]}")
    return Spent(began, ended, _cpu_s() - before)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _wait_for_orphans(limit_s: float = 30.0) -> None:
    """For Ray's processes, which end after the command: their CPU seconds are counted when they are waited for."""
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
