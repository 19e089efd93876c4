"""A sweep for TensorBoard: `tune-rsst tensorboard SWEEP`, then `tensorboard --logdir FOLDER`.

In: a sweep that was read. Out: SWEEP/tensorboard, a folder of event files for each trial. Each metric is a curve by its
own name against the epochs trained, with the ledger's times; what was searched is the trial's line under HPARAMS.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainables.storage.files import one_name, replaced_folder
from tune_rsst.ledger.events import REPLICATE
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.view import TrialView
from tune_rsst.storage.folder import Sweep

STEP = "epochs_trained"
PLACE = ("round", "epoch", STEP)
SIZES = ("kept_share", "params", "gmacs")


def write(sweep: Sweep) -> tuple[Path, int]:
    """Write the folder anew; where it is, and how many trials have reported anything."""
    to, trials = sweep.folder.tensorboard, sweep.view.trials | sweep.view.replicas
    reported: dict[str, list[Mapping[str, Any]]] = {}
    for event in sweep.lines.events:
        if event["event"] in ("reported", f"{REPLICATE}reported") and event["trial"] in trials:
            reported.setdefault(event["trial"], []).append(event)
    shown = (Objective.of(sweep.view.settings).metric, *SIZES)
    with replaced_folder(to) as new:
        for name, events in reported.items():
            _write_trial(new / one_name(name), trials[name], events, shown)
    return to, len(reported)


def curves(events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, float, int, float]]:
    """(metric, value, step, time) of each number that a trial reported, once a step."""
    seen = set()
    for event in events:
        metrics = event["metrics"]
        for name, value in metrics.items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if number and name not in PLACE and (name, metrics[STEP]) not in seen:
                seen.add((name, metrics[STEP]))
                yield name, float(value), int(metrics[STEP]), float(event["time"])


def _write_trial(folder: Path, trial: TrialView, events: list[Mapping[str, Any]], shown: Iterable[str]) -> None:
    from tensorboardX import SummaryWriter
    from tensorboardX.summary import hparams

    with SummaryWriter(str(folder)) as writer:
        plain = (int, float, bool, str)
        searched = {name: value if isinstance(value, plain) else str(value) for name, value in trial.searched.items()}
        for part in hparams(searched, dict.fromkeys(shown, 0.0)):
            writer.file_writer.add_summary(part)
        for name, value, step, at in curves(events):
            writer.add_scalar(name, value, step, at)
