"""Where do the seconds of one trial go: training, validation, scoring, latency, MACs, checkpoints, models?

    python -m benchmarks.where_time_goes                      vit_digits on the digits, 5 rounds of 14 epochs (a minute)
    python -m benchmarks.where_time_goes arch=vit_tiny dataset=FOLDER …      any trial by its knobs

In: knobs as key=value. Out: a Markdown table with the wall seconds of each part, its calls and its share of the trial,
from the opening of its store to its last event; parts that run inside another one are counted in the inner one alone.
Nothing is turned off: the trial is the one that `python -m trainables` runs.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks._common import table
from trainables.errors import ConfigError
from trainables.rsst import experiment, reports, running, trial
from trainables.rsst.config import RSSTConfig
from trainables.rsst.store.checkpoint import CheckpointStore

KNOBS = {"arch": "vit_digits", "dataset": "digits", "epochs": "14", "pruning_times": "5", "target_density": "0.3"}
PARTS: dict[str, list[tuple[Any, str]]] = {
    "training epochs": [(experiment, "train_epoch")],
    "are weights finite": [(experiment, "refuse_broken")],
    "validation and test": [(running, "evaluate"), (reports, "evaluate")],
    "scoring the units": [(running.Running, "choose_doomed")],
    "hardening": [(running.Running, "harden")],
    "latency": [(reports, "latency")],
    "MACs and parameters": [(reports, "gmacs"), (reports, "parameters")],
    "checkpoints": [(CheckpointStore, "save")],
    "models of rounds": [(trial, "save_pruned"), (trial, "keep_round")],
    "reading the images": [(trial, "load")],
}


class Clock:
    """Seconds and calls of each part; what runs inside another part is not counted there."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.calls = dict.fromkeys(PARTS, 0)
        self._inner = [0.0]

    def around(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """`method`, timed as a call of `part`."""

        def timed(*args: Any, **named: Any) -> Any:
            began = time.perf_counter()
            self._inner.append(0.0)
            try:
                return method(*args, **named)
            finally:
                spent = time.perf_counter() - began
                self.seconds[part] += spent - self._inner.pop()
                self.calls[part] += 1
                self._inner[-1] += spent

        return timed


def measured(config: RSSTConfig, folder: Path) -> tuple[Clock, float]:
    """The clock after a whole trial in `folder`, and the trial's seconds."""
    clock = Clock()
    with ExitStack() as stack:
        for part, places in PARTS.items():
            for owner, name in places:
                stack.enter_context(patch.object(owner, name, clock.around(part, getattr(owner, name))))
        began = time.perf_counter()
        with trial.open_trial(config, folder, say=lambda line: None) as opened:
            for event in opened.events():
                if event.kind == "round":
                    print(f"round {event.metrics['round'] + 1} of {config.rounds}", file=sys.stderr, flush=True)
        return clock, time.perf_counter() - began


def rows_of(clock: Clock, whole_s: float) -> list[list[str]]:
    """A row for each part, the largest first; then what no part names."""
    parts = sorted(clock.seconds.items(), key=lambda item: -item[1])
    rows = [[name, str(clock.calls[name]), f"{spent:.2f}", f"{100 * spent / whole_s:.1f} %"] for name, spent in parts]
    rest = whole_s - sum(clock.seconds.values())
    return [*rows, ["the rest", "", f"{rest:.2f}", f"{100 * rest / whole_s:.1f} %"], ["all", "", f"{whole_s:.2f}", ""]]


def main(words: list[str]) -> int:
    """Run and print."""
    try:
        for word in words:
            if "=" not in word:
                raise ConfigError("argument", word, "key=value", "python -m trainables --help lists the knobs")
        config = RSSTConfig.from_knobs(KNOBS | dict(word.split("=", 1) for word in words))
        with tempfile.TemporaryDirectory() as folder, patch.dict("os.environ", {"TUNE_RSST_CACHE": f"{folder}/cache"}):
            clock, whole_s = measured(config, Path(folder) / "trials")
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{config.arch} on {config.dataset}, {config.rounds} rounds of {config.epochs} epochs\n")
    print(table(["part", "calls", "seconds", "share"], rows_of(clock, whole_s)))
    return 0


if __name__ == "__main__":
    if "--help" in sys.argv:
        print(__doc__)
        raise SystemExit(0)
    raise SystemExit(main(sys.argv[1:]))
