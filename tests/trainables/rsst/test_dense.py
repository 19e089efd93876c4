"""A dense round is trained once: who comes later takes it over, bit for bit what it would have computed itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.trainables import toy
from trainables.rsst import dense, experiment, running
from trainables.rsst.config import RSSTConfig
from trainables.rsst.data.load import ImageData
from trainables.rsst.dense import DenseRounds
from trainables.rsst.event import Event
from trainables.rsst.running import Running
from trainables.rsst.trial import dense_folder, open_trial

pytestmark = pytest.mark.usefixtures("toy")

VARIANTS: list[dict[str, Any]] = [
    {},
    {"struct": "refill"},
    {"rewind": "none"},
    {"rewind": "epoch:1"},
    {"granularity": "element"},
    {"amp": True, "augment": "strong"},
    {"optimizer": "sgd", "micro_batch_size": 7},
]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(round, epoch) of every epoch that is really trained."""
    calls: list[tuple[int, int]] = []
    real = experiment.train_epoch

    def counted(training: Any, epoch: int) -> tuple[float, float]:
        calls.append((training.round, epoch))
        return real(training, epoch)

    monkeypatch.setattr(experiment, "train_epoch", counted)
    return calls


def shared(config: RSSTConfig, data: ImageData, folder: Path, said: list[str] | None = None) -> list[Event]:
    say = said.append if said is not None else pytest.fail
    return list(experiment.run(config, data, dense=DenseRounds(folder, say)))


@pytest.mark.parametrize("knobs", VARIANTS, ids=str)
def test_invariant_8_a_trial_that_adopts_equals_one_that_trained(
    tiny: ImageData, tmp_path: Path, trained: list[tuple[int, int]], knobs: dict[str, Any]
) -> None:
    first = toy.config(**{**knobs, "rate": 0.5})
    shared(first, tiny, tmp_path)
    trained.clear()
    config = toy.config(**knobs)
    adopted = shared(config, tiny, tmp_path)
    assert {round for round, _ in trained} == {1, 2}, "round 0 was not trained"
    alone = list(experiment.run(config, tiny))
    assert toy.told(adopted) == toy.told(alone)
    assert toy.same_tensors(adopted[-1].snapshot().tensors, alone[-1].snapshot().tensors)
    assert adopted[-1].metrics["epochs_adopted"] == 2 and alone[-1].metrics["epochs_adopted"] == 0
    assert [e.metrics["adopted_from"] for e in adopted if "adopted_from" in e.metrics] == [first.fingerprint] * 2
    assert [e.metrics["seconds"] for e in adopted if "adopted_from" in e.metrics] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("knobs", "same"),
    [
        ({"rate": 0.5}, True),
        ({"pruning_times": 2}, True),
        ({"target_density": 0.4, "pruning_times": None}, True),
        ({"criteria": "saliency"}, True),
        ({"struct": "refill"}, True),
        ({"reg_granularity_prune": 0.9}, True),
        ({"exponents": 4.0, "RST_schedule": "exp"}, True),
        ({"penalty_form": "l2"}, True),
        ({"scope": "global"}, True),
        ({"rewind": "none"}, True),
        ({"keep_rounds": 1}, True),
        ({"rewind": "epoch:1"}, False),
        ({"lr": 4e-3}, False),
        ({"epochs": 3}, False),
        ({"warmup": 0}, False),
        ({"batch_size": 31}, False),
        ({"micro_batch_size": 7}, False),
        ({"optimizer": "sgd"}, False),
        ({"momentum": 0.8}, False),
        ({"weight_decay": 0.1}, False),
        ({"lr_schedule": "multistep"}, False),
        ({"amp": True}, False),
        ({"augment": "flip"}, False),
        ({"label_smoothing": 0.1}, False),
        ({"seed": 1}, False),
        ({"num_threads": 2}, False),
        ({"img_size": 12}, False),
        ({"patch_size": 2}, False),
    ],
    ids=str,
)
def test_a_dense_round_is_known_by_what_decides_it(knobs: dict[str, Any], same: bool) -> None:
    def key(**more: Any) -> str:
        config = RSSTConfig.from_knobs({n: v for n, v in {**toy.KNOBS, **more}.items() if v is not None})
        return Running.fresh(config, toy.images(config)).dense_key

    assert (key(**knobs) == key()) == same


def test_other_images_are_another_dense_round(tiny: ImageData) -> None:
    config = toy.config()
    other = toy.images(config)
    changed = other.about.__class__(**{**vars(other.about), "digest": "another"})
    assert Running.fresh(config, tiny).dense_key != Running.fresh(config, ImageData(
        other.train, other.val, other.test, changed)).dense_key  # fmt: skip


def test_two_at_a_time_train_it_once(tiny: ImageData, tmp_path: Path, trained: list[tuple[int, int]]) -> None:
    first = experiment.run(toy.config(), tiny, dense=DenseRounds(tmp_path, pytest.fail))
    list(islice(first, 2))  # start, and one epoch: it holds the lock
    second: list[Event] = []
    waits = threading.Thread(target=lambda: second.extend(shared(toy.config(rate=0.5), tiny, tmp_path)), daemon=True)
    waits.start()
    waits.join(0.5)
    assert waits.is_alive() and trained == [(0, 0)]
    list(first)
    waits.join(60)
    assert second[-1].kind == "final" and trained.count((0, 0)) == trained.count((0, 1)) == 1


def test_whoever_waits_trains_it_when_the_first_one_has_gone(
    tiny: ImageData, tmp_path: Path, trained: list[tuple[int, int]]
) -> None:
    config = toy.config()
    gone = open_trial(config, tmp_path / "trials", say=pytest.fail, data=tiny, dense=tmp_path / "dense")
    list(islice(gone.events(), 2))
    gone.close()
    assert shared(toy.config(rate=0.5), tiny, tmp_path / "dense")[-1].metrics["epochs_adopted"] == 0
    assert trained.count((0, 0)) == 2


def test_a_trial_that_goes_on_in_its_round_0_takes_the_rest_over(
    tiny: ImageData, tmp_path: Path, trained: list[tuple[int, int]]
) -> None:
    config = toy.config()
    alone = list(experiment.run(config, tiny))
    state = next(islice(experiment.run(config, tiny), 1, None)).snapshot()
    shared(toy.config(rate=0.5), tiny, tmp_path)
    trained.clear()
    rest = list(experiment.run(config, tiny, state, DenseRounds(tmp_path, pytest.fail)))
    assert toy.told(rest) == toy.told(alone[2:]) and (0, 1) not in trained
    assert rest[-1].metrics["epochs_adopted"] == 1


def test_a_trial_that_goes_on_does_not_wait_for_one_that_has_just_begun(tiny: ImageData, tmp_path: Path) -> None:
    config = toy.config()
    state = next(islice(experiment.run(config, tiny), 1, None)).snapshot()
    first = experiment.run(toy.config(rate=0.5), tiny, dense=DenseRounds(tmp_path, pytest.fail))
    list(islice(first, 2))
    rest = list(experiment.run(config, tiny, state, DenseRounds(tmp_path, pytest.fail)))
    assert rest[-1].metrics["epochs_adopted"] == 0
    first.close()


GONE_ON_OTHERWISE: dict[str, Callable[[pytest.MonkeyPatch], RSSTConfig]] = {
    "micro_batch_size": lambda _: toy.config(micro_batch_size=7),
    "num_threads": lambda patch: _another(patch, "num_threads"),
    "torch": lambda patch: _another(patch, "torch_version"),
}


def _another(patch: pytest.MonkeyPatch, name: str) -> RSSTConfig:
    real = running.environment
    patch.setattr(running, "environment", lambda *of: real(*of) | {name: "another"})
    return toy.config()


@pytest.mark.parametrize("other_again", [False, True])
@pytest.mark.parametrize("case", GONE_ON_OTHERWISE)
def test_a_round_that_was_begun_otherwise_is_neither_given_nor_taken(
    case: str, other_again: bool, tiny: ImageData, tmp_path: Path
) -> None:
    """Out of memory, and on with a smaller micro_batch_size: its bits are those of no trial that trains in one go."""
    state = next(islice(experiment.run(toy.config(epochs=3), tiny), 1, None)).snapshot()
    with pytest.MonkeyPatch.context() as patch:
        config = RSSTConfig.from_knobs(GONE_ON_OTHERWISE[case](patch).knobs() | {"epochs": 3})
        if not other_again:
            shared(toy.config(epochs=3, rate=0.5, micro_batch_size=config.micro_batch_size), tiny, tmp_path / "given")
        gone_on = experiment.run(config, tiny, state, DenseRounds(tmp_path / "given", pytest.fail))
        events = list(islice(gone_on, 1 if other_again else None))
        state = events[-1].snapshot()
        gone_on.close()
    if other_again:  # and back to what it began with
        events = list(experiment.run(toy.config(epochs=3), tiny, state, DenseRounds(tmp_path / "given", pytest.fail)))
    assert events[-1].metrics["epochs_adopted"] == 0
    assert len(list((tmp_path / "given").glob("*/r*"))) == (0 if other_again else 1)


def test_a_damaged_one_is_said_and_trained_again(tiny: ImageData, tmp_path: Path) -> None:
    shared(toy.config(), tiny, tmp_path)
    (tensors,) = tmp_path.rglob("tensors.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-1])
    said: list[str] = []
    again = shared(toy.config(rate=0.5), tiny, tmp_path, said)
    assert len(said) == 1 and "is damaged" in said[0]
    assert again[-1].metrics["epochs_adopted"] == 0
    assert shared(toy.config(rate=0.4), tiny, tmp_path)[-1].metrics["epochs_adopted"] == 2


def test_a_place_that_cannot_be_written_costs_the_sharing_alone(tiny: ImageData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    assert shared(toy.config(), tiny, tmp_path / "file" / "dense", said)[-1].kind == "final"
    assert len(said) == 1 and said[0].startswith("dense rounds are not shared: ")


def test_the_ones_that_were_used_last_stay(tiny: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "KEPT", 2)
    for seed in (0, 1, 0, 2):
        shared(toy.config(seed=seed, pruning_times=1, epochs=1), toy.images(toy.config(seed=seed)), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    again = shared(toy.config(pruning_times=1, epochs=1), toy.images(toy.config()), tmp_path)
    assert again[-1].metrics["epochs_adopted"] == 1, "seed 0 was used after seed 1"


def test_share_dense_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path))
    assert dense_folder(toy.config()) == tmp_path / "dense"
    assert dense_folder(toy.config(share_dense=False)) is None
