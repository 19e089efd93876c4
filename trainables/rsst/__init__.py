"""RSST, Regularized Structured Sparsity Training of Vision Transformers.

experiment.py   the round loop: read this first
trial.py        one trial with its state on disk: what single-GPU mode, Ray and the tests open
running.py      the live model, optimizer and penalty
state.py        a trial as a value
event.py        one report of a trial
metrics.py reports.py   the one list of what is reported; how reports are put together
size.py measure.py   what a trial will cost: counted, and timed
seeding.py      a seed for everything random
config/         every knob, checked and frozen
data/           images as uint8 tensors: sources, one copy per node, batches, augmentation
model/          a timm ViT, where its weights start, what it costs, how it is saved
pruning/        which units matter, which go, how they are pressed and removed
training/       one epoch, one evaluation, the device
store/          checkpoints
runs/           one trial alone, with its results in a folder

From Python: `run`, `ImageData`, `Event` (what callbacks get) and errors, loaded when asked for; docs/python.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.errors import ConfigError as ConfigError
    from trainables.errors import PluginError as PluginError
    from trainables.rsst.data.load import ImageData as ImageData
    from trainables.rsst.event import Event as Event
    from trainables.rsst.runs.run import run as run
    from trainables.rsst.trial import StoreBusy as StoreBusy
    from trainables.rsst.trial import TrialDiverged as TrialDiverged

__all__ = ["ConfigError", "Event", "ImageData", "PluginError", "StoreBusy", "TrialDiverged", "run"]
_PLACES = {
    "ConfigError": "trainables.errors",
    "Event": "trainables.rsst.event",
    "ImageData": "trainables.rsst.data.load",
    "PluginError": "trainables.errors",
    "StoreBusy": "trainables.rsst.trial",
    "TrialDiverged": "trainables.rsst.trial",
    "run": "trainables.rsst.runs.run",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
