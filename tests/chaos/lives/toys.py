"""A sweep of toys, one forked process a life and without Ray: begins in a second, so that many faults take minutes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos.lives.forked import Forked
from tests.chaos.lives.subject import NAME, Subject
from tune_rsst.conduct import run
from tune_rsst.planning.begin import make_plan
from tune_rsst.planning.plan import Finished
from tune_rsst.planning.repair import find, repair
from tune_rsst.results.table import make_console
from tune_rsst.runners import serial
from tune_rsst.settings.written import written_in

BETWEEN_S = (0.05, 1.0)
LIMIT_S = 120.0


class Toys(Subject):
    """The sweep of toys. The toy is to be installed (tests/trainables/toy.py)."""

    @property
    def words(self) -> list[str]:
        """Settings of the sweep."""
        return [*super().words, "arch=vit_toy", "epochs=1"]

    def start(self, log: Path, *words: str) -> Any:
        """A life, or what `words` say."""
        return Forked(partial(self._life, words), self.environment, log)

    def ask(self, log: Path, *words: str) -> Any:
        """As `start`."""
        return self.start(log, *words)

    def trains(self) -> bool:
        """Whether it is about to train, or has."""
        return self.folder.trials.exists()

    def finish(self) -> None:
        """To its end, and once more: a sweep that has ended writes its best model, which its lives leave out."""
        for _ in range(2):
            code = self.start(self.place / "log").wait(LIMIT_S)
            assert code == 0, (self.place / "log").read_text(encoding="utf-8")[-500:]

    def _life(self, words: tuple[str, ...]) -> int:
        if words[:1] == ("repair",):
            print("\n".join(repair(find(NAME), dry_run=False).said()))
            return 0
        plan = make_plan(written_in([*self.words, "resume=auto"]), None, False)
        if "--dry-run" in words:
            return 0
        runner = None if isinstance(plan, Finished) else partial(serial.run, folder=plan.folder)
        return run(plan, make_console(), runner, models=False)
