"""Defaults that depend on the model, the data set and the start: the seed guide's recommended values.

In: the knobs that were given.
Out: a value for every knob that has no fixed default.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from trainables.errors import ConfigError
from trainables.plugins import is_plugin, named
from trainables.plugins.address import FORM, entries_of
from trainables.rsst.config.models import grid_of
from trainables.storage.files import expanded, is_folder
from trainables.text import shown

DATASETS = ("cifar10", "cifar100", "digits", "folder", "synthetic")

# guide, "参数调整建议": pretrained / scratch on CIFAR; its 15 rounds at rate 0.15
PRETRAINED = {"epochs": 80, "lr": 5e-4, "warmup": 20, "batch_size": 64}
SCRATCH = {"epochs": 150, "lr": 1e-3, "warmup": 40, "batch_size": 64}
# The seed guide: vit_small g 0.3, exponents 2; vit_tiny g 0.5, exponents 3
RAMP = {"reg_granularity_prune": 0.3, "exponents": 2.0}
RAMP_TINY = {"reg_granularity_prune": 0.5, "exponents": 3.0}
# 1,257 training images of 8 × 8 pixels: small batches, short rounds, no augmentation
DIGITS = {"epochs": 14, "lr": 1e-3, "warmup": 2, "batch_size": 32}


def defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for the knobs whose default depends on others; what is in `given` decides, and is not repeated."""
    dataset = given.get("dataset", "cifar100")
    digits = dataset == "digits"
    arch = given.get("arch", "vit_digits" if digits else "vit_small")
    element = given.get("granularity") == "element"
    training = DIGITS if digits else PRETRAINED if given.get("pretrained") else SCRATCH
    image, patch = grid_of(arch, digits, given)
    found = {
        "arch": arch,
        "img_size": image,
        "patch_size": patch,
        "augment": "none" if digits else "standard",
        "criteria": "magnitude" if element else "l1",
        "scope": "global" if element else "layer",
        "pruning_times": 15,
        **training,
        **(RAMP_TINY if arch == "vit_tiny" else RAMP),
    }
    return {key: value for key, value in found.items() if key not in given}


def images(dataset: str) -> str:
    """`dataset` as a config has it: a name, a plug-in with its digest, or the path of a folder."""
    if dataset in DATASETS:
        return dataset
    if is_plugin(dataset) or dataset in entries_of("dataset"):
        return named("dataset", dataset, DATASETS)
    if dataset and is_folder(dataset):
        return str(expanded(dataset))
    close = get_close_matches(dataset, DATASETS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there is no folder {shown(dataset)}"
    raise ConfigError("dataset", dataset, f"{' or '.join((*DATASETS, FORM))}, or an existing folder of images", hint)
