"""Which tensors of a file are its ViT, by timm's names; what is left out by rule; anything else is refused.

In: every tensor of a file by its address (the keys that lead to it, joined by dots).
Out: the tensors of one ViT by timm's names, and what was decided on the way.

One rule for wrappers and prefixes, in any order and nesting: the model begins where the names of a ViT begin
(`ANCHORS`).
Two different models in one file are refused with both places, but for an average of the other (a name with `ema`),
which is taken, as timm does. What stands outside the model must be on a short list (`HEADS`, `TRAINING`, `TEXT`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainables.rsst.config import ConfigError
from trainables.rsst.model.weight_layouts import ANCHORS, LAYOUTS, in_timms_names

Tensors = dict[str, Tensor]

# what is no part of a start: heads, mask and decoder tokens; what a training program keeps; the text half of a pair
HEADS = r"(\w+_)?(head|heads|classifier|fc|pooler|projector|predictor)|head_dist|pre_logits|mask_token|decoder\w*"
TRAINING = (
    r"(\w+_)?(opt|optim|optimizers?|schedulers?|scaler|amp|criterion|loss|losses|metrics?|meters?|accuracy|acc)"
    r"|callbacks?|loops?|rng\w*|\w+_rng_state|(optim|optimizer)_\w+"
)
TEXT = r"transformer|token_embedding|positional_embedding|ln_final|text\w*|txt|attn_mask"
LEFT_OUT = re.compile(rf"{HEADS}|{TRAINING}")
LEFT_OUT_BESIDE = re.compile(rf"{HEADS}|{TRAINING}|{TEXT}")
# wrappers whose name can stand anywhere inside a tensor's name: torch.compile, FSDP, activation checkpoints
TRANSPARENT = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
AVERAGE = re.compile(r"(^|[._])ema([._]|$)", re.IGNORECASE)
FOREIGN = {
    "encoder.layer.": "of another Hugging Face model than ViT and DeiT",
    "self_attn.q_proj.": "of Hugging Face's CLIP or SigLIP",
    "layers.0.ln1.": "of OpenMMLab",
    "relative_position": "of a model with relative positions (BEiT, Swin)",
    "layer1.0.": "of a ResNet",
}
UNDERSTOOD = "a ViT with names of timm, torchvision, Hugging Face's ViT or DeiT, CLIP, DINO or Google's JAX archives"


@dataclass(frozen=True)
class Named:
    """A ViT's tensors by timm's names; `notes` says what was decided; `heads`: what the names alone tell of them."""

    tensors: Tensors
    notes: tuple[str, ...] = ()
    heads: int | None = None


def find_vit(path: Path, found: Mapping[str, Tensor]) -> Named:
    """The one ViT in `found`; refuses what is none, not whole, or not plain numbers."""
    flat: dict[str, Tensor] = {}
    for address, tensor in found.items():
        short = _short(address)
        if short in flat:
            raise _refused(path, f"two of its tensors are called {short}")
        flat[short] = tensor
    prefix, note = _place(path, flat)
    inside = {name.removeprefix(prefix): tensor for name, tensor in flat.items() if name.startswith(prefix)}
    beside = [name for name, tensor in flat.items() if not name.startswith(prefix)]
    rival = tuple(p for p in _prefixes(flat) if p != prefix)
    for name in beside:
        if not (_any_part(LEFT_OUT_BESIDE, name) or flat[name].numel() == 1 or name.startswith(rival)):
            hint = f"{name} stands beside the model ({prefix}…) and is nothing that is left out by rule"
            raise _refused(path, f"{hint}; save the model's state_dict() alone")
    for name, tensor in inside.items():
        if reason := _unfit(tensor, taken=not left_out(name)):
            raise _refused(path, f"{prefix}{name} {reason}")
    notes = [note] if note else []
    if beside:
        kinds = Counter(name.partition(".")[0] for name in beside)
        notes.append(f"left out beside the model: {', '.join(f'{kind} ({n})' for kind, n in kinds.items())}")
    layout = LAYOUTS[_anchor(inside)]
    try:
        tensors, heads = in_timms_names(layout, inside)
    except (KeyError, RuntimeError, IndexError) as error:
        raise _refused(path, f"it is no whole {layout.title} archive: {str(error).splitlines()[0]}") from error
    if layout.title != "timm":
        notes.append(f"names of {layout.title} read as timm's")
    taken = {name: tensor for name, tensor in tensors.items() if not left_out(name)}
    if not any(bool(tensor.any()) for name, tensor in taken.items() if name.startswith("blocks.")):
        raise _refused(path, "every number in its blocks is 0")
    types = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in taken.values())
    notes += [f"{count} tensors of {kind} taken as float32" for kind, count in types.items() if kind != "float32"]
    return Named(tensors, tuple(notes), heads)


def left_out(name: str) -> bool:
    """Whether this tensor of a ViT is on the list of what no model starts from."""
    return LEFT_OUT.fullmatch(name.partition(".")[0]) is not None


def _any_part(listed: re.Pattern[str], name: str) -> bool:
    return any(listed.fullmatch(part) for part in name.split("."))


def _short(address: str) -> str:
    for wrapper in TRANSPARENT:
        address = address.replace(wrapper, "")
    return address.removeprefix("opt.target.")  # flax keeps the model in its optimizer


def _prefixes(flat: Mapping[str, Tensor]) -> list[str]:
    """Where ViTs begin, shortest first; one inside a decoder, say, only where there is no other."""
    found = {
        name.removesuffix(anchor)
        for name in flat
        for anchor in ANCHORS
        if name == anchor or name.endswith(f".{anchor}")
    }
    models = {prefix for prefix in found if not _any_part(LEFT_OUT, prefix)}
    return sorted(models or found, key=lambda prefix: (len(prefix), prefix))


def _place(path: Path, flat: Mapping[str, Tensor]) -> tuple[str, str]:
    """The prefix of the model, and what to say about it."""
    places = _prefixes(flat)
    if not places:
        names = ", ".join(sorted(flat)[:3])
        who = next((who for part, who in FOREIGN.items() if any(part in name for name in flat)), f"such as {names}")
        raise _refused(path, f"its names are {who}: not those of {UNDERSTOOD}")
    averages = [place for place in places if AVERAGE.search(place)]
    if len(places) == 1 or len(averages) == 1:
        chosen = averages[0] if len(averages) == 1 else places[0]
        others = [place for place in places if place != chosen]
        instead = f" (the average; not {', '.join(map(_shown, others))})" if others else ""
        return chosen, f"the model is below {_shown(chosen)}{instead}" if chosen or others else ""
    if all(_same(flat, places[0], other) for other in places[1:]):
        return places[0], f"the model is below {_shown(places[0])}; {', '.join(map(_shown, places[1:]))} is the same"
    listed = " and ".join(_shown(place) for place in places)
    raise _refused(path, f"it holds different models below {listed}; save the one you mean alone")


def _shown(prefix: str) -> str:
    return f"'{prefix}'" if prefix else "its first level"


def _same(flat: Mapping[str, Tensor], one: str, other: str) -> bool:
    a, b = ({name.removeprefix(p): t for name, t in flat.items() if name.startswith(p)} for p in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _anchor(inside: Mapping[str, Tensor]) -> str:
    return next(anchor for anchor in ANCHORS if anchor in inside)


def _unfit(tensor: Tensor, *, taken: bool) -> str:
    """Why these are no plain numbers, or, where they are `taken`, not finite ones; or ""."""
    if tensor.layout is not torch.strided or tensor.is_nested:
        return f"is sparse or nested ({tensor.layout}): save it dense"
    if tensor.device.type == "meta":
        return "has a shape but no numbers (device meta)"
    if tensor.is_quantized or tensor.is_complex() or (taken and tensor.dtype not in FLOATS):
        hint = "save the model in float32, float16 or bfloat16"
        return f"is of type {str(tensor.dtype).removeprefix('torch.')}: {hint}"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "is larger than what is stored of it (an expanded view): save it with .contiguous()"
    bad = tensor.numel() - int(torch.isfinite(tensor.float()).sum()) if taken else 0
    return f"holds NaN or infinite values ({bad} of {tensor.numel()}): give an earlier, sound checkpoint" if bad else ""


def _refused(path: Path, reason: str) -> ConfigError:
    return ConfigError("weights", path, "a file that holds one whole ViT", reason)
