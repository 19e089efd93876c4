"""The auditor finds each fault that is planted into a finished sweep, and nothing in one that is whole."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.chaos import toy_sweep
from tests.chaos.lives.audit import Home, audit
from tests.trainables import toy
from trainables.rsst import reports
from trainables.rsst.config import models
from trainables.storage.locks import take
from tune_rsst.ledger.file import read
from tune_rsst.storage.folder import Sweep, SweepFolder
from tune_rsst.tracking.uploader import Uploader

NAME = "toys"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a finished sweep of toys that is complete in MLflow."""
    home = tmp_path_factory.mktemp("audit") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_RSST_HOME", str(home))
        patch.setitem(models.NAMED, toy.NAME, toy.SHAPE)
        patch.setattr(reports, "latency", reports.latency)
        folder = toy_sweep.make(home, NAME, "stopping=none")
        uploader = Uploader(folder, Sweep.of(folder).view.settings, files=False)
        assert uploader.sync_once(120) == 0, uploader.problems
        folder.best_model.mkdir(exist_ok=True)
        yield home


@pytest.fixture
def home(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "home"))


def events(home: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the events of the ledger, and bind its lines anew."""
    path = SweepFolder(home / NAME).ledger
    found = [{k: v for k, v in one.items() if k not in ("line", "before", "crc")} for one in read(path)]
    change(found)
    toy_sweep.rewrite(path, found)


def last(found: list[dict[str, Any]], **wanted: Any) -> int:
    """Where the last event is that has these values."""
    return max(at for at, one in enumerate(found) if all(one.get(k) == v for k, v in wanted.items()))


def doubled_report(found: list[dict[str, Any]]) -> None:
    at = last(found, event="reported", kind="round")
    found.insert(at + 1, found[at])


def missing_report(found: list[dict[str, Any]]) -> None:
    del found[last(found, event="reported", kind="epoch", trial="t0001")]


def other_value(found: list[dict[str, Any]]) -> None:
    at = last(found, event="reported", kind="round", trial="t0001")
    found[at] = {**found[at], "metrics": {**found[at]["metrics"], "val_top1": 0.123}}


def opened_too_early(found: list[dict[str, Any]]) -> None:
    at = last(found, event="reported", kind="final", trial="t0001")
    found.insert(at, {"event": "placed", "time": 1.0, "trial": "t0001", "host": "a", "node": "", "epochs_there": 0})


def no_end(found: list[dict[str, Any]]) -> None:
    del found[last(found, event="sweep_ended") :]


def sql(home: Path, file: str, command: str) -> None:
    with sqlite3.connect(home / file) as connection:
        assert connection.execute(command).rowcount > 0
    connection.close()


def model_byte(home: Path) -> None:
    path = next((home / NAME / "trials").rglob("model.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def missing_trial(home: Path) -> None:
    folder = SweepFolder(home / NAME)
    (name,) = optuna.get_all_study_names(folder.study)
    trials = optuna.load_study(study_name=name, storage=folder.study).get_trials()
    optuna.delete_study(study_name=name, storage=folder.study)
    optuna.create_study(study_name=name, storage=folder.study, direction="maximize").add_trials(trials[:-1])


def held_lock(home: Path) -> None:
    take(home / NAME / "driver.lock")  # until this process ends


REPAIRED = {"event": "repaired", "time": 1.0, "lines": 1, "rebuilt": [], "lost": [], "aside": "a"}
A_POINT = "from metrics where key = 'val_top1' limit 1"
DOUBLED = f"insert into metrics select key, value, timestamp + 1, run_uuid, step, is_nan {A_POINT}"
PLANTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a ledger line twice": (lambda home: events(home, doubled_report), "there 2 times"),
    "a missing report": (lambda home: events(home, missing_report), "ledger: report of t0001"),
    "another value": (lambda home: events(home, other_value), "ledger: trial t0001"),
    "a round trained twice": (lambda home: events(home, opened_too_early), "it is trained twice"),
    "no end": (lambda home: events(home, no_end), "the sweep has not ended"),
    "another byte in a model": (model_byte, "model.safetensors"),
    "a lost store": (lambda home: shutil.rmtree(next((home / NAME / "trials").iterdir())), "store"),
    "a missing trial in Optuna": (missing_trial, "Optuna: trial 3: missing"),
    "another value in Optuna": (
        lambda home: sql(home, f"{NAME}/optuna.db", "update trial_values set value = 0.5 where trial_id = 2"),
        "Optuna: trial 1: ('COMPLETE'",
    ),
    "a point twice in MLflow": (lambda home: sql(home, "mlflow.db", DOUBLED), "there 2 times"),
    "a missing point in MLflow": (
        lambda home: sql(home, "mlflow.db", f"delete from metrics where rowid = (select rowid {A_POINT})"),
        "missing",
    ),
    "a missing run in MLflow": (
        lambda home: sql(
            home,
            "mlflow.db",
            "update runs set lifecycle_stage = 'deleted' where run_uuid = "
            "(select run_uuid from tags where key = 'trial' and value = 't0002')",
        ),
        "MLflow: status of t0002: missing",
    ),
    "a run that runs": (
        lambda home: sql(home, "mlflow.db", "update runs set status = 'RUNNING' where name = 'toys'"),
        "MLflow: status of ",
    ),
    "a temporary file": (
        lambda home: (next((home / NAME / "trials").iterdir()) / ".a.1-2.tmp").touch(),
        "left over: toys/trials",
    ),
    "a file of another name": (lambda home: (home / NAME / "core").touch(), "left over: core"),
    "a lock that is held": (held_lock, "driver.lock is held"),
    "a lost file": (lambda home: (home / NAME / "mlflow_cursor.json").unlink(), "lost: mlflow_cursor.json"),
}


@pytest.mark.medium
def test_nothing_is_found_in_a_copy(home: Path, whole: Path) -> None:
    assert audit(Home(home, NAME), Home(whole, NAME)) == []


@pytest.mark.medium
def test_only_trials_that_were_damaged_or_are_repaired_may_train_rounds_again(home: Path, whole: Path) -> None:
    events(home, opened_too_early)
    folder = SweepFolder(home / NAME)
    stores = {e["trial"]: folder.store(e["fingerprint"]).name for e in read(folder.ledger) if e["event"] == "suggested"}
    found = [audit(Home(home, NAME), Home(whole, NAME), damaged={stores[trial]}) for trial in ("t0000", "t0001")]
    assert [[("trained twice" in line) for line in lines] for lines in found] == [[True], []]
    events(home, lambda found: found.append({**REPAIRED, "to_do": ["t0001"]}))
    assert not any("trained twice" in line for line in audit(Home(home, NAME), Home(whole, NAME)))


@pytest.mark.medium
@pytest.mark.parametrize("planted", PLANTED)
def test_each_planted_fault_is_found(planted: str, home: Path, whole: Path) -> None:
    plant, line = PLANTED[planted]
    plant(home)
    found = audit(Home(home, NAME), Home(whole, NAME))
    assert any(line in one for one in found), found
