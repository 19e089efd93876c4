"""A knob and a metric are each declared once: one line more in a copy of the code, and every surface shows them.

The copy gets three lines: the knob in config.py, the metric in metrics.py, and the code that computes it in reports.py.
A place that kept a list of its own would not know them.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tune_rsst.recorded import Recorder, reported

pytestmark = pytest.mark.medium
ROOT = Path(__file__).resolve().parents[1]
KNOB = '    stretch: float = _knob("made up by a test", 0.5, unit="parsecs", short="st", check=checks.POSITIVE)\n'
METRIC = """\
    "sag": Metric("furlongs", "made up by a test", ".2f", ("round", "final"), "lower",
                  label="sagging", column="sag_col", legend="how far it sags"),
"""
COMPUTED = '        "sag": trial.config.stretch * 3,\n'
LINES = {
    "trainables/rsst/config/config.py": ("    # running\n", KNOB),
    "trainables/rsst/metrics.py": ("METRICS: Mapping[str, Metric] = {\n", METRIC),
    "trainables/rsst/reports.py": ('        "val_top1": top1,\n', COMPUTED),
}
FLAGS = "--dataset digits --epochs 1 --warmup 0 --pruning_times 2 --rate 0.4 --batch_size 256 --device cpu".split()  # noqa: SIM905


class House:
    """A copy of the three packages, and what its commands print."""

    def __init__(self, folder: Path) -> None:
        self.code, self.home = folder / "code", folder / "home"
        for package in ("trainables", "search_spaces", "tune_rsst"):
            shutil.copytree(ROOT / package, self.code / package, ignore=shutil.ignore_patterns("__pycache__"))
        for name, (place, line) in LINES.items():
            text = (self.code / name).read_text(encoding="utf-8")
            assert text.count(place) == 1, name
            (self.code / name).write_text(text.replace(place, place + line), encoding="utf-8")
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"

    def run(self, module: str, *words: str) -> str:
        env = {**os.environ, "PYTHONPATH": str(self.code), "TUNE_RSST_HOME": str(self.home), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", module, *words]
        done = subprocess.run(
            command, cwd=self.code.parent, env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-500:]}{done.stderr[-2000:]}"
        return done.stdout

    def train(self) -> dict[str, Any]:
        """The report of one trial with the new knob at 0.25, so that the new metric is 0.75."""
        folder = self.code.parent / "run"
        self.run("trainables", *FLAGS, "--stretch", "0.25", "--save_dir", str(folder))
        return dict(json.loads((folder / "report.json").read_text(encoding="utf-8")))

    def record(self, report: dict[str, Any]) -> None:
        """A sweep's ledger with that trial in it, which searched the new knob."""
        folder = self.home / "demo"
        folder.mkdir(parents=True)
        settings = {"space": "digits", "trials": 1, "seed": 0, "objective": "val_top1"}
        settings |= {"mlflow_tracking_uri": self.uri, "mlflow_experiment": "demo"}
        write = Recorder(folder / "ledger.jsonl").write
        write({"event": "sweep_started", "name": "demo", "settings": settings})
        write({"event": "suggested", "trial": "t0000", "number": 0, "params": {"stretch": 0.25}, "distributions": {},
               "knobs": report["config"], "fingerprint": report["fingerprint"], "rounds": 2})  # fmt: skip
        told = [("start", report["start"])]
        for metrics, last in zip(report["epochs"], report["rounds"], strict=True):
            told += [("epoch", metrics), ("round", last)]
        for number, (kind, metrics) in enumerate([*told, ("final", report["final"])]):
            write(reported("t0000", number, kind, metrics))
        write({"event": "ended", "trial": "t0000", "state": "finished", "reason": None, "rung": None})
        write({"event": "sweep_ended"})


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(tmp_path_factory.mktemp("house"))
    house.record(house.train())
    return house


def test_the_knob_is_a_flag_and_a_setting(house: House) -> None:
    assert "--stretch X" in house.run("trainables", "--help")
    settings = house.run("tune_rsst", "settings")
    assert "  stretch: float, default 0.5\n      made up by a test (a number > 0)" in settings


def test_both_are_columns_of_the_table_with_their_meaning(house: House) -> None:
    lines = house.run("tune_rsst", "show", "demo").splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("#"))
    cells = dict(zip(lines[at].split(), lines[at + 1].split(), strict=True))
    assert (cells["st"], cells["sag_col"]) == ("0.25", "0.75")
    assert "sag_col = how far it sags" in lines[at + 2] and "st = stretch" in lines[at + 2]


def test_both_are_columns_of_the_csv_and_in_the_json(house: House) -> None:
    [row] = csv.DictReader(io.StringIO(house.run("tune_rsst", "show", "demo", "--csv")))
    assert (row["sag"], row["knob.stretch"]) == ("0.75", "0.25")
    [trial] = json.loads(house.run("tune_rsst", "show", "demo", "--json"))["trials"]
    assert (trial["metrics"]["sag"], trial["params"]["stretch"], trial["knobs"]["stretch"]) == (0.75, 0.25, 0.25)


def test_both_are_columns_of_the_report_page_with_their_units(house: House) -> None:
    house.run("tune_rsst", "report", "demo")
    page = (house.home / "demo" / "report.html").read_text(encoding="utf-8")
    head, body = page.partition("<h2>Trials</h2>")[2].split("</thead>")[:2]
    assert "<th>sagging (furlongs)</th>" in head and "<th>stretch (parsecs)</th>" in head
    assert "<td>0.75</td>" in body.split("</table>")[0] and "<td>0.25</td>" in body.split("</table>")[0]


def test_both_are_in_mlflow(house: House) -> None:
    from mlflow import MlflowClient

    house.run("tune_rsst", "sync", "demo")
    client = MlflowClient(house.uri)
    experiment = client.get_experiment_by_name("demo")
    [run] = client.search_runs([experiment.experiment_id], "tags.trial = 't0000'")
    assert run.data.params["stretch"] == "0.25" and "st 0.25" in run.info.run_name
    assert run.data.metrics["sag"] == 0.75
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "sag")] == [
        (0, 0.75),
        (1, 0.75),
    ]
    note = run.data.tags["mlflow.note.content"]
    assert "| sag |" in note and "--stretch 0.25" in note
