"""bfloat16 on a CPU: attention by products of matrices is torch's attention, and only amp takes it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.trainables import toy
from trainables.rsst.data.load import ImageData
from trainables.rsst.training import kernels
from trainables.rsst.training.kernels import fast_kernels

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


@pytest.mark.parametrize("special", [{"is_causal": True}, {"dropout_p": 0.5}, {"scale": 0.3}], ids=str)
def test_what_it_does_not_know_is_left_to_torch(special: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_attention", None)
    with fast_kernels("cpu", True):
        F.scaled_dot_product_attention(*parts(torch.float32), **special)


def test_a_mask_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_attention", None)
    with fast_kernels("cpu", True):
        F.scaled_dot_product_attention(*parts(torch.float32), attn_mask=torch.ones(17, 17, dtype=torch.bool).tril())


def test_amp_trains_with_it_and_float32_without(tiny: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], kernels._attention
    monkeypatch.setattr(kernels, "_attention", lambda *parts: calls.append(parts[0].dtype) or real(*parts))
    toy.last_state(toy.config(pruning_times=1, epochs=1), tiny)
    assert calls == []
    toy.last_state(toy.config(pruning_times=1, epochs=1, amp=True), tiny)
    assert calls and set(calls) == {torch.bfloat16}
