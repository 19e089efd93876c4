"""Which models are taken: a config's arch becomes an architecture, or one line that says what is in the way.

In: a config; channels and classes of its images. Out: an `Architecture`.
What is taken has run on the meta device (no memory, no numbers): dense under the MAC counter, and with one unit left in
every layer forward and backward. That removing equals zeroing follows from the blocks' parts (`_require_plain`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from timm.layers import Attention, LayerNorm, Mlp
from timm.models.vision_transformer import Block
from torch import nn

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.config.models import NAMED, own_sizes, reason
from trainables.rsst.model.cost import gmacs
from trainables.rsst.model.vit import UNIT_TENSORS, Architecture, base, blocks_of, build

_PLAIN = "a ViT of timm's plain Block, Attention and Mlp"
_UNITS = {name for name, *_ in UNIT_TENSORS}
# what a removed unit leaves as it is: biases of the block's width, norms of one head's q and k
_SHARED = ("attn.proj.bias", "mlp.fc2.bias", "attn.q_norm.", "attn.k_norm.")


def architecture(config: RSSTConfig, *, in_chans: int, num_classes: int) -> Architecture:
    """The unpruned architecture that `config` asks for (0.3 s for vit_small, once per process and shape)."""
    found = _accepted(config.arch, NAMED.get(config.arch), config.img_size, config.patch_size, in_chans, num_classes)
    if config.compile:
        _require_compilable(config.arch, found)
    return found


def started(config: RSSTConfig, full: Architecture) -> Architecture:
    """The architecture that the trial begins with: `full`, or what a pruned model in its weights has left of it."""
    if config.start_units is None:
        return full
    heads, neurons = (tuple(map(int, part.split(","))) for part in config.start_units.split("/"))
    fits = len(heads) == len(neurons) == full.depth
    if not fits or any(n > most for n, most in zip((*heads, *neurons), (*full.heads, *full.neurons), strict=True)):
        valid = f"at most {full.heads[0]} heads and {full.neurons[0]} neurons in each of {full.depth} layers"
        raise ConfigError("start_units", config.start_units, f"{valid} of {config.arch}", "give the model's own arch")
    return full.with_counts(heads, neurons)


@lru_cache(maxsize=256)
def _accepted(asked: str, shape: Any, img_size: int, patch_size: int, in_chans: int, num_classes: int) -> Architecture:
    sizes: dict[str, Any] = {"img_size": img_size, "patch_size": patch_size}
    arguments = sizes | {"in_chans": in_chans, "num_classes": num_classes}
    if shape:
        dim, depth, heads, ratio, _ = shape
        arguments |= {"embed_dim": dim, "depth": depth, "num_heads": heads, "mlp_ratio": ratio}
    else:
        own_sizes(asked)  # refuses what is no ViT
    name = "" if shape else asked
    given = " and ".join(f"{key} {value}" for key, value in sizes.items())
    try:
        with torch.device("meta"):
            model = base(name, arguments | {"weight_init": "skip"})
    except Exception as error:
        raise ConfigError("arch", asked, f"a timm ViT that takes {given}", reason(error)) from error
    blocks = [block for _, block in blocks_of(model)]
    for index, block in enumerate(blocks):
        _require_plain(asked, index, block)
    arch = Architecture(
        timm_name=name,
        arguments=arguments,
        head_dim=blocks[0].attn.head_dim,
        heads=tuple(b.attn.num_heads for b in blocks),
        neurons=tuple(b.mlp.fc1.out_features for b in blocks),
    )
    try:
        gmacs(arch)
        _train(arch.with_counts((1,) * arch.depth, (1,) * arch.depth))
    except Exception as error:
        raise ConfigError(
            "arch", asked, f"a ViT that can be trained, pruned and counted with {given}", reason(error)
        ) from error
    return arch


def _train(arch: Architecture) -> None:
    logits = build(arch, "meta").train()(torch.empty(2, *arch.input_shape(), device="meta"))
    if logits.shape != (2, arch.arguments["num_classes"]):
        raise ValueError(f"its output has the shape {tuple(logits.shape)}")
    logits.sum().backward()


def _require_plain(asked: str, index: int, block: Any) -> None:
    parts: list[tuple[str, object, type]] = [(f"blocks.{index}", block, Block)]
    parts += [(f"blocks.{index}.attn", getattr(block, "attn", None), Attention)]
    parts += [(f"blocks.{index}.mlp", getattr(block, "mlp", None), Mlp)]
    for name, part, wanted in parts:
        if type(part) is not wanted:
            raise ConfigError("arch", asked, _PLAIN, f"{name} is a {type(part).__name__}")
    for name, _ in block.named_parameters():
        if name.startswith(("attn.", "mlp.")) and name not in _UNITS and not name.startswith(_SHARED):
            hint = f"blocks.{index}.{name} acts across heads or neurons"
            raise ConfigError("arch", asked, _PLAIN, hint)


def _require_compilable(asked: str, arch: Architecture) -> None:
    """Refuse blocks with a part that block.py does not have: norms of another kind, anything random."""
    for index, block in blocks_of(build(arch, "meta")):
        attn, mlp = block.attn, block.mlp
        for name in ("norm1", "norm2", "attn.q_norm", "attn.k_norm"):
            part = block.get_submodule(name)
            if type(part) not in (nn.LayerNorm, LayerNorm, nn.Identity):
                _refuse_to_compile(asked, f"blocks.{index}.{name} is a {type(part).__name__}")
        rates = {"attn.attn_drop": attn.attn_drop.p, "attn.proj_drop": attn.proj_drop.p}
        rates |= {"mlp.drop1": mlp.drop1.p, "mlp.drop2": mlp.drop2.p}
        rates |= {name: getattr(block.get_submodule(name), "drop_prob", 0) for name in ("drop_path1", "drop_path2")}
        for name, rate in rates.items():
            if rate:
                _refuse_to_compile(asked, f"blocks.{index}.{name} drops {rate:g} at random")
        if list(mlp.act.parameters()):
            _refuse_to_compile(asked, f"the activation blocks.{index}.mlp.act has weights")


def _refuse_to_compile(asked: str, reason: str) -> None:
    raise ConfigError("compile", True, f"false with arch = {asked}", f"{reason}; leave compile out")
