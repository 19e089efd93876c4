"""Settings: one flat namespace, every bad value one line that names its key, before anything is written."""

from pathlib import Path

import pytest
from PIL import Image

from trainables.rsst.config import ConfigError
from trainables.storage import secrets
from tune_rsst.planning.begin import make_plan
from tune_rsst.search.spaces import Space, digest, find, samples
from tune_rsst.settings import addresses, written
from tune_rsst.storage import home


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def plan(*overrides: str, file: Path | None = None, name: str | None = None, resume: bool = False):
    return make_plan(written.given(file, overrides), name, resume)


def test_the_default_sweep_is_the_embedded_digits() -> None:
    made = plan()
    assert made.settings.space == "digits" and made.settings.target_density == 0.3
    assert made.settings.trials >= 12 and made.settings.fixed["on_missing_weights"] == "error"
    assert made.settings.optuna_storage == f"sqlite:///{made.folder.path}/optuna.db"
    assert made.settings.mlflow_tracking_uri == f"sqlite:///{home.home()}/mlflow.db"
    assert not home.home().exists(), "a plan writes nothing"


def test_a_folder_of_images_is_a_data_set_wherever_its_trials_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(9):
            Image.new("L", (8, 8), 20 * number + (name == "cat")).save(tmp_path / "pets" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    made = plan("dataset=pets", "arch=vit_digits", "img_size=8", "patch_size=2")
    assert {(c.dataset, c.data) for c in made.draws} == {("folder", str(tmp_path / "pets"))}
    assert made.settings.flat()["dataset"] == "folder" and made.settings.flat()["data"] == str(tmp_path / "pets")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("rate=0", "rate"),
        ("rate=1", "rate"),
        ("lr=-1", "lr"),
        ("dataset=foo", "dataset"),
        ("criteria=foo", "criteria"),
        ("warmup=99", "warmup"),
        ("img_size=9", "img_size"),
        ("target_density=2", "target_density"),
        ("target_density=abc", "target_density"),
        ("trials=0", "trials"),
        ("trials=many", "trials"),
        ("sampler=best", "sampler"),
        ("rungs=[0.6,0.3]", "rungs"),
        ("rungs=[0,0.5]", "rungs"),
        ("reduction_factor=1", "reduction_factor"),
        ("name=../up", "name"),
        ("space=digit", "space"),
        ("pruning_times=4", "stopping"),
        ("save_dir=x", "save_dir"),
        ("lr.x=1", "lr.x"),
        ("lr", "override"),
        ("seed=-1", "seed"),
        ("cpus_per_trial=0", "cpus_per_trial"),
        ("gpus_per_trial=1.5", "gpus_per_trial"),
        ("reduction_factor=inf", "reduction_factor"),
        ("optuna_storage=postgresql://u:***@h/db", "optuna_storage"),
    ],
)
def test_a_bad_value_is_one_line_that_names_its_key(override: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(override)
    line = str(caught.value)
    assert line.startswith(f"{key} = ") and "valid is" in line and "\n" not in line
    assert not home.home().exists()


def test_an_unknown_key_is_answered_with_the_close_ones() -> None:
    with pytest.raises(ConfigError, match=r"triels = 3.*did you mean trials"):
        plan("triels=3")


def test_the_file_is_overridden_by_the_words_and_knobs_are_fixed_in_the_search(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("trials: 5\nlr: 1e-3\nrungs: [0.5]\nsampler: random\n")
    made = plan("trials=7", file=file)
    assert (made.settings.trials, made.settings.sampler, made.settings.rungs) == (7, "random", (0.5,))
    assert made.settings.fixed["lr"] == 0.001
    draw, _ = next(samples(made.space, made.settings.fixed, 1))
    assert "lr" not in draw.params and draw.knobs["lr"] == 0.001


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [", "trials: {a: 1}\n"])
def test_a_file_that_is_no_flat_mapping_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        plan(file=file)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        plan(file=tmp_path / "nothing.yaml")


SPACES = """
from __future__ import annotations
from dataclasses import dataclass
from functools import partial

@dataclass
class Ranges:
    low: float = 1e-4

def fine(trial):
    return {"dataset": "digits", "epochs": 2, "warmup": 0, "lr": trial.suggest_float("lr", 1e-4, 1e-3)}

as_lambda = lambda trial: fine(trial)

def make():
    def inner(trial):
        return fine(trial)
    return inner

closure = make()
bound = partial(fine)

def raises(trial):
    raise RuntimeError("no")

def no_dict(trial):
    return [trial.suggest_float("lr", 0, 1)]

def odd_knob(trial):
    return {**fine(trial), "learning": 1}

def nothing(trial):
    return {"dataset": "digits"}

def other_choices(trial):
    optimizer = trial.suggest_categorical("optimizer", ["adamw", "sgd"])
    sizes = [16, 32] if optimizer == "sgd" else [64, 128]
    return {**fine(trial), "optimizer": optimizer, "batch_size": trial.suggest_categorical("batch_size", sizes)}

def odd_name(trial):
    return {**fine(trial), "lr": trial.suggest_float("lr[adamw]", 1e-4, 1e-3)}

def sometimes_wrong(trial):
    return {**fine(trial), "epochs": 2, "warmup": trial.suggest_int("warmup", 0, 3)}
"""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("as_lambda", "as_lambda is a lambda"),
        ("closure", "no module-level function"),
        ("bound", "no module-level function"),
        ("absent", "it has fine, no_dict, nothing"),
        ("raises", "RuntimeError: no"),
        ("no_dict", "list"),
        ("odd_knob", "learning"),
        ("nothing", "every knob in it is fixed"),
        ("sometimes_wrong", "warmup = 3"),
        ("other_choices", "batch_size has other choices"),
        ("odd_name", "lr[adamw]"),
    ],
)
def test_a_space_that_can_not_work_is_refused_with_its_name(tmp_path: Path, name: str, says: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SPACES)
    with pytest.raises(ConfigError) as caught:
        plan(f"space={file}:{name}")
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not home.home().exists()


def test_a_space_of_ones_own_is_found_by_file_and_by_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SPACES)
    assert plan(f"space={file}:fine").settings.space == f"{file}:fine"
    monkeypatch.chdir(tmp_path)
    assert plan("space=mine.py:fine").settings.space == f"{file}:fine", "found from any folder later"
    assert find("search_spaces.digits:digits").function is find("digits").function


def test_an_option_overrides_the_file_and_may_not_contradict_a_word(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(SPACES)
    file = tmp_path / "settings.yaml"
    file.write_text("space: scratch\nname: of_the_file\n")
    space = f"{mine}:fine"
    assert written.written_in([str(file)], space=space, name=None) == {"space": space, "name": "of_the_file"}
    assert written.written_in(["trials=3"], space=space) == {"trials": 3, "space": space}
    assert written.written_in([f"space={space}"], space=space) == {"space": space}
    assert make_plan(written.written_in([], space=space), None, False).settings.space == space
    with pytest.raises(ConfigError) as caught:
        written.written_in(["space=method"], space=space)
    assert str(caught.value).startswith(f"space = {space}") and "space=method" in str(caught.value)


def test_the_digest_sees_ranges_and_knobs_not_names() -> None:
    def one(trial):
        return {"dataset": "digits", "lr": trial.suggest_float("lr", 1e-4, 1e-3)}

    def same(trial):
        """Another text."""
        return {"lr": trial.suggest_float("lr", 1e-4, 1e-3), "dataset": "digits"}

    def wider(trial):
        return {"dataset": "digits", "lr": trial.suggest_float("lr", 1e-4, 2e-3)}

    def other_knob(trial):
        return {"dataset": "digits", "epochs": 3, "lr": trial.suggest_float("lr", 1e-4, 1e-3)}

    def sometimes(trial):
        knobs = one(trial)
        if trial.suggest_categorical("optimizer", ["adamw", "sgd"]) == "sgd":
            knobs["momentum"] = trial.suggest_float("momentum", 0.5, highest)
        return knobs

    def of(function, skip: int = 0) -> str:
        drawn = [draw for draw, _ in samples(Space("x", function), {}, 40 + skip)][skip:]
        return digest(drawn, {})

    digests = [of(function) for function in (one, same, wider, other_knob)]
    assert digests[0] == digests[1] and len(set(digests)) == 3
    highest = 0.9
    assert of(sometimes) == of(sometimes, skip=40), "other draws of one space give the same digest"
    narrow = of(sometimes)
    highest = 0.99
    assert of(sometimes) != narrow, "a range that only some trials ask for counts"


def test_a_value_that_is_computed_from_drawn_ones_does_not_make_the_digest_one_over_draws() -> None:
    def computed(trial):
        lr = trial.suggest_float("base_lr", 1e-4, 1e-3)
        return {"dataset": "digits", "lr": 2 * lr}

    drawn = [draw for draw, _ in samples(Space("x", computed), {}, 80)]
    assert digest(drawn[:40], {}) == digest(drawn[40:], {})


def test_fixed_knobs_do_not_count_in_the_digest() -> None:
    def space(trial):
        return {"dataset": "digits", "epochs": 3, "lr": trial.suggest_float("lr", 1e-4, 1e-3)}

    def of(fixed: dict) -> str:
        return digest([draw for draw, _ in samples(Space("x", space), fixed, 40)], fixed)

    assert of({"data": "/a"}) == of({"data": "/b"}) != of({"epochs": 4})


def test_passwords_are_not_written() -> None:
    flat = {"optuna_storage": "postgresql://me:secret@host:5432/db", "trials": 3, "name": "a"}
    hidden = addresses.without_secrets(flat)
    assert hidden == {"optuna_storage": "postgresql://me:***@host:5432/db", "trials": 3, "name": "a"}
    assert secrets.hide_password("sqlite:////a/b.db") == "sqlite:////a/b.db"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://u:pa/ss@host/db", "postgresql://u:***@host/db"),
        ("postgresql://u:p@ss@host/db", "postgresql://u:***@host/db"),
        ("postgresql://host/db?user=u&password=secret", "postgresql://host/db?user=u&password=***"),
        ("https://TOKEN@host/x", "https://***@host/x"),
        ("no route to postgresql+psycopg://u:p@h:5/x: u@h", "no route to postgresql+psycopg://u:***@h:5/x: u@h"),
        ("http://mlflow:5000", "http://mlflow:5000"),
        ("postgresql://u:***@host/db", "postgresql://u:***@host/db"),
    ],
)
def test_a_password_is_hidden_wherever_an_address_has_it(address: str, shown: str) -> None:
    assert secrets.hide_password(address) == shown


def test_a_home_below_a_regular_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "file" / "home"))
    made = plan()
    with pytest.raises(ConfigError) as caught:
        home.make(made.folder.path)
    assert str(caught.value).startswith("TUNE_RSST_HOME = ") and "\n" not in str(caught.value)


def test_bare_resume_where_nothing_is_starts_a_new_sweep_and_says_so() -> None:
    made = plan(resume=True)
    assert not made.resumes and made.note is not None and "nothing to go on with" in made.note
