"""Learning rates by hand, what weight decay touches, divergence told with round, epoch and step."""

from __future__ import annotations

import math

import pytest

from tests.trainables import toy
from trainables.rsst.data.load import ImageData
from trainables.rsst.experiment import run
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.vit import build
from trainables.rsst.training.epoch import TrialDiverged
from trainables.rsst.training.schedule import Clock, clock_for, learning_rate
from trainables.rsst.training.setup import make_optimizer

pytestmark = pytest.mark.usefixtures("toy")


def test_a_round_counts_its_last_small_batch() -> None:
    clock = clock_for(toy.config(batch_size=32, epochs=3), 97)
    assert (clock.steps_per_epoch, clock.steps) == (4, 12)
    assert [clock.progress(s) for s in (0, 6, 12)] == [0.0, 0.5, 1.0]


def test_warm_up_is_linear_per_step_and_the_cosine_starts_at_the_peak() -> None:
    config = toy.config(lr=1.0, epochs=4, warmup=2)
    rates = [learning_rate(config, Clock(4, 5, 2), step) for step in range(20)]
    assert rates[:10] == pytest.approx([0.1 * (s + 1) for s in range(10)])
    assert rates[10:] == pytest.approx([0.5 * (1 + math.cos(math.pi * s / 10)) for s in range(10)])


def test_multistep_drops_at_a_half_and_three_quarters_of_what_follows_warm_up() -> None:
    config = toy.config(lr=1.0, epochs=10, warmup=2, lr_schedule="multistep")
    rates = [learning_rate(config, Clock(10, 1, 2), step) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("warmup", [0, 2])
def test_no_warm_up_and_warm_up_only_are_fine(warmup: int) -> None:
    config = toy.config(lr=1.0, epochs=2, warmup=warmup)
    rates = [learning_rate(config, Clock(2, 2, warmup), step) for step in range(4)]
    assert rates == pytest.approx(
        [1.0, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)] if not warmup else [0.25, 0.5, 0.75, 1.0]
    )


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weight_decay_is_for_weight_matrices(optimizer: str) -> None:
    config = toy.config(optimizer=optimizer, weight_decay=0.25, momentum=0.8)
    model = build(architecture(config, in_chans=1, num_classes=10))
    names = {id(p): name for name, p in model.named_parameters()}
    groups = make_optimizer(config, model).param_groups
    decay = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
    assert decay.keys() == set(names.values())
    matrices = {n for n, d in decay.items() if d == 0.25}
    assert {n for n in decay if n.endswith(".weight") and "norm" not in n} == matrices
    assert groups[0].get("momentum", groups[0].get("betas", (None,))[0]) == 0.8


def test_a_loss_that_is_not_finite_names_round_epoch_and_step(tiny: ImageData) -> None:
    with pytest.raises(TrialDiverged, match=r"^round 0, epoch [12], step \d+: the loss is (nan|inf)$"):
        list(run(toy.config(lr=1e30, warmup=0), tiny))


@pytest.mark.parametrize("knobs", [{"pruning_times": 1}, {"pruning_times": 2}], ids=str)
def test_a_last_step_that_breaks_the_weights_is_divergence_too(tiny: ImageData, knobs: dict[str, int]) -> None:
    """The losses of the epoch were finite; nothing that is not finite may be reported or saved."""
    with pytest.raises(TrialDiverged, match="round 0, epoch 1"):
        list(run(toy.config(lr=1e38, epochs=1, warmup=0, batch_size=96, **knobs), tiny))
