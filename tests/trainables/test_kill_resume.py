"""The small version of benchmarks/kill_resume.py: four kills with SIGKILL, the same end bit for bit."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kill_resume import Life, rounds_trained_again


@pytest.mark.medium
def test_a_trial_killed_four_times_ends_like_one_that_was_not(repo_root: Path) -> None:
    """In a process of its own: its lives are forks of a parent that has not computed anything."""
    program = [sys.executable, "-m", "benchmarks.kill_resume", "--kills", "4", "--toy"]
    done = subprocess.run(program, cwd=repo_root, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kills = re.search(r"kills: (\d)", done.stdout)
    assert kills is not None and int(kills[1]) >= 3
    assert "epochs of finished rounds trained twice: 0" in done.stdout
    assert "equal bit for bit: report.json, model.safetensors, architecture.json\n" in done.stdout


def test_the_count_of_rounds_trained_again_sees_them() -> None:
    first = Life(0.5, 0, (0, 0), ((0, 1), (0, 2), (1, 1)))
    assert rounds_trained_again([first, Life(None, 1, (1, 0), ((1, 1), (1, 2)))]) == 0
    assert rounds_trained_again([first, Life(None, 1, (0, 1), ((0, 2), (1, 1)))]) == 1
    lives = [first, Life(0.7, 1, (1, 0), ()), Life(None, 0, (0, 0), ((0, 1), (0, 2)))]
    assert rounds_trained_again(lives) == 2
