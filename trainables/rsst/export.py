"""The finished model as files: `model.safetensors` and `architecture.json`, a plain timm ViT with smaller layers.

Comes in: a trial's state, or a folder with those two files. Goes out: the files, or a timm VisionTransformer.
Loading needs nothing of the training: only this file, vit.py, timm and safetensors.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from trainables.rsst.checkpoint import read_json, replace_json
from trainables.rsst.compact import Units
from trainables.rsst.state import TrialState
from trainables.rsst.vit import Architecture, built_with

MODEL, ARCHITECTURE = "model.safetensors", "architecture.json"


def export_state(state: TrialState, folder: Path) -> None:
    """Write the model that `state` holds to `folder`, each file under a temporary name first."""
    alive = Units.from_json(state.meta["alive"])
    full = Architecture.from_json(state.meta["full"])
    save_pruned(full.with_counts(alive.counts("head"), alive.counts("neuron")), state.group("weights"), folder)


def save_pruned(arch: Architecture, weights: dict[str, Tensor], folder: Path) -> None:
    """Write `weights` and `arch` to `folder` (made if it is missing)."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{MODEL}.tmp"
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, temporary)
    temporary.rename(folder / MODEL)
    replace_json(folder / ARCHITECTURE, arch.to_json())


def load_pruned(folder: Path | str) -> VisionTransformer:
    """The model in `folder`, on the CPU, in eval mode: logits = model(images), images normalised (B, C, H, W).

    Raises:
        OSError: a file is missing.
        RuntimeError: weights and architecture do not fit each other.
    """
    folder = Path(folder)
    return built_with(Architecture.from_json(read_json(folder / ARCHITECTURE)), load_file(folder / MODEL)).eval()
