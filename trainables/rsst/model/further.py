"""A pruned model as the start of another trial: more rounds, other images. Its shapes stay as they are.

In: the folder of a finished run, of an export or of a trial of a sweep (or SWEEP/TRIAL). Out: knobs of the trial that
begins with its model, or one line that says why it can't. The ledger is read for one thing: which store is a trial's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from trainables.errors import ConfigError
from trainables.rsst.config.models import NAMED
from trainables.rsst.event import read_report
from trainables.rsst.model.hub import fetch_named, is_hub_name
from trainables.rsst.model.saved import MODEL, REPORT, SavedModel, is_ours
from trainables.rsst.model.transfer import Fit
from trainables.rsst.model.vit import Architecture
from trainables.rsst.model.weight_files import Weights, digest_of, read_weights
from trainables.storage.files import expanded, is_folder, regular_bytes

NOT_TAKEN = frozenset({"target_density", "pruning_times", "prunings", "rate", "save_dir", "weights", "weights_digest"})
LARGEST = 1 << 30  # bytes of a ledger
FORM = "the folder of a finished run or of an export, or SWEEP/TRIAL"


def start_by(name: str | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs of a start from a pruned model: `name` of --from, or `weights` of the flags where it is a folder.

    Or a repository of the hub that holds a model of ours: then the start is named by its commit.
    """
    weights = flags.get("weights")
    if name is not None and weights is not None:
        raise ConfigError("weights", weights, "left out with --from", "it says which weights")
    if name is not None:
        start = knobs_from(name)
    elif weights is not None and is_hub_name(weights):
        found = fetch_named(weights)
        if found.path is None or not is_ours(found.path):
            return {}
        start = start_of("weights", found.path.parent) | {"weights": found.name}
    elif weights is not None and is_folder(weights):
        start = start_of("weights", expanded(str(weights)))
    else:
        return {}
    if flags.get("arch") not in (None, start["arch"]):
        raise ConfigError("arch", flags["arch"], start["arch"], "the model that it begins with is of that")
    return start


def knobs_from(name: str) -> dict[str, Any]:
    """The knobs of the trial that `name` stands for, but for how it prunes, with its model as their start."""
    folder = _folder(name)
    report = folder / REPORT
    try:
        known = read_report(report)["config"] if report.exists() else {}
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError("from", name, f"{FORM}, whose report.json can be read", str(error)) from None
    return {key: value for key, value in known.items() if key not in NOT_TAKEN} | start_of("from", folder)


def start_of(key: str, folder: Path) -> dict[str, Any]:
    """The knobs that make a trial begin with the model in `folder`, which `key` names."""
    path = folder / MODEL
    try:
        saved = SavedModel.read(path)
        saved.load()
        digest = digest_of(read_weights(path).tensors)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ConfigError(key, folder, f"{FORM}, with a {MODEL} as it was written", reason) from None
    if saved.facts.trial.get("compacted") is False:
        hint = "its single weights are zeros that would grow again (granularity = element)"
        raise ConfigError(key, folder, "a model whose units were removed", hint)
    arch = saved.facts.architecture
    sizes = {name: arch.arguments[name] for name in ("img_size", "patch_size")}
    units = "/".join(",".join(map(str, counts)) for counts in (arch.heads, arch.neurons))
    start = {"pretrained": True, "weights": str(path), "weights_digest": digest, "start_units": units}
    return {"arch": _name_of(key, folder, arch), **sizes, **start}


def keep_head(fit: Fit, weights: Weights, path: Path | None, classes: Sequence[str]) -> None:
    """Take the head of the model at `path` over into `fit`, where its classes are these; say what became of it."""
    known = list(SavedModel.read(path).facts.images.get("classes", ())) if path else []
    same = known == list(classes)
    for name in [name for name in weights.tensors if same and name.startswith("head.")]:
        fit.tensors[name] = weights.tensors[name].float()
        fit.skipped = [said for said in fit.skipped if not said.startswith(f"{name}:")]
    if same:
        fit.notes.append(f"the head stays: the same {len(known)} classes")
    else:
        fit.notes.append(f"the head is new: {len(classes)} classes here, {len(known) or 'others'} there")


def line(config: Any, full: Architecture, start: Architecture) -> str:
    """What a trial begins with, for people."""
    heads, neurons = (f"{sum(start.counts(k))} of {sum(full.counts(k))} {k}s" for k in ("head", "neuron"))
    against = f"kept_share, kept_share_asked and density count against the unpruned {config.arch}"
    return f"begins with a pruned model: {heads}, {neurons}; {against}, rate and dense_top1 from here on"


def _name_of(key: str, folder: Path, arch: Architecture) -> str:
    if arch.timm_name:
        return arch.timm_name
    given = tuple(arch.arguments.get(name) for name in ("embed_dim", "depth", "num_heads", "mlp_ratio"))
    name = next((name for name, (*shape, _) in NAMED.items() if tuple(shape) == given), None)
    if name is None:
        raise ConfigError(key, folder, f"a model of {', '.join(NAMED)} or of timm", "it is of none that is known here")
    return name


def _folder(name: str) -> Path:
    """The folder that holds the model: a path, a sweep's best one, or a trial's store."""
    home = expanded(os.environ.get("TUNE_RSST_HOME") or ".tune_rsst")
    for place in (expanded(name), home / name):
        for folder in (place, place / "best_model"):
            if (folder / MODEL).is_file():
                return folder
    sweep, _, trial = name.rpartition("/")
    store = _store(home / sweep, trial) if sweep else None
    if store is not None and (store / MODEL).is_file():
        return store
    hint = f"{trial} has no model yet: it has not finished" if store else f"there is no such run, and none in {home}"
    raise ConfigError("from", name, FORM, hint)


def _store(sweep: Path, trial: str) -> Path | None:
    """The store of a trial of the sweep in that folder, as its ledger has it."""
    try:
        lines = regular_bytes(sweep / "ledger.jsonl", LARGEST).splitlines()
        events = [json.loads(line) for line in lines if b'"suggested"' in line]
        found = [str(e["fingerprint"]) for e in events if e.get("event") == "suggested" and e.get("trial") == trial]
    except (OSError, ValueError, KeyError, AttributeError, RecursionError):
        return None
    return sweep / "trials" / found[-1] if found and found[-1].isalnum() else None
