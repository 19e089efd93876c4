"""Where things lie: what may not be a home, and addresses whose password only the environment has."""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path

import pytest
from rich.console import Console
from sqlalchemy import create_engine

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data.load import load
from trainables.rsst.data.node_cache import cache_folder
from tune_rsst import conduct
from tune_rsst.ledger.file import Ledger
from tune_rsst.planning.begin import make_plan
from tune_rsst.planning.plan import Plan
from tune_rsst.results import commands
from tune_rsst.settings import addresses
from tune_rsst.settings.resolved import resolve
from tune_rsst.storage import home
from tune_rsst.storage.folder import SweepFolder

SECRET, KEPT = "postgresql://tuner:s3cret@db/optuna", "postgresql://tuner:***@db/optuna"


def test_a_home_that_would_go_with_the_job_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray removes the folder that it made of a job's working_dir when the job has ended."""
    folder = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TUNE_RSST_HOME", raising=False)
    with pytest.raises(ConfigError, match="TUNE_RSST_HOME = None: valid is a folder that every node mounts"):
        home.home()
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "mine"))
    assert home.home() == tmp_path / "mine"


@pytest.mark.parametrize(
    ("recorded", "now", "found"),
    [
        (KEPT, SECRET, SECRET),
        (KEPT, "postgresql://tuner:x@other/optuna", None),
        (KEPT, "", None),
        ("memory", SECRET, None),
    ],
)
def test_a_password_comes_back_from_the_environment_for_the_same_address_only(
    recorded: str, now: str, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", now)
    assert addresses.with_passwords({"optuna_storage": recorded}).get("optuna_storage") == found


def test_weights_are_those_of_this_home(tmp_path: Path) -> None:
    sweep = SweepFolder(tmp_path / "new")
    knobs = {"weights": "/old/home/weights/weights-ab.safetensors", "weights_digest": "ab"}
    assert sweep.with_own_weights(knobs) == knobs
    sweep.weights.mkdir(parents=True)
    (sweep.weights / "weights-ab.safetensors").touch()
    assert sweep.with_own_weights(knobs)["weights"] == str(sweep.weights / "weights-ab.safetensors")
    assert sweep.with_own_weights({"weights": None, "weights_digest": None})["weights"] is None


LONG = "/".join(["x" * 100] * 4)
TAKEN = [
    "plain", "with blank", " leading",
    "家/目录", "é", "é", "a#b", "a;b", "a&b", "it's", 'a"b', "a:b", "a@b", "a=b", "a+b",
    "a\\b", "[a]", "a*b", "$HOME", "`id`", "a|b", "<a>", "-a", "~", "a,b", "a..b", "!a", "(a)", "☃", LONG[:250],
]  # fmt: skip
REFUSED = [
    "100%20", "a%b", "a?b", "a{b}", "a\nb", "a\tb", "a\x1bb", "a\x7fb", "a\x85b", "a\u2028b", "a\udce9b", LONG * 2,
]  # fmt: skip


@pytest.mark.parametrize("name", TAKEN, ids=ascii)
def test_a_home_of_this_name_works(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases, printed commands and the cache all mean this folder, and nothing is made outside it."""
    monkeypatch.setenv("TUNE_RSST_HOME", f"{tmp_path}/{name}/")
    monkeypatch.delenv("TUNE_RSST_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)
    found = tmp_path / name
    home.check_writable()
    assert home.home() == found and not found.exists()
    home.make(found / "sweep")
    sweep = SweepFolder(found / "sweep")
    for address, file in ((addresses.sqlite_uri(found), found / "mlflow.db"), (sweep.study, sweep.path / "optuna.db")):
        engine = create_engine(address)
        engine.connect().exec_driver_sql("create table t (a)").close()
        engine.dispose()
        assert file.stat().st_size > 0 and addresses._sqlite_file(addresses.check_tracking_uri(address)) == file
    shown = shlex.split(commands.tune_rsst(sweep, "show", "sweep"))
    assert shown[0] == f"TUNE_RSST_HOME={found}" and shown[-2:] == ["show", "sweep"]
    assert cache_folder() == found / "cache"
    assert [path.name for path in tmp_path.iterdir()] == [name.partition("/")[0]]


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_a_home_of_this_name_is_refused_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / name))
    with pytest.raises(ConfigError) as caught:
        home.home()
    said = str(caught.value)
    assert said.startswith("TUNE_RSST_HOME = ") and len(said.splitlines()) == 1 and said.isprintable()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["below a file", "a file", "below a broken link", "nobody's"])
def test_a_home_that_can_not_be_made_is_refused(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    places = {"below a file": tmp_path / "file" / "home", "a file": tmp_path / "file",
              "below a broken link": tmp_path / "link" / "home", "nobody's": "~no-such-user/home"}  # fmt: skip
    monkeypatch.setenv("TUNE_RSST_HOME", str(places[where]))
    with pytest.raises(ConfigError, match=r"^TUNE_RSST_HOME = "):  # in the plan, or before the images are prepared
        conduct.run(make_plan({"dataset": "cifar10", "epochs": 1}, None, False), Console(file=io.StringIO()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cache", "the home keeps files of its own"),
        ("Cache", "the home keeps files"), ("mlartifacts", "the home keeps"),
        ("MLFLOW.DB", "the home keeps"), ("mlruns", "the home keeps"),
        ("notes", "notes is there already"),
        ("NOTES", "notes is there already"),
        ("First", "first is there already"),
        ("first", "add --resume"),
        ("a file", "letters, digits"),
        ("a/b", "letters, digits"),
        ("../a", "letters, digits"),
        (".a", "letters, digits"),
        ("-a", "letters, digits"),
        ("a\n", "letters, digits"),
        ("é", "letters, digits"),
        ("a" * 101, "letters, digits"),
        ("..", "letters, digits"),
        ("file.txt", "file.txt is there already"),
    ],
)  # fmt: skip
def test_a_sweeps_name_that_something_else_has_is_refused(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path))
    for folder in ("notes/mine", "first", "killed/weights"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "file.txt").touch()
    for left in ("ledger.jsonl", "optuna.db", ".settings.yaml.7-ab.tmp"):  # by a driver that was killed
        (tmp_path / "killed" / left).touch()
    ledger = Ledger(tmp_path / "first" / "ledger.jsonl")
    ledger.append("sweep_started", name="first", settings={})
    ledger.close()
    with pytest.raises(ConfigError) as caught:
        make_plan({"name": name}, None, False)
    assert str(caught.value).startswith("name = ") and says in str(caught.value)
    plan = make_plan({"name": "killed"}, None, False)
    assert isinstance(plan, Plan) and plan.folder.name == "killed"


def test_a_name_made_from_a_function_is_one_that_can_be_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    file = tmp_path / "mine.py"
    text = "def {}(trial):\n    return {{'dataset': 'digits', 'lr': trial.suggest_float('lr', 1e-4, 1e-3)}}\n"
    for function in ("_搜索", "a" * 150, "_private_name"):
        file.write_text(text.format(function), encoding="utf-8")
        sys.modules.pop("tune_rsst_space_mine", None)
        plan = make_plan({"space": f"{file}:{function}"}, None, False)
        assert isinstance(plan, Plan) and resolve({"name": plan.folder.name}).name == plan.folder.name


def test_a_full_or_read_only_cache_is_not_the_images_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path / "file" / "cache"))
    config = RSSTConfig.from_knobs({"dataset": "synthetic", "arch": "vit_tiny"})
    with pytest.raises(ConfigError, match=r"^TUNE_RSST_CACHE = .*file/cache: valid is a folder"):
        load(config)
