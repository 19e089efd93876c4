"""A home that was copied or moved: every command works in the new place, and none touches or names the old one."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from tune_rsst.cli import app
from tune_rsst.ledger.places import moved
from tune_rsst.planning.begin import make_plan
from tune_rsst.planning.plan import Finished
from tune_rsst.planning.resume import extension
from tune_rsst.settings.addresses import sqlite_uri
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep, SweepFolder
from tune_rsst.tracking.uploader import Uploader


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        ("/old/x", "/new/home/x"),
        ("/old", "/new/home"),
        ("sqlite:////old/mlflow.db", "sqlite:////new/home/mlflow.db"),
        ("file:///old/a", "file:///new/home/a"),
        ("/older/x", "/older/x"),
        ("/data/old/x", "/data/old/x"),
        ("http://old/x", "http://old/x"),
        ({"a": ["/old/b", 3, None]}, {"a": ["/new/home/b", 3, None]}),
        ("/new/home/x", "/new/home/x"),
    ],
)
def test_addresses_below_the_old_home_are_read_below_the_new_one(value: object, read_as: object) -> None:
    assert moved(value, "/old", "/new/home") == read_as


def files_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", params=["moved", "copied"])
def there(
    request: pytest.FixtureRequest, digits_sweep: SweepFolder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """(the old home, the new one): a real sweep with its MLflow."""
    first, new = digits_sweep.path.parent, tmp_path_factory.mktemp("elsewhere") / "新 home"
    if request.param == "copied":
        shutil.copytree(first, new)
        return first, new
    old = tmp_path_factory.mktemp("gone") / "home"  # moved twice: through a place that is gone
    shutil.copytree(first, old)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_RSST_HOME", str(old))
        home.artifacts_follow()
    old.rename(new)
    return old, new


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tune-rsst", *words])
        with pytest.raises(SystemExit) as left:
            app.main()
    shown = capsys.readouterr()
    assert left.value.code == 0, shown
    return shown.out


@pytest.mark.medium
@pytest.mark.parametrize(
    "words", [["show"], ["show", "--json"], ["show", "--csv"], ["report"], ["export", "--formats", "safetensors"],
              ["sync"], ["sweep", "--name", "small", "--resume", "--dry-run"]], ids=" ".join,
)  # fmt: skip
def test_every_command_works_in_the_new_place_and_names_no_other(
    words: list[str], there: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = there
    before = files_of(old)
    monkeypatch.setenv("TUNE_RSST_HOME", str(new))
    monkeypatch.chdir("/")
    out = said(words, capsys)
    assert f"{old}/" not in out and f"{digits_home(new)}/" not in out
    assert (str(new) in out) == (
        words not in (["show", "--csv"], ["sweep", "--name", "small", "--resume", "--dry-run"])
    )
    if words[-1] == "--json":
        assert json.loads(out)["mlflow_tracking_uri"] == sqlite_uri(new)
    if words == ["report"]:
        assert f"{old}/" not in (new / "small" / "report.html").read_text(encoding="utf-8")
    assert files_of(old) == before


def digits_home(new: Path) -> str:
    """The home that the ledger was written in."""
    first = (new / "small" / "ledger.jsonl").read_text(encoding="utf-8").partition("\n")[0]
    return str(json.loads(first)["home"])


@pytest.mark.medium
def test_the_sweep_goes_on_there_and_mlflow_finds_its_files(
    there: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old, new = there
    monkeypatch.setenv("TUNE_RSST_HOME", str(new))
    folder = home.find("small")
    again = make_plan({"name": "small"}, None, True)
    assert isinstance(again, Finished)
    plan = extension("small", 2)
    for settings in (again.settings, plan.settings, Sweep.of(folder).view.settings):
        flat = {**(settings if isinstance(settings, dict) else settings.flat()), "space": ""}  # it is outside the home
        assert f"{old}/" not in str(flat) and f"{digits_home(new)}/" not in str(flat)
    uploader = Uploader(folder, again.settings.flat())
    assert uploader.sync_once(120) == 0 and not uploader.refused
    client = MlflowClient(sqlite_uri(new))
    run = client.get_run(str(uploader.parent_run_id))
    got = download_artifacts(artifact_uri=f"{run.info.artifact_uri}/best.yaml", dst_path=str(tmp_path))
    assert Path(got).read_bytes() == folder.best.read_bytes()
    assert unquote(run.info.artifact_uri).removeprefix("file://").startswith(f"{new}/mlartifacts/")
