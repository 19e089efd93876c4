"""A timm block as a function of its weights, compiled once for every number of heads and neurons.

In: a model, within `compiled_blocks`. Out: the same model; its blocks compute the same numbers to rounding, in fewer
and larger kernels. It stays timm's: its weights, hooks on the model and export know nothing of it.
To torch.compile each width of a pruned model would be another program, and after eight of them it computes without
compiling and says nothing. Here heads and neurons are symbols: one program serves all layers, rounds and both scopes;
layers that are down to a single head or a single neuron (torch makes no symbol of a 1) have theirs. Another embed dim,
batch, kind of numbers or kind of block has its own. A second compilation of one of them is an error, and so is one that
leaves something out. Each is compiled for the sizes that follow from its kind, never for those of the layer that came
first: a trial that goes on in its third round computes with the program that the first round would have made.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.progress import lasting
from trainables.rsst.config import ConfigError
from trainables.rsst.data.node_cache import cache_folder

BACKEND = "inductor"
COMPILING = "compiling the blocks"
UNITS = {"qkv": 1, "qkv_bias": 1, "proj": 1, "fc1": 0, "fc1_bias": 0, "fc2": 1}
"""The dimension of a weight, as `weights_of` gives it, that counts heads or neurons."""
Weights = Mapping[str, Tensor]
_CACHE = "TORCHINDUCTOR_CACHE_DIR"


@dataclass(frozen=True)
class BlockKind:
    """What all blocks that share a program have in common.

    `sizes`: images, tokens, embed dim, head dim; `one_head`, `one_neuron`: whether it has no more. `eps` of the norms
    n1, q, k, n2 (None: no norm there). `device`, `amp`, `dtype`: what a step computes on and in, and the block's input.
    `settings`: those of the process that torch compiles for. `has`: the names of its weights. `act`: an activation
    that prints as `act_name`.
    """

    sizes: tuple[int, int, int, int]
    one_head: bool
    one_neuron: bool
    eps: tuple[float | None, ...]
    has: frozenset[str]
    device: torch.device
    amp: bool
    dtype: torch.dtype
    settings: tuple[object, ...]
    act_name: str
    act: nn.Module = field(compare=False)


def refuse_without_compiler(device: str) -> None:
    """Refuse `compile` where there is nothing to compile with: a C++ compiler, on a GPU Triton as well."""
    compiler = os.environ.get("CXX") or "g++"
    if not (shutil.which(compiler) or shutil.which("clang++")):
        hint = f"there is no {compiler} and no clang++; install one, or leave compile out"
        raise ConfigError("compile", True, "false without a C++ compiler", hint)
    if device == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            hint = "torch has no Triton for this GPU; install it, or leave compile out"
            raise ConfigError("compile", True, "false without Triton", hint)


@contextmanager
def compiled_blocks(model: nn.Module, images: int, *, amp: bool) -> Iterator[None]:
    """Within the body the blocks of `model` compute compiled wherever `images` images go through it at a time.

    Others (the last, smaller batch of an epoch) go through timm's own: they are no second program.
    """
    import torch._dynamo
    import torch._inductor.config
    import torch.fx.experimental._config

    blocks: list[Any] = list(model.blocks)  # type: ignore[arg-type]
    for block in blocks:
        block.forward = _chosen(block, images, amp)
    try:
        fixed = torch._inductor.config.patch(deterministic=torch.are_deterministic_algorithms_enabled())
        with _own_cache(), fixed, torch._dynamo.config.patch(recompile_limit=1), _two_sizes():
            yield
    finally:
        for block in blocks:
            del block.forward


@contextmanager
def _own_cache() -> Iterator[None]:
    """Within the body Inductor's files are in `inductor` in this node's cache folder, for all trials of the node.

    Its folder is an environment variable of the whole process. A value of the user's stays; torch's own default, which
    it writes there itself when it is imported, is not one.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    before = os.environ.get(_CACHE)
    if before not in (None, os.path.abspath(default_cache_dir())):
        yield
        return
    os.environ[_CACHE] = str(cache_folder() / "inductor")
    try:
        yield
    finally:
        del os.environ[_CACHE]


def _two_sizes() -> AbstractContextManager[None]:
    """Heads and neurons that are as many in the first model are two symbols all the same."""
    config: Any = torch.fx.experimental._config
    found: AbstractContextManager[None] = config.patch(use_duck_shape=False)
    return found


def _chosen(block: Any, images: int, amp: bool) -> Callable[..., Tensor]:
    """The block's forward pass: compiled for so many images, timm's own for others."""
    usual = block.forward

    def forward(x: Tensor, *more: Any, **given: Any) -> Tensor:
        found: Tensor
        if len(x) != images or more or any(value is not None and value is not False for value in given.values()):
            found = usual(x, *more, **given)
            return found
        x, weights = x.contiguous(), weights_of(block)
        found = _program(kind_of(block, x, weights, amp), BACKEND)(x, weights)
        return found

    return forward


def kind_of(block: Any, x: Tensor, weights: Mapping[str, Tensor], amp: bool) -> BlockKind:
    """The kind of a block that `accepted.py` takes for compile, for the input `x` (B, N, D)."""
    attn, mlp = block.attn, block.mlp
    norms = (block.norm1, attn.q_norm, attn.k_norm, block.norm2)
    return BlockKind(
        sizes=(len(x), x.shape[1], x.shape[2], attn.head_dim),
        one_head=attn.num_heads == 1,
        one_neuron=mlp.fc1.out_features == 1,
        eps=tuple(norm.eps if isinstance(norm, nn.LayerNorm) else None for norm in norms),
        has=frozenset(weights),
        device=x.device,
        amp=amp,
        dtype=x.dtype,
        settings=_settings(),
        act_name=repr(mlp.act),
        act=mlp.act,
    )


def _settings() -> tuple[object, ...]:
    """Threads, numbers and kernels of this process; a trial that has others has programs of its own."""
    tf32 = torch.backends.cuda.matmul.allow_tf32
    return torch.get_num_threads(), tf32, torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype()


def weights_of(block: Any) -> dict[str, Tensor]:
    """The weights that the block has, by the names in `_block`; those that count units are views.

    Shapes: qkv (3, H, K, D), qkv_bias (3, H, K), proj (D, H, K), fc1 (F, D), fc1_bias (F,), fc2 (D, F).
    """
    attn, mlp = block.attn, block.mlp
    heads, width = attn.num_heads, attn.head_dim
    found = {
        "qkv": attn.qkv.weight.view(3, heads, width, -1),
        "qkv_bias": None if attn.qkv.bias is None else attn.qkv.bias.view(3, heads, width),
        "proj": attn.proj.weight.view(-1, heads, width),
        "proj_bias": attn.proj.bias,
        "fc1": mlp.fc1.weight.view(mlp.fc1.weight.shape),  # a parameter's own sizes are no symbols to torch
        "fc1_bias": None if mlp.fc1.bias is None else mlp.fc1.bias.view(-1),
        "fc2": mlp.fc2.weight.view(mlp.fc2.weight.shape),
        "fc2_bias": mlp.fc2.bias,
    }
    for name, part in (("n1", block.norm1), ("q", attn.q_norm), ("k", attn.k_norm), ("n2", block.norm2)):
        found |= {name: getattr(part, "weight", None), f"{name}_bias": getattr(part, "bias", None)}
    found |= {"ls1": getattr(block.ls1, "gamma", None), "ls2": getattr(block.ls2, "gamma", None)}
    return {name: weight for name, weight in found.items() if weight is not None}


@cache
def _program(kind: BlockKind, backend: str) -> Callable[[Tensor, Weights], Tensor]:
    """The compiled block of a kind, for all trials of this process.

    torch counts programs by code object, over all functions that share it: each kind gets one of its own.
    """

    def compute(x: Tensor, weights: Weights) -> Tensor:
        return _block(x, eps, act, weights)

    eps, act = kind.eps, deepcopy(kind.act)
    own = FunctionType(compute.__code__.replace(), globals(), "compute", None, compute.__closure__)
    compiled = torch.compile(own, backend=backend, fullgraph=True, dynamic=False)

    def program(x: Tensor, weights: Weights) -> Tensor:
        for name, dim in UNITS.items():
            if name in weights and weights[name].shape[dim] > 1:
                torch._dynamo.mark_dynamic(weights[name], dim)
        found: Tensor = compiled(x, weights)
        return found

    with lasting(COMPILING):
        _compile(program, kind)
    return program


def _compile(program: Callable[[Tensor, Weights], Tensor], kind: BlockKind) -> None:
    """Both directions once, on zeros: as many heads as fit the embed dim, four times as many neurons as it has."""
    images, tokens, dim, width = kind.sizes
    heads, neurons = 1 if kind.one_head else max(dim // width, 2), 1 if kind.one_neuron else 4 * dim
    shapes: dict[str, tuple[int, ...]] = {
        "qkv": (3, heads, width, dim),
        "qkv_bias": (3, heads, width),
        "proj": (dim, heads, width),
        "fc1": (neurons, dim),
        "fc1_bias": (neurons,),
        "fc2": (dim, neurons),
    }
    shapes |= dict.fromkeys(("q", "q_bias", "k", "k_bias"), (width,))
    with torch.enable_grad():
        x = torch.zeros(images, tokens, dim, dtype=kind.dtype, device=kind.device, requires_grad=True)
        weights = {}
        for name in kind.has:
            own = torch.zeros(shapes.get(name, (dim,)), device=kind.device, requires_grad=True)
            weights[name] = own.view(own.shape) if name in UNITS else nn.Parameter(own.detach())
        found = program(x, weights)
        with torch.autocast(kind.device.type, enabled=False):
            found.sum().backward()


def _block(x: Tensor, eps: tuple[float | None, ...], act: nn.Module, w: Weights) -> Tensor:
    """x (B, N, D) through timm's Block with the weights `w`, by `weights_of`."""
    n1_eps, q_eps, k_eps, n2_eps = eps
    (images, tokens, dim), (_, heads, width, _), bias = x.shape, w["qkv"].shape, w.get("qkv_bias")
    rows, columns = w["qkv"].reshape(3 * heads * width, dim), w["proj"].reshape(dim, heads * width)
    parts = F.linear(_norm(x, w, "n1", n1_eps), rows, None if bias is None else bias.reshape(-1))
    q, k, v = parts.reshape(images, tokens, 3, heads, width).permute(2, 0, 3, 1, 4).unbind(0)
    found = F.scaled_dot_product_attention(_norm(q, w, "q", q_eps), _norm(k, w, "k", k_eps), v)
    found = found.transpose(1, 2).reshape(images, tokens, heads * width)
    x = x + _scaled(F.linear(found, columns, w.get("proj_bias")), w.get("ls1"))
    inner = act(F.linear(_norm(x, w, "n2", n2_eps), w["fc1"], w.get("fc1_bias")))
    return x + _scaled(F.linear(inner, w["fc2"], w.get("fc2_bias")), w.get("ls2"))


def _norm(x: Tensor, w: Weights, name: str, eps: float | None) -> Tensor:
    return x if eps is None else F.layer_norm(x, x.shape[-1:], w.get(name), w.get(f"{name}_bias"), eps)


def _scaled(x: Tensor, by: Tensor | None) -> Tensor:
    return x if by is None else x * by
