"""float32 linear layers on a CPU, by the library that has the faster products there.

In: a model, within `fast_linears`. Out: the same model; its layers compute the same float32 products.
torch gives them to MKL, which leaves the 512-bit units of an AMD processor unused: oneDNN, from the same wheel, takes
0.4 to 0.6 of the time there (`python -m benchmarks.engine`), at the same accuracy. Which of the two it is follows from
the processor and from the sizes, never from a clock, so that equal trials have equal bits; the record says which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEWEST_PRODUCTS = 2**21
"""Multiplications of a layer's forward pass below which the call costs more than oneDNN saves."""


def linear_kernels(device: str) -> str:
    """What computes float32 linear layers in training and evaluation: onednn, or torch's own choice (torch)."""
    return "onednn" if device == "cpu" and _units_idle() else "torch"


@contextmanager
def fast_linears(model: nn.Module, device: str) -> Iterator[None]:
    """Within the body the linear layers of `model` compute by `linear_kernels`; under autocast they are torch's."""
    fast = linear_kernels(device) == "onednn"
    layers: list[Any] = [part for part in model.modules() if type(part) is nn.Linear] if fast else []
    for layer in layers:
        layer.forward = _chosen(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _chosen(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    weight, bias, outputs = layer.weight, layer.bias, layer.out_features

    def forward(inputs: Tensor) -> Tensor:
        if inputs.numel() * outputs < FEWEST_PRODUCTS or torch.is_autocast_enabled("cpu"):
            return F.linear(inputs, weight, bias)
        found: Tensor = _Product.apply(inputs, weight, bias)
        return found

    return forward


class _Product(torch.autograd.Function):
    """inputs (…, N_in) times weight (N_out, N_in) transposed, plus bias; all products by oneDNN."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.with_bias = bias is not None
        return _onednn(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        (above,) = upstream
        rows, given = above.reshape(-1, above.shape[-1]), inputs.reshape(-1, inputs.shape[-1])
        below = _onednn(above, weight.t(), None) if ctx.needs_input_grad[0] else None
        return below, _onednn(rows.t(), given.t(), None), rows.sum(0) if ctx.with_bias else None


def _onednn(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return found


@cache
def _units_idle() -> bool:
    """An AMD processor with AVX-512, and a torch that has oneDNN."""
    try:
        vendor = "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux
        return False
    return vendor and torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
