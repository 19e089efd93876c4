"""Micro-batches: accumulated gradients are the whole batch's, one penalty a step, what counts as out of memory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.trainables import toy
from trainables.rsst.config import ConfigError
from trainables.rsst.data.batches import Batch
from trainables.rsst.data.load import ImageData
from trainables.rsst.experiment import run
from trainables.rsst.model.vit import architecture, build
from trainables.rsst.pruning import penalty
from trainables.rsst.training.device import is_out_of_memory
from trainables.rsst.training.epoch import _gradients

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
