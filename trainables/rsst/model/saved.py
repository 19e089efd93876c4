"""A model as files: weights and everything that whoever uses them must know, in one safetensors file.

In: an architecture, weights, and facts: what is known of the images, where the trial stood.
Out: the file, with the facts in its header; `architecture.json` and `preprocessing.json` show them beside it.
Whoever loads a model takes the facts from here: the images, and the trial, may have changed or gone since. The header
also holds a digest over facts and weights: a file with another bit is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from trainables.rsst.event import read_report
from trainables.rsst.model.vit import Architecture, built_with
from trainables.storage.files import open_regular, replace_json, replaced
from trainables.storage.forms import HEX, WrongForm, listed, mapping, record, text, whole
from trainables.storage.state_files import read_state, state_of

MODEL, ARCHITECTURE, PREPROCESSING, REPORT = (
    "model.safetensors",
    "architecture.json",
    "preprocessing.json",
    "report.json",
)
PIXELS = "float32 (B, C, H, W) in [0, 1]; the model takes (pixels - mean) / std, per channel"
_FACTS = "facts"  # one key: safetensors does not sort several
_DIGEST = "digest"  # in the facts
ARCHITECTURE_FORM = record(
    {
        "timm_name": text(most=200),
        "arguments": record({"in_chans": whole(1, 1000), "num_classes": whole(1), "img_size": whole(1)}, more=True),
        "head_dim": whole(1),
        "heads": listed(whole()),
        "neurons": listed(whole()),
    }
)
_IN_THE_HEADER = record(
    {"architecture": ARCHITECTURE_FORM, "images": mapping(), "trial": mapping()}, {_DIGEST: text(HEX)}
)


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
    """A model file and its facts. `digest`: over both; None in files of versions that did not keep it."""

    path: Path
    facts: Facts
    digest: str | None = None

    @classmethod
    def read(cls, path: Path) -> SavedModel:
        """The model in the file `path`. Files of older versions have their facts beside them, as far as they were kept.

        Raises:
            OSError: a file is missing, or no regular file.
            SafetensorError, ValueError: it is no model of ours.
        """
        open_regular(path).close()
        with safe_open(path, "pt") as file:
            header = (file.metadata() or {}).get(_FACTS)
        if header is not None:
            found = state_of(header.encode(), _IN_THE_HEADER)
            facts = Facts(Architecture.from_json(found["architecture"]), found["images"], found["trial"])
            return cls(path, facts, found.get(_DIGEST))
        beside, report = read_state(path.parent / ARCHITECTURE, ARCHITECTURE_FORM, seal="none"), path.parent / REPORT
        known = read_report(report) if report.exists() else {}
        trial = {"fingerprint": known.get("fingerprint"), **known.get("final", {})}
        return cls(path, Facts(Architecture.from_json(beside), known.get("start", {}).get("images", {}), trial))

    def load(self) -> VisionTransformer:
        """The model on the CPU, in eval mode: logits = model(images), images normalised (B, C, H, W).

        Raises:
            RuntimeError: weights and architecture do not fit each other.
            WrongForm: the file is not what was written.
        """
        weights = load_file(self.path)
        if self.digest not in (None, _digest(self.facts, weights)):
            raise WrongForm(f"{self.path.name} is damaged: it has another digest than it was written with")
        return built_with(self.facts.architecture, weights).eval()


def is_ours(path: Path) -> bool:
    """Whether the file `path` says that it is a model of this kind; it is not checked further."""
    try:
        open_regular(path).close()
        with safe_open(path, "pt") as file:
            return _FACTS in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def write_model(facts: Facts, weights: Mapping[str, Tensor], path: Path) -> None:
    """Write one file; equal weights and facts give equal bytes."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    header = json.dumps({**facts.to_json(), _DIGEST: _digest(facts, plain)}, sort_keys=True, ensure_ascii=False)
    save_file(plain, path, {_FACTS: header})


def _digest(facts: Facts, weights: Mapping[str, Tensor]) -> str:
    """16 hex digits over the facts and the name, type, shape and bytes of each tensor, in the order of their names."""
    sha = hashlib.sha256(json.dumps(facts.to_json(), sort_keys=True).encode())
    for name in sorted(weights):
        tensor = weights[name]
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]


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
