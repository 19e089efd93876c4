"""A sweep's own objective and stopping rule: what they decide, what they may not give, which code runs when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tune_rsst.fake_sweep import FakeSweep, tiny
from trainables import plugins
from trainables.plugins import address, loading
from trainables.rsst.config import ConfigError
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.ledger.objective import AIMS, Aim, Objective, checked_objective
from tune_rsst.planning import begin, doctor, repair, resume
from tune_rsst.planning.plan import Plan
from tune_rsst.results import as_json, table
from tune_rsst.results.ranking import best_of, ranking
from tune_rsst.runners.ray_tune import LedgerSearcher
from tune_rsst.search.spaces import Space, settled
from tune_rsst.search.study import StudySearcher
from tune_rsst.settings import written
from tune_rsst.settings.resolved import resolve
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep, SweepFolder
from tune_rsst.tracking import notes

TINY = Space("tiny", tiny)
GOOD = {
    "objective": "def f(metrics):\n    return metrics['val_top1'] - 0.5 * metrics['gmacs']\n",
    "stopping": "def f(reports, others):\n    return len(reports) == 2 and len(others) > 1\n",
}


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's; what a test has loaded is forgotten after it, as in another process."""
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "OPTUNA_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "user").mkdir()
    yield tmp_path / "user"
    forget()


def forget() -> None:
    loading._KNOWN.clear()
    loading._LOADED.clear()
    address._STAND_IN.clear()


def file(folder: Path, text: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(text, encoding="utf-8")
    return f"{folder / 'mine.py'}:f"


def planned(*words: str) -> Plan:
    found = begin.make_plan(written.given(None, words), "fake", False)
    assert isinstance(found, Plan)
    return found


def begun(*words: str, reports: int | None = 3) -> tuple[SweepFolder, FakeSweep]:
    """A sweep with its files, and what its driver has made of it by then."""
    made = planned("dataset=digits", "trials=4", *words)
    made.folder.path.mkdir(parents=True)
    made.copy_files()
    sweep = FakeSweep(made.folder.path, made.space, made.settings, **made.record())
    sweep.run(reports=reports)
    sweep.ledger.close()
    return made.folder, sweep


OBJECTIVES = {
    "val_top1": ("maximize", "highest val_top1"),
    "val_loss": ("minimize", "lowest val_loss"),
    "val_top5": ("maximize", "highest val_top5"),
    "val_balanced_accuracy": ("maximize", "highest balanced validation accuracy"),
    "hardening_gap": ("minimize", "lowest hardening gap"),
    "latency_ms": ("minimize", "lowest latency of one image"),
    "min:val_top1": ("minimize", "lowest val_top1"),
    "max:params": ("maximize", "highest parameters"),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_metric_as_objective_has_its_direction(name: str) -> None:
    found = Objective.of({"objective": checked_objective(name)})
    assert (found.directions[0], found.words) == OBJECTIVES[name]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("val_los", "did you mean val_loss?"),
        ("test_top1", "objective = test_top1: valid is val_top1 or"),
        ("min:test_loss", "objective = min:test_loss"),
        ("min:pareto", "objective = min:pareto"),
        ("epoch", "objective = epoch"),
        ("min:", "objective = min:"),
        ("min:nowhere.py:f", "No such file"),
        ("max:val_class_accuracy", "objective = max:val_class_accuracy"),
    ],
)
def test_what_is_no_objective_is_one_line(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match="objective") as refused:
        checked_objective(name)
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert "test_top1" not in AIMS and "objective" not in AIMS


def test_with_a_metric_to_be_minimised_the_lowest_is_the_best_and_goes_on(tmp_path: Path) -> None:
    """The formulas' gap and size fall with the share; loss = 1 − accuracy, so the order is that of val_top1."""

    def alter(trial: Any, event: dict[str, Any]) -> dict[str, Any]:
        return event | ({"val_loss": 1.0 - event["val_top1"]} if "val_top1" in event else {})

    def played(objective: str, folder: str) -> FakeSweep:
        settings = settled(["name=fake", "trials=8", f"objective={objective}", "sampler=random"], TINY)[0]
        (tmp_path / folder).mkdir()
        sweep = FakeSweep(tmp_path / folder, TINY, settings)
        sweep.run(alter=alter)
        return sweep

    loss, top1 = played("val_loss", "loss"), played("val_top1", "top1")
    assert [t.trial for t in ranking(loss.view)] == [t.trial for t in ranking(top1.view)]
    states = [[t.state for t in one.view.trials.values()] for one in (loss, top1)]
    assert states[0] == states[1] and "stopped" in states[0]
    reason = next(str(t.reason) for t in loss.view.trials.values() if t.state == "stopped")
    assert reason.startswith("rung ") and "val_loss" in reason and " > " in reason
    assert loss.searcher.study.best_trial.value == min(t.value for t in loss.searcher.study.trials if t.value)
    assert "val_loss" in table.METRICS and best_of(loss.view) == ranking(loss.view)[0]


def test_the_driver_writes_what_the_function_gives_and_a_resume_does_not_ask_again(user: Path) -> None:
    folder, sweep = begun(f"objective=min:{file(user, GOOD['objective'])}", "stopping=none", reports=None)
    for trial in sweep.view.trials.values():
        for m in (*trial.round_events, trial.metrics):
            assert m["objective"] == pytest.approx(m["val_top1"] - 0.5 * m["gmacs"])
    first = ranking(sweep.view)[0]
    assert first.metrics["objective"] == min(t.metrics["objective"] for t in sweep.view.trials.values())
    forget()
    (user / "mine.py").unlink()
    shown = as_json.as_json(Sweep.of(folder), None)
    assert shown["best"]["metrics"]["objective"] == first.metrics["objective"]
    assert plugins.said(shown["objective"]) == "min:mine.py:f"
    settings = resolve({**Sweep.of(folder).view.settings, "name": "fake"})
    again = FakeSweep(folder.path, TINY, settings)
    assert again.driver.complete and not again.searcher.rebuilt


BAD = {
    "raises": (
        "objective",
        "def f(metrics):\n    return metrics['accuracy']\n",
        "KeyError: 'accuracy' (mine.py, line 2)",
    ),
    "nan": ("objective", "def f(metrics):\n    return float('nan')\n", "no finite number"),
    "text": ("objective", "def f(metrics):\n    return 'good'\n", "ValueError"),
    "arguments": ("objective", "def f(metrics, more):\n    return 1\n", "takes 1 argument"),
    "no function": ("objective", "g = 1\n", "a function of mine.py"),
    "a number": ("objective", "f = 1\n", "of the type int"),
    "a generator": ("objective", "def f(metrics):\n    yield 1\n", "has a yield"),
    "syntax": ("objective", "def f(metrics)\n    return 1\n", "SyntaxError"),
    "exit": ("objective", "raise SystemExit\n", "SystemExit"),
    "import": ("stopping", "import nothing_of_that_name\n", "ModuleNotFoundError"),
    "answer": ("stopping", "def f(reports, others):\n    return 1\n", "it gave 1, not true"),
    "writes": ("stopping", "def f(reports, others):\n    reports[0]['val_top1'] = 1\n    others.clear()\n", "Error"),
    "one argument": ("stopping", "def f(reports):\n    return False\n", "takes 2 arguments"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_function_that_can_not_do_it_is_refused_before_anything_is_written(case: str, user: Path) -> None:
    key, text, said = BAD[case]
    with pytest.raises(ConfigError) as refused:
        planned("dataset=digits", f"{key}={file(user, text)}")
    assert str(refused.value).startswith(f"{key} = ") and said in str(refused.value)
    assert "mine.py" in str(refused.value) and "\n" not in str(refused.value)
    assert not home.home().exists() or not list(home.home().iterdir())


KNOBS = {
    "criteria": "def f(units, batches):\n    return [w.double().abs().sum(dim=1) for w in units.weights()]\n",
    "RST_schedule": "def f(t):\n    return t\n",
    "dataset": """
from trainables.rsst.data.sources import digits

def f(data):
    everything = digits()[0]["all"]
    return everything.images, everything.labels
""",
}


@pytest.mark.parametrize("key", KNOBS)
def test_a_knob_of_a_sweep_may_be_the_users_too_and_a_resume_runs_what_it_was(key: str, user: Path) -> None:
    given = {"dataset": "digits", key: file(user, KNOBS[key])}
    words = [f"{name}={value}" for name, value in given.items()]
    made = planned("trials=4", *words)
    assert made.settings.fixed[key] == made.draws[0].knobs()[key] and plugins.has_digest(made.settings.fixed[key])
    made.folder.path.mkdir(parents=True)
    made.copy_files()
    sweep = FakeSweep(made.folder.path, made.space, made.settings, **made.record())
    sweep.run(reports=3)
    sweep.ledger.close()
    (user / "mine.py").write_text("raise SystemExit\n", encoding="utf-8")
    forget()
    with pytest.raises(ConfigError, match="add --trust to run that"):
        begin.make_plan(written.given(None, ["name=fake", "resume=must"]), None, False)
    again = begin.make_plan({**written.given(None, ["name=fake", "resume=must"]), "trust": True}, None, False)
    assert again.settings.fixed[key] == made.settings.fixed[key]


FAILS = {
    "objective": "def f(metrics):\n    return 1 / (metrics['round'] - 2) if metrics['val_top1'] > 0.5 else 1.0\n",
    "stopping": "def f(reports, others):\n    return [False, False][len(reports)] if others else False\n",
}


@pytest.mark.parametrize("key", FAILS)
def test_what_it_raises_later_is_the_reason_of_that_trial(key: str, user: Path) -> None:
    text = FAILS[key].replace("> 0.5", "> 0.51")
    folder, sweep = begun(f"{key}={file(user, text)}", reports=None)
    failed = [trial for trial in sweep.view.trials.values() if trial.state == "failed"]
    assert failed and sweep.driver.complete
    for trial in failed:
        assert str(trial.reason).startswith(f"it would fail again: {key} mine.py:f: ")
        assert "(mine.py, line 2)" in str(trial.reason)
    again = Sweep.of(folder).view
    assert [t.state for t in again.trials.values()] == [t.state for t in sweep.view.trials.values()]


def test_a_rule_sees_the_reports_of_all_and_stops_a_trial_with_its_reason(user: Path) -> None:
    text = """
def f(reports, others):
    assert [r["round"] for r in reports] == list(range(len(reports))), "its own, oldest first"
    assert all(r["val_top1"] > 0 for other in others.values() for r in other)
    return f"{len(others)} others" if len(reports) == 2 and len(others) > 1 else None
"""
    _, sweep = begun(f"stopping={file(user, text)}", reports=None)
    stopped = [trial for trial in sweep.view.trials.values() if trial.state == "stopped"]
    assert {t.trial for t in stopped} >= {"t0002", "t0003"}
    assert all(len(t.round_events) == 2 and t.rung == 1 for t in stopped)
    assert str(stopped[-1].reason).startswith("mine.py:f after round 1, val_top1 0.")
    assert str(stopped[-1].reason).endswith("others")
    study: StudySearcher = sweep.searcher
    assert all(study.study.trials[t.number].intermediate_values.keys() == {0, 1} for t in stopped)


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_after_a_kill_anywhere_the_rule_decides_as_without(cut: int, user: Path, tmp_path: Path) -> None:
    """The ledger is cut after any line, so also between a report and the end that follows from it."""
    settings = settled(["name=fake", "trials=4", "sampler=random", f"stopping={file(user, GOOD['stopping'])}"], TINY)[0]
    (tmp_path / "whole").mkdir()
    whole = FakeSweep(tmp_path / "whole", TINY, settings)
    whole.run(at_once=1)
    whole.ledger.close()
    lines = (tmp_path / "whole" / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "ledger.jsonl").write_bytes(b"".join(lines[: max(1, len(lines) - cut)]))
    again = FakeSweep(tmp_path / "cut", TINY, settings)
    again.run(at_once=1)
    ends = [[(t.trial, t.state, t.reason) for t in one.view.trials.values()] for one in (whole, again)]
    assert ends[0] == ends[1] and "stopped" in {state for _, state, _ in ends[0]}


def test_a_resume_runs_the_file_as_it_was_or_with_trust_the_copy(user: Path) -> None:
    began = file(user, GOOD["objective"])
    folder, _ = begun(f"objective={began}")
    forget()
    assert isinstance(resume.go_on(Sweep.of(folder), {}), Plan)
    for change in (lambda: file(user, "# other\n" + GOOD["objective"]), (user / "mine.py").unlink):
        change()
        forget()
        with pytest.raises(ConfigError, match=r"objective = mine\.py:f: .*add --trust") as refused:
            resume.go_on(Sweep.of(folder), {})
        assert str(folder.code) in str(refused.value)
        trusted = resume.go_on(Sweep.of(folder), {"trust": True})
        assert isinstance(trusted, Plan)
        assert Aim.of(trusted.settings.objective).computed({"val_top1": 1.0, "gmacs": 1.0}) == {"objective": 0.5}


def test_another_function_on_a_resume_is_another_setting(user: Path) -> None:
    folder, _ = begun(f"objective={file(user, GOOD['objective'])}")
    forget()
    other = file(user, "# other\n" + GOOD["objective"])
    with pytest.raises(ConfigError, match="differs in objective"):
        resume.go_on(Sweep.of(folder), {"objective": other})


def test_a_file_in_the_home_may_have_come_with_the_sweep(user: Path) -> None:
    home.home().mkdir(parents=True)
    folder, _ = begun(f"objective={file(home.home() / 'own', GOOD['objective'])}")
    forget()
    with pytest.raises(ConfigError, match="may have come with it"):
        resume.go_on(Sweep.of(folder), {})
    assert isinstance(resume.go_on(Sweep.of(folder), {"trust": True}), Plan)


def test_a_file_edited_while_the_sweep_runs_changes_nothing(user: Path) -> None:
    made = planned("dataset=digits", "trials=2", f"objective={file(user, GOOD['objective'])}")
    file(user, "def f(metrics):\n    return 7.0\n")
    made.folder.path.mkdir(parents=True)
    sweep = FakeSweep(made.folder.path, made.space, made.settings)
    sweep.run()
    assert all(t.metrics["objective"] != 7.0 for t in sweep.view.trials.values())


def test_what_only_looks_runs_no_code(user: Path) -> None:
    """Doctor and repair run none either, unless the command line names it or the sweep has its copy."""
    folder, _ = begun(f"objective={file(user, GOOD['objective'])}")
    canary = file(user, f"open({str(user / 'ran')!r}, 'w')\n" + GOOD["objective"])
    forget()
    said = {"objective": canary, "dataset": "digits"}
    assert any("named on the command line" in finding.line() for finding in doctor.examine(said))
    lines = folder.ledger.read_bytes().splitlines(keepends=True)
    settings = f"space: digits\ntrials: 4\nobjective: {canary}\n"
    folder.settings.write_text(written.sealed(f"{written.HEAD}fake\n", settings), encoding="utf-8")
    folder.ledger.write_bytes(b"".join(lines[1:]))
    with pytest.raises(LedgerError, match="has a copy of"):
        repair.repair(folder, dry_run=True)
    assert not (user / "ran").exists()


def test_an_entry_point_is_found_by_its_name(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file(user, GOOD["objective"])
    info = user / "mine-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[tune_rsst.objectives]\nprice = mine:f\n", encoding="utf-8")
    monkeypatch.syspath_prepend(user)
    found = checked_objective("min:price")
    assert Objective.of({"objective": found}).words == "lowest price" and found.startswith("min:price@")
    assert Aim.of(found).computed({"val_top1": 1.0, "gmacs": 1.0}) == {"objective": 0.5}
    forget()
    file(user, GOOD["objective"] + "#\n")
    with pytest.raises(ConfigError, match="objective = price: valid is code with the digest"):
        Aim.of(found).computed({})
    with pytest.raises(ConfigError, match=r"did you mean price\?"):
        checked_objective("prise")


def test_siblings_are_the_plugins_own(user: Path, tmp_path: Path) -> None:
    """Two plug-ins may each have a helper of one name, a package, relative imports; late imports work."""
    values = []
    for number in (1, 2):
        folder = tmp_path / f"p{number}"
        (folder / "kit").mkdir(parents=True)
        (folder / "helper.py").write_text(f"from kit.deep import ten\nvalue = {number} * ten\n", encoding="utf-8")
        (folder / "kit" / "__init__.py").write_text("from . import deep\n", encoding="utf-8")
        (folder / "kit" / "deep.py").write_text("ten = 10\n", encoding="utf-8")
        (folder / "late.py").write_text("import kit.deep as d\none = d.ten / 10\n", encoding="utf-8")
        text = "import helper\ndef f(metrics):\n    from late import one\n    return helper.value + one\n"
        values.append(checked_objective(file(folder, text)))
    assert [Aim.of(value).computed({})["objective"] for value in values] == [11.0, 21.0]
    (tmp_path / "p1" / "kit" / "deep.py").write_text("ten = 11\n", encoding="utf-8")
    forget()
    with pytest.raises(ConfigError, match="has changed since"):
        Aim.of(values[0]).computed({})


def test_a_space_may_search_criteria_of_its_own(user: Path) -> None:
    """The table shows the name, the ledger has the digest, workers get the code, a resume knows the trials again."""
    criterion = file(user, "def f(units, batches):\n    return [w.abs().amax(dim=1) for w in units.weights()]\n")
    space = user / "space.py"
    space.write_text(
        f"""
def own(trial):
    return {{"dataset": "digits", "epochs": 2, "warmup": 0, "lr": trial.suggest_float("lr", 1e-4, 1e-2),
            "rate": 0.4, "criteria": trial.suggest_categorical("criteria", ["l1", {criterion!r}])}}
""",
        encoding="utf-8",
    )
    made = planned(f"space={space}:own", "trials=6", "sampler=random")
    made.folder.path.mkdir(parents=True)
    made.copy_files()
    assert sorted(source.entry for source in made.sources) == ["mine.py", "space.py"]
    sweep = FakeSweep(made.folder.path, made.space, made.settings, **made.record())
    sweep.run(reports=60)
    sweep.ledger.close()
    trials = list(sweep.view.trials.values())
    assert {trial.searched["criteria"] for trial in trials} == {"l1", "mine.py:f"}
    own = next(trial for trial in trials if trial.searched["criteria"] != "l1")
    assert own.knobs["criteria"].startswith(f"{criterion}@")
    assert "mine.py:f" in notes.run_name(own.trial, own.searched)
    order = LedgerSearcher(sweep.driver, made.folder, {"CPU": 1})
    sweep.driver._left_over = [own]
    own.state, own.ended_at, own.final = "running", None, None
    assert [code["entry"] for code in order._suggest("x")["plugins"]] == ["mine.py"]  # type: ignore[index]
    (user / "mine.py").write_text("def f(units, batches):\n    return []\n", encoding="utf-8")
    forget()
    for change in (lambda: None, (user / "mine.py").unlink):
        change()
        forget()
        with pytest.raises(ConfigError, match=r"criteria = mine\.py:f: .*add --trust"):
            resume.go_on(Sweep.of(made.folder), {})
        again = resume.go_on(Sweep.of(made.folder), {"trust": True})
        assert isinstance(again, Plan)
        assert {c.criteria for c in again.draws} == {"l1", own.knobs["criteria"]}, "the copy stands for the file"


def test_a_warm_start_asks_its_own_function_not_the_one_of_the_earlier_sweep(user: Path) -> None:
    """The earlier sweep's `objective` is that of another function."""
    folder, _ = begun(f"objective={file(user, GOOD['objective'])}", "stopping=none", reports=None)
    other = file(user / "other", "def f(metrics):\n    return 2 * metrics['val_top1']\n")
    found = begin.make_plan(
        written.given(None, ["dataset=digits", f"objective={other}", f"warm_start={folder.name}"]), "next", False
    )
    assert isinstance(found, Plan)
    taken = [record["metrics"] for record in found.warm.record()["warm_start"]]
    assert taken and all(m["objective"] == 2 * m["val_top1"] for m in taken)
