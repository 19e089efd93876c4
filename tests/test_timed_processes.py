"""The benchmarks' CPU seconds hold those of processes that nobody waits for, and that outlive the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BUSY = "import time\nwhile time.process_time() < 0.6: pass\n"
PARENT = f"""
import signal, subprocess, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as Ray's node: the kernel forgets what its children spent
subprocess.Popen([sys.executable, "-c", {BUSY!r}])
"""
MEASURE = """
import sys
from pathlib import Path
from benchmarks._processes import timed
print(timed([sys.executable, "-c", sys.argv[1]], {}, Path(sys.argv[2])).cpu_s)
"""


def measured(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: it adopts orphans and waits for every child."""
    words = [sys.executable, "-c", MEASURE, program, str(folder)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_orphans_are_counted(tmp_path: Path) -> None:
    assert 0.35 < float(measured(PARENT, tmp_path).stdout) < 1.5


def test_a_command_that_fails_is_said(tmp_path: Path) -> None:
    done = measured("print('oh'); raise SystemExit(3)", tmp_path)
    assert done.returncode == 1 and "exit code 3: oh" in done.stderr
