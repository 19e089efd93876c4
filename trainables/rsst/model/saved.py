"""The finished model as files: `model.safetensors` and `architecture.json`, a plain timm ViT with smaller layers.

In: a trial's state, or a folder with those two files.
Out: the files, or a timm VisionTransformer.
Loading needs nothing of the training: only this file, vit.py, timm and safetensors.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from trainables.rsst.model.vit import Architecture, built_with
from trainables.storage.files import read_json, replace_json, replaced

MODEL, ARCHITECTURE = "model.safetensors", "architecture.json"


def save_pruned(arch: Architecture, weights: dict[str, Tensor], folder: Path) -> None:
    """Write `weights` and `arch` to `folder` (made if it is missing)."""
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(folder / MODEL) as new:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, new)
    replace_json(folder / ARCHITECTURE, arch.to_json())


def load_pruned(folder: Path | str) -> VisionTransformer:
    """The model in `folder`, on the CPU, in eval mode: logits = model(images), images normalised (B, C, H, W).

    Raises:
        OSError: a file is missing.
        RuntimeError: weights and architecture do not fit each other.
    """
    folder = Path(folder)
    return built_with(Architecture.from_json(read_json(folder / ARCHITECTURE)), load_file(folder / MODEL)).eval()
