"""Where a model's weights start: pretrained ones fitted into it, or its random ones, and a report that tells which.

In: a config and its freshly built timm model.
Out: the model changed in place, and an `InitReport`.

| asked for | found | what happens |
|---|---|---|
| pretrained = false | | scratch |
| weights = FILE | read and fits | transferred |
| weights = FILE | not there, can't be read safely, or is of another model | refused (ConfigError), always |
| weights = hf_hub:ORG/NAME | in the hub's cache, or the hub gives it (asked once, bounded: `hub.py`) | as a FILE |
| no weights knob | in timm's hub cache, or the hub gives it (asked once, bounded: `hub.py`) | transferred |
| no weights knob | neither, or there are none for this arch | on_missing_weights |

A named file that is not there is a typing error, not a missing hub. on_missing_weights = scratch falls back with a
warning, = error refuses. `resolve` does the finding alone: a sweep's
driver calls it once, copies the result with `copy_verified`, and gives every trial `ResolvedWeights.knobs()`, so that
no worker asks a hub, and a trial that fell back has another fingerprint than one that did not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timm.models.vision_transformer import VisionTransformer

from trainables.plugins import said
from trainables.rsst.config import ABSENT, ConfigError, RSSTConfig
from trainables.rsst.config.models import NAMED
from trainables.rsst.model.further import keep_head
from trainables.rsst.model.hub import fetch, fetch_named, is_hub_name
from trainables.rsst.model.transfer import PATCH_EMBED, Fit, fitted
from trainables.rsst.model.weight_files import Weights, digest_of, read_weights, write_weights


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


def initial_weights(config: RSSTConfig, model: VisionTransformer, classes: Sequence[str] = ()) -> InitReport:
    """Fit pretrained weights into `model` (in place) where `config` asks for them.

    `classes`: of the images. The head of a pruned model stays where it has the same ones.
    """
    head = f"build model: {config.arch}"
    if not config.pretrained:
        return InitReport("scratch", lines=(head,))
    found, weights = _find(config)
    if weights is None:
        return _fallback(config, found, head)
    fit = fitted(weights, model, config, found.source)
    if config.start_units:
        keep_head(fit, weights, found.path, classes)
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
        *(f"pretrained weights: {note}" for note in (*weights.notes, *fit.notes)),
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


def check_fit(config: RSSTConfig, model: VisionTransformer) -> tuple[str, ...]:
    """Refuse pretrained weights that `model` (which may be on the meta device) can't start from; changes nothing.

    What reading and fitting them decides, for the user.
    """
    found, weights = _find(config)
    return (*weights.notes, *fitted(weights, model, config, found.source).notes) if weights is not None else ()


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
        write_weights(read_weights(found.path), target)
    if not intact(target, found.digest):
        raise ConfigError("weights", target, f"a copy with digest {found.digest}", "it reads back otherwise")
    return ResolvedWeights(target, found.digest, found.source)


def intact(path: Path, digest: str | None) -> bool:
    """Whether the weights file is there, can be read safely, and holds the tensors of that digest."""
    try:
        return digest_of(read_weights(path).tensors) == digest
    except ConfigError:
        return False


def _find(config: RSSTConfig) -> tuple[ResolvedWeights, Weights | None]:
    """The weights that `config` asks for, with what is in them; None where they can't be had."""
    found = _look(config)
    if found.path is None:
        if config.on_missing_weights == "error":
            hint = "give weights=FILE, or on_missing_weights=scratch to start from random ones"
            raise ConfigError("pretrained", True, "with weights that can be had", f"{found.problem}; {hint}")
        return found, None
    weights = read_weights(found.path)
    digest = digest_of(weights.tensors)
    if config.weights_digest not in (None, digest):
        hint = f"{found.source} has digest {digest}; put the old file back, or leave weights_digest out"
        raise ConfigError("weights_digest", config.weights_digest, "the digest of the weights", hint)
    return ResolvedWeights(found.path, digest, found.source), weights


def _look(config: RSSTConfig) -> ResolvedWeights:
    """Where the weights lie, unread; asks the hub where no file is named."""
    if config.weights and is_hub_name(config.weights):
        named = fetch_named(config.weights)
        return ResolvedWeights(named.path, None, named.name)
    if config.weights:
        path = _named_file(config.weights)
        return ResolvedWeights(path, None, path.name)
    if config.weights_digest == ABSENT:
        return ResolvedWeights(None, None, "", "they were looked for once, before this trial, and not found")
    timm_name = NAMED[config.arch][4] if config.arch in NAMED else config.arch
    if timm_name is None:
        name = "ViT-Tiny" if config.arch == "vit_tiny" else config.arch
        note = f"⚠️  Note: {name}通常没有ImageNet预训练权重，使用随机初始化"
        return ResolvedWeights(None, None, "", f"{config.arch} has no ImageNet weights", note)
    file = fetch(timm_name)
    return ResolvedWeights(file.path, None, file.repository or "", file.problem)


def _named_file(weights: str) -> Path:
    """The file that the user named; `~` is the home folder."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", weights):
        hint = "another address is not fetched: download it (mlflow artifacts download), then name the file"
        raise ConfigError("weights", weights, "the path of a file on this machine, or hf_hub:ORG/NAME", hint)
    try:
        path = Path(weights).expanduser()
        path.stat()
    except (OSError, RuntimeError, ValueError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        hint = f"{reason}; correct the path, or leave weights out to ask the hub"
        raise ConfigError("weights", weights, "the path of a weights file", hint) from error
    return path


def _fallback(config: RSSTConfig, found: ResolvedWeights, head: str) -> InitReport:
    lines = (head, found.note or "✗ 未能获取预训练权重，使用随机初始化", f"random weights, because {found.problem}")
    warning = (
        f"pretrained weights were asked for, but {found.problem}. "
        f"This run starts from RANDOM weights (init_effective = scratch)."
    )
    return InitReport("scratch", source=found.source, lines=lines, warning=warning)


def _what_is_new(fit: Fit, new: tuple[str, ...], config: RSSTConfig) -> str:
    """The guide's ℹ line, saying what was done to the patch embedding in this run."""
    place = {"cifar10": "CIFAR", "cifar100": "CIFAR"}.get(config.dataset, said(config.dataset))
    if not any(name.startswith("head") for name in new):
        return f"  ℹ 分类头已保留，形状与剪枝后的模型相同（{place}）"
    if PATCH_EMBED in new:
        return f"  ℹ 分类头和patch embedding已重新初始化以适配{place}"
    done = "已插值" if PATCH_EMBED in fit.resampled else "已迁移"
    return f"  ℹ 分类头已重新初始化、patch embedding{done}以适配{place}"
