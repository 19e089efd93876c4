"""What a ledger says was spent: epochs, the seconds of the driver's lives, GPU hours; the words for it."""

from __future__ import annotations

from typing import Any

import pytest

from tune_rsst.ledger.spending import Spending, as_json, limits, of_budgets, raised, told, used_up
from tune_rsst.ledger.view import SweepView

BEGIN = {"event": "sweep_started", "name": "s", "settings": {"gpus_per_trial": 0.5}}


def line(time: float, event: str, **fields: Any) -> dict[str, Any]:
    return {"event": event, "time": time, **fields}


def suggested(time: float, trial: str) -> dict[str, Any]:
    about = {"number": int(trial[1:]), "params": {}, "distributions": {}, "knobs": {}, "fingerprint": trial}
    return line(time, "suggested", trial=trial, rounds=2, **about)


def epoch(time: float, trial: str, round_: int, number: int, **more: Any) -> dict[str, Any]:
    metrics = {"round": round_, "epoch": number, "epochs_trained": number, "seconds": 0.0, **more}
    return line(time, "reported", trial=trial, seq=0, kind="epoch", metrics=metrics)


def ended(time: float, trial: str) -> dict[str, Any]:
    return line(time, "ended", trial=trial, state="finished", reason=None, rung=None)


def placed(time: float, trial: str) -> dict[str, Any]:
    return line(time, "placed", trial=trial, host="h", node="n", epochs_there=0)


def run_of(time: float, kind: str, **fields: Any) -> dict[str, Any]:
    """A line of the second run of t0000."""
    return line(time, f"replicate_{kind}", trial="t0000-seed1", **fields)


RUN = {"of": "t0000", "seed": 1, "knobs": {"seed": 1}, "fingerprint": "f1", "rounds": 2}
RESUMED = {"versions": {}, "settings": {"gpus_per_trial": 0.5}}
LIVES: dict[str, tuple[list[dict[str, Any]], float, float]] = {
    "one life to its end": ([line(100, "measured", gpus_per_trial=1), line(160, "sweep_ended")], 60, 0),
    "killed: up to its last line": ([suggested(130, "t0000"), line(900, "resumed", **RESUMED)], 30, 0),
    "the night between two lives": (
        [line(110, "interrupted"), line(900, "resumed", **RESUMED), line(905, "interrupted")],
        15,
        0,
    ),
    "what a new driver writes before it says so": (
        [
            suggested(110, "t0000"),
            ended(900, "t0000"),
            line(901, "reopened", trial="t0000"),
            line(902, "extended", trials=3, by=1),
            line(903, "resumed", **RESUMED),
            line(904, "interrupted"),
        ],
        11,
        0,
    ),
    "a trial of two runs, with a pause between them and after": (
        [
            suggested(110, "t0000"),
            placed(110, "t0000"),
            epoch(130, "t0000", 0, 1),
            run_of(130, "suggested", **RUN),
            run_of(150, "placed", host="h", node="n", epochs_there=0),
            run_of(170, "worker_error", reason=""),
            run_of(170, "paused", reason=""),
            line(200, "interrupted"),
            run_of(900, "ended", state="finished", reason=None, rung=None),
            line(901, "resumed", **RESUMED),
            line(911, "interrupted"),
        ],
        110,
        20,
    ),
    "a clock that was set back": ([suggested(110, "t0000"), line(50, "worker_error", trial="t0000", reason="")], 10, 0),
    "and from there on forward": (
        [suggested(110, "t0000"), line(50, "worker_error", trial="t0000", reason=""), line(58, "interrupted")],
        18,
        0,
    ),
    "a trial on half a GPU": (
        [
            suggested(110, "t0000"),
            placed(120, "t0000"),
            epoch(150, "t0000", 0, 1),
            ended(150, "t0000"),
            line(170, "sweep_ended"),
        ],
        70,
        15,
    ),
    "two trials, one of which pauses": (
        [
            suggested(100, "t0000"),
            suggested(100, "t0001"),
            placed(100, "t0000"),
            placed(100, "t0001"),
            line(110, "paused", trial="t0000", reason="r"),
            line(130, "interrupted"),
        ],
        30,
        20,
    ),
    "opened again after its worker was lost": (
        [suggested(100, "t0000"), placed(100, "t0000"), placed(110, "t0000"), line(120, "interrupted")],
        20,
        10,
    ),
    "a life ends the hold of its trials": (
        [
            suggested(100, "t0000"),
            placed(100, "t0000"),
            line(110, "interrupted"),
            line(900, "resumed", **RESUMED),
            line(910, "interrupted"),
        ],
        20,
        5,
    ),
    "auto, as it was measured": (
        [
            line(100, "measured", gpus_per_trial=0.25),
            suggested(100, "t0000"),
            placed(100, "t0000"),
            line(140, "interrupted"),
        ],
        40,
        10,
    ),
}


@pytest.mark.parametrize("name", LIVES)
def test_seconds_and_gpu_seconds_of_the_lives_of_the_driver(name: str) -> None:
    events, seconds, gpu_seconds = LIVES[name]
    found = SweepView.of([{**BEGIN, "time": 100.0}, *events]).spending
    assert (found.seconds, found.gpu_seconds) == (seconds, gpu_seconds)


def test_an_epoch_counts_once_and_one_that_was_taken_over_not_at_all() -> None:
    events = [
        suggested(100, "t0000"),
        suggested(100, "t0001"),
        epoch(101, "t0000", 0, 1),
        epoch(102, "t0000", 0, 1),
        epoch(103, "t0000", 1, 1),
        epoch(104, "t0001", 0, 1, adopted_from="t0000"),
        epoch(105, "t0001", 1, 1),
    ]
    assert SweepView.of([{**BEGIN, "time": 100.0}, *events]).spending.epochs == 3


SPENT = Spending(epochs=104, seconds=200.0, gpu_seconds=5400.0)
WORDS: dict[str, tuple[dict[str, Any], str | None, list[str], list[str], str]] = {
    "no budget": ({}, None, [], [], "104 epochs, 3 min 20 s, 1.5 GPU hours"),
    "none": ({"epoch_budget": None}, None, [], [], "104 epochs, 3 min 20 s, 1.5 GPU hours"),
    "epochs left": (
        {"epoch_budget": 1105},
        None,
        [],
        ["104 of 1,105 epochs"],
        "104 of 1,105 epochs, 3 min 20 s, 1.5 GPU hours",
    ),
    "epochs spent": (
        {"epoch_budget": 104},
        "epoch_budget = 104 is spent (104 epochs)",
        ["epoch_budget=208"],
        ["104 of 104 epochs"],
        "104 of 104 epochs, 3 min 20 s, 1.5 GPU hours",
    ),
    "time spent": (
        {"time_budget_s": 60.5},
        "time_budget_s = 60.5 is spent (3 min 20 s)",
        ["time_budget_s=261"],
        ["3 min 20 s of 1 min 00 s"],
        "104 epochs, 3 min 20 s of 1 min 00 s, 1.5 GPU hours",
    ),
    "GPU hours spent": (
        {"gpu_hours_budget": 1.25},
        "gpu_hours_budget = 1.25 is spent (1.5 GPU hours)",
        ["gpu_hours_budget=2.750"],
        ["1.5 of 1.25 GPU hours"],
        "104 epochs, 3 min 20 s, 1.5 of 1.25 GPU hours",
    ),
    "two of three": (
        {"epoch_budget": 100, "time_budget_s": 100.0, "gpu_hours_budget": 2.0},
        "epoch_budget = 100 is spent (104 epochs)",
        ["epoch_budget=204", "time_budget_s=300"],
        ["104 of 100 epochs", "3 min 20 s of 1 min 40 s", "1.5 of 2 GPU hours"],
        "104 of 100 epochs, 3 min 20 s of 1 min 40 s, 1.5 of 2 GPU hours",
    ),
}


@pytest.mark.parametrize("name", WORDS)
def test_what_is_said_of_it_and_what_a_resume_may_have(name: str) -> None:
    settings, why, more, budgets, everything = WORDS[name]
    assert used_up(SPENT, settings) == why and raised(SPENT, settings) == more
    assert of_budgets(SPENT, settings) == budgets and told(SPENT, settings) == everything
    after = {**settings, **{k: float(v) for k, v in (word.split("=") for word in more)}}
    assert used_up(SPENT, after) is None and len(limits(after)) == len(budgets)


def test_a_sweep_without_a_gpu_says_nothing_of_gpus_and_its_json_has_all_the_same() -> None:
    assert told(Spending(epochs=1), {}) == "1 epoch, 0 s"
    assert as_json(SPENT, {"epoch_budget": 7}) == {
        "epochs": 104,
        "seconds": 200.0,
        "gpu_hours": 1.5,
        "epoch_budget": 7,
        "time_budget_s": None,
        "gpu_hours_budget": None,
    }
