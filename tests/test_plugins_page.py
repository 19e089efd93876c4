"""docs/plugins.md is run as it stands: its files are written down, its commands carried out on a toy."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.trainables import toy
from tests.tune_rsst.fake_sweep import FakeSweep
from trainables.__main__ import main as trainables_main
from trainables.rsst.config import models
from tune_rsst.planning import begin
from tune_rsst.planning.plan import Plan
from tune_rsst.settings import written

SMALL = shlex.split("--arch vit_toy --epochs 1 --warmup 0 --pruning_times 2 --rate 0.5 --batch_size 128")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def blocks(root: Path, language: str) -> list[str]:
    page = (root / "docs" / "plugins.md").read_text(encoding="utf-8")
    return [text for name, text in BLOCK.findall(page) if name == language]


@pytest.fixture
def files(repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the current one, with the page's files in it."""
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(models.NAMED, toy.NAME, toy.SHAPE)
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for text in blocks(repo_root, "python"):
        name = re.match(r"# (\w+\.py)\n", text)
        assert name is not None and len(text.splitlines()) <= 14, "a file's name, and ten lines of it"
        (folder / name[1]).write_text(text, encoding="utf-8")
    return folder


def commands(root: Path, program: str) -> list[list[str]]:
    lines = [line for text in blocks(root, "sh") for line in text.splitlines()]
    return [shlex.split(line)[len(shlex.split(program)) :] for line in lines if line.startswith(program)]


def test_the_runs_of_the_page_score_and_press_as_their_functions_say(
    files: Path, repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a toy, with fewer rounds: the page's words come first."""
    runs = commands(repo_root, "python -m trainables")
    assert len(runs) == 3
    for number, words in enumerate(runs):
        assert trainables_main([*words, *SMALL, "--save_dir", f"run{number}"]) == 0
        plugin = words[-1].partition(":")[0]
        report = json.loads((files / f"run{number}" / "report.json").read_text())
        assert f"{plugin}:" in report["config"][words[-2].lstrip("-")] and report["final"]["kept_share"] < 0.6
        assert [path.name for path in (files / f"run{number}" / "code").rglob("*.py")] == [plugin]
    out = capsys.readouterr().out
    assert "spread.py:spread · 2 rounds" in out and "vit_toy on even.py:even" in out
    assert "images: even, grey, 2 classes (even, odd)" in out and "they come from even.py:even" in out


def test_the_sweeps_of_the_page_run_with_their_own_objective_and_rule(files: Path, repo_root: Path) -> None:
    sweeps = commands(repo_root, "tune-rsst sweep")
    assert len(sweeps) == 2
    for words in sweeps:
        plan = begin.make_plan(written.given(None, words), None, resume=False)
        assert isinstance(plan, Plan)
        plan.folder.path.mkdir(parents=True)
        plan.copy_files()
        sweep = FakeSweep(plan.folder.path, plan.space, plan.settings)
        sweep.run()
        assert sweep.view.ended or not sweep.view.unfinished
        assert [source.entry for source in plan.sources] == [words[-1].partition("=")[2].partition(":")[0]]
        finished = [trial for trial in sweep.view.trials.values() if trial.state == "finished"]
        assert finished and len(list(plan.folder.code.iterdir())) == 1
        if "objective=price.py:price" in words:
            for m in (trial.metrics for trial in finished):
                assert m["objective"] == pytest.approx(m["val_top1"] - 0.1 * m["gmacs"])
        else:
            reasons = [t.reason for t in sweep.view.trials.values() if t.state == "stopped"]
            assert all("behind.py:behind after round" in str(reason) for reason in reasons)
