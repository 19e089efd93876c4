"""When a trial hangs: the rule as a table; slow trials that do not, and stopped ones that do, by a test's clock."""

from __future__ import annotations

import random
from collections.abc import Iterator
from statistics import median
from typing import Any

import pytest

from tune_rsst.ledger.view import TrialView
from tune_rsst.runners.silence import LONGEST_STEP_S, Silence, limit_s, own_rounds_s

LIMITS: dict[str, tuple[tuple[Any, ...], float | None]] = {
    "before the first round": ((60, 600, [], True), 600),
    "before the first round, while it is opened": ((60, 600, [], False), 600),
    "short rounds": ((60, 600, [3, 3, 4], True), 60),
    "long rounds": ((60, 600, [100, 20, 30], True), 150),
    "the median of two": ((60, 600, [20, 40], True), 150),
    "one round": ((60, 600, [100], True), 500),
    "opened again after short rounds": ((60, 600, [3], False), 600),
    "opened again after long rounds": ((60, 600, [1000], False), 5000),
    "the first limit is never below the other": ((60, 10, [3], False), 60),
    "the first limit alone": ((60, 10, [], True), 10),
    "never": ((None, 600, [3], True), None),
    "never, before the first round": ((None, 600, [], True), None),
    "no limit before the first round": ((60, None, [], True), None),
    "no limit while it is opened": ((60, None, [3], False), None),
    "no first limit, after a round": ((60, None, [3], True), 60),
}


@pytest.mark.parametrize("name", LIMITS)
def test_for_how_long_a_trial_may_say_nothing(name: str) -> None:
    (hung_after_s, hung_first_round_s, rounds, spoke), expected = LIMITS[name]
    assert limit_s(hung_after_s, hung_first_round_s, rounds, spoke=spoke) == expected


def trial(*seconds: float, adopted: bool = False) -> TrialView:
    found = TrialView("t0000", 0, {}, {}, {}, "f", 9, adopted=adopted)
    found.round_events = [{"round": n, "seconds": s} for n, s in enumerate(seconds)]
    return found


def test_a_dense_round_that_was_taken_over_is_no_round() -> None:
    assert own_rounds_s(trial(50.0, 40.0)) == [50.0, 40.0]
    assert own_rounds_s(trial(0.0, 40.0, adopted=True)) == [40.0] and own_rounds_s(trial(0.0, adopted=True)) == []


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_results_and_new_signs_end_a_silence_and_old_signs_do_not() -> None:
    clock = Clock()
    silence = Silence(clock)

    def after(seconds: float, attempt: str = "a") -> tuple[float, bool, bytes | None]:
        for _ in range(round(seconds)):
            clock.now += 1.0
            silence.passes({"t0000": attempt})
        return silence.of("t0000")

    assert after(3) == (3.0, False, None)
    silence.saw("t0000", None)
    assert after(1) == (4.0, False, None)
    silence.saw("t0000", b"10 of 100")
    assert after(2) == (2.0, False, b"10 of 100")
    silence.saw("t0000", b"10 of 100")
    assert after(2) == (4.0, False, b"10 of 100")
    silence.heard("t0000")
    assert after(2) == (2.0, True, b"10 of 100")
    silence.saw("t0000", b"11 of 100")
    assert after(1) == (1.0, True, b"11 of 100")
    assert after(1, attempt="b") == (1.0, False, None), "another process: it has to open the trial first"
    silence.heard("t0001")  # one that does not run


def test_a_pause_of_the_driver_is_no_silence_of_its_trials() -> None:
    clock = Clock()
    silence = Silence(clock)
    silence.passes({"t0000": "a"})
    for jump in (10_000.0, -500.0, 1.0):
        clock.now += jump
        silence.passes({"t0000": "a"})
    assert silence.of("t0000")[0] == LONGEST_STEP_S + 1.0


# --- slow runs -------------------------------------------------------------------------------------------------------

SLOWER = 4.0
KEPT_EVERY_S = 2.0  # a worker's sign while it works at something long (trainables/progress.py)
Heard = tuple[float, str, Any]


def slow_run(rng: random.Random) -> Iterator[Heard]:
    """(seconds after the one before, what, which) of a trial: everything takes four times as long as usual.

    It starts (a process, torch: nothing is heard), reads images (a sign every so often), waits for a dense round, or
    trains, saves and reports; steps between two signs are up to 5 s long where a machine is not slow.
    """
    epochs, rounds = rng.randint(1, 4), rng.randint(2, 6)
    step_s, steps = rng.choice([(0.01, 40), (0.5, 60), (5.0, 12)]), rng.random()
    sign = 0

    def working(seconds: float, least: float) -> Iterator[Heard]:
        nonlocal sign
        while seconds > 0:
            each = max(KEPT_EVERY_S * rng.uniform(1, SLOWER), least)
            yield min(seconds, each), "sign", sign
            seconds, sign = seconds - each, sign + 1

    yield SLOWER * rng.uniform(5, 40), "result", "start"
    yield from working(SLOWER * rng.uniform(0, 300), 0.0)
    adopts = steps < 0.3
    for number in range(rounds):
        took = 0.0
        for _ in range(epochs):
            if adopts and number == 0:
                yield from working(SLOWER * rng.uniform(0, 200), 0.0)
                yield 0.1, "result", "epoch"
                continue
            seconds = SLOWER * step_s[0] * step_s[1]
            took += seconds
            yield from working(seconds, SLOWER * step_s[0])
            yield SLOWER * rng.uniform(0, 3), "result", "epoch"
        yield from working(SLOWER * rng.uniform(0, 20), 0.0)
        yield SLOWER * rng.uniform(0, 8), "round", 0.0 if adopts and number == 0 else took


def played(run: Iterator[Heard], stop_at: float | None = None) -> tuple[float | None, float, float]:
    """When the trial was called hung (None: never), when it was stopped, and the longest limit that it had."""
    clock = Clock()
    silence, rounds = Silence(clock), list[float]()
    longest, stopped = 0.0, 0.0
    silence.passes({"t0000": "a"})

    def passes(seconds: float) -> float | None:
        nonlocal longest
        until = clock.now + seconds
        while clock.now < until:
            clock.now = min(until, clock.now + 1.0)
            silence.passes({"t0000": "a"})
            silent_s, spoke, _ = silence.of("t0000")
            limit = limit_s(60.0, 600.0, rounds, spoke=spoke)
            longest = limit or 0.0
            if limit is not None and silent_s >= limit:
                return clock.now
        return None

    for seconds, what, which in run:
        if stop_at is not None and clock.now >= stop_at:
            stopped = clock.now
            return passes(100_000.0), stopped, longest
        if (hung := passes(seconds)) is not None:
            return hung, stopped, longest
        if what == "sign":
            silence.saw("t0000", str(which).encode())
        else:
            silence.heard("t0000")
        if what == "round" and which:
            rounds.append(which)
    return None, stopped, longest


def test_a_hundred_runs_four_times_as_slow_as_usual_are_left_alone() -> None:
    ended = {seed: played(slow_run(random.Random(seed)))[0] for seed in range(100)}
    assert {seed: at for seed, at in ended.items() if at is not None} == {}


def test_each_of_a_hundred_that_is_stopped_somewhere_is_noticed_at_its_limit() -> None:
    late = list[float]()
    for seed in range(100):
        whole = sum(seconds for seconds, _, _ in slow_run(random.Random(seed)))
        at = random.Random(-seed).uniform(0.0, 0.95) * whole
        hung, stopped, limit = played(slow_run(random.Random(seed)), stop_at=at)
        assert hung is not None and limit > 0, seed
        late.append((hung - stopped) / limit)
    assert max(late) <= 1.05 and median(late) > 0.5
