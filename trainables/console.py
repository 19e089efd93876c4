"""What a single run shows: progress with an ETA, one line per round, warnings that can't be missed.

In: a trial's events, and how far the work between them has come.
Out: lines on the terminal (a live line only where it is a terminal) and in run.log.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from trainables.first_epoch import first_epoch_check
from trainables.plugins import said
from trainables.progress import TRAINING, Work
from trainables.rsst.config import RSSTConfig
from trainables.rsst.data.about import AboutImages
from trainables.rsst.data.sources import describe
from trainables.rsst.event import Event
from trainables.rsst.metrics import uneven
from trainables.text import counted, duration, framed, one_line

_PLAIN_EVERY_S = 15.0  # epochs, where there is no live line
_WORK_AFTER_S = 2.0  # work that is over sooner is not shown
_WORK_EVERY_S = 30.0  # without any other line, in the log and where there is no live line
_REDRAW_S = 0.2
_LEAST = 5  # classes that are named


class Console:
    """Prints events; every line is also written to `log` with the time of day."""

    def __init__(self, config: RSSTConfig, log: Path) -> None:
        self._config = config
        self._log = log.open("a", encoding="utf-8")
        self._live = sys.stdout.isatty()
        self._shown_at = self._noted_at = self._drawn_at = time.monotonic()
        self._line_open = False
        self._init = "scratch"
        self._uneven: list[str] = []  # names of the classes, where they are uneven
        self._last: Event | None = None
        self._epoch_s: float | None = None

    def __enter__(self) -> Console:
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self._end_line()
        self._log.close()

    def say(self, text: str) -> None:
        """One line for the reader and the log."""
        self._end_line()
        print(one_line(text), flush=True)
        self._note(text)
        self._log.flush()

    def show(self, event: Event) -> None:
        """Show one event of the trial."""
        self._last = event
        {"start": self._start, "epoch": self._epoch, "round": self._round, "final": self._final}[event.kind](
            event.metrics
        )

    def work(self, work: Work) -> None:
        """Show how far the work within an epoch, or before the first one, has come; a watcher of progress.py."""
        now = time.monotonic()
        if work.seconds < _WORK_AFTER_S:
            return
        if self._live and now - self._drawn_at >= _REDRAW_S:
            self._drawn_at = now
            self._draw(self._work_line(work))
        if now - self._noted_at >= _WORK_EVERY_S:
            (self._note if self._live else self.say)(self._work_line(work))

    def _work_line(self, work: Work) -> str:
        parts = work.words
        if self._last is None:  # the images or the weights, before the first epoch
            left = work.seconds_left
            return " · ".join([*parts, f"{duration(left)} left"] if left is not None else parts)
        c, m = self._config, self._last.metrics
        last_round = self._last.kind == "round"
        at, epoch = (m["round"] + 1, 0) if last_round else (m["round"], m["epoch"])
        here = f"round {at + 1}/{c.rounds}" if at < c.rounds else "test"
        if at < c.rounds and epoch < c.epochs:
            here += f" epoch {epoch + 1}/{c.epochs}"
        if work.what == TRAINING and (left := work.seconds_left) is not None:
            each = self._epoch_s or work.seconds / work.done * work.total
            rest = (c.rounds * c.epochs - m["epochs_trained"] - 1) * each
            parts += [f"epoch done in {duration(left)}", f"ETA {duration(left + rest)}"]
        if "val_top1_before_hardening" in m:
            parts.append(f"last val {m['val_top1_before_hardening']:.2%}")
        return " · ".join([here, *parts])

    def go_on(self, history: Sequence[Event]) -> None:
        """Say where an earlier run of the trial stopped, if there was one; its lines are in the log already."""
        if not history:
            return
        last, c = history[-1], self._config
        self._last = last
        self._begun(history[0].metrics)
        if last.kind == "final":
            self.say("nothing is left to do: this run has finished before")
            self._final(last.metrics)
        elif last.kind == "start":
            self.say(f"going on at round 1/{c.rounds}, before its first epoch · {self._init}")
        else:
            stopped = f"round {last.metrics['round'] + 1}/{c.rounds}, epoch {last.metrics['epoch']}/{c.epochs}"
            self.say(f"going on after {stopped} · {self._init}")

    def _start(self, m: dict[str, Any]) -> None:
        c = self._config
        for line in AboutImages.from_json(m["images"]).lines():
            self.say(line)
        for line in m["lines"]:
            self.say(line)
        for line in m["listing"]:
            self._note(line)
        self.say(m["grid"])
        for warning in (m["warning"], m["grid_warning"]):
            if warning:
                self._shout(warning)
        self._begun(m)
        element = " · single weights become zero, nothing is compacted" if c.granularity == "element" else ""
        self.say(
            f"{c.arch} on {said(c.dataset)} · {m['init_effective']} · {m['params']:,} parameters, "
            f"{m['gmacs']:.4g} GMACs · "
            f"{c.struct}, {said(c.criteria)}{element} · {counted(c.rounds, 'round')} of {counted(c.epochs, 'epoch')} ·"
            f" {m['device']} ({m['device_name']})"
        )

    def _begun(self, m: dict[str, Any]) -> None:
        self._init = m["init_effective"]
        self._uneven = list(m["images"]["classes"]) if uneven(m) else []

    def _epoch(self, m: dict[str, Any]) -> None:
        if m["epochs_trained"] == 1:
            self._check_first_epoch(m["val_top1_before_hardening"])
        if "adopted_from" in m:
            if m["epoch"] == self._config.epochs:
                self.say(f"round 1/{self._config.rounds} · the dense round of trial {m['adopted_from']} taken over")
            return
        left, self._epoch_s = self._config.rounds * self._config.epochs - m["epochs_trained"], m["seconds"]
        pressed = f" · doomed norm {m['doomed_norm_left']:.1e}" if "doomed_norm_left" in m else ""
        line = (
            f"round {m['round'] + 1}/{self._config.rounds} epoch {m['epoch']}/{self._config.epochs} · "
            f"loss {m['train_loss']:.4f} · val {m['val_top1_before_hardening']:.2%}{pressed} · "
            f"ETA {duration(left * m['seconds'])}"
        )
        if self._live:
            self._draw(line)
            self._note(line)
        elif time.monotonic() - self._shown_at >= _PLAIN_EVERY_S:
            self._shown_at = time.monotonic()
            self.say(line)

    def _round(self, m: dict[str, Any]) -> None:
        beside = [f"before hardening {m['val_top1_before_hardening']:.2%}", *self._compared(m)]
        self.say(
            f"round {m['round'] + 1}/{self._config.rounds} · val_top1 {m['val_top1']:.2%} "
            f"({', '.join(beside)}) · kept {m['kept_share']:.1%} · "
            f"density {m['density']:.1%} · heads {m['heads_kept']} neurons {m['neurons_kept']} · "
            f"{m['params']:,} params · {m['gmacs']:.4g} GMACs · {m['latency_ms']:.2f} ms · {duration(m['seconds'])}"
        )

    def _final(self, m: dict[str, Any]) -> None:
        val = " · ".join([f"val_top1 {m['val_top1']:.2%}", *self._compared(m)])
        self.say(
            f"finished · test_top1 {m['test_top1']:.2%} · {val} · density {m['density']:.1%} · "
            f"hardening_gap {m['hardening_gap']:.4f} · {m['init_effective']}"
        )

        if self._uneven:
            each = zip(m["test_class_accuracy"], self._uneven, strict=True)
            known = sorted((share, name) for share, name in each if share is not None)
            least = ", ".join(f"{name} {share:.2%}" for share, name in known[:_LEAST])
            self.say(f"classes are uneven; test accuracy of the least accurate ones: {least}")

    def _compared(self, m: dict[str, Any]) -> list[str]:
        """What stands beside a val_top1: the dense round's and the drop against it; balanced where classes differ."""
        found = []
        if m["round"] > 0 and "dense_top1" in m:
            found.append(f"dense {m['dense_top1']:.2%}, drop {100 * m['top1_drop']:.2f} points")
        if self._uneven and "val_balanced_accuracy" in m:
            found.append(f"balanced {m['val_balanced_accuracy']:.2%}")
        return found

    def _check_first_epoch(self, top1: float) -> None:
        """The guide asks its reader to look at the first epoch: say what it reached, warn where it looks wrong."""
        c = self._config
        if c.start_units:  # the figures to compare with are those of whole models
            return
        classes = describe(c.dataset, c.data).num_classes
        line, warning = first_epoch_check(self._init, c.dataset, classes, top1)
        self.say(line)
        if warning:
            self._shout(warning)

    def _note(self, text: str) -> None:
        """A line for the log alone."""
        self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {one_line(text)}\n")
        self._noted_at = time.monotonic()

    def _shout(self, warning: str) -> None:
        self._end_line()
        print(framed(warning), file=sys.stderr, flush=True)
        self._note(f"WARNING {warning}")

    def _draw(self, line: str) -> None:
        """Put `line` in place of the live one, as much of it as the terminal is wide."""
        print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
        self._line_open = True

    def _end_line(self) -> None:
        if self._line_open:
            print(flush=True)
            self._line_open = False
