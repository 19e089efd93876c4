"""docs/python.md is run as it stands; a Tuner that was killed is restored; all ways give the numbers of one trial."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
import ray
from nbclient import NotebookClient
from ray import tune

from trainables import RSSTTrainable, train
from tune_rsst.storage.folder import Sweep, SweepFolder

ALONE = "Your own images"  # the section that needs no Ray, and none of the others
RESTORED = """
import json, sys
from ray import tune
from trainables import RSSTTrainable

where, begun = sys.argv[1], len(sys.argv) > 2
knobs = {"dataset": "digits", "epochs": 3, "warmup": 1, "pruning_times": 4, "rate": 0.4, "num_threads": 1, "seed": 3}
keep = tune.RunConfig(name="run", storage_path=where, checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1))
if begun:
    tuner = tune.Tuner.restore(where + "/run", RSSTTrainable)
else:
    tuner = tune.Tuner(RSSTTrainable, param_space=knobs, run_config=keep)
[result] = tuner.fit()
print("RESULT", json.dumps([result.config, result.metrics], default=str))
"""
SAME = ("val_top1", "test_top1", "kept_share", "params", "epochs_trained", "top1_drop", "val_top1_before_hardening")


def start(script: Path, where: Path, *arguments: str) -> subprocess.Popen[str]:
    """Run `script` in `where`, which is its home too, in a process group of its own."""
    surroundings = {
        "HOME": str(where),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "TUNE_RSST_HOME": str(where / "sweeps"),
    }
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        cwd=where,
        env={**os.environ, **surroundings, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def blocks(root: Path) -> dict[str, list[str]]:
    """The Python of each section of the page."""
    sections = (root / "docs/python.md").read_text(encoding="utf-8").split("\n## ")[1:]
    return {text.partition("\n")[0]: re.findall(r"```python\n(.*?)```", text, re.S) for text in sections}


@pytest.mark.medium
def test_the_blocks_without_ray_run(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path / "cache"))
    exec(compile("\n".join(blocks(repo_root)[ALONE]), "page.py", "exec"), {"__name__": "page"})
    printed = capsys.readouterr().out
    assert re.search(r"^1 [01]\.\d+ 0\.\d+$", printed, re.M)
    assert float(re.findall(r"^test_top1: (.*)$", printed, re.M)[0]) > 0.8
    assert (tmp_path / "stripes/report.json").is_file() and (tmp_path / "stripes/model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_page_runs_from_top_to_bottom(repo_root: Path, tmp_path: Path) -> None:
    page = [block for heading, several in blocks(repo_root).items() if heading != ALONE for block in several]
    assert len(page) >= 5
    (tmp_path / "page.py").write_text("\n".join(page), encoding="utf-8")
    process = start(tmp_path / "page.py", tmp_path)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed[-3000:]
    assert len(re.findall(r"^\d +0\.\d+ +[01]\.\d+ +\d +(?:True|False)$", printed, re.M)) == 4, printed
    assert (
        re.search(r"^best: t000\d 0\.\d+ 0\.\d+$", printed, re.M) and (tmp_path / "sweeps/mine/report.html").is_file()
    )
    assert list((tmp_path / "sweeps/mine/exports").glob("t*/model.safetensors"))
    assert "final 2 0." in printed and re.search(r"Ray Train: 0\.\d+", printed)
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    [experiment] = client.search_experiments(filter_string="name = 'mine'")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 4 and all({"val_top1", "kept_share"} <= run.data.metrics.keys() for run in runs)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_notebook_runs_from_top_to_bottom(repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TUNE_RSST_HOME", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", str(repo_root))
    book = nbformat.read(repo_root / "docs/sweep.ipynb", as_version=4)
    NotebookClient(book, timeout=250, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    lines = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "t0000 round 1 of" in lines and "Sweep notebook: finished" in lines and "\x1b" not in lines
    assert any("image/png" in output.data for output in outputs if "data" in output)
    assert [output.data["text/plain"] for output in outputs if output.output_type == "execute_result"][-1][:2] == "0."


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_tuner_is_restored_and_ends_with_the_numbers_of_the_trial_alone(tmp_path: Path) -> None:
    (tmp_path / "restored.py").write_text(RESTORED, encoding="utf-8")
    first, deadline = start(tmp_path / "restored.py", tmp_path, str(tmp_path)), time.monotonic() + 150
    while len(list(tmp_path.glob("run/*/checkpoint_*"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)
    assert list(tmp_path.glob("run/*/checkpoint_*")), "it was killed before its first checkpoint"
    again = start(tmp_path / "restored.py", tmp_path, str(tmp_path), "again")
    printed, _ = again.communicate(timeout=200)
    assert again.returncode == 0, printed[-3000:]
    [said] = re.findall(r"^RESULT (.*)$", printed, re.M)
    knobs, metrics = json.loads(said)
    alone: list[dict[str, Any]] = []
    last = train(knobs, alone.append)
    assert len(alone) == 4 * 3 + 4 and {name: metrics[name] for name in SAME} == {name: last[name] for name in SAME}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_trial_of_a_sweep_gives_the_same_numbers_alone_and_in_a_tuner(
    digits_sweep: SweepFolder, tmp_path: Path
) -> None:
    trial = Sweep.of(digits_sweep).view.trials["t0002"]
    last = train(trial.knobs)
    assert {name: last[name] for name in SAME} == {name: trial.metrics[name] for name in SAME}
    keep = tune.RunConfig(storage_path=str(tmp_path))
    try:
        [result] = tune.Tuner(RSSTTrainable, param_space=trial.knobs, run_config=keep).fit()
    finally:
        ray.shutdown()
    assert {name: result.metrics[name] for name in SAME} == {name: trial.metrics[name] for name in SAME}
