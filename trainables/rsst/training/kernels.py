"""Which kernels a training step takes where torch's own choice is a slow one.

In: the device, whether the step is in bfloat16. Out: a context for the forward pass; the model stays timm's.
On a CPU torch's scaled_dot_product_attention is several times slower in bfloat16 than the same two products of
matrices (`python -m benchmarks.engine`), so that `amp` gave hardly anything there.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

PLAIN = {"attn_mask", "dropout_p", "is_causal"}


def fast_kernels(device: str, amp: bool) -> AbstractContextManager[Any]:
    """For the forward pass of a training step on `device` (cpu or cuda)."""
    return _ProductsForAttention() if amp and device == "cpu" else nullcontext()


class _ProductsForAttention(TorchFunctionMode):
    """softmax(q·kᵀ/√K)·v by products of matrices, where attention has neither mask nor dropout."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is F.scaled_dot_product_attention and len(args) == 3 and _is_plain(given):
            return _attention(*args)
        return func(*args, **given)


def _is_plain(given: dict[str, Any]) -> bool:
    """Neither a mask nor dropout, and scaled by 1/√K."""
    return (
        given.keys() <= PLAIN
        and given.get("attn_mask") is None
        and not (given.get("dropout_p") or given.get("is_causal"))
    )


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, H, N, K) each."""
    scale = float(query.shape[-1]) ** -0.5
    shares: Tensor = ((query * scale) @ key.transpose(-2, -1)).softmax(dim=-1)
    return shares @ value
