"""compile as a user gets it: through Inductor, its files on disk, each trial in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no C++ compiler"),
]

TRIAL = """
import json, sys
from pathlib import Path
from safetensors.torch import load_file, save_file
from torch._dynamo.utils import counters
from tests.trainables import toy
from trainables.rsst.experiment import run
from trainables.rsst.state import TrialState
toy.install()
folder, going_on = Path(sys.argv[1]), sys.argv[2] == "going on"
config, state = toy.config(compile=True, scope="global", rate=0.5, lr=0.01), None
if going_on:
    state = TrialState(json.loads((folder / "state.json").read_text()), load_file(folder / "tensors"))
told = []
for event in run(config, toy.images(), state):
    told += toy.told([event])
    if event.kind == "round" and event.metrics["round"] == 0:
        found = event.snapshot()
        save_file(dict(found.tensors), folder / "tensors")
        (folder / "state.json").write_text(json.dumps(dict(found.meta)))
print(json.dumps([told, counters["stats"]["unique_graphs"], counters["inductor"]["fxgraph_cache_hit"]]))
"""


def trial(repo_root: Path, folder: Path, how: str, cache: str) -> tuple[list[Any], int, int]:
    """Its events, the programs that were made, and how many of their files were there already."""
    kept = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    kept |= {"PYTHONPATH": str(repo_root), "TUNE_RSST_CACHE": str(folder / cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRIAL, str(folder), how], cwd=repo_root, env=kept, capture_output=True, text=True,
        timeout=500, check=True,
    )  # fmt: skip
    told, programs, found = json.loads(done.stdout.splitlines()[-1])
    return told, programs, found


def test_a_trial_that_goes_on_computes_with_the_program_of_the_first_round(repo_root: Path, tmp_path: Path) -> None:
    """Its widths are others by then, and its programs may be on disk or not: invariant 5.

    Mutation seen to fail: programs compiled for the widths of the layer that comes first.
    """
    whole, programs, found = trial(repo_root, tmp_path, "from the start", "cache")
    assert {k for k, _ in whole} == {"start", "epoch", "round", "final"} and 1 <= programs <= 4 and found == 0
    assert (tmp_path / "cache" / "inductor").is_dir()
    for cache, kept in (("cache", True), ("another", False)):
        rest, programs, found = trial(repo_root, tmp_path, "going on", cache)
        assert rest == whole[-len(rest) :] and len(rest) < len(whole)
        assert (found > 0) is kept and 1 <= programs <= 4
