"""Code of the user behind a sweep: what a resume runs, and what never runs any. A canary in each file says who did."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from search_spaces import same_again
from tests.tune_rsst.fake_sweep import FakeSweep
from trainables.rsst.config import ConfigError
from tune_rsst.cli import app
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.planning import begin, doctor, repair, resume
from tune_rsst.planning.plan import Plan
from tune_rsst.settings import written
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep, SweepFolder

TEXT = """import os
import beside_{mark}
os.environ["RAN"] = os.environ.get("RAN", "") + ":{mark}"
def f(trial):
    return {{"dataset": "digits", "epochs": 2, "warmup": 0, "lr": trial.suggest_float("lr", 1e-4, 1e-3)}}
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's with a space; `ran` says what ran."""
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAN", "")
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "OPTUNA_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(same_again, "CHILDREN", 1)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before, path = set(sys.modules), list(sys.path)
    yield space_in(tmp_path / "user", "original").parent
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if "beside_" in name or "tune_rsst_space" in name:
            del sys.modules[name]


def space_in(folder: Path, mark: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"beside_{mark}.py").write_text("", encoding="utf-8")
    (folder / "mine.py").write_text(TEXT.format(mark=mark), encoding="utf-8")
    return folder / "mine.py"


def ran() -> list[str]:
    found = [mark for mark in os.environ["RAN"].split(":") if mark]
    os.environ["RAN"] = ""
    return found


def planned(*words: str, flag: bool = False) -> Plan:
    found = begin.make_plan(written.given(None, words), "fake", flag)
    assert isinstance(found, Plan)
    return found


def begun(user: Path) -> SweepFolder:
    """A sweep of the space in `user` that was killed after three reports, with its files."""
    made = planned(f"space={user / 'mine.py'}:f", "trials=4")
    made.folder.path.mkdir(parents=True)
    made.copy_files()
    sweep = FakeSweep(made.folder.path, made.space, made.settings, **made.record())
    sweep.run(reports=3)
    sweep.ledger.close()
    ran()
    return made.folder


def test_a_resume_an_extension_and_a_retry_run_the_file_where_it_is_as_it_was(user: Path) -> None:
    folder = begun(user)
    for plan in (ask() for ask in (lambda: planned(flag=True), lambda: resume.extension("fake", 2))):
        assert plan.settings.space == f"{user / 'mine.py'}:f" and set(ran()) == {"original"}
    assert Sweep.of(folder).view.start["sources"]["space"]["entry"] == "mine.py"


GONE: dict[str, Callable[[Path], object]] = {
    "the job's folder is gone": shutil.rmtree,
    "another file is there": lambda user: (user / "mine.py").write_text(TEXT.format(mark="other")),
    "another sibling is there": lambda user: (user / "beside_original.py").write_text("import os"),
}


@pytest.mark.parametrize("what", GONE)
def test_else_the_copy_and_only_where_it_is_trusted(what: str, user: Path) -> None:
    folder = begun(user)
    GONE[what](user)
    for ask in (lambda: planned(flag=True), lambda: resume.extension("fake", 1)):
        with pytest.raises(ConfigError, match=r"^space = \S+mine.py: valid is the file that .*code/.* add --trust"):
            ask()
        assert ran() == []
    trusted = (lambda: planned("trust=true", flag=True), lambda: resume.extension("fake", 1, {"trust": True}))
    for plan in (ask() for ask in trusted):
        assert plan.settings.space == f"{user / 'mine.py'}:f" and set(ran()) == {"original"}
        assert plan.source is not None and folder.code in plan.source.path.parents
    assert "trust" not in plan.settings.flat()


def test_a_job_in_another_folder_goes_on_with_the_same_file(user: Path) -> None:
    begun(user)
    job = user.with_name("job2")
    user.rename(job)
    plan = planned(f"space={job / 'mine.py'}:f", flag=True)
    assert set(ran()) == {"original"} and plan.settings.space == f"{user / 'mine.py'}:f"
    (job / "mine.py").write_text(TEXT.format(mark="other"))
    with pytest.raises(ConfigError, match="is not as it was"):
        planned(f"space={job / 'mine.py'}:f", flag=True)
    assert ran() == []


def strangers(user: Path) -> SweepFolder:
    """A home from a stranger: its sweep names a file in that home, with the right digest and the right copy."""
    inside = space_in(home.home() / "theirs", "stranger")
    folder = begun(inside.parent)
    shutil.rmtree(user)
    return folder


COMMANDS = {
    "show": ["show", "fake"],
    "report": ["report", "fake"],
    "list": ["list"],
    "export": ["export", "fake"],
    "doctor": ["doctor", "{settings}"],
    "resume": ["sweep", "--name", "fake", "--resume"],
    "extend": ["extend", "fake", "1"],
    "retry": ["retry", "fake"],
    "repair": ["repair", "fake"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_code_of_a_strangers_home(
    command: str, user: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = strangers(user)
    folder.settings.write_text(f"space: {home.home() / 'theirs' / 'mine.py'}:f\ntrials: 4\n")
    words = [word.format(settings=folder.settings) for word in COMMANDS[command]]
    monkeypatch.setattr(sys, "argv", ["tune-rsst", *words])
    monkeypatch.setattr(doctor, "_cluster", lambda *_: iter(()))
    with pytest.raises(SystemExit):
        app.main()
    assert ran() == []
    if command in ("doctor", "resume", "extend"):
        assert "--trust" in "".join(capsys.readouterr())


def test_repair_runs_the_file_of_settings_only_where_the_sweep_has_its_copy(user: Path) -> None:
    folder = begun(user)
    lines = folder.ledger.read_bytes().splitlines(keepends=True)
    head = f"{written.HEAD}fake\n"
    folder.settings.write_text(written.sealed(head, f"space: {user / 'mine.py'}:f\ntrials: 4\n"), encoding="utf-8")
    folder.ledger.write_bytes(b"".join(lines[1:]))
    (user / "mine.py").write_text(TEXT.format(mark="other"))
    with pytest.raises(LedgerError, match="has a copy of"):
        repair.repair(folder, dry_run=True)
    assert ran() == []


def test_a_settings_file_cannot_say_that_it_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("trust: true\n")
    with pytest.raises(ConfigError, match="a file can't vouch for itself"):
        written.given(tmp_path / "s.yaml", [])
    assert written.given(None, ["trust=true"]) == {"trust": True}


def test_who_begins_a_sweep_of_a_file_in_the_home_is_told(user: Path) -> None:
    inside = space_in(home.home() / "theirs", "own")
    assert "needs --trust" in str(planned(f"space={inside}:f", "trials=4").note)
