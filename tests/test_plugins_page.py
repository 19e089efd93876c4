"""docs/plugins.md is run as it stands: its files are written down, its commands carried out on a toy."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.tune_rsst.fake_sweep import FakeSweep
from tune_rsst.planning import begin
from tune_rsst.planning.plan import Plan
from tune_rsst.settings import written

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def blocks(root: Path, language: str) -> list[str]:
    page = (root / "docs" / "plugins.md").read_text(encoding="utf-8")
    return [text for name, text in BLOCK.findall(page) if name == language]


@pytest.fixture
def files(repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the current one, with the page's files in it."""
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
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
