"""Each round's hardened model on disk: STORE/models/r003-0123456789abcdef.safetensors, named by round and content.

In: a trial's state right after a round.
Out: files that `SavedModel.read` reads. Which of them stay is a function of the rounds' reports alone, so a resumed
trial keeps the same ones; checkpoints come and go beside them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainables.rsst.metrics import CIRCUMSTANCES
from trainables.rsst.model.saved import Facts, write_model
from trainables.rsst.model.vit import Architecture
from trainables.rsst.pruning.compact import Units
from trainables.rsst.state import TrialState
from trainables.storage.files import publish, sha256_of, temporary_folder

MODELS = "models"
SHA_DIGITS = 16
_NAME = re.compile(rf"r(\d+)-([0-9a-f]{{{SHA_DIGITS}}})\.safetensors")


def facts_of(state: TrialState) -> Facts:
    """What goes with the weights of `state`, whose last finished round is the one that is told of."""
    alive, full = Units.from_json(state.meta["alive"]), Architecture.from_json(state.meta["full"])
    reports: dict[str, dict[str, Any]] = {event["kind"]: event for event in state.meta["history"]}
    start, last = reports.get("start", {}), reports.get("round", {})
    trial = {name: value for name, value in last.items() if name not in CIRCUMSTANCES and name != "kind"}
    trial |= {"fingerprint": state.meta["fingerprint"], "init_effective": start.get("init_effective")}
    arch = full.with_counts(alive.counts("head"), alive.counts("neuron"))
    return Facts(arch, start.get("images", {}), trial)


def keep_round(state: TrialState, most: int, store: Path) -> None:
    """Keep the model of the round that `state` has just finished, and of earlier ones those that `kept` names."""
    past = [event for event in state.meta["history"] if event["kind"] == "round"]
    stay = kept(past, most)
    if not stay:
        return
    facts, folder = facts_of(state), store / MODELS
    folder.mkdir(exist_ok=True)
    with temporary_folder(store / MODELS) as new:
        write_model(facts, state.group("weights"), new / "model")
        name = f"r{past[-1]['round']:03d}-{sha256_of(new / 'model')[:SHA_DIGITS]}.safetensors"
        publish(new / "model", folder / name)
    for number, path in _files(folder):
        if number not in stay or (number == past[-1]["round"] and path.name != name):
            path.unlink()


def kept(rounds: Sequence[Mapping[str, Any]], most: int) -> set[int]:
    """Which of the finished `rounds` (their reports, oldest first) have their model kept: the last, and `most` in all.

    Of one too many the largest goes that a smaller one matches in val_top1; if there is none, the largest.
    """
    left: list[Mapping[str, Any]] = []
    for report in rounds if most else ():
        left.append(report)
        if len(left) > most:
            matched = (a for at, a in enumerate(left) if any(b["val_top1"] >= a["val_top1"] for b in left[at + 1 :]))
            left.remove(next(matched, left[0]))
    return {int(report["round"]) for report in left}


def models_of_rounds(store: Path) -> dict[int, Path]:
    """Round → its model's file, for the rounds whose model is there."""
    return dict(_files(store / MODELS))


def is_model_of_a_round(name: str) -> bool:
    """Whether a file of that name is one."""
    return _NAME.fullmatch(name) is not None


def is_intact(path: Path) -> bool:
    """Whether the file holds what its name says."""
    match = _NAME.fullmatch(path.name)
    return match is not None and sha256_of(path).startswith(match[2])


def _files(folder: Path) -> list[tuple[int, Path]]:
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [(int(match[1]), path) for path in paths if (match := _NAME.fullmatch(path.name))]
