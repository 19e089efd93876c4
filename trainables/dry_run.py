"""The plan of a single run before its bill (`--dry-run`): sizes, rounds, epochs, hours, memory, disk.

In: a config and the folder that it would write to. Out: lines. Nothing is written or downloaded; a few real training
steps on random images are timed here. A sweep's dry run counts in the same way (tune_rsst/planning/estimate.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from trainables.plugins import said
from trainables.progress import every, watched
from trainables.rsst.config import RSSTConfig
from trainables.rsst.data.sources import train_images
from trainables.rsst.measure import Measured, course_of, measure
from trainables.rsst.size import Size, architecture_of, cost, size_of
from trainables.text import counted, duration, mib

TELL_EVERY_S = 10.0


def lines(config: RSSTConfig, folder: Path, measure: Callable[[RSSTConfig], Measured] = measure) -> list[str]:
    """The plan as a person reads it; takes some seconds, because it trains.

    Raises:
        torch.OutOfMemoryError: one step does not fit the device.
    """
    dense, end = size_of(architecture_of(config)), cost(config)
    print("measuring a few steps on this machine …", file=sys.stderr, flush=True)
    with watched(every(TELL_EVERY_S, partial(print, file=sys.stderr, flush=True))):
        m = measure(config)
    course = course_of(config, m, 1.0, dense.params)
    train, val = train_images(config)
    start = "pretrained, if its weights can be had (they are not looked for here)" if config.pretrained else "scratch"
    of_these = " of those that it begins with" if config.start_units else ""
    whole = " from its beginning; what is done already is not taken off" if (folder / "config.json").exists() else ""
    return [
        f"Plan of the run {folder}{whole} (nothing has been written)",
        f"  model     {config.arch} on {said(config.dataset)}, {config.img_size} pixels; starts from {start}",
        f"  dense     {_words(dense)}",
        f"  final     {_words(Size(end.params, end.gmacs))}; kept share of units {course.shares[-1]:.3f}{of_these}",
        f"  images    about {train:,} in training, {val:,} in validation",
        f"  epochs    {end.epochs_at_most:,}: {counted(end.rounds, 'round')} of {counted(config.epochs, 'epoch')}",
        f"  time      about {duration(sum(course.seconds))}, {duration(course.seconds[0])} of it in the dense round",
        f"  measured  {m.times}",
        f"  memory    {m.memory}",
        f"  disk      {mib(course.disk_mib)} at most",
    ]


def _words(size: Size) -> str:
    return f"{size.params:,} parameters, {size.gmacs:.4g} GMACs"
