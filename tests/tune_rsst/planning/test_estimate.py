"""`--dry-run` and auto resources, by hand on small plans; the measured step is a stand-in, once it is real."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.measure import Measured
from tune_rsst.planning import estimate
from tune_rsst.planning.begin import make_plan
from tune_rsst.planning.plan import Plan
from tune_rsst.runners import resources
from tune_rsst.settings import written
from tune_rsst.storage import home

STEP = Measured("cpu", train_s=1e-3, train_small_s=1e-3, eval_s=0.0, peak_mib=400.0)
GIB = 2**30


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def planned(*words: str) -> Plan:
    return make_plan(written.given(None, words), None, False)


def test_epochs_and_time_of_a_plan_by_hand() -> None:
    """10 trials × 3 rounds × 2 epochs × 1,259 images at 1 ms and 1 % for latency, 2 at a time."""
    plan = planned("trials=10", "rate=0.5", "epochs=2", "warmup=0", "stopping=none", "max_concurrent_trials=2")
    found = estimate.estimate(plan, lambda *_: STEP)
    assert (found.trials, found.rounds, found.epochs_most, found.epochs_expected) == (10, (3, 3), 60, 60)
    assert found.seconds_most == pytest.approx(1.01 * 60 * 1.259) and found.at_once == 2
    text = "\n".join(estimate.lines(plan, found))
    assert (
        f"10, 3 rounds each (as in {len(plan.draws)} random draws)" in text
        and "38 s at most, about 38 s expected, 2 trials at once" in text
    )
    assert not home.home().exists(), "a dry run writes nothing"


def test_in_all_are_start_and_end_the_trials_and_what_confirms_them() -> None:
    """4 starts of 3 s; 10 trials of 7.63 s, 2 at a time, a quarter of one alone; 4 runs that confirm, 2 at a time."""
    words = ("trials=10", "rate=0.5", "epochs=2", "warmup=0", "stopping=none", "max_concurrent_trials=2")
    plan = planned(*words, "target_density=0.25", "confirm=2", "confirm_seeds=2")
    found = estimate.estimate(plan, lambda *_: replace(STEP, start_s=3.0))
    each = found.seconds_most / 10
    assert each == pytest.approx(1.01 * 6 * 1.259) and found.confirm_s == pytest.approx(2 * each)
    assert found.wall_s == pytest.approx(4 * 3.0 + (5 + 0.25 + 2) * each)
    assert "  in all          about 1 min 07 s from the command to the prompt" in "\n".join(estimate.lines(plan, found))
    three = replace(found, confirming=3)
    assert three.confirm_s == found.confirm_s, "the last one runs alone"


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["max_concurrent_trials=1"], [1]),
        ([], [2]),
        (["max_concurrent_trials=20"], [2]),
        (["cpus_per_trial=auto"], [1, 2]),
        (["trials=1"], [1]),
    ],
)
def test_a_step_is_measured_beside_as_many_as_run_here_at_once(
    words: list[str], asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    seen: list[int] = []

    def measure(_: RSSTConfig, at_once: int) -> Measured:
        seen.append(at_once)
        return STEP

    found = estimate.estimate(planned("epochs=2", "warmup=0", *words), measure)
    assert seen == asked
    assert found.at_once == asked[-1], "no more than have room, whatever the user says"


def test_early_stopping_takes_off_what_its_rungs_take_off() -> None:
    words = ["trials=40", "rate=0.3", "epochs=2", "warmup=0"]
    whole = estimate.estimate(planned(*words, "stopping=none"), lambda *_: STEP)
    halved = estimate.estimate(planned(*words), lambda *_: STEP)
    harder = estimate.estimate(planned(*words, "reduction_factor=4"), lambda *_: STEP)
    assert harder.epochs_expected < halved.epochs_expected < whole.epochs_expected == whole.epochs_most
    assert halved.epochs_most == whole.epochs_most
    least = 40 * 2 * 2  # no trial ends before its first rung, after two rounds
    assert halved.epochs_expected > least


def test_rounds_of_a_smaller_model_cost_less() -> None:
    words = ["trials=4", "rate=0.5", "epochs=2", "warmup=0", "stopping=none"]
    flat = estimate.estimate(planned(*words), lambda *_: STEP).seconds_most
    falling = estimate.estimate(planned(*words), lambda *_: replace(STEP, train_small_s=4e-4)).seconds_most
    assert 0.5 * flat < falling < flat


@pytest.mark.parametrize(
    ("peak_mib", "device_mib", "cpus", "share"),
    [(1000, 80_000, 64, 0.0212), (1000, 80_000, 8, 0.125), (11_000, 24_000, 8, 1.0), (9_000, 24_000, 8, 0.5)],
)
def test_the_share_of_a_gpu_is_what_fits(peak_mib: float, device_mib: float, cpus: int, share: float) -> None:
    found = resources.gpu_share(peak_mib, device_mib, cpus)
    assert found == share and round(1 / found) * (peak_mib * 1.1 + 600) <= max(device_mib, peak_mib * 1.1 + 600)


def test_a_trial_that_is_larger_than_the_gpu_has_it_alone() -> None:
    assert resources.gpu_share(30_000, 24_000, 8) == 1.0


def test_auto_needs_more_cpus_where_memory_is_what_is_short() -> None:
    """440 MiB a trial with the spare: 4 GiB hold 9 trials, 1 GiB holds 2."""
    roomy, tight = {"CPU": 8.0, "memory": 4.0 * GIB}, {"CPU": 8.0, "memory": 1.0 * GIB}
    assert resources.resolve("auto", 0.0, STEP, 1, roomy) == (1.0, 0.0)
    assert resources.resolve("auto", 0.0, STEP, 1, tight) == (4.0, 0.0)
    assert resources.resolve("auto", "auto", STEP, 2, roomy) == (2.0, 0.0), "no GPU, no share of one"
    assert resources.resolve(0.5, 0.25, STEP, 2, roomy) == (0.5, 0.25), "numbers stay as they are"


def test_auto_shares_a_gpu_among_as_many_trials_as_the_cpus_feed() -> None:
    gpu = replace(STEP, device="cuda", gpu_mib=2000.0, gpu_total_mib=80_000.0)
    assert resources.resolve(1.0, "auto", gpu, 1, {"CPU": 16.0, "GPU": 1.0}) == (1.0, 0.0625)
    assert resources.resolve(1.0, "auto", gpu, 1, {"CPU": 16.0, "GPU": 4.0}) == (1.0, 0.25)


def test_auto_is_a_value_of_the_two_settings_alone() -> None:
    assert planned("gpus_per_trial=auto", "cpus_per_trial=auto").settings.gpus_per_trial == "auto"
    for word in ("cpus_per_trial=0", "cpus_per_trial=much", "gpus_per_trial=-1"):
        with pytest.raises(ConfigError, match=word.partition("=")[0]):
            planned(word)
