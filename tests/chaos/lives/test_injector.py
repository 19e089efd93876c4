"""Lives of a sweep of toys, one process each and without Ray, disturbed from a seed: a bounded part of `make chaos`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.chaos.lives.audit import Home, audit
from tests.chaos.lives.faults import KINDS_OF
from tests.chaos.lives.injector import Injected, Injector
from tests.chaos.lives.subject import NAME
from tests.chaos.lives.toys import BETWEEN_S, Toys
from tests.trainables import toy

FAULTS = 6


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
        KINDS_OF["toys"],
        faults,
        between_s=BETWEEN_S,
    )
    injector.run()
    for one in (alone, subject):
        one.finish()
    found = audit(Home(subject.home, NAME), Home(alone.home, NAME), damaged=injector.damaged, drawn=False)
    assert injector.wrong + found == [] and faults, faults
