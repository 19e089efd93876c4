"""What is done to a trial that hangs, on the node that runs it: its stack goes into its log, its process is ended.

In: a process id, the trial's store, the sign that it left last. Out: `Examined`.
py-spy writes the stack; it comes with Ray. It is asked not to stop the process, because a stopped one can't be.
SIGKILL ends a stopped process too.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from trainables.progress import KEPT, SMALL
from trainables.storage.files import regular_bytes
from trainables.storage.modes import following

LOG = "messages.log"
SPY_S = 20.0


class Examined(NamedTuple):
    """`ended`: whether the process was; else `sign` is another than the one that was known: the trial goes on."""

    ended: bool
    sign: bytes | None


def sign_in(store: Path) -> bytes | None:
    """What a worker at long work leaves in its trial's store every 2 s; None where there is nothing to see."""
    try:
        return regular_bytes(store / KEPT, SMALL)
    except OSError:
        return None


def end_unless_alive(pid: int, store: Path, known: bytes | None) -> Examined:
    """End the process, unless its sign has changed since `known`. Runs on the trial's node."""
    sign = sign_in(store)
    if sign is not None and sign != known:
        return Examined(False, sign)
    stack = stack_of(pid)
    with suppress(OSError), following(store.parents[2]):  # a full disk: the process is ended all the same
        store.mkdir(parents=True, exist_ok=True)
        with (store / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} it said nothing; its process {pid} is ended; {stack}\n")
    with suppress(ProcessLookupError):  # it has gone by itself
        os.kill(pid, signal.SIGKILL)
    return Examined(True, sign)


def stack_of(pid: int) -> str:
    """The Python stack of a process, over several lines, or why there is none."""
    beside = Path(sys.executable).parent / "py-spy"
    spy = str(beside) if beside.exists() else shutil.which("py-spy")
    if spy is None:
        return "no stack: py-spy is not installed"
    words = [spy, "dump", "--nonblocking", "--pid", str(pid)]
    try:
        done = subprocess.run(
            words, capture_output=True, encoding="utf-8", errors="replace", timeout=SPY_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no stack: {error}"
    if done.returncode != 0 or not done.stdout.strip():
        return f"no stack: {' '.join(done.stderr.split())[:300]}"
    return f"its stack:\n{done.stdout.strip()}"
