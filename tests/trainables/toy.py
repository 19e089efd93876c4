"""A network and a data set small enough that a whole trial takes a third of a second, and how to compare trials.

`vit_toy`: 16 wide, 2 layers, 4 heads of 4, 32 neurons. Images: 96 / 48 / 48 of the digits.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

from trainables.rsst import reports
from trainables.rsst.config import RSSTConfig, models
from trainables.rsst.data import load
from trainables.rsst.data.load import ImageData
from trainables.rsst.event import Event
from trainables.rsst.experiment import run
from trainables.rsst.metrics import CIRCUMSTANCES
from trainables.rsst.model.cost import Latency
from trainables.rsst.state import TrialState
from trainables.storage.state_files import CRC

NAME = "vit_toy"
SHAPE = (16, 2, 4, 2.0, None)
SIZES = {"train": 96, "val": 48, "test": 48}
KNOBS: dict[str, Any] = {
    "dataset": "digits",
    "arch": NAME,
    "epochs": 2,
    "warmup": 1,
    "batch_size": 32,
    "lr": 5e-3,
    "pruning_times": 3,
    "rate": 0.3,
}


def install() -> None:
    """Make the toy known by its name; no latency is measured, to save time."""
    models.NAMED[NAME] = SHAPE
    reports.latency = lambda *_args, **_kwargs: Latency(1.0, 0.1)


@contextmanager
def installed() -> Iterator[None]:
    """`install`, taken back at the end: other tests of the process know no toy."""
    with patch.dict(models.NAMED), patch.object(reports, "latency", reports.latency):
        install()
        yield


def config(**knobs: Any) -> RSSTConfig:
    return RSSTConfig.from_knobs(KNOBS | knobs)


def images(of: RSSTConfig | None = None) -> ImageData:
    """The first images of each part of the digits as `of` wants them."""
    full = load.load(of or RSSTConfig.from_knobs({"dataset": "digits"}))
    parts = {part: getattr(full, part)[:count] for part, count in SIZES.items()}
    return dataclasses.replace(full, about=dataclasses.replace(full.about, digest=f"toy-{full.digest}"), **parts)


def timeless(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics without those that differ between identical runs."""
    return {name: value for name, value in metrics.items() if name not in CIRCUMSTANCES}


def told(events: Iterable[Event]) -> list[tuple[str, dict[str, Any]]]:
    """What a run reports, apart from times; floats compare bit for bit."""
    return [(event.kind, timeless(event.metrics)) for event in events]


def outcome(of: RSSTConfig, on: ImageData, state: TrialState | None = None) -> list[tuple[str, dict[str, Any]]]:
    return told(run(of, on, state))


def last_state(of: RSSTConfig, on: ImageData) -> TrialState:
    """The state after the final event."""
    *_, final = run(of, on)
    return final.snapshot()


def timeless_report(report_json: str) -> Any:
    """A report.json without times and the checksum over them, at any depth."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: cleaned(inner) for name, inner in timeless(value).items() if name != CRC}
        return [cleaned(inner) for inner in value] if isinstance(value, list) else value

    return cleaned(json.loads(report_json))


def same_tensors(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    """Equal names, shapes, dtypes and bits."""
    return a.keys() == b.keys() and all(
        x.dtype == b[name].dtype and x.shape == b[name].shape and torch.equal(x, b[name]) for name, x in a.items()
    )
