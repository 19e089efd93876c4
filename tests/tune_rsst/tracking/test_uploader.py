"""What is in the ledger is in MLflow, once, whatever breaks off and begins again on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.chaos.toy_sweep import rewrite
from tests.tune_rsst import rest_server
from tests.tune_rsst.recorded import EPOCHS, IMAGES, Recorder, sweep_events
from trainables.rsst.config import ConfigError
from trainables.storage.retrying import RetryingThread
from tune_rsst.ledger.file import read
from tune_rsst.ledger.lock import driving
from tune_rsst.settings.addresses import check_tracking_uri, sqlite_uri
from tune_rsst.storage.cursor import load_cursor
from tune_rsst.storage.folder import SweepFolder
from tune_rsst.tracking.runs import SweepRuns, _client, artifacts_at, find_parent_run
from tune_rsst.tracking.uploader import Uploader
from tune_rsst.tracking.write import OF_THE_SWEEP, profile_of
from tune_rsst.tracking.writes import PARENT, RunWrites

READ = (IMAGES["name"], IMAGES["digest"], profile_of(IMAGES))
EXPERIMENT = "tests"
STATUS = {PARENT: "FINISHED", "t0000": "FINISHED", "t0001": "FINISHED", "t0002": "KILLED", "t0003": "FAILED"}


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; making one takes seconds, copying it does not."""
    home = tmp_path_factory.mktemp("mlflow")
    _client(sqlite_uri(home))
    return home / "mlflow.db"


class Home:
    """A sweep folder with a ledger that is written in steps, and uploaders for it."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri = SweepFolder(folder), uri
        self.ledger, self.cursor = self.folder.ledger, self.folder.cursor
        self.recorder = Recorder(self.ledger)

    def uploader(self) -> Uploader:
        settings = {"mlflow_tracking_uri": self.uri, "mlflow_experiment": EXPERIMENT}
        return Uploader(self.folder, settings, files=False)

    def write(self, *events: dict[str, Any]) -> None:
        self.recorder.write(*events)

    def expected(self) -> dict[str, set[tuple[str, int, float, int]]]:
        """(key, step, value, time in ms) by run, from the ledger."""
        plan, points = RunWrites("", SweepFolder(self.ledger.parent)), {}
        for event in read(self.ledger):
            plan.apply(event)
        for write in plan.take():
            points[write.run] = sorted((key, step, value, ms) for key, value, ms, step in write.points)
        return points

    def found(self, database_uri: str | None = None) -> dict[str, Any]:
        """The same out of MLflow, as lists, so that a double shows; and by run: status, tags, params."""
        client = _client(database_uri or self.uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        runs = client.search_runs([experiment.experiment_id])
        names = [run.data.tags.get("trial", PARENT) for run in runs]
        assert len(names) == len(set(names)), "one run for each trial"
        by_name = dict(zip(names, runs, strict=True))
        points = {
            name: sorted(
                (key, p.step, p.value, p.timestamp)
                for key in run.data.metrics
                for p in client.get_metric_history(run.info.run_id, key)
            )
            for name, run in by_name.items()
        }
        return {"points": points, "runs": by_name}

    def check(self, database_uri: str | None = None) -> dict[str, Any]:
        found = self.found(database_uri)
        assert found["points"] == self.expected()
        begun = {event["trial"] for event in read(self.ledger) if event.get("kind") == "start"}
        for name, run in found["runs"].items():
            inputs = [entry.dataset for entry in run.inputs.dataset_inputs]
            expected = [READ] if name in begun or (name == PARENT and begun) else []
            assert [(one.name, one.digest, json.loads(one.profile)) for one in inputs] == expected
        return found["runs"]


@pytest.fixture
def home(tmp_path: Path, migrated_database: Path) -> Home:
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    folder = tmp_path / "demo"
    folder.mkdir()
    return Home(folder, sqlite_uri(tmp_path))


def test_a_sweep_is_a_parent_with_a_child_for_each_trial(home: Home) -> None:
    uploader = home.uploader()
    uploader.start()
    for event in sweep_events():
        home.write(event)
        uploader.notify()
    assert uploader.close(60) == 0, uploader.problems
    runs = home.check()
    assert {name: run.info.status for name, run in runs.items()} == STATUS
    parent = runs[PARENT].info.run_id
    assert {run.data.tags.get("mlflow.parentRunId") for name, run in runs.items() if name != PARENT} == {parent}
    assert (
        uploader.parent_run_id
        == parent
        == load_cursor(home.cursor).parent_run_id
        == find_parent_run(home.uri, EXPERIMENT, "demo")
    )
    begun, ended = read(home.ledger)[1]["time"], [e for e in read(home.ledger) if e["event"] == "ended"]
    assert runs["t0000"].info.start_time == round(begun * 1000)
    assert runs[ended[0]["trial"]].info.end_time == round(ended[0]["time"] * 1000)
    tags = runs[PARENT].data.tags
    assert (tags["state"], tags["host"], tags["mlflow.source.git.commit"]) == ("finished", "box", "0123abc")
    assert tags["version.torch"] == "2.15.0" and runs["t0000"].info.run_name.startswith("t0000 lr ")
    assert runs[PARENT].data.params["optuna_storage"] == "postgresql://tuner:***@db/optuna"
    experiment = _client(home.uri).get_experiment_by_name(EXPERIMENT)
    assert experiment.tags["mlflow.experiment.primaryMetric.name"] == "val_top1"
    assert load_cursor(home.cursor).sweep_uid == tags["sweep_uid"], "so that the next driver goes on from here"
    assert experiment.artifact_location == str(home.ledger.parent.parent / "mlartifacts" / EXPERIMENT)


@pytest.mark.medium
@pytest.mark.parametrize("cursor_is_lost", [False, True])
def test_a_new_uploader_after_every_line_gives_the_same_runs(home: Home, cursor_is_lost: bool) -> None:
    for event in sweep_events():
        home.write(event)
        if cursor_is_lost:
            home.cursor.unlink(missing_ok=True)
        assert home.uploader().sync_once(30) == 0
    runs = home.check()
    assert {name: run.info.status for name, run in runs.items()} == STATUS


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


@pytest.mark.parametrize("survived", range(5))
def test_a_crash_between_two_runs_of_a_chunk_is_healed(
    home: Home, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    events = list(sweep_events())
    home.write(*events[:30])
    put, calls = SweepRuns.put, iter(range(survived))

    def dying(self: SweepRuns, *arguments: Any) -> str | None:
        answer = put(self, *arguments)
        if next(calls, None) is None:
            raise Killed
        return answer

    uploader = home.uploader()
    with monkeypatch.context() as patch:
        patch.setattr(SweepRuns, "put", dying)
        with pytest.raises(Killed):
            uploader.sync_once(30)
    assert uploader.missing() == 30
    uploader._release()  # the kernel does this for a process that dies
    home.write(*events[30:])
    assert home.uploader().sync_once(30) == 0
    home.check()


@pytest.mark.parametrize("lost", [0, 6])
def test_lines_that_came_again_or_were_rebuilt_with_another_time_are_no_second_points(home: Home, lost: int) -> None:
    """Found by `make chaos`: after a repair MLflow is sent all lines, and those that were rebuilt have other times."""
    home.write(*sweep_events())
    assert home.uploader().sync_once(60) == 0
    events = [{k: v for k, v in one.items() if k not in ("line", "before", "crc")} for one in read(home.ledger)]
    later = [{**one, "time": one["time"] + 7.5 * (at > 3)} for at, one in enumerate(events)]
    if lost:  # a ledger that lacks its end, and goes on
        rewrite(home.ledger, events[:-lost])
        assert home.uploader().sync_once(60) == 0
        rewrite(home.ledger, [*events[:-lost], *later[-lost:]])
    else:
        rewrite(home.ledger, later)
        home.cursor.unlink()
    assert home.uploader().sync_once(60) == 0 and home.uploader().missing() == 0
    found, told = home.found()["points"], home.expected()
    assert {run: [point[:3] for point in points] for run, points in found.items()} == {
        run: [point[:3] for point in points] for run, points in told.items()
    }


@pytest.mark.parametrize("killed_at", ["", "delete_run", "create_run", "log_batch"])
@pytest.mark.parametrize("lost", [1, 9, 25])
def test_the_sweeps_run_tells_nothing_that_its_ledger_has_lost(
    home: Home, lost: int, killed_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by `make chaos --seed 61`: MLflow takes no point back, so another run takes the place of the sweep's."""
    home.write(*[*sweep_events()][:-1], {"event": "interrupted"})
    assert home.uploader().sync_once(60) == 0
    first = home.found()["runs"]
    written = [{k: v for k, v in one.items() if k not in ("line", "before", "crc")} for one in read(home.ledger)]
    rewrite(home.ledger, written[:-lost])
    if killed_at:
        dying = home.uploader()
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, killed_at, lambda *_, **__: (_ for _ in ()).throw(GeneratorExit()))
            with pytest.raises(GeneratorExit):
                dying.sync_once(60)
        dying._release()  # the kernel does
    assert home.uploader().sync_once(60) == 0
    found, told = home.found(), home.expected()
    assert [point[:3] for point in found["points"][PARENT]] == [point[:3] for point in told[PARENT]]
    parent = found["runs"].pop(PARENT).info.run_id
    assert parent != first[PARENT].info.run_id
    assert load_cursor(home.cursor).parent_run_id == parent
    assert {run.data.tags["mlflow.parentRunId"] for run in found["runs"].values()} == {parent}
    assert {name: run.info.run_id for name, run in found["runs"].items()} == {
        name: run.info.run_id for name, run in first.items() if name != PARENT
    }


def test_what_somebody_else_wrote_into_the_sweeps_run_is_no_reason_to_replace_it(home: Home) -> None:
    home.write(*sweep_events())
    assert home.uploader().sync_once(60) == 0
    run = home.found()["runs"][PARENT].info.run_id
    _client(home.uri).log_metric(run, "cost_eur", 12.5, step=3)
    home.cursor.unlink()
    assert home.uploader().sync_once(60) == 0
    found = home.found()
    assert found["runs"][PARENT].info.run_id == run and found["runs"][PARENT].data.metrics["cost_eur"] == 12.5


def test_every_point_of_the_sweeps_own_run_is_known_as_such(home: Home) -> None:
    home.write(*sweep_events())
    assert {key for key, *_ in home.expected()[PARENT] if not key.startswith(OF_THE_SWEEP)} == set()


def test_a_torn_line_is_waited_for(home: Home) -> None:
    events = list(sweep_events())
    home.write(*events[:5])
    whole = home.ledger.read_bytes()
    home.write(events[5])
    torn = home.ledger.read_bytes()
    home.ledger.write_bytes(torn[: len(whole) + 10])
    assert home.uploader().sync_once(30) == 0
    home.ledger.write_bytes(torn)
    assert home.uploader().missing() == 1
    assert home.uploader().sync_once(30) == 0
    home.check()


def test_a_damaged_line_stops_the_upload_before_it_and_says_so(home: Home) -> None:
    home.write(*list(sweep_events())[:6])
    lines = home.ledger.read_bytes().splitlines(keepends=True)
    home.ledger.write_bytes(b"".join([*lines[:2], lines[2].replace(b'"number":1', b'"number":7'), *lines[3:]]))
    uploader = home.uploader()
    assert uploader.sync_once(1) == 4
    assert "damaged" in uploader.problems[-1]
    assert sorted(home.found()["runs"]) == [PARENT, "t0000"]


def test_a_line_that_makes_no_sense_is_not_counted_as_uploaded(home: Home) -> None:
    ended = {"event": "ended", "trial": "t0099", "state": "failed", "reason": None, "rung": None}
    home.write(*list(sweep_events())[:3], ended)
    uploader = home.uploader()
    assert uploader.sync_once(1) == 4
    assert "t0099" in uploader.problems[-1]


def test_a_database_that_was_deleted_is_filled_again(home: Home, migrated_database: Path) -> None:
    events = list(sweep_events())
    home.write(*events[:20])
    assert home.uploader().sync_once(30) == 0
    shutil.copy(migrated_database, home.ledger.parent.parent / "mlflow.db")
    home.write(*events[20:])
    assert home.uploader().sync_once(30) == 0
    home.check()


def test_a_run_that_the_user_deleted_stays_deleted(home: Home) -> None:
    events = list(sweep_events())
    home.write(*events[:20])
    home.uploader().sync_once(30)
    client = _client(home.uri)
    client.delete_run(home.found()["runs"]["t0001"].info.run_id)
    home.write(*events[20:])
    uploader = home.uploader()
    assert uploader.sync_once(30) == 0
    assert sorted(home.found()["runs"]) == [PARENT, "t0000", "t0002", "t0003"]
    assert any("t0001" in problem and "deleted" in problem for problem in uploader.problems)


def test_two_runs_for_one_trial_become_one(home: Home) -> None:
    """The answer to a create was lost, and the server carried it out after all."""
    events = list(sweep_events())
    home.write(*events[:20])
    home.uploader().sync_once(30)
    client, first = _client(home.uri), home.found()["runs"]["t0001"]
    client.create_run(first.info.experiment_id, first.info.start_time, first.data.tags, first.info.run_name)
    home.write(*events[20:])
    assert home.uploader().sync_once(30) == 0
    assert home.check()["t0001"].info.run_id == first.info.run_id


def test_only_one_process_uploads_a_sweep(home: Home) -> None:
    home.write(*list(sweep_events())[:5])
    first, second = home.uploader(), home.uploader()
    first._take_lock()
    assert second.sync_once(0.5) == 5
    assert "another process" in second.problems[-1]
    assert first.sync_once(30) == 0 == second.missing()


def test_the_same_name_in_another_ledger_is_another_sweep(home: Home, tmp_path: Path) -> None:
    home.write(*sweep_events())
    home.uploader().sync_once(30)
    (tmp_path / "other").mkdir()
    again = Home(tmp_path / "other", home.uri)
    again.recorder = Recorder(again.ledger, begins=1_800_000_000.0)
    again.write(*sweep_events())
    again.uploader().sync_once(30)
    runs = _client(home.uri).search_runs([_client(home.uri).get_experiment_by_name(EXPERIMENT).experiment_id])
    assert len(runs) == 10
    assert find_parent_run(home.uri, EXPERIMENT, "demo") == load_cursor(again.cursor).parent_run_id, "the newest one"


def test_a_sweep_whose_driver_was_killed_is_marked_by_sync(home: Home) -> None:
    """Its trials too; and a later sync does not move the end."""

    def found() -> dict[str, tuple[str, int | None]]:
        return {name: (run.info.status, run.info.end_time) for name, run in home.found()["runs"].items()}

    home.write(*list(sweep_events())[:20])
    with driving(home.ledger.parent):
        home.uploader().sync_once(30)
        assert found() == dict.fromkeys(STATUS, ("RUNNING", None))
    last = round(read(home.ledger)[-1]["time"] * 1000)
    for _ in range(2):
        home.uploader().sync_once(30)
        assert found() == dict.fromkeys(STATUS, ("KILLED", last))
    home.cursor.unlink()
    home.uploader().sync_once(30)
    assert found() == dict.fromkeys(STATUS, ("KILLED", last)), "nor one that uploads everything again"
    home.write({"event": "resumed"})
    with driving(home.ledger.parent):
        home.uploader().sync_once(30)
        assert {status for status, _ in found().values()} == {"RUNNING"}
    home.write(*list(sweep_events())[20:])
    home.uploader().sync_once(30)
    assert {name: run.info.status for name, run in home.check().items()} == STATUS


@pytest.mark.parametrize("kind", ["nobody listens", "never answers"])
def test_a_server_that_does_not_answer_costs_the_sweep_nothing(tmp_path: Path, kind: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "never answers":
            listener.listen()
        home = Home(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}")
        uploader = home.uploader()
        uploader.start()
        costs = []
        for event in sweep_events():
            home.write(event)
            begun = time.perf_counter()
            uploader.notify()
            costs.append(time.perf_counter() - begun)
        begun = time.monotonic()
        missing = uploader.close(1.0)
        assert time.monotonic() - begun < 1.5
        assert missing == len(read(home.ledger))
        assert sorted(costs)[len(costs) * 99 // 100] < 0.002


def test_what_came_while_the_last_run_but_one_was_busy_is_uploaded_too() -> None:
    begun, go_on = threading.Event(), threading.Event()
    seen: list[bool] = []

    def action() -> None:
        seen.append(thread.closing)
        begun.set()
        assert go_on.wait(20)

    thread = RetryingThread(action, name="busy")
    thread.start()
    assert begun.wait(20)
    closer = threading.Thread(target=thread.close, args=(20.0,))
    closer.start()
    while not thread.closing:
        time.sleep(0.01)
    go_on.set()
    closer.join(20)
    assert seen == [False, True]


def test_what_mlflow_refuses_costs_nothing_else_and_is_said(home: Home) -> None:
    """A parameter's name that MLflow does not take: the run's other parameters, points and its end are there."""
    for event in sweep_events():
        if event["event"] == "suggested" and event["trial"] == "t0001":
            event = {**event, "params": {**event["params"], "lr[adamw]": 1e-3}}
        home.write(event)
    uploader = home.uploader()
    assert uploader.sync_once(60) == 0
    runs = home.check()
    assert {name: run.info.status for name, run in runs.items()} == STATUS
    assert "rate" in runs["t0001"].data.params and "lr[adamw]" not in runs["t0001"].data.params
    assert len(uploader.refused) == 1 and "lr[adamw]" in uploader.refused[0] and "t0001" in uploader.refused[0]


def test_a_failed_trial_that_is_tried_again_goes_on_in_its_run(home: Home) -> None:
    events = list(sweep_events())
    home.write(*events, {"event": "reopened", "trial": "t0003"}, {"event": "resumed"})
    with driving(home.ledger.parent):
        assert home.uploader().sync_once(60) == 0
    before = home.check()["t0003"]
    assert before.info.status == "RUNNING" and before.data.tags["reason"] == ""
    final = {"round": 1, "epoch": EPOCHS, "epochs_trained": 4, "val_top1": 0.5, "kept_share": 0.3, "density": 0.3}
    home.write(
        {"event": "reported", "trial": "t0003", "seq": 99, "kind": "final", "metrics": final},
        {"event": "ended", "trial": "t0003", "state": "finished", "reason": None, "rung": None},
        {"event": "sweep_ended"},
    )
    assert home.uploader().sync_once(60) == 0
    after = home.check()
    assert (after["t0003"].info.run_id, after["t0003"].info.status) == (before.info.run_id, "FINISHED")
    assert {name: run.info.status for name, run in after.items()} == {**STATUS, "t0003": "FINISHED"}
    assert after[PARENT].data.metrics["trials/failed"] == 0


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("sqlite:////data/mlflow.db", "/data/mlartifacts/my_runs"),
        ("postgresql://tuner@db/mlflow", "/shared/home/mlartifacts/my_runs"),
        ("mysql+pymysql://tuner@db/mlflow", "/shared/home/mlartifacts/my_runs"),
        ("http://mlflow:5000", None),
        ("https://mlflow.example", None),
    ],
)
def test_the_files_of_a_new_experiment_never_lie_in_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, uri: str, folder: str | None
) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", "/shared/home")
    assert artifacts_at(uri, "my runs") == folder


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "file:///somewhere", "sqlite:///mlflow.db", "http://", ""])
def test_a_tracking_address_that_would_lose_runs_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="mlflow_tracking_uri"):
        check_tracking_uri(uri)


@pytest.mark.parametrize(
    "uri", ["http://mlflow:5000", "https://a.b", "sqlite:////a/b.db", "postgresql+psycopg://u:p@h/d"]
)
def test_a_tracking_address_that_works_is_kept(uri: str) -> None:
    assert check_tracking_uri(uri) == uri


Server = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def server(tmp_path: Path, migrated_database: Path) -> Iterator[tuple[str, str, Server]]:
    """Address, database behind it, and a function that starts it (and waits until it answers)."""
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    port = rest_server.free_port()
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(rest_server.start(sqlite_uri(tmp_path), port, tmp_path))
        return started[-1]

    yield f"http://127.0.0.1:{port}", sqlite_uri(tmp_path), start
    for process in started:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGCONT)
            process.kill()
        process.wait()


@pytest.mark.slow
def test_a_server_that_is_killed_hangs_and_is_down_at_the_end_misses_nothing(
    tmp_path: Path, server: tuple[str, str, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr("tune_rsst.tracking.uploader.GATHER_S", 0.5)
    address, database, start = server
    (tmp_path / "demo").mkdir()
    home, events = Home(tmp_path / "demo", address), list(sweep_events(trials=8))
    process = start()
    uploader = home.uploader()
    uploader.start()
    for at, event in enumerate(events):
        home.write(event)
        uploader.notify()
        time.sleep(0.05)
        if at == 25:
            process.kill()
            process.wait()
        elif at == 40:
            process = start()
        elif at == 60:
            os.kill(process.pid, signal.SIGSTOP)
        elif at == 80:
            os.kill(process.pid, signal.SIGCONT)
        elif at == len(events) - 5:
            process.kill()
            process.wait()
    assert process.poll() is not None, "the server is down at the end"
    assert uploader.close(2.0) >= 4
    start()
    for _ in range(60):  # the closed uploader is in its last request, which has a second to end, and lets go then
        late = home.uploader()
        missing = late.sync_once(60)
        if not any("another process" in problem for problem in late.problems):
            break
        time.sleep(0.2)
    assert missing == 0, late.problems
    runs = home.check(database)
    assert len(runs) == 9 and runs[PARENT].info.status == "FINISHED"
