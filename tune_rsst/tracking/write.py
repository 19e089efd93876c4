"""What can be written into a run in MLflow, without MLflow: points, parameters, tags, data sets of a trial's events.

In: a trial's events and knobs. Out: a `Write`, and what goes into it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainables.plugins import said
from trainables.rsst.event import Event
from trainables.rsst.metrics import METRICS, kept_per
from trainables.storage.secrets import hide_password
from trainables.text import one_line
from tune_rsst.tracking.notes import NOTE_LENGTH

PARENT = ""
STATUS = {
    "running": "RUNNING",
    "interrupted": "KILLED",
    "finished": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
}
SWEEP_STATUS = {"running": "RUNNING", "finished": "FINISHED", "interrupted": "KILLED"}
START_PARAMS = tuple(name for name in kept_per("start") if not METRICS[name].words)
MEANS = ("seeds", "val_top1_std", *kept_per("final"))
"""Metrics of a trial with several seeds that its own run has as mean/NAME, step: how many of its runs have ended."""
OF_THE_SWEEP = ("best/", "trials/")
"""How the names of the sweep's own curves begin; others in its run are somebody else's."""
PARETO_COLOR = "#c2410c"
MAX_TAG, MAX_PARAM = NOTE_LENGTH, 6000

Point = tuple[str, float, int, int]
"""key, value, time in ms, step"""
Images = tuple[Mapping[str, Any], str]
"""What is known of a data set, and where it is"""


@dataclass
class Write:
    """What is to be in one run (`run` is a trial or PARENT) beside what is there already; `status` None leaves it.

    `images`: data sets that the run reads, each as its start event has it (`AboutImages.to_json`) and where it is.
    """

    run: str
    points: list[Point] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    images: list[Images] = field(default_factory=list)
    status: str | None = None
    end_ms: int | None = None


def text(value: object) -> str:
    """A value as parameter text: numbers as the UI reads numbers, truth values and None as the flags take them.

    A plug-in is shown by its name.
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return one_line(hide_password(said(value))[:MAX_PARAM])[:MAX_PARAM]


def points(names: Iterable[str], metrics: Mapping[str, Any], ms: int, step: int, into: str = "") -> list[Point]:
    """Those of `names` that are finite numbers in `metrics`, as points of MLflow's curves."""
    numbers = ((n, v) for n in names if isinstance(v := metrics.get(n), int | float) and not isinstance(v, bool))
    return [(into + name, float(value), ms, step) for name, value in numbers if math.isfinite(value)]


def points_of(event: Event, ms: int) -> list[Point]:
    """What a trial's event adds to its curves. The end adds what rounds do not report: the rest ends with its curve.

    What is known at the start is no curve but a parameter.
    """
    if event.kind == "start":
        return []
    step = event.metrics.get("epochs_trained" if event.kind == "epoch" else "round", 0)
    of_rounds = kept_per("round") if event.kind == "final" else ()
    return points((n for n in kept_per(event.kind) if n not in of_rounds), event.metrics, ms, int(step))


def tags_of(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The tags that a trial's event adds."""
    return {n: text(metrics[n]) for n, metric in METRICS.items() if metric.tag and metrics.get(n) is not None}


def images_of(event: Event, knobs: Mapping[str, Any]) -> list[Images]:
    """The data set that a trial's event names: its start, but for those of older versions."""
    found = event.metrics.get("images")
    return [(found, str(knobs.get("data") or found["name"]))] if found else []


def profile_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """What MLflow's page of a data set shows of `AboutImages.to_json`: it cuts a value after a line or so.

    A line for each part of the images and for each note, none for what is empty.
    """
    shown: dict[str, Any] = {}
    for name, value in about.items():
        if isinstance(value, Mapping):
            shown |= {f"{name}: {key}": _counted(one) for key, one in value.items()}
        elif name == "notes" and isinstance(value, list):
            shown |= {f"note {number}": note for number, note in enumerate(value, start=1)}
        else:
            shown[name] = value
    return shown


def _counted(value: Any) -> Any:
    """ "images 1259, classes 10, fewest 122, most 129" of a part's counts; anything else as it is."""
    return ", ".join(f"{name} {number}" for name, number in value.items()) if isinstance(value, Mapping) else value
