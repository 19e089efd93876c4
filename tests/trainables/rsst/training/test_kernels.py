"""bfloat16 on a CPU: attention by products of matrices is torch's attention, and only amp takes it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.trainables import toy
from trainables.rsst.data.load import ImageData
from trainables.rsst.training import epoch, evaluation, kernels
from trainables.rsst.training.kernels import fast_kernels, tf32, training_numbers

pytestmark = pytest.mark.usefixtures("toy")


def parts(dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, 17, 8, dtype=dtype, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.bfloat16, 2e-2)], ids=str)
def test_it_is_torchs_attention_and_so_are_its_gradients(dtype: torch.dtype, near: float) -> None:
    found = []
    for amp in (False, True):
        q, k, v = parts(dtype)
        with fast_kernels("cpu", amp):
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False)
        out.square().sum().backward()
        found.append([out, q.grad, k.grad, v.grad])
    for one, other in zip(*found, strict=True):
        assert one is not None and other is not None
        assert torch.allclose(one.double(), other.double(), rtol=near, atol=near * float(one.abs().max()))


LEFT = [{"is_causal": True}, {"dropout_p": 0.5}, {"scale": 0.3}, {"attn_mask": torch.ones(17, 17).tril().bool()}]


@pytest.mark.parametrize("special", LEFT, ids=lambda special: next(iter(special)))
def test_what_it_does_not_know_is_left_to_torch(special: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_attention", None)
    outputs = []
    for amp in (False, True):
        with fast_kernels("cpu", amp):
            given = parts(torch.float32)  # sets the seed, which dropout draws from too
            outputs.append(F.scaled_dot_product_attention(*given, **special))
    assert torch.equal(*outputs)


def test_amp_trains_with_it_and_float32_without(tiny: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], kernels._attention
    monkeypatch.setattr(kernels, "_attention", lambda *parts: calls.append(parts[0].dtype) or real(*parts))
    toy.last_state(toy.config(pruning_times=1, epochs=1), tiny)
    assert calls == []
    toy.last_state(toy.config(pruning_times=1, epochs=1, amp=True), tiny)
    assert calls and set(calls) == {torch.bfloat16}


def test_a_gpu_trains_in_tf32_and_compares_in_float32() -> None:
    """The flags are there without a GPU; whatever they were before, they are again afterwards."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    for allowed in (True, False):
        with suppress(ZeroDivisionError), tf32("cuda", allowed=allowed):
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (allowed, allowed)
            raise ZeroDivisionError
        assert (matmul.allow_tf32, cudnn.allow_tf32) == before
    with tf32("cpu", allowed=True):
        assert (matmul.allow_tf32, cudnn.allow_tf32) == before


@pytest.mark.parametrize(
    ("device", "amp", "numbers"),
    [("cuda", False, "tf32"), ("cuda", True, "bfloat16"), ("cpu", False, "float32"), ("cpu", True, "bfloat16")],
)
def test_the_record_says_what_training_multiplies_in(device: str, amp: bool, numbers: str) -> None:
    assert training_numbers(device, amp) == numbers


def test_training_allows_it_and_evaluation_does_not(tiny: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def noted(device: str, *, allowed: bool) -> AbstractContextManager[None]:
        asked.append((device, allowed))
        return nullcontext()

    monkeypatch.setattr(epoch, "tf32", noted)
    monkeypatch.setattr(evaluation, "tf32", noted)
    toy.last_state(toy.config(pruning_times=1, epochs=1, batch_size=96), tiny)
    training = [("cpu", True)] * asked.count(("cpu", True))
    assert len(training) >= 1 and asked[: len(training)] == training and set(asked[len(training) :]) == {("cpu", False)}
