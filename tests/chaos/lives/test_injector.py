"""Lives of a sweep of toys, one process each and without Ray, disturbed from a seed: a bounded part of `make chaos`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.chaos.lives.audit import Home, audit
from tests.chaos.lives.faults import KINDS
from tests.chaos.lives.forked import Forked
from tests.chaos.lives.injector import Injected, Injector
from tests.chaos.lives.subject import NAME, Subject
from tests.trainables import toy
from tune_rsst.conduct import run
from tune_rsst.planning.begin import make_plan
from tune_rsst.planning.plan import Finished
from tune_rsst.planning.repair import find, repair
from tune_rsst.results.table import make_console
from tune_rsst.runners import serial
from tune_rsst.settings.written import written_in

FAULTS = 6
OF_ONE_PROCESS = {
    name: kind for name, kind in KINDS.items() if kind.role == "driver" or (kind.pattern and name != "damaged settings")
}


class Toys(Subject):
    """The sweep of toys."""

    @property
    def words(self) -> list[str]:
        return [*super().words, "arch=vit_toy", "epochs=1"]

    def start(self, log: Path, *words: str) -> Any:
        return Forked(partial(self._life, words), self.environment, log)

    def ask(self, log: Path, *words: str) -> Any:
        return self.start(log, *words)

    def trains(self) -> bool:
        return self.folder.trials.exists()

    def _life(self, words: tuple[str, ...]) -> int:
        if words[:1] == ("repair",):
            print("\n".join(repair(find(NAME), dry_run=False).said()))
            return 0
        plan = make_plan(written_in([*self.words, "resume=auto"]), None, False)
        if "--dry-run" in words:
            return 0
        runner = None if isinstance(plan, Finished) else partial(serial.run, folder=plan.folder)
        return run(plan, make_console(), runner, models=False)


@pytest.fixture(scope="module", autouse=True)
def toys() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with toy.installed():
        yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_sweep_that_is_killed_interrupted_and_damaged_ends_as_one_that_is_left_alone(tmp_path: Path) -> None:
    alone, subject = Toys.below(tmp_path / "alone", 6), Toys.below(tmp_path / "disturbed", 6)
    faults: list[Injected] = []
    injector = Injector(
        subject,
        random.Random(17),
        lambda: 60.0 if len(faults) < FAULTS else 0.0,
        print,
        OF_ONE_PROCESS,
        faults,
        between_s=(0.05, 1.0),
    )
    injector.run()
    for one in (alone, alone, subject):  # a sweep that has ended writes its best model
        assert one.start(one.home.parent / "log").wait(120) == 0
    found = audit(Home(subject.home, NAME), Home(alone.home, NAME), damaged=injector.damaged, drawn=False)
    assert injector.wrong + found == [] and faults, faults
