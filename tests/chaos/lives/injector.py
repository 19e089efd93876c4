"""Lives of one sweep: each is `tune-rsst sweep … resume=auto`, disturbed at random moments, until the sweep has ended.

In: a seed, the sweep, until when. Out: every fault with what became of it; lines that tell what went wrong. After them
the last life is left alone.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.chaos.lives.faults import KINDS, Kind, damage, deck, send
from tests.chaos.lives.subject import Subject
from tune_rsst.ledger.file import LedgerError, read
from tune_rsst.ledger.view import SweepView

PATIENCE_S, GONE_S = 10.0, 10.0
LAST_S = 200.0  # from the end of the time for faults: a life that has not ended then hangs, or is too slow
MOST_WORKERS = 2  # kills of workers in one life: Tune gives a trial up at the third without a report between
AT_REST = (0, 3)
AT_ITS_START = 0.3  # share of lives whose first fault may come before trials run
EARLY_S, BETWEEN_S, LOOK_S = (0.5, 25.0), (0.3, 4.0), 0.3


class Injected(NamedTuple):
    """One fault. `outcome`: it went on, resumed, came back exactly, was repaired; or `wrong`."""

    kind: str
    what: str
    outcome: str


@dataclass
class Injector:
    """Disturbs one sweep. `left_s` says how long there may be faults; `tell` gets progress lines."""

    subject: Subject
    draw: random.Random
    left_s: Callable[[], float]
    tell: Callable[[str], None]
    kinds: dict[str, Kind] = field(default_factory=lambda: KINDS)
    injected: list[Injected] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lives: int = 0
    between_s: tuple[float, float] = BETWEEN_S
    """From one fault of a life to the next one."""
    damaged: set[str] = field(default_factory=set)
    """Names of the stores in which a checkpoint was, so that rounds may be trained again."""
    _decks: dict[bool, list[str]] = field(default_factory=lambda: {False: [], True: []})
    """What is to happen next: to processes, to files."""

    def just(self, times: Mapping[str, int]) -> None:
        """These faults, each so often, in a random order, and no others."""
        names = [name for name, count in times.items() for _ in range(count)]
        self.kinds = {name: self.kinds[name] for name in times}
        self._decks[False] = self.draw.sample(names, len(names))
        until_s = self.left_s
        self.left_s = lambda: until_s() if self._decks[False] else 0.0

    def run(self) -> None:
        """Lives until the sweep has ended or the time is over, then one that is left alone."""
        while self.left_s() > 0 and not self._over():
            self._live()
            self._between()
        self.tell("the last life is left alone")
        if self.subject.services is not None:
            self.subject.services.wait()
        code, log = self._life(lambda process: None)
        if code != 0:
            self.wrong.append(f"the last life ended with exit code {code}: {_end(log)}")
        self.wrong += self.left_behind()

    def _over(self) -> bool:
        """Whether the sweep has come to its end."""
        with suppress(LedgerError, ValueError, OSError):
            return SweepView.of(read(self.subject.folder.ledger)).ended
        return False

    def _next(self, of_files: bool) -> str:
        """The next kind for files, or for processes."""
        if not self._decks[of_files]:
            kinds = {name: kind for name, kind in self.kinds.items() if bool(kind.pattern) == of_files}
            self._decks[of_files] = deck(self.draw, kinds)
        return self._decks[of_files].pop(0)

    def _put_off(self, name: str) -> None:
        """There was nothing to do it to: a later life has its turn, after all that is due."""
        self._decks[bool(self.kinds[name].pattern)].append(name)

    def _live(self) -> None:
        """One life with its faults; what it ended with is compared with what its last fault may end it with."""
        kinds = list[str]()
        code, log = self._life(lambda process: self._disturb(process, kinds))
        last = self.kinds[kinds[-1]] if kinds else Kind()
        ended = f"life {self.lives} ended with exit code {code}"
        may = [code for kind in kinds for code in self.kinds[kind].may_end]
        if code not in (*AT_REST, *last.ends, *may):
            self.wrong.append(f"{ended} after {kinds[-1] if kinds else 'no fault'}: {_end(log)}")
        text = log.read_text(encoding="utf-8", errors="replace")
        if "Traceback (most recent call last)" in text:
            self.wrong.append(f"{ended} with a traceback after {', '.join(kinds)}: see {log.name}")
        self.tell(f"{ended} after {', '.join(kinds) or 'no fault'}; {self._progress()}")

    def _progress(self) -> str:
        with suppress(LedgerError, ValueError, OSError):
            view = SweepView.of(read(self.subject.folder.ledger))
            return (
                f"{sum(not one.unfinished for one in view.trials.values())} of {self.subject.trials} trials have ended"
            )
        return "its ledger can't be read now"

    def _life(self, disturb: Callable[[subprocess.Popen[bytes]], None]) -> tuple[int, Path]:
        """Start it, disturb it, wait for its end. Its exit code and what it printed."""
        self.lives += 1
        log = self.subject.place / f"life-{self.lives:02d}.log"
        process = self.subject.start(log)
        try:
            disturb(process)
            code = process.wait(max(10.0, self.left_s() + LAST_S))
        except subprocess.TimeoutExpired:
            self.wrong.append(
                f"life {self.lives} had not ended {LAST_S:.0f} s after the last moment for a fault: {_end(log)}"
            )
            process.kill()
            code = process.wait(30)
        return code, log

    def _disturb(self, process: subprocess.Popen[bytes], kinds: list[str]) -> None:
        """One fault after the other, until one ends the life, it ends by itself, or the time is over."""
        wait_s, killed = self.draw.uniform(*EARLY_S), 0
        if self.draw.random() > AT_ITS_START:
            while self.left_s() > 0 and not self.subject.trains() and not _ended(process, LOOK_S):
                pass
            wait_s = self.draw.uniform(*self.between_s)
        while self.left_s() > wait_s and not _ended(process, wait_s):
            wait_s, name = self.draw.uniform(*self.between_s), self._next(of_files=False)
            kind = self.kinds[name]
            if name == "kill -9 of a worker":
                if killed == MOST_WORKERS:
                    self._put_off(name)
                    continue
                killed += 1
            patience_s = min(PATIENCE_S, max(self.left_s(), 0.0))
            if (what := send(self.draw, self.subject, process.pid, kind, patience_s)) is None:
                self._put_off(name)
                continue
            kinds.append(name)
            self.injected.append(Injected(name, what, "resumed" if kind.ends else "went on"))
            self.tell(f"  {name}: {what}")
            if kind.ends:
                return

    def _between(self) -> None:
        """Files are damaged while nobody runs the sweep; what the product advises then is done."""
        for left in self._wait_until_gone() if not self._over() else ():
            self.wrong.append(f"life {self.lives} left {_named(left)} for more than {GONE_S:.0f} s")
        for _ in range(self.draw.choice((1, 1, 2))):
            if self._over() or self.left_s() <= 0 or not any(kind.pattern for kind in self.kinds.values()):
                return
            name = self._next(of_files=True)
            if (what := damage(self.draw, self.subject, self.kinds[name])) is None:
                self._put_off(name)
                return
            if self.kinds[name].pattern.startswith("trials"):
                self.damaged.add(Path(what).parts[1])
            self.tell(f"  {name}: {what}")
            self.injected.append(Injected(name, what, self._repaired()))

    def _repaired(self) -> str:
        """ "exact" where the sweep can go on as it is, "repaired" where `tune-rsst repair` was needed and worked."""
        shown = self.subject.place / "show.log"
        shown.unlink(missing_ok=True)
        if self.subject.ask(shown, "sweep", *self.subject.words, "resume=auto", "--dry-run").wait(120) == 0:
            return "exact"
        line = _end(shown)
        if "repair" not in line:
            self.wrong.append(f"what to do was not said: {line}")
            return "refused"
        code = self.subject.ask(shown, "repair", self.subject.folder.name).wait(120)
        if code != 0:
            self.wrong.append(f"`tune-rsst repair` ended with exit code {code}: {_end(shown)}")
        return "repaired"

    def _wait_until_gone(self) -> list[psutil.Process]:
        """Wait for the processes of the last life; those that stay."""
        deadline = time.monotonic() + GONE_S
        while (there := list(self.subject.processes())) and time.monotonic() < deadline:
            time.sleep(0.2)
        return there

    def left_behind(self) -> Iterator[str]:
        """Processes that have outlived the sweep, which are ended here; temporary files."""
        for process in self._wait_until_gone():
            yield f"left over: {_named(process)}"
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _named(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return f"process {process.pid}, {' '.join(process.cmdline())[:120]}"
    return f"process {process.pid}"


def _ended(process: subprocess.Popen[bytes], within_s: float) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(within_s)
        return True
    return False


def _end(log: Path) -> str:
    """The last line of what a process printed."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "(nothing)"
