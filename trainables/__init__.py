"""Trainables: what one trial computes, and the edges that run it.

rsst/           the method itself (no Ray, no Optuna, no MLflow); start reading at rsst/experiment.py
__main__.py     one trial on one machine: `python -m trainables`, with the seed guide's flags
console.py first_epoch.py   what it prints
export/         a finished model as ONNX or torch.export
worker/         the same trial as a Ray Tune trainable, and what else runs on a Ray node
storage/        bytes that survive a crash: files, locks, buckets
errors.py text.py plain_yaml.py   the error for bad input; words that both packages print; YAML of settings and knobs

For scripts: `from trainables import RSSTTrainable` (needs Ray), `train` and trainables/rsst's `run` (do not);
docs/python.md. They are loaded when they are asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.worker.flat_trial import train as train
    from trainables.worker.tune_trainable import RSSTTrainable as RSSTTrainable

__all__ = ["RSSTTrainable", "train"]


def __getattr__(name: str) -> Any:
    if name == "RSSTTrainable":
        from trainables.errors import explained

        with explained():
            from trainables.worker.tune_trainable import RSSTTrainable

        return RSSTTrainable
    if name == "train":
        from trainables.worker.flat_trial import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
