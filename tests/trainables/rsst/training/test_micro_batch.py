"""Micro-batches: gradients, accuracy, scores are the whole batch's, one penalty a step, what is out of memory."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from tests.trainables import toy
from trainables.rsst import reports
from trainables.rsst.config import ConfigError
from trainables.rsst.data.batches import Batch, on_device
from trainables.rsst.data.load import ImageData
from trainables.rsst.experiment import run
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.cost import latency
from trainables.rsst.model.vit import build
from trainables.rsst.pruning import penalty
from trainables.rsst.pruning.importance import score
from trainables.rsst.training.device import is_out_of_memory
from trainables.rsst.training.epoch import _gradients
from trainables.rsst.training.evaluation import evaluate

pytestmark = pytest.mark.usefixtures("toy")


@pytest.mark.parametrize("size", [1, 7, 8, 31])
@pytest.mark.parametrize("soft", [False, True], ids=["labels", "soft labels"])
def test_gradients_of_pieces_add_up_to_those_of_the_batch(size: int, soft: bool) -> None:
    """32 images in pieces that divide them and in pieces that do not."""
    config = toy.config(label_smoothing=0.0 if soft else 0.1)
    torch.manual_seed(0)
    model = build(architecture(config, in_chans=1, num_classes=10)).double()
    images, labels = torch.randn(32, 1, 8, 8).double(), torch.randint(10, (32,))
    targets = torch.rand(32, 10).softmax(dim=1) if soft else labels
    pieces = copy.deepcopy(model)
    whole_loss = _gradients(model, Batch(images, targets), config)
    loss = _gradients(
        pieces, Batch(images, targets), toy.config(label_smoothing=config.label_smoothing, micro_batch_size=size)
    )
    assert float(loss) == pytest.approx(float(whole_loss), rel=1e-6)
    for (name, one), other in zip(model.named_parameters(), pieces.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.allclose(one.grad, other.grad, rtol=1e-5, atol=1e-7), name


@pytest.mark.parametrize("form", ["normalized", "l2"])
def test_a_trial_in_micro_batches_ends_where_the_whole_one_ends(tiny: ImageData, form: str) -> None:
    knobs: dict[str, Any] = {"pruning_times": 2, "epochs": 2, "penalty_form": form, "optimizer": "sgd", "lr": 1e-3}
    whole = toy.last_state(toy.config(**knobs), tiny)
    split = toy.last_state(toy.config(**knobs, micro_batch_size=5), tiny)
    assert whole.meta["fingerprint"] == split.meta["fingerprint"]
    for name, tensor in whole.group("weights").items():
        assert torch.allclose(tensor, split.group("weights")[name], rtol=1e-3, atol=1e-5), name
    assert "micro_batch_size" not in whole.meta["history"][-1]
    assert split.meta["history"][0]["micro_batch_size"] == split.meta["history"][-1]["micro_batch_size"] == 5


def test_the_penalty_acts_once_a_step_however_small_the_pieces(
    tiny: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[float, float]] = []
    acted = penalty.Penalty.after_step

    def counted(self: penalty.Penalty, t_from: float, t_to: float) -> None:
        calls.append((t_from, t_to))
        acted(self, t_from, t_to)

    monkeypatch.setattr(penalty.Penalty, "after_step", counted)
    list(run(toy.config(pruning_times=1, epochs=1, micro_batch_size=5), tiny))
    whole = list(calls)
    calls.clear()
    list(run(toy.config(pruning_times=1, epochs=1), tiny))
    assert whole == calls and len(calls) == 3


def test_no_micro_batch_and_one_as_large_as_the_batch_are_the_same_bits(tiny: ImageData) -> None:
    assert toy.outcome(toy.config(epochs=1), tiny) == toy.outcome(toy.config(epochs=1, micro_batch_size=32), tiny)
    with pytest.raises(ConfigError, match="micro_batch_size = 0"):
        toy.config(micro_batch_size=0)


@pytest.mark.parametrize(("size", "criteria"), [(1, "l1"), (5, "saliency"), (31, "l2")])
def test_no_more_images_than_that_go_through_the_model_at_any_time(
    size: int, criteria: str, tiny: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluation took 512 at a time, scoring 128, latency the whole batch."""
    seen: list[int] = []
    forward = VisionTransformer.forward

    def noted(model: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
        if images.device.type != "meta":
            seen.append(len(images))
        return forward(model, images)

    monkeypatch.setattr(VisionTransformer, "forward", noted)
    monkeypatch.setattr(reports, "latency", partial(latency, warmups=0))
    list(run(toy.config(pruning_times=2, epochs=1, criteria=criteria, micro_batch_size=size), tiny))
    assert max(seen) == size


@pytest.mark.parametrize("size", [1, 2, 5, 16, 31, 47, 48, 500])
def test_accuracy_and_scores_do_not_depend_on_it(size: int, tiny: ImageData) -> None:
    """Losses and scores to rounding, predictions exactly."""
    model = build(architecture(toy.config(), in_chans=1, num_classes=10))
    whole, split = (on_device(tiny, torch.device("cpu"), n) for n in (None, size))
    one, other = (evaluate(model, images, images.val) for images in (whole, split))
    assert one.top1 == other.top1 and torch.equal(one.predictions, other.predictions)
    assert other.loss == pytest.approx(one.loss, rel=1e-6)
    arch = architecture(toy.config(), in_chans=1, num_classes=10)
    for criterion in ("l1", "l2", "saliency"):
        a, b = (score(criterion, model, arch, i.calibration(60, seed=0), rate=0.3) for i in (whole, split))
        for x, y in zip([*a.heads, *a.neurons], [*b.heads, *b.neurons], strict=True):
            assert torch.allclose(x, y, rtol=1e-5)


def test_latency_in_micro_batches_is_that_of_all_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """7 images, 3 at a time: 3 + 3 + 1 in every repetition."""
    seen: list[int] = []

    class Model(torch.nn.Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(len(images))
            return super().forward(images.flatten(1))

    latency(Model(4, 2), (1, 2, 2), 7, at_a_time=3, budget_s=0.0, warmups=0)
    assert seen == [3, 3, 1] * 5
    seen.clear()
    latency(Model(4, 2), (1, 2, 2), 1, at_a_time=3, budget_s=0.0, warmups=0)
    assert seen == [1] * 5


def test_which_errors_mean_that_memory_ran_out() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)  # the CPU's own words, whatever this version of torch says
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be async"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shape mismatch")) and not is_out_of_memory(
        ValueError("CUDA out of memory")
    )
