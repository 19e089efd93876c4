"""Where trials run: Ray Tune on a local Ray or a cluster, this process (serial), or no training at all (replay).

A runner is a function that takes a driver (an `Intake`) and a `tick` and runs what it gives out, until it gives nothing
more or is broken. It hands each result to `Intake.take`, ends the run where that says so, and calls `tick` now and
then.
Here too: the resources that each trial gets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tune_rsst.intake import Intake

Tick = Callable[[], object]
Runner = Callable[["Intake", Tick], None]
