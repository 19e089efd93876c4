"""Disturbs real sweeps from a seed for some minutes, and compares what becomes of them with an undisturbed one.

    python -m tests.chaos --seed 7 --minutes 5        # or: make chaos SEED=7 MINUTES=5

In: a seed (what happens, and in which order, follows from it; at which point of the sweep does not, as machines differ
in speed), and minutes. Out: progress; a table of the faults; one line for each thing that is wrong, and exit code 1
where there is one. What the sweeps wrote is kept then.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.chaos.lives.audit import Home, audit, audit_bucket
from tests.chaos.lives.faults import KINDS_OF
from tests.chaos.lives.forked import Forked
from tests.chaos.lives.injector import Injected, Injector
from tests.chaos.lives.services import STORAGE
from tests.chaos.lives.subject import MODES, NAME, Subject, why_not
from tests.chaos.lives.toys import BETWEEN_S, Toys
from tests.trainables import toy

TRIALS, TOYS = 8, 2  # of a sweep; so many times as many in one of toys
IN_ONE_SWEEP = {
    "kill -9 of the driver": 10,
    "kill -9 of a worker": 10,
    "a worker stopped for a while": 5,
    "kill -9 of the MLflow server": 3,
    "kill -9 of PostgreSQL": 3,
}
LAST_LIFE_S = 60.0  # what the last life and the audit of a sweep take, about


class Chaos:
    """Sweep after sweep in the folder `place`, for `minutes`."""

    def __init__(self, seed: int, minutes: float, trials: int, place: Path, modes: Sequence[str], one: bool) -> None:
        self.draw, self.trials, self.place = random.Random(f"lives {seed}"), trials, place
        self.modes, self.one = self.draw.sample(modes, len(modes)), one
        self.began, self.seconds = time.monotonic(), 60 * minutes
        self.alone: dict[type[Subject], tuple[Subject, subprocess.Popen[bytes] | None]] = {}
        self.injected: list[Injected] = []
        self.wrong: list[str] = []
        self.sweeps = self.lives = 0

    def left_s(self) -> float:
        """For faults."""
        return self.began + self.seconds - LAST_LIFE_S - time.monotonic()

    def tell(self, line: str) -> None:
        passed = time.monotonic() - self.began
        print(
            f"[{passed:4.0f} s, {len(self.injected):3} faults, {max(self.left_s(), 0):4.0f} s to go] {line}", flush=True
        )

    def run(self) -> None:
        """Disturbed sweeps, each compared with one of the same points that is left alone."""
        self.tell(f"{self.trials} trials a sweep")
        while not self.sweeps or (self.left_s() > 0 and not self.one):
            self.sweeps += 1
            mode = self.modes[(self.sweeps - 1) % len(self.modes)]
            sweep, trials = (Toys, TOYS * self.trials) if mode == "toys" else (Subject, self.trials)
            alone = self._left_alone(sweep, trials)
            with sweep.of_mode(mode, self.place / f"sweep-{self.sweeps}", trials) as subject:
                self.tell(f"sweep {self.sweeps}, {mode}")
                injector = Injector(subject, self.draw, self.left_s, self.tell, KINDS_OF[mode], injected=self.injected)
                if isinstance(subject, Toys):
                    injector.between_s = BETWEEN_S
                if self.one:
                    injector.just(IN_ONE_SWEEP)
                injector.run()
                found = self._differences(subject, alone, injector)
            self.lives += injector.lives
            self.wrong += [f"sweep {self.sweeps}, {mode}: {line}" for line in [*injector.wrong, *found]]
            self.tell(f"sweep {self.sweeps} after {injector.lives} lives: {len(found)} differences")

    def _left_alone(self, sweep: type[Subject], trials: int) -> Subject:
        """The sweep that is compared with, trained to its end, or, of the real one, beside the first of its kind."""
        if sweep not in self.alone:
            alone = sweep.below(self.place / f"alone-{sweep.__name__}", trials)
            self.alone[sweep] = alone, None if isinstance(alone, Toys) else alone.start_undisturbed(alone.place / "log")
            if isinstance(alone, Toys):
                alone.finish()
        return self.alone[sweep][0]

    def _differences(self, subject: Subject, alone: Subject, injector: Injector) -> list[str]:
        _, process = self.alone[type(subject)]
        if process is not None and (code := process.wait()) != 0:
            raise SystemExit(f"the undisturbed sweep ended with exit code {code}: see {alone.place / 'log'}")
        if isinstance(subject, Toys):
            subject.finish()
        used, usual = subject.services, {path.name for path in alone.temporary.iterdir()}
        here = Home(subject.home, NAME, *((used.records, used.study) if used else ()))
        drawn = not isinstance(subject, Toys)
        found = audit(here, Home(alone.home, NAME), damaged=injector.damaged, drawn=drawn)
        if used is not None:
            found += self._audit_bucket(subject, here)
        return found + [f"left over: {path}" for path in subject.temporary.iterdir() if path.name not in usual]

    @staticmethod
    def _audit_bucket(subject: Subject, here: Home) -> list[str]:
        """In a fork of its own: of a process that has used a bucket there are no more forks that can."""
        said = subject.place / "bucket.json"

        def look() -> int:
            said.write_text(json.dumps(audit_bucket(STORAGE, here, subject.place / "brought")), encoding="utf-8")
            return 0

        log = subject.place / "bucket.log"
        if Forked(look, subject.environment, log).wait(LAST_LIFE_S) != 0:
            return [f"the bucket could not be looked at: see {log}"]
        found: list[str] = json.loads(said.read_text(encoding="utf-8"))
        return found

    def table(self) -> str:
        """Faults by kind and outcome."""
        counts = Counter((one.kind, one.outcome) for one in self.injected)
        lines = [f"| {kind} | {count} | {outcome} |" for (kind, outcome), count in sorted(counts.items())]
        return "\n".join(["| fault | times | what became of it |", "|---|---|---|", *lines])

    def to_json(self, seed: int) -> dict[str, Any]:
        seconds = round(time.monotonic() - self.began, 1)
        faults = [one._asdict() for one in self.injected]
        return {
            "seed": seed, "seconds": seconds, "sweeps": self.sweeps, "lives": self.lives, "faults": faults,
            "wrong": self.wrong,
        }  # fmt: skip


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--modes", default="plain", help=f"of {', '.join(MODES)}; each sweep has the next; or: all")
    parser.add_argument("--one-sweep", action="store_true", help="one with services, and so many faults: IN_ONE_SWEEP")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    given = parser.parse_args()
    modes = list(MODES) if given.modes == "all" else given.modes.split(",")
    modes = ["services"] if given.one_sweep else modes
    if unknown := set(modes) - set(MODES):
        parser.error(f"modes = {', '.join(sorted(unknown))}: valid is {', '.join(MODES)} or all")
    for mode in [one for one in modes if why_not(one)]:
        print(f"No sweeps of the mode {mode}: {why_not(mode)}")
    if not (modes := [one for one in modes if not why_not(one)]):
        return 0
    if "toys" in modes:
        toy.install()
        torch.set_num_threads(1)
    place = Path(tempfile.mkdtemp(prefix="chaos-"))
    chaos = Chaos(given.seed, given.minutes, given.trials, place, modes, given.one_sweep)
    chaos.run()
    print(chaos.table())
    for line in chaos.wrong:
        print(f"WRONG {line}")
    passed = time.monotonic() - chaos.began
    print(
        f"seed {given.seed}: {len(chaos.injected)} faults in {chaos.lives} lives of {chaos.sweeps} sweeps, "
        f"{passed:.0f} s; {len(chaos.wrong)} wrong"
    )
    if given.json:
        given.json.write_text(json.dumps(chaos.to_json(given.seed), indent=1) + "\n", encoding="utf-8")
    if chaos.wrong:
        print(f"What they wrote is in {place}")
    else:
        shutil.rmtree(place)
    return 1 if chaos.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
