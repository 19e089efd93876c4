"""Equal trials have equal fingerprints and equal bits, unequal ones neither: a pair of each for every condition."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainables import toy
from trainables.rsst.config import KNOBS, ConfigError, RSSTConfig, decisions, overlaid
from trainables.rsst.config.schedule import effective_rate
from trainables.rsst.data.load import ImageData
from trainables.rsst.state import TrialState

pytestmark = pytest.mark.usefixtures("toy")

ONE = {"pruning_times": 1}
TWO = {"pruning_times": 2, "epochs": 2}
REFILL = {"pruning_times": 2, "struct": "refill"}
FLAT = {"pruning_times": 2, "reg_granularity_prune": 0.0}
TARGET = {"target_density": 0.3}

# what both have, and the two sides: trained twice, every weight and every number is the same
SAME: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "exponents under another ramp": ({"RST_schedule": "x"}, {"exponents": 2}, {"exponents": 3}),
    "exponents under exp_custom": ({"RST_schedule": "exp_custom"}, {"exponents": 2}, {"exponents": 0.5}),
    "exponents = 1 is the ramp exp_custom": (
        {},
        {"RST_schedule": "exp_custom_exponents", "exponents": 1},
        {"RST_schedule": "exp_custom", "exponents": 2},
    ),
    "the same under l2": (
        {"penalty_form": "l2"},
        {"RST_schedule": "exp_custom_exponents", "exponents": 1},
        {"RST_schedule": "exp_custom"},
    ),
    "g under refill": (REFILL, {"reg_granularity_prune": 0.3}, {"reg_granularity_prune": 1.0}),
    "ramp under refill": (REFILL, {"RST_schedule": "x"}, {"RST_schedule": "exp"}),
    "exponents under refill": (REFILL, {"exponents": 2}, {"exponents": 3}),
    "penalty_form under refill": (REFILL, {"penalty_form": "normalized"}, {"penalty_form": "l2"}),
    "ramp at g = 0": (FLAT, {"RST_schedule": "x"}, {"RST_schedule": "exp"}),
    "exponents at g = 0": (FLAT, {"exponents": 2}, {"exponents": 3}),
    "penalty_form at g = 0": (FLAT, {"penalty_form": "normalized"}, {"penalty_form": "l2"}),
    "split_seed as the seed is": ({"seed": 3}, {"split_seed": 3}, {"split_seed": None}),
    "g = -0": ({}, {"reg_granularity_prune": 0.0}, {"reg_granularity_prune": -0.0}),
    "calibration_images under magnitude": (
        {"criteria": "magnitude"},
        {"calibration_images": 8},
        {"calibration_images": 64},
    ),
    "calibration_images under remain": ({"criteria": "remain"}, {"calibration_images": 8}, {"calibration_images": 64}),
    "lr_schedule when all is warm-up": (
        {"epochs": 2, "warmup": 2},
        {"lr_schedule": "cosine"},
        {"lr_schedule": "multistep"},
    ),
    "rewind to the last epoch, two rounds": (TWO, {"rewind": "epoch:2"}, {"rewind": "none"}),
    "rewind in another spelling": (TWO, {"rewind": "epoch:1"}, {"rewind": "epoch:01"}),
    "patch_embed from scratch": ({}, {"patch_embed": "resample"}, {"patch_embed": "reinit"}),
    "weights_digest from scratch": ({}, {"weights_digest": None}, {"weights_digest": "0" * 16}),
    "two rates with as many prunings": (TARGET, {"rate": 0.3}, {"rate": 0.32}),
    "the rate of remain with a target": (TARGET | {"criteria": "remain"}, {"rate": 0.3}, {"rate": 0.32}),
    "prunings, or a rate that means them": (TARGET, {"rate": 0.3}, {"prunings": 4}),
    "prunings, or pruning_times": ({}, {"prunings": 1, "pruning_times": 2}, {"pruning_times": 2}),
    "pruning_times with a target": (TARGET, {"pruning_times": 5}, {"prunings": 4}),
    "one round: criteria": (ONE, {"criteria": "l1"}, {"criteria": "saliency"}),
    "one round: calibration_images": (ONE, {"calibration_images": 8}, {"calibration_images": 64}),
    "one round: scope": (ONE, {"scope": "layer"}, {"scope": "global"}),
    "one round: rate": (ONE, {"rate": 0.3}, {"rate": 0.5}),
    "one round: rewind": (ONE, {"rewind": "init"}, {"rewind": "none"}),
    "one round: rewind to an epoch": (ONE, {"rewind": "init"}, {"rewind": "epoch:1"}),
    "one round: struct": (ONE, {"struct": "rsst"}, {"struct": "refill"}),
    "one round: granularity": (ONE, {"granularity": "both"}, {"granularity": "head"}),
    "one round: single weights": (ONE, {"granularity": "both"}, {"granularity": "element"}),
    "one round: g": (ONE, {"reg_granularity_prune": 0.3}, {"reg_granularity_prune": 1.0}),
    "one round: ramp": (ONE, {"RST_schedule": "x"}, {"RST_schedule": "exp"}),
    "one round: exponents": (ONE, {"exponents": 2}, {"exponents": 3}),
    "one round: penalty_form": (ONE, {"penalty_form": "normalized"}, {"penalty_form": "l2"}),
    "allow_duplicates of the digits": ({}, {"allow_duplicates": False}, {"allow_duplicates": True}),
    "where it runs": ({}, {"device": "cpu"}, {"device": "auto", "save_dir": "x", "data": "y"}),
    "0 as text and as number": ({}, {"weight_decay": "0"}, {"weight_decay": 0.0}),
}

# the same knobs one step over the border: they act
DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "exponents": ({}, {"exponents": 2}, {"exponents": 3}),
    "exponents = 1": ({}, {"exponents": 1}, {"exponents": 2}),
    "a ramp that has no exponents": ({"exponents": 2}, {"RST_schedule": "exp_custom"}, {}),
    "g = 0": ({}, {"reg_granularity_prune": 0.0}, {"reg_granularity_prune": 0.01}),
    "g = 0 is not refill": ({"reg_granularity_prune": 0.0}, {"struct": "rsst"}, {"struct": "refill"}),
    "penalty_form": ({}, {"penalty_form": "normalized"}, {"penalty_form": "l2"}),
    "calibration_images under l2": ({"criteria": "l2"}, {"calibration_images": 3}, {"calibration_images": 64}),
    "calibration_images under saliency": (
        {"criteria": "saliency"},
        {"calibration_images": 3},
        {"calibration_images": 64},
    ),
    "lr_schedule when most is warm-up": (
        {"epochs": 3, "warmup": 1},
        {"lr_schedule": "cosine"},
        {"lr_schedule": "multistep"},
    ),
    "rewind to the last epoch, three rounds": (
        {"pruning_times": 3, "epochs": 2},
        {"rewind": "epoch:2"},
        {"rewind": "none"},
    ),
    "rewind to an epoch before, two rounds": (TWO, {"rewind": "epoch:1"}, {"rewind": "none"}),
    "rewind under refill": (REFILL, {"rewind": "init"}, {"rewind": "none"}),
    "one pruning more": (TARGET, {"prunings": 4}, {"prunings": 3}),
    "the rate of remain": ({"criteria": "remain"}, {"rate": 0.3}, {"rate": 0.6}),
    "another target": ({}, TARGET, {"target_density": 0.5}),
    "one round more": ({}, {"pruning_times": 1}, {"pruning_times": 2}),
    "granularity": ({}, {"granularity": "both"}, {"granularity": "element"}),
}
UNTRAINED = {  # weights would have to be there
    "patch_embed": ({"pretrained": True}, {"patch_embed": "resample"}, {"patch_embed": "reinit"}),
    "weights_digest": ({"pretrained": True}, {}, {"weights_digest": "0" * 16}),
    "weights that were not there": ({"pretrained": True}, {}, {"weights_digest": "absent"}),
}
NOT_THERE = {"pretrained": True, "weights_digest": "absent"}


def config(*knobs: dict[str, Any]) -> RSSTConfig:
    """The toy with one epoch and two rounds, unless the knobs say otherwise."""
    every: dict[str, Any] = {}
    for one in knobs:
        every |= one
    base = toy.KNOBS | {"epochs": 1, "warmup": 0, "batch_size": 48}
    base = {k: v for k, v in base.items() if k not in ("pruning_times", "rate")}
    if "target_density" not in every:
        base |= {"pruning_times": 2, "rate": 0.3}
    return RSSTConfig.from_knobs(overlaid(base, every))


STATES: dict[RSSTConfig, TrialState] = {}


def trained(of: RSSTConfig, on: ImageData) -> tuple[str, TrialState]:
    """What the trial reports, times left out, and its state at the end."""
    state = STATES[of] = STATES.get(of) or toy.last_state(of, on)
    return json.dumps([toy.timeless(event) for event in state.meta["history"]]), state


@pytest.mark.parametrize("name", SAME)
def test_knobs_that_do_not_act_change_neither_bits_nor_fingerprint(tiny: ImageData, name: str) -> None:
    both, *sides = SAME[name]
    one, other = (config(both, side) for side in sides)
    assert one.fingerprint == other.fingerprint and one.identity == other.identity
    (told, state), (again, repeated) = trained(one, tiny), trained(other, tiny)
    assert told == again
    groups = [{k: v for k, v in s.tensors.items() if not k.startswith("rewind/")} for s in (state, repeated)]
    assert toy.same_tensors(*groups)


@pytest.mark.parametrize("name", DIFFERENT)
def test_one_step_further_they_change_both(tiny: ImageData, name: str) -> None:
    both, *sides = DIFFERENT[name]
    one, other = (config(both, side) for side in sides)
    assert one.fingerprint != other.fingerprint
    assert not toy.same_tensors(*(trained(c, tiny)[1].group("weights") for c in (one, other)))


@pytest.mark.parametrize("name", UNTRAINED)
def test_what_acts_on_pretrained_weights_is_in_the_fingerprint(name: str) -> None:
    both, *sides = UNTRAINED[name]
    one, other = (config(both, side) for side in sides)
    assert one.fingerprint != other.fingerprint


def test_without_weights_the_patch_embedding_is_new_anyway() -> None:
    one, other = (config(NOT_THERE, {"patch_embed": fit}) for fit in ("resample", "reinit"))
    assert one.fingerprint == other.fingerprint and "patch_embed" not in one.identity


def test_every_condition_has_a_pair() -> None:
    tried = {k for table in (SAME, UNTRAINED) for _, *sides in table.values() for side in sides for k in side}
    assert {name for name, knob in KNOBS.items() if knob.in_fingerprint and knob.acts_when} <= tried


@pytest.mark.parametrize(
    ("given", "prunings", "rate"),
    [
        ({}, 14, 0.15),
        ({"prunings": 3}, 3, 0.15),
        ({"prunings": 0}, 0, 0.15),
        ({"pruning_times": 4, "rate": 0.2}, 3, 0.2),
        ({"target_density": 0.3}, 8, 1 - 0.3 ** (1 / 8)),
        ({"target_density": 0.3, "rate": 0.4}, 3, 1 - 0.3 ** (1 / 3)),
        ({"target_density": 0.3, "prunings": 3}, 3, 1 - 0.3 ** (1 / 3)),
        ({"target_density": 0.3, "pruning_times": 4}, 3, 1 - 0.3 ** (1 / 3)),
        ({"target_density": 0.3, "pruning_times": 4, "prunings": 3, "rate": 0.35}, 3, 1 - 0.3 ** (1 / 3)),
        ({"target_density": 0.99, "prunings": 999}, 999, 1 - 0.99 ** (1 / 999)),
        ({"target_density": "none", "prunings": "3"}, 3, 0.15),
    ],
    ids=str,
)
def test_prunings_rounds_and_rate_follow_from_each_other(given: dict[str, Any], prunings: int, rate: float) -> None:
    found = RSSTConfig.from_knobs(given)
    assert (found.prunings, found.pruning_times) == (prunings, prunings + 1)
    assert found.rate == pytest.approx(rate, abs=1e-12)
    assert RSSTConfig.from_knobs(found.knobs()) == found


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"prunings": 3, "pruning_times": 3}, "prunings = 3: valid is 2, which follows from pruning_times = 3"),
        ({"target_density": 0.3, "prunings": 3, "rate": 0.15}, "prunings = 3: valid is 8, which follows from rate"),
        ({"target_density": 0.3, "pruning_times": 3, "rate": 0.15}, "pruning_times = 3: valid is 9, which follows"),
        ({"target_density": 0.3, "prunings": 0}, "prunings = 0: valid is at least one pruning"),
        ({"target_density": 0.3, "pruning_times": 1}, "pruning_times = 1: valid is at least one pruning"),
        ({"target_density": 0.001, "rate": 0.001}, "rate = 0.001: valid is such that target_density takes at most"),
        ({"prunings": 1000}, "prunings = 1000: valid is 0 to 999"),
        ({"prunings": -1}, "prunings = -1: valid is"),
        ({"prunings": 1.5}, "prunings = 1.5: valid is a whole number"),
        ({"prunings": None}, "prunings = None: valid is a whole number"),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_one_line(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        RSSTConfig.from_knobs(given)
    assert str(refusal.value).startswith(says) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("flags", "prunings"),
    [
        ({"prunings": 2}, 2),
        ({"pruning_times": 3}, 2),
        ({"rate": 0.4}, 3),
        ({"target_density": 0.1}, 6),
        ({"target_density": None}, 3),
        ({"lr": 1.0}, 3),
    ],
    ids=str,
)
def test_flags_win_over_a_file_that_says_all_of_it(flags: dict[str, Any], prunings: int) -> None:
    file = RSSTConfig.from_knobs({"target_density": 0.3, "prunings": 3}).knobs()
    assert RSSTConfig.from_knobs(overlaid(file, flags)).prunings == prunings


def test_the_effective_rate_ends_at_the_target() -> None:
    for target in (0.001, 0.3, 0.999):
        for prunings in (1, 7, 999):
            assert (1 - effective_rate(target, prunings)) ** prunings == pytest.approx(target, rel=1e-9)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"target_density": 0.3, "rate": 0.15}, "rate = 0.15 with target_density = 0.3 means 8 prunings; each removes"),
        ({"struct": "refill", "reg_granularity_prune": 2}, "reg_granularity_prune = 2.0 does nothing here: it acts"),
        ({"RST_schedule": "x", "exponents": "3"}, "exponents = 3.0 does nothing here: it acts with RST_schedule ="),
        ({"criteria": "magnitude", "calibration_images": 9}, "calibration_images = 9 does nothing here"),
        ({"patch_embed": "reinit"}, "patch_embed = reinit does nothing here: it acts with pretrained weights"),
        ({"dataset": "digits", "data": "x"}, "data = x does nothing here: it acts with dataset = cifar10"),
        ({"pruning_times": 1, "scope": "global"}, "scope = global does nothing here: it acts with more than one"),
        ({"on_missing_weights": "error"}, "on_missing_weights = error does nothing here: it acts with pretrained"),
    ],
    ids=str,
)
def test_a_knob_that_does_nothing_is_said(given: dict[str, Any], says: str) -> None:
    (line,) = decisions(given, [RSSTConfig.from_knobs(given)])
    assert line.startswith(says)


@pytest.mark.parametrize(
    "given",
    [
        {"rate": 0.15},
        {"target_density": 0.3, "prunings": 3},
        {"RST_schedule": "x", "exponents": 2},  # what it is anyway
        {"pretrained": True, "patch_embed": "reinit", "on_missing_weights": "error"},
        {"micro_batch_size": 16, "calibration_images": 9, "exponents": 3},
    ],
    ids=str,
)
def test_what_acts_needs_no_word(given: dict[str, Any]) -> None:
    assert decisions(given, [RSSTConfig.from_knobs(given)]) == []


def test_a_run_says_it_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trainables.__main__ import main

    words = "--dataset digits --arch vit_toy --epochs 1 --warmup 0 --target_density 0.5 --rate 0.6 --RST_schedule x"
    assert main([*words.split(), "--exponents", "7", "--save_dir", str(tmp_path / "run")]) == 0
    said, log = capsys.readouterr().out, (tmp_path / "run" / "run.log").read_text()
    for line in ("exponents = 7.0 does nothing here", "each removes 0.5, the effective rate"):
        assert line in said and line in log
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["config"]["rate"] == 0.5 and report["config"]["prunings"] == 1 and "exponents" in report["idle"]
