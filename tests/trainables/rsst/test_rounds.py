"""Models of rounds: which are kept, that they are what the trial had, that no kill takes them away."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from tests.trainables import toy
from trainables.rsst import rounds, size
from trainables.rsst import trial as trial_module
from trainables.rsst.data.batches import on_device
from trainables.rsst.data.load import ImageData
from trainables.rsst.model.saved import MODEL, SavedModel
from trainables.rsst.store.checkpoint import CheckpointStore
from trainables.rsst.trial import open_trial

pytestmark = pytest.mark.usefixtures("toy")
KNOBS: dict[str, Any] = {"epochs": 1, "pruning_times": 4}
# val_top1 of the rounds, how many may stay → the rounds whose model stays
KEPT = [
    ([], 3, set()),
    ([0.9, 0.8, 0.7], 0, set()),
    ([0.9, 0.8, 0.7], 1, {2}),
    ([0.9, 0.8, 0.7], 3, {0, 1, 2}),
    ([0.9, 0.8, 0.7], 2, {1, 2}),  # no smaller one matches: the largest goes
    ([0.9, 0.6, 0.7], 2, {0, 2}),  # round 2 is smaller than round 1 and better
    ([0.9, 0.7, 0.7], 2, {0, 2}),  # as good and smaller
    ([0.5, 0.9, 0.8], 2, {1, 2}),
    ([0.9, 0.5, 0.6, 0.7, 0.4], 3, {0, 3, 4}),
    ([0.4, 0.4, 0.4, 0.4], 2, {2, 3}),
    ([0.9, 0.1, 0.5, 0.3, 0.2, 0.25], 4, {0, 2, 3, 5}),
]


@pytest.mark.parametrize(("top1", "most", "stay"), KEPT)
def test_which_models_stay(top1: list[float], most: int, stay: set[int]) -> None:
    reports = [{"round": number, "val_top1": value} for number, value in enumerate(top1)]
    assert rounds.kept(reports, most) == stay
    assert len(stay) <= most and (not top1 or not most or len(top1) - 1 in stay), "the last one always stays"


def trained(root: Path, on: ImageData, stop_after: int | None = None, **knobs: Any) -> Path:
    """The store of a trial that ended, or was left after so many events."""
    config = toy.config(**{**KNOBS, **knobs})
    with open_trial(config, root, say=pytest.fail, data=on, checkpoint_every_s=0.0) as trial:
        for _ in islice(trial.events(), stop_after):
            pass
    return root / config.fingerprint


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store / rounds.MODELS).glob("*")}


@pytest.fixture(scope="module")
def whole(tiny: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("whole"), tiny)


def test_each_rounds_model_is_the_one_whose_accuracy_was_reported(whole: Path, tiny: ImageData) -> None:
    reports = json.loads((whole / "report.json").read_text())["rounds"]
    found = rounds.models_of_rounds(whole)
    assert list(found) == [0, 1, 2, 3]
    val = on_device(tiny, torch.device("cpu")).batch(tiny.val)
    for number, path in found.items():
        saved = SavedModel.read(path)
        model = saved.load()
        with torch.no_grad():
            top1 = float((model(val.images).argmax(1) == val.targets).double().mean())
        assert top1 == reports[number]["val_top1"] == saved.facts.trial["val_top1"]
        assert sum(p.numel() for p in model.parameters()) == reports[number]["params"]
        assert saved.facts.images["mean"] == list(tiny.about.mean) and saved.facts.trial["round"] == number
        assert path.stem.endswith(hashlib.sha256(path.read_bytes()).hexdigest()[: rounds.SHA_DIGITS])
    assert found[3].read_bytes() == (whole / MODEL).read_bytes(), "the last round's model is the trial's"


@pytest.mark.parametrize("events", [2, 3, 7, 9])
def test_a_kill_at_any_report_changes_no_model(whole: Path, tiny: ImageData, tmp_path: Path, events: int) -> None:
    store = trained(tmp_path, tiny, stop_after=events)
    assert contents(store).items() <= contents(whole).items()
    assert contents(trained(tmp_path, tiny)) == contents(whole)


# What is interrupted, the how manieth time
WRITES = [
    (trial_module, "keep_round", 1),
    (trial_module, "keep_round", 3),
    (CheckpointStore, "save", 1),
    (CheckpointStore, "save", 4),
    (trial_module.Trial, "_write_results", 1),
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("owner", "name", "turn"), WRITES)
def test_an_interruption_while_a_round_is_written_loses_no_file(
    whole: Path, tiny: ImageData, tmp_path: Path, owner: Any, name: str, turn: int, after: bool
) -> None:
    write, turns = getattr(owner, name), count(1)

    def interrupted(*given: Any) -> Any:
        if (at := next(turns)) == turn and not after:
            raise KeyboardInterrupt
        written = write(*given)
        if at == turn:
            raise KeyboardInterrupt
        return written

    with patch.object(owner, name, interrupted), suppress(KeyboardInterrupt):
        store = trained(tmp_path, tiny)
    store = trained(tmp_path, tiny)
    assert next(turns) > turn + 1 and contents(store) == contents(whole)
    assert (store / MODEL).read_bytes() == (whole / MODEL).read_bytes()


def test_a_model_that_a_round_left_before_it_was_counted_is_replaced(
    whole: Path, tiny: ImageData, tmp_path: Path
) -> None:
    """As a machine with other bits leaves it, killed between the model and its checkpoint."""
    store = trained(tmp_path, tiny, stop_after=3)
    (store / rounds.MODELS / f"r001-{'0' * 16}.safetensors").write_bytes(b"other bits")
    assert contents(trained(tmp_path, tiny)) == contents(whole)


@pytest.mark.parametrize(("most", "left"), [(0, 0), (1, 1), (2, 2), (20, 4)])
def test_no_more_are_kept_than_keep_rounds_says(tiny: ImageData, tmp_path: Path, most: int, left: int) -> None:
    store = trained(tmp_path, tiny, keep_rounds=most)
    reports = json.loads((store / "report.json").read_text())["rounds"]
    assert set(rounds.models_of_rounds(store)) == rounds.kept(reports, most)
    assert len(contents(store)) == left and (store / MODEL).exists()


def test_how_many_are_kept_changes_no_number(whole: Path, tiny: ImageData, tmp_path: Path) -> None:
    store = trained(tmp_path, tiny, keep_rounds=1)
    assert store.name == whole.name, "the same trial"
    assert (store / MODEL).read_bytes() == (whole / MODEL).read_bytes()
    assert contents(store).items() <= contents(whole).items()


def test_an_adopted_dense_round_leaves_the_model_that_a_trained_one_leaves(
    whole: Path, tiny: ImageData, tmp_path: Path
) -> None:
    for place in ("trains", "adopts"):
        with open_trial(
            toy.config(**KNOBS), tmp_path / place, say=pytest.fail, data=tiny, dense=tmp_path / "dense"
        ) as trial:
            list(trial.events())
        assert contents(tmp_path / place / whole.name) == contents(whole)


@pytest.mark.parametrize("keep", [0, 1, 4])
def test_the_models_are_in_the_estimate_of_the_disk(keep: int) -> None:
    config = toy.config(pruning_times=4, keep_rounds=keep)
    mib = 4 * 1_000_000 / 2**20
    without = size.disk_mib(toy.config(pruning_times=4, keep_rounds=0), 1_000_000)
    assert keep * 0.3 * mib <= size.disk_mib(config, 1_000_000) - without <= keep * mib


@pytest.mark.parametrize("granularity", ["element", "head", "neuron"])
def test_the_estimate_holds_for_what_shrinks_less(granularity: str) -> None:
    ours = size.disk_mib(toy.config(granularity=granularity), 1_000_000)
    assert ours >= size.disk_mib(toy.config(), 1_000_000)
