"""A model as files: weights and everything that whoever uses them must know, in one safetensors file.

In: an architecture, weights, and facts: what is known of the images, where the trial stood.
Out: the file, with the facts in its header; `architecture.json` and `preprocessing.json` show them beside it.
Whoever loads a model takes the facts from here: the images, and the trial, may have changed or gone since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from trainables.rsst.model.vit import Architecture, built_with
from trainables.storage.files import read_json, replace_json, replaced

MODEL, ARCHITECTURE, PREPROCESSING, REPORT = (
    "model.safetensors",
    "architecture.json",
    "preprocessing.json",
    "report.json",
)
PIXELS = "float32 (B, C, H, W) in [0, 1]; the model takes (pixels - mean) / std, per channel"
_FACTS = "facts"  # one key: safetensors does not sort several


@dataclass(frozen=True)
class Facts:
    """What goes with a model's weights wherever they go.

    `images`: an `AboutImages` as JSON; empty in models of versions that did not keep it.
    `trial`: fingerprint, round and metrics, without times: equal trials give equal files.
    """

    architecture: Architecture
    images: Mapping[str, Any]
    trial: Mapping[str, Any]

    def preprocessing(self) -> dict[str, Any]:
        """What preprocessing.json holds."""
        return {"pixels": PIXELS, **self.images}

    def to_json(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        return {"architecture": self.architecture.to_json(), "images": dict(self.images), "trial": dict(self.trial)}


@dataclass(frozen=True)
class SavedModel:
    """A model file and its facts."""

    path: Path
    facts: Facts

    @classmethod
    def read(cls, path: Path) -> SavedModel:
        """The model in the file `path`. Files of older versions have their facts beside them, as far as they were kept.

        Raises:
            OSError: a file is missing.
            SafetensorError, ValueError: it is no model of ours.
        """
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_FACTS)
        if text is not None:
            found = json.loads(text)
            return cls(path, Facts(Architecture.from_json(found["architecture"]), found["images"], found["trial"]))
        architecture, report = Architecture.from_json(read_json(path.parent / ARCHITECTURE)), path.parent / REPORT
        known = read_json(report) if report.exists() else {}
        trial = {"fingerprint": known.get("fingerprint"), **known.get("final", {})}
        return cls(path, Facts(architecture, known.get("start", {}).get("images", {}), trial))

    def load(self) -> VisionTransformer:
        """The model on the CPU, in eval mode: logits = model(images), images normalised (B, C, H, W).

        Raises:
            RuntimeError: weights and architecture do not fit each other.
        """
        return built_with(self.facts.architecture, load_file(self.path)).eval()


def write_model(facts: Facts, weights: Mapping[str, Tensor], path: Path) -> None:
    """Write one file; equal weights and facts give equal bytes."""
    text = json.dumps(facts.to_json(), sort_keys=True, ensure_ascii=False)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, path, {_FACTS: text})


def save_pruned(facts: Facts, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write the model to `folder` (made if it is missing), and its facts beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(folder / MODEL) as new:
        write_model(facts, weights, new)
    show_facts(facts, folder)


def show_facts(facts: Facts, folder: Path) -> list[Path]:
    """Write what the model's file holds besides weights as files that people and other programs read."""
    shown = {ARCHITECTURE: facts.architecture.to_json()} | (
        {PREPROCESSING: facts.preprocessing()} if facts.images else {}
    )
    for name, value in shown.items():
        replace_json(folder / name, value)
    return [folder / name for name in shown]


def load_pruned(folder: Path | str) -> VisionTransformer:
    """`SavedModel.load` of the model in `folder`."""
    return SavedModel.read(Path(folder) / MODEL).load()
