"""Knobs: presets of the guide, round trips, fingerprints, every bad value in one line that names its key."""

from __future__ import annotations

import dataclasses
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.rsst.config import KNOBS, ConfigError, RSSTConfig

LOCATION = {
    "save_dir",
    "data",
    "device",
    "weights",
    "on_missing_weights",
    "micro_batch_size",
    "keep_rounds",
    "share_dense",
    "deterministic",
}

PINNED = [
    ({}, "c718b34038e05d5f"),
    ({"dataset": "digits"}, "bc07591783216093"),
    ({"arch": "vit_tiny", "dataset": "cifar10", "granularity": "element", "seed": 7}, "896e1d4cea62a6d2"),
    (
        {"arch": "vit_base", "pretrained": True, "target_density": 0.1, "rate": 0.2, "rewind": "epoch:3"},
        "edb647093f87d519",
    ),
]


@pytest.mark.parametrize(("knobs", "fingerprint"), PINNED)
def test_fingerprints_stay_what_they_are(knobs: dict[str, Any], fingerprint: str) -> None:
    """A changed fingerprint orphans users' checkpoints: change it only together with METHOD_VERSION."""
    assert RSSTConfig.from_knobs(knobs).fingerprint == fingerprint


def test_where_a_trial_lies_and_runs_is_no_part_of_what_it_is() -> None:
    assert {name for name, knob in KNOBS.items() if not knob.in_fingerprint} == LOCATION
    here = RSSTConfig.from_knobs({"pretrained": True})
    there = RSSTConfig.from_knobs(
        {
            "pretrained": True,
            "save_dir": "x",
            "data": "y",
            "device": "cpu",
            "weights": "z",
            "on_missing_weights": "error",
            "micro_batch_size": 8,
        }
    )
    assert here.fingerprint == there.fingerprint


def test_presets_are_the_guides() -> None:
    names = ("arch", "epochs", "lr", "warmup", "batch_size", "pruning_times", "rate", "RST_schedule")
    ramp = ("reg_granularity_prune", "exponents")

    def preset(**knobs: Any) -> list[Any]:
        config = RSSTConfig.from_knobs(knobs)
        return [getattr(config, name) for name in names + ramp]

    assert preset() == ["vit_small", 150, 1e-3, 40, 64, 15, 0.15, "exp_custom_exponents", 0.3, 2]
    assert preset(pretrained=True) == ["vit_small", 80, 5e-4, 20, 64, 15, 0.15, "exp_custom_exponents", 0.3, 2]
    assert preset(arch="vit_tiny")[-2:] == [0.5, 3]
    assert preset(dataset="digits")[:2] == ["vit_digits", 14]
    assert preset(dataset="digits", epochs=3)[1] == 3
    default = RSSTConfig.from_knobs({})
    assert (default.struct, default.criteria, default.rewind, default.penalty_form) == (
        "rsst",
        "l1",
        "init",
        "normalized",
    )
    assert default.num_threads == 1 and default.patch_embed == "resample"


def valid_knobs() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "arch": st.sampled_from(["vit_tiny", "vit_small", "vit_base", "vit_digits", "deit_small_patch16_224"]),
            "dataset": st.sampled_from(["cifar10", "cifar100", "digits"]),
            "pretrained": st.booleans(),
            "lr": st.floats(1e-6, 1, exclude_min=True),
            "rate": st.floats(0.01, 0.99),
            "target_density": st.none() | st.floats(0.01, 0.99),
            "scope": st.sampled_from(["layer", "global"]),
            "criteria": st.sampled_from(KNOBS["criteria"].choices),
            "rewind": st.sampled_from(["init", "none", "epoch:1"]),
            "seed": st.integers(0, 2**40),
            "weight_decay": st.floats(0, 1),
        },
    )


@given(valid_knobs())
def test_a_config_survives_json_and_text(knobs: dict[str, Any]) -> None:
    knobs = knobs | ({"img_size": 32, "patch_size": 4})
    config = RSSTConfig.from_knobs(knobs)
    assert RSSTConfig.from_knobs(json.loads(json.dumps(config.knobs()))) == config
    as_text = {name: "none" if value is None else str(value) for name, value in config.knobs().items()}
    again = RSSTConfig.from_knobs(as_text)
    assert again == config and again.fingerprint == config.fingerprint


@given(rate=st.floats(0.02, 0.95), target=st.floats(0.02, 0.95))
def test_every_trial_of_one_target_asks_for_it_exactly(rate: float, target: float) -> None:
    config = RSSTConfig.from_knobs({"rate": rate, "target_density": target})
    shares = [config.kept_share_after(k) for k in range(config.rounds)]
    assert shares[0] == 1.0 and shares[-1] == pytest.approx(target, rel=1e-12)
    assert shares == sorted(shares, reverse=True)
    needed = config.rounds - 1
    assert (1 - rate) ** needed <= target * (1 + 1e-6)
    assert needed == 1 or (1 - rate) ** (needed - 1) > target * (1 - 1e-6)


def test_rounds_by_hand() -> None:
    config = RSSTConfig.from_knobs({"pruning_times": 15, "rate": 0.15})
    assert config.rounds == 15
    assert [config.kept_share_after(k) for k in (0, 1, 14)] == pytest.approx([1.0, 0.85, 0.85**14])
    one = RSSTConfig.from_knobs({"pruning_times": 1})
    assert one.rounds == 1 and one.kept_share_after(0) == 1.0


BAD = [
    ({"learning_rate": 0.1}, "learning_rate"),
    ({"RST_shedule": "x"}, "RST_shedule"),
    ({"rate": 0}, "rate"),
    ({"rate": 1}, "rate"),
    ({"rate": "nan"}, "rate"),
    ({"lr": -1e-3}, "lr"),
    ({"lr": 0}, "lr"),
    ({"lr": "inf"}, "lr"),
    ({"lr": "fast"}, "lr"),
    ({"lr": True}, "lr"),
    ({"lr": None}, "lr"),
    ({"lr": [0.1]}, "lr"),
    ({"epochs": 0}, "epochs"),
    ({"epochs": 1.5}, "epochs"),
    ({"epochs": 5, "warmup": 6}, "warmup"),
    ({"dataset": "imagenet"}, "dataset"),
    ({"criteria": "L1"}, "criteria"),
    ({"img_size": 30}, "img_size"),
    ({"rewind": "epoch:0"}, "rewind"),
    ({"rewind": "epoch:151"}, "rewind"),
    ({"rewind": "late"}, "rewind"),
    ({"pretrained": "perhaps"}, "pretrained"),
    ({"granularity": "element", "criteria": "l1"}, "criteria"),
    ({"granularity": "element", "scope": "layer"}, "scope"),
    ({"target_density": 0.1, "rate": 0.15, "pruning_times": 3}, "pruning_times"),
    ({"target_density": 1.0}, "target_density"),
    ({"weights": "w.npz"}, "weights"),
    ({"dataset": "folder"}, "data"),
    ({"exponents": 0}, "exponents"),
    ({"seed": -1}, "seed"),
]


@pytest.mark.parametrize(("knobs", "key"), BAD, ids=str)
def test_bad_input_is_one_line_that_names_the_key_and_what_is_valid(knobs: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        RSSTConfig.from_knobs(knobs)
    text = str(refusal.value)
    assert refusal.value.key == key and text.startswith(f"{key} = ") and "valid is" in text
    assert "\n" not in text


BIG = 2**53 + 1  # a float would make 2**53 of it


@pytest.mark.parametrize(("given", "seed"), [(BIG, BIG), (str(BIG), BIG), ("+7", 7), (7.0, 7), ("1e3", 1000)])
def test_a_whole_number_is_taken_digit_by_digit(given: Any, seed: int) -> None:
    assert RSSTConfig.from_knobs({"seed": given}).seed == seed


def test_a_misspelt_key_is_answered_with_the_right_one() -> None:
    with pytest.raises(ConfigError, match="did you mean RST_schedule"):
        RSSTConfig.from_knobs({"RST_shedule": "x"})
    with pytest.raises(ConfigError, match="did you mean magnitude"):
        RSSTConfig.from_knobs({"criteria": "magnitud"})


def test_an_error_survives_a_trip_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ConfigError("rate", 2, "less", "do")))
    assert (error.key, str(error)) == ("rate", "rate = 2: valid is less; do")


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RSSTConfig.from_knobs({}).lr = 1.0  # type: ignore[misc]


def test_every_knob_says_what_it_is() -> None:
    assert all(len(knob.help) >= 9 for knob in KNOBS.values())
