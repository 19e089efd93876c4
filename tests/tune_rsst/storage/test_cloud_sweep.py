"""A whole sweep in Azure's storage: its driver and worker are killed in the second trial, and the disk is lost.

What the second life ends with is what an undisturbed sweep of the same seed ends with, to the byte. The worker is the
one that Ray runs, without Ray between it and the driver; on S3 with Ray: test_away.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.azure_server import AzureServer
from trainables.storage.bucket import Bucket
from trainables.storage.files import sha256_of
from tune_rsst.ledger.view import TrialView
from tune_rsst.storage import bucket as storage
from tune_rsst.storage.bucket import fetch_model
from tune_rsst.storage.folder import Sweep

ROOT = Path(__file__).parents[3]
ROUNDS, TRIALS = 3, 2
WORDS = ["space=digits", "arch=vit_toy", f"trials={TRIALS}", "epochs=1", "warmup=0", "batch_size=128", "rate=0.5"]
LIVES = [("killed", 4), ("killed", None), ("whole", None)]  # a sweep, and rounds before the kill
PROGRAM = """
import json, os, signal, sys, time
import mlflow.store.tracking.sqlalchemy_store
from tests.trainables import toy
from trainables.storage.lease import Lease
from trainables.worker.ray_trainable import SweepTrainable
from tune_rsst.conduct import run
from tune_rsst.planning.begin import make_plan
from tune_rsst.results.table import make_console
from tune_rsst.settings.written import given
from tune_rsst.storage import ledger_objects
from tune_rsst.tracking.runs import _client
import tune_rsst.driver, tune_rsst.tracking.uploader

toy.install()
Lease.__init__.__defaults__ = (2.0,)  # seconds until a killed driver's lease runs out
ledger_objects.GATHER_S = 0.1

def workers(plan, rounds):
    def train(driver, tick):
        place = {"store": str(plan.folder.trials), "storage": f"{plan.settings.storage}/{plan.folder.name}"}
        place["dense_meet"] = plan.dense_meet
        seen = 0
        while not driver.interruption.broken and (trial := driver.next_trial()) is not None:
            worker = SweepTrainable.__new__(SweepTrainable)
            known = {"trial_key": trial.trial, "knobs": driver.knobs_of(trial), "reported": len(trial.seen)}
            worker.setup({**place, **known, "resources": {"CPU": 1}})
            while True:
                result = worker.step()
                ended = driver.take(result) or result["done"]
                seen += sum(event["kind"] == "round" for event in result["events"])
                if rounds is not None and seen >= rounds:
                    time.sleep(1.0)  # what is on its way arrives
                    os.kill(os.getpid(), signal.SIGKILL)
                tick()
                if ended:
                    break
            worker.cleanup()
    return train

_client(os.environ["MLFLOW_TRACKING_URI"])  # its tables: making them takes seconds
codes = []
for n, (name, rounds) in enumerate(json.loads(sys.argv[1])):
    if not (child := os.fork()):
        os.environ["TUNE_RSST_HOME"] = os.path.join(sys.argv[2], f"home-{n}")
        code = 1
        try:
            plan = make_plan(given(None, [*sys.argv[3:], "resume=auto"]), name, False)
            code = run(plan, make_console(stderr=True), workers(plan, rounds), models=False)  # no pictures
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""


@pytest.fixture(scope="module")
def sweeps(azure: AzureServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    azure.empty()
    place = tmp_path_factory.mktemp("cloud")
    words = [*WORDS, "startup_trials=2", "stopping=none", "confirm=0", f"storage={azure.address}/group"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow.db'}"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(LIVES), str(place), *words],
        capture_output=True,
        text=True,
        env=environment,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_RSST_HOME", str(place / "another"))
        folders = storage.bring(f"{azure.address}/group", None, print)
        found = {folder.name: Sweep.of(folder) for folder in folders}
        for sweep in found.values():
            for trial in sweep.view.trials.values():
                fetch_model(sweep.folder, f"{azure.address}/group", trial.fingerprint)
    return {"codes": json.loads(done.stdout.splitlines()[-1]), "said": done.stderr, **found}


def numbers(trial: TrialView) -> list[Any]:
    """What a trial found, without what a clock decides."""
    names = ("round", "val_top1", "test_top1", "kept_share", "params", "gmacs", "train_loss")
    return [trial.params, [[event.get(name) for name in names] for event in trial.round_events]]


@pytest.mark.slow
def test_a_killed_sweep_goes_on_from_azure_and_ends_as_an_undisturbed_one(sweeps: dict[str, Any]) -> None:
    assert sweeps["codes"] == [-9, 0, 0], sweeps["said"]
    killed, whole = sweeps["killed"], sweeps["whole"]
    assert killed.state == whole.state == "finished"
    assert len(killed.view.trials) == len(whole.view.trials) == TRIALS
    for name, trial in killed.view.trials.items():
        other = whole.view.trials[name]
        assert [event["round"] for event in trial.round_events] == list(range(ROUNDS)), "none lost, none doubled"
        assert numbers(trial) == numbers(other)
        models = [s.folder.store(t.fingerprint) / "model.safetensors" for s, t in ((killed, trial), (whole, other))]
        assert sha256_of(models[0]) == sha256_of(models[1])
    again = [place["epochs_there"] for trial in killed.view.trials.values() for place in trial.places[1:]]
    assert again and min(again) >= 1, f"a round that had arrived was trained again: {again}"


@pytest.mark.slow
def test_nothing_but_the_sweeps_is_left_there(sweeps: dict[str, Any], azure: AzureServer) -> None:
    keys = Bucket(f"{azure.address}/group").keys()
    assert {key.split("/")[0] for key in keys} == {"killed", "whole"}
    assert not [key for key in keys if key.endswith("driver.json") or "/." in key]
    assert {key.split("/")[1] for key in keys} == {"ledger", "trials", "files"}, "no two trials share a dense round"
