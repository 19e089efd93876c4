"""A file's tensors fitted to a model: whole, or refused in one line that names the tensor.

In: a ViT's tensors by timm's names, and the model (which may be on the meta device).
Out: the model's tensors, and what became of each.
Both ways: every tensor of the file has a place of its shape in the model or is left out by rule (`weight_names`); every
tensor of the model but the head has a source. Only two kinds are fitted to other sizes: the patch embedding (timm's
resampling, channels too) and the position embedding (grid interpolated as timm does, prefix tokens exactly).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models._manipulate import adapt_input_conv
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.model.weight_files import Weights
from trainables.rsst.model.weight_names import Tensors, left_out

PATCH_EMBED, POSITIONS = "patch_embed.proj.weight", "pos_embed"
TOKENS = ("cls_token", "dist_token", "reg_token")  # in the order in which they stand before the patches
FITTED = (PATCH_EMBED, POSITIONS)
NEW = ("head.", "head_dist.")


@dataclass
class Fit:
    """The source's tensors as the model can take them, and what became of each."""

    tensors: Tensors = field(default_factory=dict)
    resampled: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # "name: reason"
    notes: list[str] = field(default_factory=list)  # what was decided beyond timm's resampling


def fitted(source: Weights, model: VisionTransformer, config: RSSTConfig, name: str) -> Fit:
    """`source` in `model`'s shapes, float32; a ConfigError where it is of another model than this one.

    `name` is what the user calls the source.
    """
    fit = Fit()
    for key, tensor in source.tensors.items():
        if left_out(key):
            fit.skipped.append(f"{key}: the head is always new" if key.startswith(NEW) else f"{key}: left out by rule")
        elif key.startswith("patch_embed.") and config.patch_embed == "reinit":
            fit.skipped.append(f"{key}: patch_embed = reinit")
        elif key.startswith("attn_pool.") and "siglip_gap" in config.arch:
            fit.skipped.append(f"{key}: this arch averages where the file's pools by attention, as in timm")
        else:
            fit.tensors[key] = tensor.float()
    wanted = {
        key: tensor
        for key, tensor in model.state_dict().items()
        if not key.startswith(NEW) and not (key.startswith("patch_embed.") and config.patch_embed == "reinit")
    }
    reason = _other_model(fit.tensors, wanted) or _other_heads(source, model)
    try:
        if not reason and POSITIONS in wanted:
            _fit_positions(fit, model, config.arch)
        if not reason and PATCH_EMBED in wanted:
            _fit_patches(fit, model, config.arch)
    except (ValueError, NotImplementedError, AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else "its embeddings cannot be fitted"
    reason = reason or _mismatch(fit.tensors, wanted, tuple(wanted))
    if reason:
        hint = f"{reason}; {_of_what(source)}: give the arch that it is of, or another file"
        raise ConfigError("weights", name, f"weights of a {config.arch}", hint)
    return fit


def _other_model(offered: Tensors, wanted: dict[str, Any]) -> str:
    """Why the file is of another model, or "": a tensor of another shape, without a place, or without a source."""
    reason = _mismatch(offered, wanted, tuple(key for key in wanted if key not in FITTED))
    if reason:
        return reason
    sides = (
        (sorted(offered.keys() - wanted.keys()), "of the file", "no place in the model"),
        (sorted(wanted.keys() - offered.keys()), "of the model", "no source in the file"),
    )
    return ", ".join(
        f"{_first(keys)} {whose} {'have' if keys[1:] else 'has'} {what}" for keys, whose, what in sides if keys
    )


def _first(keys: list[str]) -> str:
    return keys[0] + (f" (and {len(keys) - 1} more)" if keys[1:] else "")


def _mismatch(offered: Tensors, wanted: dict[str, Any], keys: tuple[str, ...]) -> str:
    for key in keys:
        if key in offered and offered[key].shape != wanted[key].shape:
            return f"{key} is {tuple(wanted[key].shape)} in the model and {tuple(offered[key].shape)} in the file"
    return ""


def _other_heads(source: Weights, model: Any) -> str:
    mine = int(model.blocks[0].attn.num_heads)
    if not source.heads or mine in source.heads:
        return ""
    return f"the model has {mine} heads, {source.heads_said_by} says {' or '.join(map(str, sorted(source.heads)))}"


def _of_what(source: Weights) -> str:
    """The file's own sizes, as far as its tensors tell."""
    tensors = source.tensors
    depth = len({key.split(".")[1] for key in tensors if key.startswith("blocks.")})
    dim = len(tensors["blocks.0.norm1.weight"])
    said = f"the file is of a ViT with embed dim {dim}, depth {depth}"
    qkv = {len(tensor) for key, tensor in tensors.items() if key.endswith("attn.qkv.weight")}
    wide = {len(tensor) for key, tensor in tensors.items() if key.endswith("mlp.fc1.weight")}
    said += f", MLP {min(wide)}" if len(wide) == 1 else ""
    if len(wide) > 1 or any(rows != 3 * dim for rows in qkv):
        return f"{said}, pruned (a pruned model is no start: give the dense one)"
    return f"{said}, exported here (if it was pruned, give the dense one)" if source.exported else said


def _fit_positions(fit: Fit, model: Any, arch: str) -> None:
    """The grid interpolated as timm does; the prefix tokens' own positions kept, or moved between table and tokens.

    A model adds positions to its prefix tokens (class, distillation, registers) or does not (`no_embed_class`); a file
    whose table is of the other kind gives the same sums when they are added to the tokens, or zeros to the table.
    """
    positions = fit.tensors[POSITIONS]
    counts = [fit.tensors[token].shape[1] if token in fit.tensors else 0 for token in TOKENS]
    if positions.ndim != 3:
        raise ValueError(f"{POSITIONS} has {positions.ndim} dimensions in the file, not 3")
    length = positions.shape[1]
    possible = [n for n in sorted({0, counts[0], sum(counts)}) if length > n and _is_square(length - n)]
    if len(possible) != 1:
        known = "no square grid" if not possible else f"a square grid with {' and with '.join(map(str, possible))}"
        raise ValueError(f"{POSITIONS} of {length} tokens is {known} of the file's {sum(counts)} prefix tokens")
    theirs = possible[0]
    ours = 0 if model.no_embed_class else int(model.num_prefix_tokens)
    if theirs != ours:
        positions = _moved(fit, positions, theirs, ours)
    how = _interpolation(arch)
    if "radio" in arch:
        how["align_corners"] = any(name in arch for name in ("base_patch16_radio_v3", "huge_patch16_radio_v3"))
    grid = list(model.patch_embed.grid_size)
    new = resample_abs_pos_embed(positions, new_size=grid, num_prefix_tokens=ours, **how)
    if new.shape != fit.tensors[POSITIONS].shape:
        fit.resampled.append(POSITIONS)
    fit.tensors[POSITIONS] = new


def _moved(fit: Fit, positions: Tensor, theirs: int, ours: int) -> Tensor:
    """`positions` with `ours` rows for prefix tokens in place of `theirs`; the sums token + position stay."""
    used = 0
    for token in TOKENS:
        if token in fit.tensors and used < theirs:
            count = fit.tensors[token].shape[1]
            fit.tensors[token] = fit.tensors[token] + positions[:, used : used + count]
            used += count
    fit.notes.append(
        f"the model gives {ours} prefix tokens a position, the file {theirs}: the file's were added to the tokens"
        + (", zeros stand in the table" if ours else "")
    )
    return torch.cat([positions.new_zeros(1, ours, positions.shape[2]), positions[:, theirs:]], dim=1)


def _interpolation(arch: str) -> dict[str, Any]:
    """How timm resamples the weights of this model: smooth bicubic, but for two families."""
    plain = "flexi" in arch or "radio" in arch
    return {"interpolation": "bilinear", "antialias": False} if plain else {}


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number


def _fit_patches(fit: Fit, model: Any, arch: str) -> None:
    patches, target = fit.tensors[PATCH_EMBED], model.patch_embed.proj.weight
    if patches.ndim != 4:
        raise ValueError(f"{PATCH_EMBED} has {patches.ndim} dimensions in the file, not 4")
    new = patches
    if patches.shape[-2:] != target.shape[-2:]:
        new = resample_patch_embed(new, list(target.shape[-2:]), **_interpolation(arch))
    theirs, ours = patches.shape[1], target.shape[1]
    if theirs != ours:
        new = adapt_input_conv(ours, new, base_chans=theirs)
        how = "summed" if ours == 1 else "repeated and scaled"
        fit.notes.append(f"{PATCH_EMBED} of {theirs} channels for images of {ours}: {how}, as timm does")
    if new.shape != patches.shape:
        fit.resampled.append(PATCH_EMBED)
    fit.tensors[PATCH_EMBED] = new
