"""The compacted model of a finished trial, to take away: safetensors with a loader, torch.export, ONNX; the registry.

In: a sweep's folder and the name of a trial.
Out: files, each compared with the model itself; a version in MLflow's model registry.
Shapes: B images, C channels, H height, W width.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.rsst.config import ConfigError
from trainables.storage.files import replace_json, replaced
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.results import ranking
from tune_rsst.storage import home
from tune_rsst.storage.bucket import fetch_model
from tune_rsst.storage.folder import Sweep, SweepFolder

if TYPE_CHECKING:
    from torch import nn


FORMATS = ("safetensors", "pt2", "onnx")
LOADER = Path(__file__).with_name("load_model.py")
MODEL_FILES = ("model.safetensors", "architecture.json", "report.json")


@dataclass(frozen=True)
class Chosen:
    """A finished trial and the sweep it is of."""

    folder: SweepFolder
    view: SweepView
    trial: TrialView

    @property
    def store(self) -> Path:
        return self.folder.store(self.trial.fingerprint)


def check_formats(formats: Sequence[str]) -> None:
    """Refuse formats that there are none of."""
    if not formats:
        raise ConfigError("formats", "(none)", f"{', '.join(FORMATS)}, or some of them by commas")
    for wanted in formats:
        if wanted not in FORMATS:
            close = get_close_matches(wanted, FORMATS, n=1)
            raise ConfigError("formats", wanted, " or ".join(FORMATS), f"did you mean {close[0]}?" if close else "")


def choose(what: str | None) -> Chosen:
    """The trial that `what` names: SWEEP/TRIAL, TRIAL of the newest sweep, SWEEP (its best), None: newest, best."""
    sweep, _, name = (what or "").rpartition("/")
    if not sweep and not re.fullmatch(r"t\d{4,}", name):
        sweep, name = name, ""
    folder = home.find(sweep or None)
    view = Sweep.of(folder).view
    finished = [trial.trial for trial in ranking.rank(view) if trial.state == "finished"]
    best = ranking.best_of(view)
    trial = view.trials.get(name) if name else best
    if trial is None or trial.state != "finished":
        hint = f"finished ones: {', '.join(finished[:8]) or 'none yet'}"
        raise ConfigError("trial", what, f"a finished trial of {folder.name}, or a sweep that has a best one", hint)
    chosen = Chosen(folder, view, trial)
    with suppress(OSError):  # said below
        fetch_model(folder, view.settings.get("storage"), trial.fingerprint)
    missing = [file for file in MODEL_FILES if not (chosen.store / file).exists()]
    if missing:
        raise ConfigError("trial", trial.trial, f"one whose {missing[0]} is still in {chosen.store}")
    return chosen


def normalisation(chosen: Chosen) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of the trial's training images, scaled to 0 … 1."""
    from trainables.rsst.config import RSSTConfig
    from trainables.rsst.data.load import load

    images = load(RSSTConfig.from_knobs(chosen.trial.knobs)).about
    return images.mean, images.std


def export(chosen: Chosen, target: Path, formats: Sequence[str]) -> list[tuple[Path, float | None]]:
    """Write the model into `target` (made if missing) in each of `formats`: (file, largest difference of a logit).

    Raises:
        RuntimeError: what a file computes is not what the model computes.
    """
    import torch

    from trainables.export import TOLERANCE, difference, onnx_outputs
    from trainables.rsst.model.formats import save_onnx, save_program
    from trainables.rsst.model.saved import load_pruned

    check_formats(formats)
    home.make(target)
    mean, std = normalisation(chosen)
    replace_json(target / "preprocessing.json", {"pixels": "float32 in [0, 1], (B, C, H, W)", "mean": mean, "std": std})
    model, shape = load_pruned(chosen.store), input_shape(chosen)
    writers: dict[str, tuple[Callable[..., None], Callable[[Path], Any]]] = {
        "pt2": (save_program, lambda path: torch.export.load(path).module()),
        "onnx": (save_onnx, onnx_outputs),
    }
    written: list[tuple[Path, float | None]] = []
    for wanted in formats:
        if wanted == "safetensors":
            for file in (*(chosen.store / name for name in MODEL_FILES), LOADER):
                written.append((_copied(file, target), None))
            continue
        path = target / f"model.{wanted}"
        save, opened = writers[wanted]
        try:
            save(model, shape, path)
            worst = difference(model, opened(path), shape)
        except ImportError as error:
            hint = f"{error.name} is missing: pip install 'tune-rsst[onnx]', or leave it out: --formats safetensors,pt2"
            raise ConfigError("formats", wanted, "one whose packages are installed", hint) from None
        if not worst <= TOLERANCE:
            raise RuntimeError(f"{path}: a logit differs by {worst:.2e} from the model's (allowed {TOLERANCE:.0e})")
        written.append((path, worst))
    return written


def _copied(file: Path, target: Path) -> Path:
    """A copy in the folder `target` with the rights that a new file has here, not those of the trial's store."""
    with replaced(target / file.name) as new:
        shutil.copyfile(file, new)
    return target / file.name


def input_shape(chosen: Chosen) -> tuple[int, int, int]:
    """(C, H, W) of one image."""
    from trainables.rsst.model.vit import Architecture
    from trainables.storage.files import read_json

    return Architecture.from_json(read_json(chosen.store / "architecture.json")).input_shape()


def with_normalisation(chosen: Chosen) -> nn.Module:
    """The model on pixels: float32 (B, C, H, W) in [0, 1] → logits (B, classes)."""
    import torch
    from torch import nn

    from trainables.rsst.model.saved import load_pruned

    class OnPixels(nn.Module):
        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.model = load_pruned(chosen.store)
            for name, value in zip(("mean", "std"), normalisation(chosen), strict=True):
                self.register_buffer(name, torch.tensor(value).reshape(-1, 1, 1))

        def forward(self, pixels: torch.Tensor) -> Any:
            return self.model((pixels - self.mean) / self.std)

    return OnPixels().eval()
