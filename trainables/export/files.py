"""The files that take a model away: which model is asked for, what is written, that it computes what the model does.

In: the folder of a run or of a trial, formats.
Out: a folder of files (docs/models.md, "Taking a model away"). The data set is not looked at.
Shapes: B images, C channels, H height, W width.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from trainables.errors import install
from trainables.export import load_model
from trainables.export.formats import save_onnx, save_program
from trainables.rsst.config import ConfigError
from trainables.rsst.metrics import said
from trainables.rsst.model.saved import ARCHITECTURE, MODEL, PREPROCESSING, REPORT, SavedModel, show_facts
from trainables.rsst.rounds import is_intact, models_of_rounds
from trainables.storage.files import replaced
from trainables.storage.forms import WrongForm, mapping
from trainables.storage.state_files import read_state, replace_state

LOADER = Path(load_model.__file__)
FORMATS = ("safetensors", "pt2", "onnx")
TOLERANCE = 1e-4
MISSING = "mean, std, class names and the resize rule (it was trained by a version that did not keep them)"


def formats_of(words: str) -> list[str]:
    """The formats that are named in `words`, by commas."""
    formats = [word.strip() for word in words.split(",") if word.strip()]
    if not formats:
        raise ConfigError("formats", "(none)", f"{', '.join(FORMATS)}, or some of them by commas")
    for wanted in formats:
        if wanted not in FORMATS:
            close = get_close_matches(wanted, FORMATS, n=1)
            raise ConfigError("formats", wanted, " or ".join(FORMATS), f"did you mean {close[0]}?" if close else "")
    return formats


def find(folder: Path, number: int | None = None) -> SavedModel:
    """The model of a finished run, or of a trial's store: the last one, or that of round `number` (0 is dense)."""
    stores = [folder, *sorted(folder.glob("state/*"))]
    rounds = {at: path for store in stores for at, path in models_of_rounds(store).items()}
    there = ", ".join(map(str, sorted(rounds))) or "none"
    path = folder / MODEL if number is None else rounds.get(number)
    if path is None:
        raise ConfigError(
            "round", number, "a round whose model was kept (keep_rounds)", f"in {folder} there is {there}"
        )
    if not path.is_file():
        hint = f"rounds that --round can take: {there}" if folder.is_dir() else "there is no such folder"
        raise ConfigError("folder", folder, f"the folder of a finished run, with {MODEL} in it", hint)
    if number is not None and not is_intact(path):
        raise ConfigError("round", number, "a model file with the content that its name says", f"{path} is damaged")
    try:
        return SavedModel.read(path)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError("folder", folder, f"one whose {path.name} and {ARCHITECTURE} can be read", reason) from None


def name_of(number: int | None, trial: str = "") -> str:
    """The folder of an export below exports/."""
    return "-".join(filter(None, [trial, "" if number is None else f"r{number:03d}"])) or "final"


def export(saved: SavedModel, target: Path, formats: Sequence[str], say: Callable[[str], None]) -> list[Path]:
    """Write `saved` into `target` (made if missing) in each of `formats`; `say` gets a line for each file.

    Raises:
        RuntimeError: what a file computes is not what the model computes.
    """
    report = _report(saved, say)
    _refuse_another(report, target)
    try:
        model = saved.load()
        target.mkdir(parents=True, exist_ok=True)
        replace_state(target / REPORT, report)
        say(_told(saved.facts.trial))
        written = [target / REPORT, *show_facts(saved.facts, target)]
        for wanted in formats:
            path = target / f"model.{wanted}"
            worst = difference(model, _write(saved, model, wanted, path), saved.facts.architecture.input_shape())
            say(f"{path}: largest difference of a logit {worst:.1e}")
            if not worst <= TOLERANCE:
                raise RuntimeError(f"{path}: a logit differs by {worst:.2e} from the model's (allowed {TOLERANCE:.0e})")
            written.append(path)
            if wanted == "safetensors":
                written.append(_copy(LOADER, target / LOADER.name))
    except WrongForm as error:
        raise ConfigError("folder", saved.path.parent, "the folder of a whole model", str(error)) from None
    except OSError as error:
        raise ConfigError("to", target, "a folder that can be made and written", error.strerror or str(error)) from None
    for path in written:
        if path.stem != "model":
            say(str(path))
    if not saved.facts.images:
        say(f"{target / PREPROCESSING}: not written, the model does not hold {MISSING}")
    return written


def _told(trial: Mapping[str, Any]) -> str:
    """Which model it is; lines on the screen count rounds from 1."""
    at = (
        f"round {trial['round']} (0 is dense; round {trial['round'] + 1} on the screen)"
        if "round" in trial
        else "model"
    )
    return f"{at}: {said(trial, 'val_top1', 'kept_share', 'params')}"


def _write(saved: SavedModel, model: nn.Module, wanted: str, path: Path) -> Callable[[Tensor], Any]:
    """Write one format; a function that computes what the file does."""
    shape, facts = saved.facts.architecture.input_shape(), saved.facts
    texts = {
        PREPROCESSING: facts.preprocessing(),
        ARCHITECTURE: facts.architecture.to_json(),
        "trial.json": facts.trial,
    }
    as_text = {name: json.dumps(value, ensure_ascii=False, sort_keys=True) for name, value in texts.items()}
    try:
        if wanted == "onnx":
            save_onnx(model, shape, as_text, path)
            return _in_onnxruntime(path)
        if wanted == "pt2":
            save_program(model, shape, as_text, path)
            return torch.export.load(path).module()
    except ImportError as error:
        hint = f"{error.name} is missing: {install('onnx')}, or leave it out: --formats safetensors,pt2"
        raise ConfigError("formats", wanted, "one whose packages are installed", hint) from None
    _copy(saved.path, path)
    return load_model.load(path.parent)


def _report(saved: SavedModel, say: Callable[[str], None]) -> dict[str, Any]:
    """What the trial reported: of a round's model, of this round."""
    beside = saved.path.with_name(REPORT)
    found = _json_of(beside)
    if not found and os.path.lexists(beside):
        say(f"{beside} is damaged: the export's {REPORT} holds what the model's file tells")
    return found or dict(saved.facts.trial)


def _json_of(report: Path) -> dict[str, Any]:
    """What the file holds; empty where it is none of ours, or damaged."""
    try:
        found: dict[str, Any] = read_state(report, mapping(), seal="may")
    except (OSError, WrongForm):
        return {}
    return found


def _refuse_another(report: Mapping[str, Any], target: Path) -> None:
    """Files of two models must not lie in one folder: of those that are not written again nobody could tell."""
    if not (target / REPORT).exists():
        return
    there = _json_of(target / REPORT)
    if any(there.get(name) != report.get(name) for name in ("fingerprint", "round")):
        at = f", round {there['round']}" if "round" in there else ""
        hint = f"{target / REPORT} is of trial {there.get('fingerprint')}{at}: give another folder"
        raise ConfigError("to", target, "a folder without files of another model", hint)


def _copy(source: Path, target: Path) -> Path:
    """A copy with the rights that a new file has here, not those of the source."""
    with replaced(target) as new:
        shutil.copyfile(source, new)
    return target


@torch.no_grad()
def difference(model: nn.Module, outputs: Callable[[Tensor], Tensor], shape: tuple[int, int, int]) -> float:
    """Largest absolute difference between the logits of `model` and `outputs` on 5 random images (C, H, W)."""
    images = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    return float((model(images) - outputs(images)).abs().max())


def _in_onnxruntime(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def on_pixels(saved: SavedModel) -> nn.Module:
    """The model on pixels: float32 (B, C, H, W) in [0, 1] → logits (B, classes)."""
    if not saved.facts.images:
        raise ConfigError("register", saved.path, "a model that knows its images", f"this one does not hold {MISSING}")

    class OnPixels(nn.Module):
        mean: Tensor
        std: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.model = saved.load()
            for name in ("mean", "std"):
                self.register_buffer(name, torch.tensor(saved.facts.images[name]).reshape(-1, 1, 1))

        def forward(self, pixels: Tensor) -> Any:
            return self.model((pixels - self.mean) / self.std)

    return OnPixels().eval()
