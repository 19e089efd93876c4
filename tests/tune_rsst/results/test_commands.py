"""The commands that the table, the report page, MLflow and the end of a sweep print are the same ones. They work."""

from __future__ import annotations

import html
import io
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
from rich.console import Console

from tests.s3_server import BUCKET, S3Server
from tests.tune_rsst.fake_sweep import events
from tune_rsst import conduct, ending
from tune_rsst.driver import Driver
from tune_rsst.planning.begin import make_plan
from tune_rsst.planning.plan import Plan
from tune_rsst.report.page import write_report
from tune_rsst.results import commands, table
from tune_rsst.results.ranking import ranking
from tune_rsst.runners import replay
from tune_rsst.settings.written import given
from tune_rsst.storage.folder import Sweep, SweepFolder
from tune_rsst.tracking.notes import sweep_note, trial_note

STORAGE = f"s3://{BUCKET}/group"


@pytest.fixture(scope="module", params=["home", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SweepFolder]:
    """An interrupted sweep over the digits space, played from formulas, in a home with a blank and a quote."""
    home = tmp_path_factory.mktemp(request.param) / "it's my home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_RSST_HOME", str(home))
        words = ["name=fake", "trials=2", "epochs=1", "warmup=0", f"mlflow_tracking_uri=sqlite:///{home}/mlflow.db"]
        if request.param == "bucket":
            server: S3Server = request.getfixturevalue("s3")
            server.empty()
            words.append(f"storage={STORAGE}")
            for name, value in server.environment.items():
                patch.setenv(name, value)
        plan = make_plan(given(None, words), None, False)
        assert isinstance(plan, Plan)
        assert conduct.run(plan, Console(file=io.StringIO()), three_reports, models=False) == 130
        yield plan.folder


def three_reports(driver: Driver, tick: Callable[[], object]) -> None:
    """A runner that is interrupted soon."""
    for _ in islice(replay.reports(driver, lambda trial, config: events(config)), 3):
        tick()


def pasted(text: str) -> list[str]:
    """The commands in a Markdown note."""
    return re.findall(r"```\n(.*?)\n```", text, re.S)


def run(command: str) -> str:
    """Paste a command into a bare shell in another folder."""
    bare = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    bare |= {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", command], cwd="/", env=bare, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.medium
@pytest.mark.parametrize("state", ["running", "interrupted", "finished"])
def test_all_places_print_the_same_commands(folder: SweepFolder, tmp_path: Path, state: str) -> None:
    sweep = Sweep(folder, Sweep.of(folder).view, state)
    storage = sweep.view.settings["storage"]
    expected = [command for _, command in commands.next_commands(sweep)]
    resume = commands.resume(folder, sweep.view.settings)
    assert (resume in expected) == (state == "interrupted") and len(expected) >= 2
    assert resume.endswith(f" --resume storage={STORAGE}" if storage else " --resume")
    assert all(f"TUNE_RSST_HOME={shlex.quote(str(folder.path.parent))} /" in c for c in expected if "tune-rsst" in c)

    screen = io.StringIO()
    table.print_table(Console(file=screen, width=3000), sweep)
    assert [command for command in expected if command not in screen.getvalue()] == []
    page = html.unescape(write_report(sweep, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert re.findall(r"<pre>(.*?)</pre>", page, re.S)[-len(expected) :] == expected
    note = sweep_note(sweep, ranking(sweep.view))
    assert [c for c in pasted(note) if "-m trainables" not in c or c in expected] == expected + (
        [resume] if state == "running" else []
    )
    assert pasted(trial_note(sweep, sweep.view.trials["t0000"]))[-1] == resume
    assert resume in ending._not_stored(sweep, "the bucket is full")


@pytest.mark.medium
def test_they_work_in_a_bare_shell_in_another_folder(folder: SweepFolder) -> None:
    sweep = Sweep.of(folder)
    found = dict(commands.next_commands(sweep))
    if not sweep.view.settings["storage"]:  # for these a bucket makes no difference
        assert "Sweep fake: interrupted" in run(found["See this table again"])
        assert "fake: everything is in sqlite" in run(commands.tune_rsst(folder, "sync", "fake"))
    dry = run(f"{found[commands.RESUME]} --dry-run")
    assert "fake" in dry and "trials" in dry
    assert not Path("/.tune_rsst").exists()
