"""One trial as flat results, without Ray: what each result has, going on from a checkpoint, what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import trainables
from tests.trainables import toy
from trainables.errors import install
from trainables.rsst.config import ConfigError
from trainables.rsst.metrics import CIRCUMSTANCES
from trainables.rsst.store.checkpoint import StoreBusy
from trainables.rsst.training import epoch
from trainables.worker import flat_trial, images
from trainables.worker.flat_trial import FlatTrial, check, train

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of the toy; no dense round of another test is taken."""
    monkeypatch.setattr(images, "load", toy.images)
    monkeypatch.setattr(flat_trial, "dense_folder", lambda config: None)
    monkeypatch.setattr(flat_trial, "LOCK_PATIENCE_S", 0.0)


def timeless(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in CIRCUMSTANCES}


def test_every_result_is_flat_and_has_what_a_scheduler_needs(tmp_path: Path) -> None:
    results: list[dict[str, Any]] = []
    last = train(toy.KNOBS, results.append, tmp_path)
    assert [(r["kind"], r["round"], r["epochs_trained"]) for r in results] == [
        *(("epoch", 0, 1), ("epoch", 0, 2), ("round", 0, 2)),
        *(("epoch", 1, 3), ("epoch", 1, 4), ("round", 1, 4)),
        *(("epoch", 2, 5), ("epoch", 2, 6), ("final", 2, 6)),
    ]
    for result in results:
        assert {"val_top1", "kept_share", "density", "params", "gmacs", "init_effective", "done"} <= result.keys()
        assert all(isinstance(value, str | int | float) for value in result.values())
    shares = [result["kept_share"] for result in results]
    assert shares == sorted(shares, reverse=True) and shares[0] == 1.0 and shares[-1] < 0.6
    assert [result["done"] for result in results] == [False] * 8 + [True]
    assert (
        last == results[-1] and "test_top1" in last and (tmp_path / toy.config().fingerprint / "report.json").exists()
    )


def test_the_numbers_are_those_of_a_trial_alone() -> None:
    config = toy.config()
    alone = [event for event in toy.run(config, toy.images(config)) if event.kind == "final"][-1].metrics
    found = train(toy.KNOBS)
    shared = {name for name in timeless(found) if name in alone}
    assert {"val_top1", "test_top1", "kept_share", "params"} <= shared
    assert {name: found[name] for name in shared} == {name: alone[name] for name in shared}


@pytest.mark.parametrize("taken", range(1, 10))
def test_a_checkpoint_goes_on_where_it_was_saved_in_another_folder(tmp_path: Path, taken: int) -> None:
    whole: list[dict[str, Any]] = []
    train(toy.KNOBS, whole.append)
    (tmp_path / "checkpoint").mkdir()
    with FlatTrial(toy.KNOBS, tmp_path / "here") as trial:
        for _ in range(taken):
            trial.next_result()
        trial.save_to(tmp_path / "checkpoint")
    with FlatTrial(toy.KNOBS, tmp_path / "there") as trial:
        trial.go_on_from(tmp_path / "checkpoint")
        rest = [trial.next_result() for _ in range(len(whole) - taken)]
    assert list(map(timeless, rest)) == list(map(timeless, whole[taken:]))
    if taken == len(whole):
        assert (tmp_path / "there" / toy.config().fingerprint / "report.json").exists()


def test_a_kept_store_goes_on_after_a_kill_and_reports_again(tmp_path: Path) -> None:
    whole: list[dict[str, Any]] = []
    train(toy.KNOBS, whole.append)
    told: list[dict[str, Any]] = []

    def killed(result: dict[str, Any]) -> None:
        told.append(result)
        if len(told) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(toy.KNOBS, killed, tmp_path)
    again: list[dict[str, Any]] = []
    train(toy.KNOBS, again.append, tmp_path)
    assert list(map(timeless, again)) == list(map(timeless, whole))


def test_a_checkpoint_of_other_knobs_is_refused_with_the_knob_that_differs(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    with FlatTrial(toy.KNOBS, tmp_path / "a") as trial:
        trial.next_result()
        trial.save_to(tmp_path / "checkpoint")
    with FlatTrial({**toy.KNOBS, "lr": 0.001}, tmp_path / "b") as trial, pytest.raises(ConfigError) as refused:
        trial.go_on_from(tmp_path / "checkpoint")
    assert "lr 0.005, here 0.001" in str(refused.value) and "PBT's exploit is refused" in str(refused.value)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"learning_rate": 1.0}, "learning_rate"),
        ({"lr": -1.0}, "lr = -1.0"),
        ({"lr": "fast"}, "lr = fast"),
        ({"weights": "w.pth"}, "an absolute path"),
        ({"data": "images"}, "an absolute path"),
    ],
)
def test_what_no_trial_can_have_is_refused_before_anything_starts(knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check(knobs)
    assert words in str(refused.value)


def test_a_folder_for_results_is_the_caller_s(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave it out"):
        FlatTrial({**toy.KNOBS, "save_dir": str(tmp_path)}, tmp_path)


def test_a_store_that_is_open_elsewhere_is_said_not_shared(tmp_path: Path) -> None:
    with FlatTrial(toy.KNOBS, tmp_path) as first, FlatTrial(toy.KNOBS, tmp_path) as second:
        first.next_result()
        with pytest.raises(StoreBusy):
            second.next_result()


def test_memory_that_runs_out_names_the_knob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(epoch.F, "cross_entropy", none_left)
    with FlatTrial(toy.KNOBS, tmp_path) as trial, pytest.raises(RuntimeError, match="micro_batch_size = 16"):
        trial.next_result()


WITHOUT_RAY = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "optuna", "mlflow", "tune_rsst"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Blocked())
import trainables
assert "torch" not in sys.modules
from trainables import train
try:
    from trainables import RSSTTrainable
except ImportError as error:
    print("needs", error)
"""


@pytest.mark.medium
def test_without_ray_the_package_and_train_can_be_imported() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_RAY], capture_output=True, text=True, timeout=120)
    says = f"needs environment = {sys.prefix}: valid is one with ray; {install('ray')}"
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, says, "")
    with pytest.raises(AttributeError, match="no attribute 'Trainable'"):
        trainables.Trainable  # noqa: B018


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b'{"fingerprint": "a", "events": 1, "knobs": {}}'])
def test_a_checkpoint_of_another_form_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "checkpoint").mkdir()
    if content is not None:
        (tmp_path / "checkpoint" / flat_trial.POSITION).write_bytes(content)
    with FlatTrial(toy.KNOBS, tmp_path / "a") as trial, pytest.raises(ConfigError, match="one that RSSTTrainable has"):
        trial.go_on_from(tmp_path / "checkpoint")
