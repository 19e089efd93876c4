"""The network: a timm VisionTransformer, and which rows and columns of it are a unit.

In: an architecture (full or with fewer heads and neurons).
Out: a plain timm model of that shape.
Shapes: D embed dim, H heads, K head dim, F MLP neurons. A unit is a head (its q, k, v rows and biases, its K columns of
`proj`) or a neuron (its row of `fc1` and bias, its column of `fc2`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import timm
import torch
from timm.layers import Attention, Mlp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

Kind = Literal["head", "neuron"]
PerLayer = tuple[tuple[int, ...], ...]

# the tensors of a block that belong to units: (name below the block, dimension that counts units, kind, repeats)
UNIT_TENSORS: tuple[tuple[str, int, Kind, int], ...] = (
    ("attn.qkv.weight", 0, "head", 3),
    ("attn.qkv.bias", 0, "head", 3),
    ("attn.proj.weight", 1, "head", 1),
    ("mlp.fc1.weight", 0, "neuron", 1),
    ("mlp.fc1.bias", 0, "neuron", 1),
    ("mlp.fc2.weight", 1, "neuron", 1),
)


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build the model again: timm's name ("" for its VisionTransformer class), arguments, widths.

    `heads` and `neurons` hold one count per layer; `head_dim` is K.
    """

    timm_name: str
    arguments: dict[str, Any]
    head_dim: int
    heads: tuple[int, ...]
    neurons: tuple[int, ...]

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.heads)

    def counts(self, kind: Kind) -> tuple[int, ...]:
        """Heads or neurons per layer."""
        return self.heads if kind == "head" else self.neurons

    def with_counts(self, heads: Sequence[int], neurons: Sequence[int]) -> Architecture:
        """The same model with other widths."""
        return replace(self, heads=tuple(heads), neurons=tuple(neurons))

    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        side = self.arguments["img_size"]
        return self.arguments["in_chans"], side, side

    def to_json(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        return asdict(self)

    @classmethod
    def from_json(cls, d: dict[str, Any]) -> Architecture:
        """The architecture that `to_json` wrote."""
        return cls(d["timm_name"], d["arguments"], d["head_dim"], tuple(d["heads"]), tuple(d["neurons"]))


def build(arch: Architecture, device: torch.device | str = "cpu") -> VisionTransformer:
    """A timm VisionTransformer with `arch.heads[l]` heads and `arch.neurons[l]` neurons in layer l, new weights.

    Blocks that are narrower than the full model get timm's own Attention and Mlp with fewer heads and neurons.
    """
    nothing_to_fill = {"weight_init": "skip"} if torch.device(device).type == "meta" else {}
    with torch.device(device):
        model = base(arch.timm_name, arch.arguments | nothing_to_fill)
        for index, block in blocks_of(model):
            if block.attn.num_heads != arch.heads[index]:
                block.attn = _narrow_attention(block.attn, arch.heads[index])
            if block.mlp.fc1.out_features != arch.neurons[index]:
                block.mlp = _narrow_mlp(block.mlp, arch.neurons[index])
    return model


def built_with(
    arch: Architecture, weights: Mapping[str, Tensor], device: torch.device | str = "cpu"
) -> VisionTransformer:
    """`build` with a copy of `weights` instead of new ones; draws no random number.

    Raises:
        RuntimeError: a tensor is missing, is not the model's, or has another shape.
    """
    model = build(arch, "meta").to_empty(device=device)
    model.load_state_dict(weights)
    return model


def base(timm_name: str, arguments: dict[str, Any]) -> VisionTransformer:
    """timm's model of that name (or its VisionTransformer class) with these arguments; it raises errors of its own."""
    if not timm_name:
        return VisionTransformer(**arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old names that timm maps to new ones
        model = timm.create_model(timm_name, pretrained=False, **arguments)
    assert isinstance(model, VisionTransformer), f"{timm_name} was accepted"
    return model


def blocks_of(model: VisionTransformer) -> Iterator[tuple[int, Any]]:
    """(layer, block) pairs; blocks are typed Any because their parts are replaced."""
    yield from enumerate(model.blocks)


def unit_index(arch: Architecture, kind: Kind, layer: int, units: Sequence[int], repeats: int) -> Tensor:
    """Row (or column) numbers that `units` (positions in this layer) take up in a unit tensor: int64 (repeats·U·K,)."""
    width = arch.head_dim if kind == "head" else 1
    total = arch.counts(kind)[layer] * width
    first = torch.tensor(list(units), dtype=torch.int64) * width
    one = (first[:, None] + torch.arange(width)).reshape(-1)
    return torch.cat([one + r * total for r in range(repeats)])


def unit_tensors(arch: Architecture) -> Iterator[tuple[str, int, Kind, int, int]]:
    """(full tensor name, layer, kind, dimension, repeats) of every tensor that belongs to units."""
    for layer in range(arch.depth):
        for suffix, dim, kind, repeats in UNIT_TENSORS:
            yield f"blocks.{layer}.{suffix}", layer, kind, dim, repeats


def _narrow_attention(old: Any, heads: int) -> Attention:
    new = Attention(
        old.qkv.in_features,
        num_heads=heads,
        attn_head_dim=old.head_dim,
        dim_out=old.proj.out_features,
        qkv_bias=old.qkv.bias is not None,
        proj_bias=old.proj.bias is not None,
        attn_drop=old.attn_drop.p,
        proj_drop=old.proj_drop.p,
    )
    new.q_norm, new.k_norm = old.q_norm, old.k_norm  # they act per head dim, the same for every head
    return new


def _narrow_mlp(old: Any, neurons: int) -> Mlp:
    new = Mlp(
        old.fc1.in_features,
        hidden_features=neurons,
        out_features=old.fc2.out_features,
        bias=(old.fc1.bias is not None, old.fc2.bias is not None),
        drop=(old.drop1.p, old.drop2.p),
    )
    new.act = old.act
    return new
