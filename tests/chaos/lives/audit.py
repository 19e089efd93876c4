"""The auditor: a sweep that was disturbed and has ended, compared with one of the same suggestions that was left alone.

In: the homes of both. Out: one line for each thing that is lost, there twice, another one, trained twice or left over;
none where all is well. What differs between any two runs (times, places) is not compared.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from sqlalchemy import create_engine, text

from tests.trainables.toy import timeless, timeless_report
from trainables.rsst.event import Event
from trainables.storage.bucket import Bucket
from trainables.storage.files import is_temporary, sha256_of
from trainables.storage.lease import LEASE_KEY
from trainables.storage.locks import is_held
from tune_rsst.ledger.file import LedgerError, read
from tune_rsst.ledger.tail import LedgerTail
from tune_rsst.ledger.view import SweepView
from tune_rsst.settings.addresses import sqlite_uri
from tune_rsst.storage import bucket
from tune_rsst.storage.folder import SweepFolder
from tune_rsst.tracking.writes import PARENT, RunWrites

optuna.logging.set_verbosity(optuna.logging.WARNING)
OF_THE_PLACE = ("points", "name", "by")
PICTURES = {"pictures", "report.html", "mlartifacts", ".matplotlib"}
OF_RAY = {".ray_token"}  # which a sweep without Ray does not have
DATABASES = {"mlflow.db", ".mlflow.db.lock", "mlartifacts", "optuna.db"}  # of a sweep that uses no others
RESULTS = {"model.safetensors", "report.json"}
PUT_ASIDE = re.compile(r"\.aside$|(^|\.)damaged-")  # what was damaged is kept for people


class Home(NamedTuple):
    """One sweep in one home. `mlflow`, `study`: databases with its runs and its study; None: in files of the home."""

    path: Path
    name: str
    mlflow: str | None = None
    study: str | None = None

    @property
    def folder(self) -> SweepFolder:
        return SweepFolder(self.path / self.name)


def audit(found: Home, expected: Home, *, damaged: Set[str] = frozenset(), drawn: bool = True) -> list[str]:
    """What is wrong with `found`. `damaged`: stores of trials with damaged checkpoints, which may train rounds again.

    So may trials that `tune-rsst repair` says are to be trained again. Without `drawn` either may have its pictures, or
    not.
    """
    try:
        events = list(read(found.folder.ledger))
        view = SweepView.of(events, str(found.path))
    except (LedgerError, ValueError) as error:
        return [f"ledger: {error}"]
    right = SweepView.of(read(expected.folder.ledger), str(expected.path))
    lines = [
        _ledger(events, view, right),
        _trained_twice(events, found.folder, damaged),
        _stores(found.folder, expected.folder),
        _study(found, expected),
        _tracking(found, expected, events),
        _left_over(found, expected, OF_RAY | (set() if drawn else PICTURES) | (DATABASES if found.study else set())),
    ]
    return list(chain.from_iterable(lines))


def _unlike(what: str, found: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[str]:
    """A line for each name that is missing, too much or has another value."""
    yield from (f"{what} {name}: missing" for name in sorted(right.keys() - found.keys()))
    yield from (f"{what} {name}: it should not be there" for name in sorted(found.keys() - right.keys()))
    for name in sorted(found.keys() & right.keys()):
        if found[name] != right[name]:
            yield f"{what} {name}: {_short(found[name])} instead of {_short(right[name])}"


def _short(value: Any) -> str:
    shown = str(value)
    return shown if len(shown) <= 160 else f"{shown[:157]}…"


def _twice(what: str, names: Iterable[Any]) -> Iterator[str]:
    yield from (f"{what} {name}: there {count} times" for name, count in Counter(names).items() if count > 1)


def _ledger(events: list[dict[str, Any]], view: SweepView, right: SweepView) -> Iterator[str]:
    """Trials, reports and ends: none lost, none twice, each with the value of the other sweep."""
    reports = [(e["trial"], *Event(e["kind"], e["metrics"]).key) for e in events if e["event"] == "reported"]
    yield from _twice("ledger: report", reports)
    yield from _twice("ledger: suggestion", (e["trial"] for e in events if e["event"] == "suggested"))
    yield from _twice("ledger: end of", (e["trial"] for e in events if e["event"] == "ended"))
    yield from _twice(
        "ledger: number of a report", ((e["trial"], e["seq"]) for e in events if e["event"] == "reported")
    )
    if not view.ended:
        yield "ledger: the sweep has not ended"
    yield from _unlike("ledger: trial", *({n: _said(t) for n, t in one.trials.items()} for one in (view, right)))
    for name in view.trials.keys() & right.trials.keys():
        here, there = (dict.fromkeys(each.trials[name].seen, True) for each in (view, right))
        yield from _unlike(f"ledger: report of {name}", {str(k): 1 for k in here}, {str(k): 1 for k in there})


def _said(trial: Any) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "reason": trial.reason,
        "params": trial.params,
        "fingerprint": trial.fingerprint,
        "rounds": [timeless(one) for one in trial.round_events],
        "final": timeless(trial.final or {}),
        "last epoch": timeless(trial.last_epoch),
        "start": timeless(trial.origin),
    }


def _trained_twice(events: list[dict[str, Any]], folder: SweepFolder, damaged: Set[str]) -> Iterator[str]:
    """A worker that opens a trial finds every round that was reported in its checkpoint."""
    done: dict[str, int] = {}
    may = {trial for event in events if event["event"] == "repaired" for trial in event["to_do"]}
    may |= {e["trial"] for e in events if e["event"] == "suggested" and folder.store(e["fingerprint"]).name in damaged}
    for event in events:
        if event.get("trial") in may:
            continue
        if event["event"] == "reported" and event["kind"] == "round":
            done[event["trial"]] = int(event["metrics"]["epochs_trained"])
        elif event["event"] == "placed" and event["epochs_there"] < done.get(event["trial"], 0):
            yield (
                f"ledger: {event['trial']} was opened with {event['epochs_there']} epochs, though a round with "
                f"{done[event['trial']]} had been reported: it is trained twice"
            )


def _stores(found: SweepFolder, expected: SweepFolder) -> Iterator[str]:
    """Models by sha256, reports without times; of checkpoints that they are there."""
    yield from _unlike("store", *({one.name: True for one in each.trials.iterdir()} for each in (found, expected)))
    for store in sorted(expected.trials.iterdir()):
        here = found.trials / store.name
        if here.is_dir():
            yield from _unlike(f"store {store.name}:", _contents(here), _contents(store))
    models = ({"best_model": _contents(each.best_model)} for each in (found, expected))
    yield from _unlike("model", *models)


def _contents(store: Path) -> dict[str, Any]:
    """What each file of a store says, where two runs must agree."""
    found: dict[str, Any] = {}
    for path in sorted(store.rglob("*")):
        name = str(path.relative_to(store))
        if not path.is_file() or name == "messages.log" or is_temporary(path) or PUT_ASIDE.search(name):
            continue
        if path.name == "report.json":
            found[name] = timeless_report(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            found[name] = sha256_of(path)
        else:
            found[name] = True
    return found


def _study(found: Home, expected: Home) -> Iterator[str]:
    """Optuna's trials, with everything that a sampler would learn from."""

    def trials(home: Home) -> dict[str, Any]:
        where = home.study or home.folder.study
        (name,) = optuna.get_all_study_names(where)
        return {
            str(one.number): (one.state.name, one.params, one.values, one.intermediate_values)
            for one in optuna.load_study(study_name=name, storage=where).get_trials()
        }

    yield from _unlike("Optuna: trial", trials(found), trials(expected))


def audit_bucket(address: str, found: Home, empty: Path) -> list[str]:
    """What the bucket `address` has otherwise than the sweep's home; it is brought into the folder `empty`."""
    before, os.environ["TUNE_RSST_HOME"] = os.environ.get("TUNE_RSST_HOME", ""), str(empty)
    try:
        (brought,) = bucket.bring(address, found.name, print)
        lines = [] if brought.ledger.read_bytes() == found.folder.ledger.read_bytes() else ["bucket: another ledger"]
        for event in read(brought.ledger):
            if event["event"] == "suggested":
                bucket.fetch_model(brought, address, event["fingerprint"])
                here, there = (_results(one.store(event["fingerprint"])) for one in (brought, found.folder))
                lines += _unlike(f"bucket: {event['trial']}", here, there)
        lines += _unlike("bucket: best model", _contents(brought.best_model), _contents(found.folder.best_model))
        held = Bucket(f"{address}/{found.name}").find(LEASE_KEY)
        return [*lines, *(["bucket: the lease is held"] if held else [])]
    finally:
        os.environ["TUNE_RSST_HOME"] = before


def _results(store: Path) -> dict[str, Any]:
    return {name: what for name, what in _contents(store).items() if name in RESULTS}


def runs_of(home: Home) -> list[dict[str, Any]]:
    """The runs in its MLflow that are not deleted: name, status, parameters, points as (key, step, value, ms)."""
    engine = create_engine(home.mlflow or sqlite_uri(home.path))
    with engine.connect() as connection:

        def rows(query: str, uid: str = "") -> list[Any]:
            return list(connection.execute(text(query), {"uid": uid} if uid else {}))

        runs = []
        for uid, status in rows("select run_uuid, status from runs where lifecycle_stage = 'active'"):
            tags = dict(map(tuple, rows("select key, value from tags where run_uuid = :uid", uid)))
            if tags.get("sweep") == home.name:
                points = rows("select key, step, value, timestamp from metrics where run_uuid = :uid", uid)
                params = dict(map(tuple, rows("select key, value from params where run_uuid = :uid", uid)))
                own = {"name": tags.get("trial", PARENT), "status": status, "params": params, "uid": tags["sweep_uid"]}
                runs.append({**own, "points": sorted(map(tuple, points))})
    engine.dispose()
    return runs


def _tracking(found: Home, expected: Home, events: list[dict[str, Any]]) -> Iterator[str]:
    """One run for each trial with the points of the ledger, each step of a curve once, and the other sweep's values."""
    runs, right = runs_of(found), runs_of(expected)
    if any("first line" in line for event in events if event["event"] == "repaired" for line in event["rebuilt"]):
        runs = [run for run in runs if run["uid"] == LedgerTail(found.folder.ledger).uid()]  # it has new ones then
    yield from _twice("MLflow: run", (run["name"] or "of the sweep" for run in runs))
    yield from _unlike("MLflow: status of", *({one["name"]: one["status"] for one in each} for each in (runs, right)))
    plan = RunWrites("", found.folder)
    for event in events:
        plan.apply(event)
    told = {write.run: {(key, step, value) for key, value, _, step in write.points} for write in plan.take()}
    others = {one["name"]: one for one in right}
    for run in runs:
        name, what = run["name"], f"MLflow: run {run['name'] or 'of the sweep'}:"
        steps = [(key, step, value) for key, step, value, _ in run["points"]]
        yield from _twice(f"{what} point", steps)
        yield from (f"{what} point {one}: missing" for one in sorted(told.get(name, set()) - set(steps)))
        yield from (f"{what} point {one}: not in the ledger" for one in sorted(set(steps) - told.get(name, set())))
        if name != PARENT and name in others:
            here, there = (_curves(one) for one in (run, others[name]))
            yield from _unlike(f"{what} curve", here, there)
            params = (_of_the_trial(one["params"]) for one in (run, others[name]))
            yield from _unlike(f"{what} parameter", *params)


def _curves(run: Mapping[str, Any]) -> dict[str, Any]:
    curves: dict[str, Any] = {}
    for key, step, value, _ in run["points"]:
        curves.setdefault(key, []).append((step, value))
    return {key: curves[key] for key in timeless(curves)}


def _of_the_trial(params: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in params.items() if name not in OF_THE_PLACE}


def _left_over(found: Home, expected: Home, either: set[str]) -> Iterator[str]:
    """Files that an undisturbed sweep does not leave, temporary names, locks that are held."""
    for path in sorted(found.path.rglob("*")):
        if is_temporary(path):
            yield f"left over: {path.relative_to(found.path)}"
        elif path.name.endswith("lock") and is_held(path):
            yield f"left over: the lock {path.relative_to(found.path)} is held"
    for here, there in ((found.path, expected.path), (found.folder.path, expected.folder.path)):
        kept = {one.name for one in here.iterdir() if not PUT_ASIDE.search(one.name) and not is_temporary(one)}
        usual = {path.name for path in there.iterdir()}
        yield from (f"left over: {one}" for one in sorted(kept - usual - either))
        yield from (f"lost: {one}" for one in sorted(usual - kept - either))
