"""What is taken away works where nothing of this project is: registered models, exported files, best.yaml."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.ray_nodes import free_port
from trainables.export import files
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data.load import load
from trainables.rsst.metrics import CIRCUMSTANCES
from tune_rsst.cli import results as cli_results
from tune_rsst.ledger.view import SweepView
from tune_rsst.results import export, ranking
from tune_rsst.results.best import MODEL_FILES
from tune_rsst.storage import folder
from tune_rsst.storage.folder import SweepFolder
from tune_rsst.tracking import registry

pytestmark = [pytest.mark.slow]
WITHOUT_US = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocker())
"""
OURS = ("tune_rsst", "trainables", "search_spaces")
PREDICT = """
import sys
import mlflow, numpy
uri, address, images = sys.argv[1:]
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model(address)
data = numpy.load(images)
found = model.predict(data["pixels"]).argmax(axis=1)
inputs = model.metadata.signature.inputs.inputs[0]
assert inputs.shape[1:] == data["pixels"].shape[1:] and model.input_example.shape[0] == 2
print(repr(float((found == data["labels"]).mean())))
"""
LOAD = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy, torch
from load_model import load
about = json.load(open(sys.argv[1] + "/preprocessing.json"))
data = numpy.load(sys.argv[2])
mean, std = (torch.tensor(about[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
with torch.no_grad():
    found = load()((torch.from_numpy(data["pixels"]) - mean) / std).argmax(dim=1).numpy()
print(repr(float((found == data["labels"]).mean())))
"""


def elsewhere(program: str, blocked: tuple[str, ...], folder: Path, *words: str) -> str:
    """Output of a fresh Python that can't import `blocked`, away from the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_US.format(blocked=blocked) + program, *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def chosen(digits_sweep: SweepFolder) -> export.Chosen:
    view = folder.Sweep.of(digits_sweep).view
    best = ranking.best_of(view)
    assert best is not None
    return export.Chosen(digits_sweep, view, best, files.find(digits_sweep.store(best.fingerprint)))


@pytest.fixture(scope="module")
def images(chosen: export.Chosen, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = load(RSSTConfig.from_knobs(chosen.trial.knobs))
    path = tmp_path_factory.mktemp("images") / "test.npz"
    np.savez(path, pixels=data.test.images.numpy().astype(np.float32) / 255, labels=data.test.labels.numpy())
    return path


def test_the_registered_model_gives_the_trials_test_accuracy_where_only_torch_and_mlflow_are(
    chosen: export.Chosen, images: Path
) -> None:
    address = registry.register(chosen, "digits", "champion")
    assert registry.register(chosen, "digits", "again") == "models:/digits@again", (
        "the same trial makes no second version"
    )
    uri = str(chosen.view.settings["mlflow_tracking_uri"])
    found = float(elsewhere(PREDICT, (*OURS, "timm", "ray", "optuna"), images.parent, uri, address, str(images)))
    assert found == chosen.trial.metrics["test_top1"]
    from tune_rsst.tracking.runs import _client

    versions = _client(uri).search_model_versions("name = 'digits'")
    assert len(versions) == 1 and versions[0].tags["trial"] == chosen.trial.trial
    assert versions[0].tags["images.classes"] == str([str(digit) for digit in range(10)])
    of_round = dataclasses.replace(chosen, round=0, model=files.find(chosen.store, 0))
    for alias in ("dense", "dense-again"):
        assert registry.register(of_round, "digits", alias) == f"models:/digits@{alias}"
    dense = _client(uri).get_model_version_by_alias("digits", "dense-again")
    assert (dense.tags["round"], len(_client(uri).search_model_versions("name = 'digits'"))) == ("0", 2)
    assert float(dense.tags["val_top1"]) == chosen.trial.round_events[0]["val_top1"]


def test_exported_files_give_the_trials_test_accuracy(chosen: export.Chosen, images: Path, tmp_path: Path) -> None:
    written = files.export(chosen.model, tmp_path / "taken", files.FORMATS, lambda line: None)
    names = {path.name for path in written}
    assert names == {*MODEL_FILES, "preprocessing.json", "load_model.py", "model.pt2", "model.onnx"}
    assert {path.name for path in (tmp_path / "taken").iterdir()} == names
    found = float(elsewhere(LOAD, (*OURS, "mlflow"), tmp_path, str(tmp_path / "taken"), str(images)))
    assert found == chosen.trial.metrics["test_top1"]


def test_what_can_not_be_exported_is_said_in_one_line(
    chosen: export.Chosen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(chosen.folder.path.parent))
    assert export.choose(None).trial.trial == chosen.trial.trial
    assert export.choose(f"small/{chosen.trial.trial}").trial.trial == chosen.trial.trial
    assert export.choose("small", chosen.trial.trial, 0).metrics["kept_share"] == 1.0
    with pytest.raises(ConfigError, match=r"round = 99: .*there is 0, 1"):
        export.choose(None, None, 99)
    with pytest.raises(ConfigError, match=r"t0099.*finished ones: t000"):
        export.choose("t0099")
    with pytest.raises(ConfigError, match="alias = 'v3'"):
        registry.register(chosen, "digits", "v3")


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"formats": "onx"}, "formats = onx: .*did you mean onnx"),
        ({"formats": ","}, "formats = "),
        ({"register": "a/b"}, "register = 'a/b'"),
        ({"register": "m", "alias": "b ad"}, "alias = 'b ad'"),
    ],
)
def test_bad_names_are_refused_before_anything_is_said_or_written(
    chosen: export.Chosen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    options: dict[str, str], key: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("TUNE_RSST_HOME", str(chosen.folder.path.parent))
    wanted: dict[str, Any] = {"formats": "safetensors", "register": None, "alias": "champion", **options}
    with pytest.raises(ConfigError, match=key):
        cli_results.export(None, to=tmp_path / "taken", trial=None, number=None, **wanted)
    assert capsys.readouterr().out == "" and not (tmp_path / "taken").exists()


def test_names_that_pass_are_names_that_mlflow_takes() -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils import validation

    def taken(*checks: Any, name: str) -> bool:
        try:
            for check in checks:
                check(name)
        except MlflowException:
            return False
        return True

    alias = (validation._validate_model_alias_name, validation._validate_model_alias_name_reserved)
    for name in ("champion", "b ad", "v3", "V3", "v3x", "latest", "Latest", "", "a.b", "a-b_1", "x" * 256, "ä"):
        assert bool(registry.ALIAS.fullmatch(name)) == taken(*alias, name=name), name
    for name in ("digits", "a b", "a/b", "a:b", "", " ", "..", "a.b", "ä"):
        assert bool(registry.MODEL_NAME.fullmatch(name)) == taken(validation._validate_model_name, name=name), name


def test_exported_files_have_the_rights_that_a_new_file_has(chosen: export.Chosen, tmp_path: Path) -> None:
    (chosen.store / "model.safetensors").chmod(0o600)
    before = os.umask(0o027)
    try:
        for _ in range(2):
            files.export(chosen.model, tmp_path, ["safetensors"], lambda line: None)
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
            assert set(modes.values()) == {0o640}, modes
            (tmp_path / "model.safetensors").chmod(0o600)  # as an earlier version left it
    finally:
        os.umask(before)


def test_an_mlflow_that_does_not_answer_is_one_line_and_exit_code_1(
    chosen: export.Chosen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "choose", lambda *what: away)
    uri = f"http://127.0.0.1:{free_port()}"
    settings = {**chosen.view.settings, "mlflow_tracking_uri": uri}
    away = dataclasses.replace(chosen, view=_with_settings(chosen.view, settings))
    with pytest.raises(SystemExit) as left:
        cli_results.export(None, None, None, tmp_path, "safetensors", "digits", "champion")
    said = capsys.readouterr().err
    assert left.value.code == 1 and said == f"error: mlflow = {uri}: can't be reached: Connection refused\n"


def _with_settings(view: SweepView, settings: dict[str, Any]) -> SweepView:
    other = copy.copy(view)
    other.settings = settings
    return other


def test_best_yaml_reruns_to_the_same_metrics(chosen: export.Chosen, tmp_path: Path) -> None:
    command = ["-m", "trainables", "--config", str(chosen.folder.best), "--save_dir", str(tmp_path / "again")]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    again = json.loads((tmp_path / "again" / "report.json").read_text(encoding="utf-8"))
    assert without_times(again["rounds"]) == without_times(chosen.trial.round_events)
    assert without_times([again["final"]]) == without_times([chosen.trial.final])


def without_times(events: list[Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in event.items() if name not in CIRCUMSTANCES} for event in events]
