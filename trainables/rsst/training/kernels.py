"""Which numbers and kernels training takes where torch's own choice is a slow one; what is compared is float32.

In: the device, whether a step is in bfloat16. Out: contexts around training, a forward pass, an evaluation; the model
stays timm's.
On a GPU training multiplies float32 matrices in TF32 (10 bits of mantissa, sums in float32), which its tensor cores do.
Validation, hardening gap and test are in float32 throughout, convolutions too, for which torch takes TF32 by itself.
On a CPU torch's scaled_dot_product_attention is several times slower in bfloat16 than the same two products of
matrices (`python -m benchmarks.engine`), so that `amp` gave hardly anything there.
Some of a GPU's kernels add in the order in which their parts get ready; `deterministic` takes others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

PLAIN = {"attn_mask", "dropout_p", "is_causal"}


def training_numbers(device: str, amp: bool) -> str:
    """What the products of a training step are in: bfloat16, tf32 or float32."""
    return "bfloat16" if amp else "tf32" if device == "cuda" else "float32"


@contextmanager
def tf32(device: str, *, allowed: bool) -> Iterator[None]:
    """Whether matrix products and convolutions on a GPU may take TF32 for float32; on a CPU nothing changes."""
    if device != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextmanager
def repeatable(on: bool) -> Iterator[None]:
    """With `on` the body's sums come in the same order each time, on a GPU too; what has no such kernel is an error.

    torch's flag is one of the whole process: it is set for the body alone.
    """
    if not on:
        yield
        return
    before, only_warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warns)


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
