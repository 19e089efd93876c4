"""Accuracy, loss and changed predictions by hand; latency has its fields in order."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.trainables import toy
from trainables.rsst import experiment, reports
from trainables.rsst.data.batches import TrialImages
from trainables.rsst.data.load import ImageData
from trainables.rsst.data.split import Split
from trainables.rsst.experiment import run
from trainables.rsst.model.cost import Latency, latency, latency_budget_s
from trainables.rsst.training import evaluation
from trainables.rsst.training.evaluation import Accuracy, balanced, class_ratio, evaluate


class Fixed(nn.Module):
    """Logits for class 0 and 1: the pixel and 0."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixel = images.flatten(1)[:, :1]
        return torch.cat([pixel, torch.zeros_like(pixel)], dim=1)


def test_accuracy_and_loss_by_hand() -> None:
    """Pixels 0, 255, 255 normalised with mean ½ and std ½: logits −1, 1, 1 for class 0."""
    pixels = torch.tensor([0, 255, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    half = torch.tensor(0.5).reshape(1, 1, 1)
    model = Fixed().train()
    split = Split(pixels, torch.tensor([1, 0, 1]))
    found = evaluate(model, TrialImages(split, split, split, half, half, 2), split)
    assert found.top1 == pytest.approx(2 / 3)
    good, bad = math.log(1 + math.exp(-1)), math.log(1 + math.e)
    assert found.loss == pytest.approx((2 * good + bad) / 3)
    assert found.predictions.tolist() == [1, 0, 0]
    assert found.by_class == [1.0, 0.5]
    assert model.training


def test_nothing_is_read_back_before_the_last_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU; whatever reads from it raises."""
    monkeypatch.setattr(evaluation, "EVALUATED_AT_ONCE", 2)
    pixels, labels = torch.zeros(7, 1, 1, 1, dtype=torch.uint8, device="meta"), torch.zeros(7, dtype=torch.int64)
    half, split = torch.ones(1, 1, 1, device="meta"), Split(pixels, labels.to("meta"))
    model, seen = Fixed(), list[int]()
    model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        evaluate(model, TrialImages(split, split, split, half, half, 2), split)
    assert seen == [2, 2, 2, 1]


LABELS = [
    ([0, 0, 0, 1, 1, 1], 2, 1.0),
    ([0, 0, 0, 1], 2, 3.0),
    ([1, 1, 0, 0, 0], 2, 1.5),
    ([2, 2, 2, 2], 3, 4.0),  # two classes without images count as one image each
    ([0], 2, 1.0),
]


@pytest.mark.parametrize(("labels", "classes", "ratio"), LABELS)
def test_the_ratio_of_the_classes(labels: list[int], classes: int, ratio: float) -> None:
    images = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    assert class_ratio(Split(images, torch.tensor(labels)), classes) == ratio


def test_each_class_counts_the_same_and_one_without_images_not_at_all() -> None:
    """Six images of class 0, all right; two of class 1, one right; none of class 2."""
    pixels = torch.tensor([255] * 7 + [0], dtype=torch.uint8).reshape(8, 1, 1, 1)
    half = torch.tensor(0.5).reshape(1, 1, 1)
    split = Split(pixels, torch.tensor([0] * 6 + [1, 1]))
    found = evaluate(Fixed(), TrialImages(split, split, split, half, half, 3), split)
    assert found.by_class == [1.0, 0.5, None]
    assert (found.top1, balanced(found.by_class)) == (7 / 8, 0.75)


def test_changed_predictions_are_counted_whether_right_or_wrong() -> None:
    a, b = (Accuracy(0.0, 0.0, torch.tensor(p), []) for p in ([0, 1, 2, 3], [0, 2, 1, 3]))
    assert a.changed(b) == 0.5 and a.changed(a) == 0.0


def test_latency_is_a_time_and_leaves_the_model_in_its_mode() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).train()
    found = latency(model, (1, 4, 4), 3, budget_s=0.0)
    assert 0 < found.median_ms < 1000 and found.iqr_ms >= 0 and model.training


@pytest.mark.parametrize(
    ("round_s", "each_s"), [(0.0, 0.0), (0.2, 0.001), (10.0, 0.05), (30.0, 0.15), (86400.0, 0.15)]
)  # fmt: skip
def test_both_measurements_together_take_a_hundredth_of_the_round_at_most(round_s: float, each_s: float) -> None:
    assert latency_budget_s(round_s) == pytest.approx(each_s) and 2 * latency_budget_s(round_s) <= 0.01 * round_s


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("epoch_s", [0.1, 4.0, 5000.0])
def test_a_rounds_latency_gets_what_its_own_epochs_allow(
    epoch_s: float, tiny: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two rounds of two epochs each; those of the round before count for nothing."""
    given: list[tuple[int, float]] = []

    def noted(model: object, shape: object, batch: int, *, at_a_time: object = None, budget_s: float) -> Latency:
        given.append((batch, budget_s))
        return Latency(1.0, 0.1)

    clock = itertools.count()
    monkeypatch.setattr(experiment, "time", SimpleNamespace(perf_counter=lambda: next(clock) * epoch_s))
    monkeypatch.setattr(reports, "latency", noted)
    rounds = [e.metrics for e in run(toy.config(pruning_times=2, epochs=2), tiny) if e.kind == "round"]
    batch = toy.config().batch_size
    assert given == [(n, latency_budget_s(metrics["seconds"])) for metrics in rounds for n in (1, batch)]
    assert [metrics["seconds"] for metrics in rounds] == [pytest.approx(2 * epoch_s)] * 2
