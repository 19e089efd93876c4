"""float32 layers by oneDNN: the same products, only where they pay, and recorded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.trainables import toy
from trainables.rsst.data.load import ImageData
from trainables.rsst.training import linear
from trainables.rsst.training.linear import fast_linears, linear_kernels

pytestmark = pytest.mark.usefixtures("toy")

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """oneDNN on any processor and for any size; the list grows by the number of inputs of each of its products."""
    calls: list[int] = []
    real = linear._onednn

    def counted(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        calls.append(inputs.numel())
        return real(inputs, weight, bias)

    monkeypatch.setattr(linear, "_units_idle", lambda: True)
    monkeypatch.setattr(linear, "FEWEST_PRODUCTS", 0)
    monkeypatch.setattr(linear, "_onednn", counted)
    return calls


def found_by(product: Product, shape: tuple[int, ...], bias: bool, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    inputs, weight = (torch.randn(*size).to(dtype).requires_grad_() for size in ((*shape, 40), (24, 40)))
    add = torch.randn(24).to(dtype).requires_grad_() if bias else None
    out = product(inputs, weight, add)
    above = torch.randn(24, *shape).to(dtype).movedim(0, -1)  # not contiguous
    out.backward(above)
    return [out, *(t.grad for t in (inputs, weight, add) if t is not None and t.grad is not None)]


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (1, 1), (2, 3, 4)], ids=str)
def test_values_and_gradients_are_as_near_to_the_truth_as_torchs(shape: tuple[int, ...], bias: bool) -> None:
    truth = found_by(F.linear, shape, bias, torch.float64)
    ours, usual = (found_by(by, shape, bias, torch.float32) for by in (linear._Product.apply, F.linear))
    assert len(ours) == len(truth) == 3 + bias
    for one, other, exact in zip(ours, usual, truth, strict=True):
        assert float((one - exact).abs().max()) <= 4 * float((other - exact).abs().max()) + 1e-6


def test_small_products_and_bfloat16_stay_torchs(forced: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(16, 8)
    monkeypatch.setattr(linear, "FEWEST_PRODUCTS", 4 * 16 * 8)
    with fast_linears(layer, "cpu"):
        for rows, autocast, expected in ((3, False, 0), (4, False, 1), (4, True, 1)):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                layer(torch.randn(rows, 16))
            assert len(forced) == expected


def test_the_layers_are_timms_again_whatever_happens_in_between(forced: list[int]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2))
    with suppress(ZeroDivisionError), fast_linears(model, "cpu"):
        model(torch.randn(2, 4))
        raise ZeroDivisionError
    assert len(forced) == 2
    model(torch.randn(2, 4))
    assert len(forced) == 2 and not any("forward" in part.__dict__ for part in model.modules())


@pytest.mark.parametrize(
    ("cpuinfo", "capability", "device", "kernels"),
    [
        ("vendor_id\t: AuthenticAMD\n", "AVX512", "cpu", "onednn"),
        ("vendor_id\t: AuthenticAMD\n", "AVX512", "cuda", "torch"),
        ("vendor_id\t: AuthenticAMD\n", "AVX2", "cpu", "torch"),
        ("vendor_id\t: GenuineIntel\n", "AVX512", "cpu", "torch"),
        ("CPU implementer\t: 0x41\n", "DEFAULT", "cpu", "torch"),
        (None, "AVX512", "cpu", "torch"),
    ],
    ids=["amd", "gpu", "old amd", "intel", "arm", "no linux"],
)
def test_the_processor_decides(
    monkeypatch: pytest.MonkeyPatch, cpuinfo: str | None, capability: str, device: str, kernels: str
) -> None:
    def read_text(_path: object, **_how: str) -> str:
        if cpuinfo is None:
            raise FileNotFoundError
        return cpuinfo

    monkeypatch.setattr(linear.Path, "read_text", read_text)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    linear._units_idle.cache_clear()
    try:
        assert linear_kernels(device) == kernels
    finally:
        linear._units_idle.cache_clear()


def test_a_trial_trains_and_validates_with_them_and_says_so(tiny: ImageData, forced: list[int]) -> None:
    config = toy.config(pruning_times=2, epochs=1, warmup=0)
    events = toy.outcome(config, tiny)
    assert len(forced) > 100 and events[0][1]["linear_kernels"] == "onednn"
    assert toy.outcome(config, tiny) == events
