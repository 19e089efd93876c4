"""What is not finite ends the trial in the same epoch, whatever it is, and is in no checkpoint and no report."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.trainables import toy
from trainables.rsst import experiment
from trainables.rsst.data.load import ImageData
from trainables.rsst.event import Event
from trainables.rsst.model.cost import Latency
from trainables.rsst.pruning import importance, penalty
from trainables.rsst.store.checkpoint import CheckpointStore
from trainables.rsst.training import epoch as epochs
from trainables.rsst.training.setup import Training
from trainables.rsst.trial import TrialDiverged, open_trial

pytestmark = pytest.mark.usefixtures("toy")
Spoil = Callable[[pytest.MonkeyPatch], None]
STEPS = 3  # of an epoch: 96 images, 32 at a time


def gradient(at: int, value: float, batches: int = 1) -> Spoil:
    """Step `at` of the whole trial gets one gradient of `value`."""

    def spoil(patch: pytest.MonkeyPatch) -> None:
        real, taken = epochs._gradients, iter(range(10**6))

        def spoiled(model: torch.nn.Module, *rest: object) -> torch.Tensor:
            loss = real(model, *rest)  # type: ignore[arg-type]
            if next(taken) == at:
                next(model.parameters()).grad.view(-1)[0] = value  # type: ignore[union-attr]
            return loss

        patch.setattr(epochs, "_gradients", spoiled)

    return spoil


def loss(at: int, value: float) -> Spoil:
    def spoil(patch: pytest.MonkeyPatch) -> None:
        real, taken = epochs._gradients, iter(range(10**6))
        patch.setattr(epochs, "_gradients", lambda *given: real(*given) * (value if next(taken) == at else 1.0))

    return spoil


def weight(after_epoch: int, value: float) -> Spoil:
    def spoil(patch: pytest.MonkeyPatch) -> None:
        real, taken = experiment.train_epoch, iter(range(10**6))

        def spoiled(training: Training, epoch: int) -> tuple[float, float]:
            found = real(training, epoch)
            if next(taken) == after_epoch:
                with torch.no_grad():
                    next(training.model.parameters()).view(-1)[0] = value
            return found

        patch.setattr(experiment, "train_epoch", spoiled)

    return spoil


def the_penalty(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(penalty, "ramp", lambda name, t, g, p: math.inf if t > 0.5 else 0.0)


def the_score(patch: pytest.MonkeyPatch) -> None:
    real = importance._from_weights

    def spoiled(*given: object) -> importance.Found:
        found = real(*given)  # type: ignore[arg-type]
        next(iter(found.values()))[0] = math.nan
        return found

    patch.setattr(importance, "_from_weights", spoiled)


def the_metric(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("trainables.rsst.reports.latency", lambda *_, **__: Latency(math.inf, 0.1))


# what breaks, the knobs, what is said
CASES: dict[str, tuple[Spoil, dict[str, object], str]] = {
    "loss, first step": (loss(0, math.nan), {}, "round 0, epoch 1, step 0: the loss is nan"),
    "loss, second epoch": (loss(STEPS + 1, math.inf), {}, "round 0, epoch 2, step 1: the loss is inf"),
    "loss, second round": (loss(2 * STEPS + 2, math.nan), {}, "round 1, epoch 1, step 2: the loss is nan"),
    "gradient": (gradient(0, math.nan), {}, "round 0, epoch 1, step 1: the loss is nan"),
    "infinite gradient": (gradient(1, math.inf), {}, "round 0, epoch 1, step 2: the loss is nan"),
    "gradient, last step": (gradient(STEPS - 1, math.nan), {}, "round 0, epoch 1, step 2: the weight .* is nan"),
    "gradient, sgd": (gradient(5, -math.inf), {"optimizer": "sgd"}, "round 0, epoch 2, step 2: the weight .* is"),
    "a square too large": (gradient(0, 1e25), {}, "round 0, epoch 1, step 2: the exp_avg_sq of .* inf"),
    "weight": (weight(0, math.nan), {}, "round 0, epoch 1, step 2: the weight .* is nan"),
    "weight, last epoch": (weight(5, math.inf), {}, "round 2, epoch 2, step 2: the weight .* is inf"),
    "penalty": (the_penalty, {"penalty_form": "l2"}, "round 1, epoch [12], step [012]: the (loss|weight)"),
    "score": (the_score, {"criteria": "magnitude"}, "round 1, before epoch 1, step 0: a score"),
    "metric": (the_metric, {}, "round 0, epoch 2: latency_ms is inf"),
}  # fmt: skip


def saved_values(store: Path) -> Iterator[float]:
    """Every number that the newest checkpoint holds: tensors, then reports."""
    newest = CheckpointStore(store.parent, store.name, lambda line: None).newest()
    if newest is not None:
        for tensor in newest.tensors.values():
            yield float(tensor.double().abs().max()) if tensor.numel() else 0.0
        for event in newest.meta["history"]:
            yield from (value for value in Event.from_json(event).metrics.values() if isinstance(value, float))


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_finite_ends_the_trial_and_is_saved_nowhere(
    name: str, tiny: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, knobs, says = CASES[name]
    config = toy.config(**knobs)
    spoil(monkeypatch)
    told = []
    with open_trial(config, tmp_path, say=told.append, data=tiny, checkpoint_every_s=0) as trial:
        with pytest.raises(TrialDiverged) as caught:
            told += [event.to_json() for event in trial.events()]
        folder = trial.folder
    assert re.match(says, str(caught.value)), str(caught.value)
    values = list(saved_values(folder))
    assert all(map(math.isfinite, values)) and (values or "epoch 1" in says)
    assert not (folder / "report.json").exists()


def test_the_epochs_since_the_last_checkpoint_are_saved_when_a_trial_is_closed(tiny: ImageData, tmp_path: Path) -> None:
    config = toy.config(epochs=4)
    expected = toy.outcome(config, tiny)
    for stop_after in (2, 4, 7):  # reports
        with open_trial(config, tmp_path, say=lambda line: None, data=tiny) as trial:
            for count, _ in enumerate(trial.events(), 1):
                if count == stop_after:
                    break
        with open_trial(config, tmp_path, say=lambda line: None, data=tiny) as trial:
            assert len(trial.history) == stop_after
    with open_trial(config, tmp_path, say=lambda line: None, data=tiny) as trial:
        assert toy.told(trial.events()) == expected
