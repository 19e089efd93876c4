"""Ctrl-C and SIGTERM while both programs load their libraries: one line, exit code 130, nothing begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAMS = {
    "single": (["-m", "trainables", "--dataset", "digits", "--arch", "vit_digits"], "interrupted before the run began"),
    "sweep": (["-m", "tune_rsst", "sweep", "--dry-run"], "error: interrupted before the sweep began"),
}


def begun(program: list[str], folder: Path, root: Path) -> subprocess.Popen[str]:
    """The program, at its first instruction: it has its own handler of SIGTERM."""
    more = {"PYTHONPATH": str(root), "TUNE_RSST_HOME": str(folder / "home"), "TUNE_RSST_CACHE": str(folder / "cache")}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, *program], cwd=folder, env=os.environ | more, stdout=pipe, stderr=pipe, text=True
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        if caught >> (signal.SIGTERM - 1) & 1:
            return process
        time.sleep(0.002)
    process.kill()
    pytest.fail(f"no handler of SIGTERM: {process.communicate()[1]}")


@pytest.mark.medium
@pytest.mark.parametrize("name", PROGRAMS)
def test_an_interruption_at_any_moment_of_the_imports_is_one_line(name: str, tmp_path: Path, repo_root: Path) -> None:
    program, line = PROGRAMS[name]
    moments = [(0.0, signal.SIGINT), (0.3, signal.SIGTERM), (0.7, signal.SIGINT)]
    for delay, number in moments:
        process = begun(program, tmp_path, repo_root)
        time.sleep(delay)
        process.send_signal(number)
        said = process.communicate(timeout=60)
        assert (process.returncode, said) == (130, ("", f"{line}\n")), f"after {delay} s"
    assert not list(tmp_path.iterdir())
