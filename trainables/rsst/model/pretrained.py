"""Where a model's weights start: pretrained ones fitted into it, or its random ones, and a report that tells which.

In: a config and its freshly built timm model.
Out: the model changed in place, and an `InitReport`.

| asked for | found | what happens |
|---|---|---|
| pretrained = false | | scratch |
| weights = FILE | read and fits | transferred |
| weights = FILE | can't be read safely, or is of another model | refused (ConfigError), always |
| weights = FILE | no such file | on_missing_weights |
| no weights knob | in timm's hub cache, or the hub gives it (asked once, bounded: `hub.py`) | transferred |
| no weights knob | neither, or there are none for this arch | on_missing_weights |

on_missing_weights = scratch falls back with a warning, = error refuses. `resolve` does the finding alone: a sweep's
driver calls it once, copies the result with `copy_verified`, and gives every trial `ResolvedWeights.knobs()`, so that
no worker asks a hub, and a trial that fell back has another fingerprint than one that did not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timm.models._manipulate import adapt_input_conv
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.model.hub import fetch
from trainables.rsst.model.vit import NAMED
from trainables.rsst.model.weight_files import Tensors, digest_of, read_weights
from trainables.storage.files import replaced

ABSENT = "absent"  # the weights_digest of a trial whose weights were looked for and not found
PATCH_EMBED = "patch_embed.proj.weight"


@dataclass(frozen=True)
class ResolvedWeights:
    """Pretrained weights that were found (`path`, `digest` of the tensors), or why there are none (`problem`)."""

    path: Path | None
    digest: str | None
    source: str  # hub repository or file name
    problem: str = ""
    note: str = ""  # the seed guide's line for an arch without ImageNet weights

    def knobs(self) -> dict[str, str | None]:
        """The knobs that make a trial take exactly these weights without looking for them again."""
        return {"weights": str(self.path) if self.path else None, "weights_digest": self.digest or ABSENT}


@dataclass(frozen=True)
class InitReport:
    """How a model started. Names are the model's own, except in `skipped`, which names the source's tensors."""

    init_effective: str  # "pretrained" or "scratch"
    digest: str | None = None  # of the source tensors
    source: str = ""
    transferred: tuple[str, ...] = ()
    resampled: tuple[str, ...] = ()  # those of `transferred` that were fitted to other sizes
    reinitialised: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()  # "name: reason"
    lines: tuple[str, ...] = ()  # for the terminal: the seed guide's own, with true numbers
    warning: str | None = None  # to be shown so that it can't be missed

    def listing(self) -> tuple[str, ...]:
        """Name by name, for a log file."""
        kinds = {"resampled": self.resampled, "re-initialised": self.reinitialised, "skipped": self.skipped}
        plain = [name for name in self.transferred if name not in self.resampled]
        return tuple(f"{kind:15}{name}" for kind, names in {"transferred": plain, **kinds}.items() for name in names)


@dataclass
class _Fit:
    """The source's tensors as the model can take them, and what became of each."""

    tensors: Tensors = field(default_factory=dict)
    resampled: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def initial_weights(config: RSSTConfig, model: VisionTransformer) -> InitReport:
    """Fit pretrained weights into `model` (in place) where `config` asks for them."""
    head = f"build model: {config.arch}"
    if not config.pretrained:
        return InitReport("scratch", lines=(head,))
    found, tensors = _find(config)
    if tensors is None:
        return _fallback(config, found, head)
    fit = _fitted(tensors, model, config, found.source)
    model.load_state_dict(fit.tensors, strict=False)
    names = list(model.state_dict())
    new = tuple(name for name in names if name not in fit.tensors)
    lines = [
        head,
        "正在迁移预训练权重...",
        f"  ✓ 迁移了 {len(fit.tensors)} 个参数",
        f"  ⚠ 跳过了 {len(fit.skipped)} 个参数（形状不匹配或不存在）",
        _what_is_new(fit, new, config),
        "✓ 成功加载预训练权重",
        f"pretrained weights: {found.source}, digest {found.digest}: {len(fit.tensors)} tensors transferred, "
        f"{len(fit.resampled)} of them resampled; {len(new)} re-initialised; {len(fit.skipped)} of the file skipped",
    ]
    return InitReport(
        init_effective="pretrained",
        digest=found.digest,
        source=found.source,
        transferred=tuple(name for name in names if name in fit.tensors),
        resampled=tuple(name for name in names if name in fit.resampled),
        reinitialised=new,
        skipped=tuple(sorted(fit.skipped)),
        lines=tuple(lines),
    )


def resolve(config: RSSTConfig) -> ResolvedWeights:
    """Find, read and name the pretrained weights of `config` (which asks for them) without building a model."""
    found, _ = _find(config)
    return found


def check_fit(config: RSSTConfig, model: VisionTransformer) -> None:
    """Refuse pretrained weights that `model` (which may be on the meta device) can't start from; changes nothing."""
    found, tensors = _find(config)
    if tensors is not None:
        _fitted(tensors, model, config, found.source)


def copy_verified(found: ResolvedWeights, folder: Path) -> ResolvedWeights:
    """Put `found` into `folder` as weights-<digest>.safetensors, read it back, and point to it.

    An existing copy with this digest is left alone; a new one appears under its name only when it is complete.
    A ConfigError says that what was read back is not what was written (a failing disk).
    """
    if found.path is None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"weights-{found.digest}.safetensors"
    if not (target.exists() and intact(target, found.digest)):
        with replaced(target) as new:
            save_file({name: t.contiguous() for name, t in read_weights(found.path).items()}, new)
    if not intact(target, found.digest):
        raise ConfigError("weights", target, f"a copy with digest {found.digest}", "it reads back otherwise")
    return ResolvedWeights(target, found.digest, found.source)


def intact(path: Path, digest: str | None) -> bool:
    """Whether the weights file is there, can be read safely, and holds the tensors of that digest."""
    try:
        return digest_of(read_weights(path)) == digest
    except ConfigError:
        return False


def _find(config: RSSTConfig) -> tuple[ResolvedWeights, Tensors | None]:
    """The weights that `config` asks for, with their tensors; no tensors where they can't be had."""
    found = _look(config)
    if found.path is None:
        if config.on_missing_weights == "error":
            key, value = ("weights", config.weights) if config.weights else ("pretrained", config.pretrained)
            hint = "give weights=FILE, or on_missing_weights=scratch to start from random ones"
            raise ConfigError(key, value, "with weights that can be had", f"{found.problem}; {hint}")
        return found, None
    tensors = read_weights(found.path)
    digest = digest_of(tensors)
    if config.weights_digest not in (None, digest):
        hint = f"{found.source} has digest {digest}; put the old file back, or leave weights_digest out"
        raise ConfigError("weights_digest", config.weights_digest, "the digest of the weights", hint)
    return ResolvedWeights(found.path, digest, found.source), tensors


def _look(config: RSSTConfig) -> ResolvedWeights:
    """Where the weights lie, unread; asks the hub where no file is named."""
    if config.weights:
        path = Path(config.weights)
        problem = "" if path.is_file() else f"there is no file {path}"
        return ResolvedWeights(None if problem else path, None, path.name, problem)
    if config.weights_digest == ABSENT:
        return ResolvedWeights(None, None, "", "they were looked for once, before this trial, and not found")
    timm_name = NAMED[config.arch][4] if config.arch in NAMED else config.arch
    if timm_name is None:
        name = "ViT-Tiny" if config.arch == "vit_tiny" else config.arch
        note = f"⚠️  Note: {name}通常没有ImageNet预训练权重，使用随机初始化"
        return ResolvedWeights(None, None, "", f"{config.arch} has no ImageNet weights", note)
    file = fetch(timm_name)
    return ResolvedWeights(file.path, None, file.repository or "", file.problem)


def _fallback(config: RSSTConfig, found: ResolvedWeights, head: str) -> InitReport:
    lines = (head, found.note or "✗ 未能获取预训练权重，使用随机初始化", f"random weights, because {found.problem}")
    warning = (
        f"pretrained weights were asked for, but {found.problem}. "
        f"This run starts from RANDOM weights (init_effective = scratch)."
    )
    return InitReport("scratch", source=found.source, lines=lines, warning=warning)


def _fitted(source: Tensors, model: VisionTransformer, config: RSSTConfig, name: str) -> _Fit:
    """The source's tensors in the model's shapes, resampled by timm's own functions."""
    wanted = model.state_dict()
    fit = _Fit()
    offered = _converted(source, model)
    for key, tensor in offered.items():
        reason = _why_not(key, tensor, wanted, config)
        if reason:
            fit.skipped.append(f"{key}: {reason}")
            continue
        fit.tensors[key] = tensor
        if key in source and source[key].shape != tensor.shape:
            fit.resampled.append(key)
    fit.skipped += [f"{key}: not a part of this model" for key in source if _lost(key, offered, source)]
    for key, tensor in wanted.items():
        if key.startswith(("blocks.", "norm.")) and key not in fit.tensors:
            has = tuple(offered[key].shape) if key in offered else "no such tensor"
            hint = f"{key} is {tuple(tensor.shape)} in the model and {has} in the file"
            raise ConfigError("weights", name, f"weights of a {config.arch}", hint)
    return fit


def _converted(source: Tensors, model: VisionTransformer) -> Tensors:
    """What timm itself would load: names converted, patch and position embedding resampled, channels adapted."""
    try:
        offered: dict[str, Any] = checkpoint_filter_fn(dict(source), model)
    except (RuntimeError, ValueError, AssertionError, IndexError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError("weights", "(file)", "weights of a ViT in timm's layout", reason) from error
    patches = offered.get(PATCH_EMBED)
    channels = model.patch_embed.proj.in_channels
    if isinstance(patches, Tensor) and patches.ndim == 4 and patches.shape[1] != channels:
        offered[PATCH_EMBED] = adapt_input_conv(channels, patches, base_chans=patches.shape[1])
    return {key: value for key, value in offered.items() if isinstance(value, Tensor)}


def _lost(key: str, offered: Tensors, source: Tensors) -> bool:
    """Whether timm's conversion dropped this tensor of the source (it may have renamed all of them)."""
    return key not in offered and len(offered.keys() & source.keys()) > 0


def _why_not(key: str, tensor: Tensor, wanted: dict[str, Any], config: RSSTConfig) -> str:
    """Why a tensor is not taken over, or ""."""
    if key.startswith(("head.", "head_dist.")):
        return "the classification head is always new"
    if key not in wanted:
        return "not a part of this model"
    if key.startswith("patch_embed.") and config.patch_embed == "reinit":
        return "patch_embed = reinit"
    if tensor.shape != wanted[key].shape:
        return f"its shape {tuple(tensor.shape)} is not {tuple(wanted[key].shape)}"
    return "" if torch.is_floating_point(tensor) else f"its type is {tensor.dtype}"


def _what_is_new(fit: _Fit, new: tuple[str, ...], config: RSSTConfig) -> str:
    """The guide's ℹ line, saying what was done to the patch embedding in this run."""
    place = {"cifar10": "CIFAR", "cifar100": "CIFAR"}.get(config.dataset, config.dataset)
    if PATCH_EMBED in new:
        return f"  ℹ 分类头和patch embedding已重新初始化以适配{place}"
    done = "已插值" if PATCH_EMBED in fit.resampled else "已迁移"
    return f"  ℹ 分类头已重新初始化、patch embedding{done}以适配{place}"
