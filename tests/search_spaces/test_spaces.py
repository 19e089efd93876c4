"""Every published space: 200 seeded samples are valid trials, all different, on the guide's data and on digits."""

from __future__ import annotations

import inspect
import re
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces import SPACES
from search_spaces.parts import UNITS
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.config.models import NAMED
from trainables.rsst.size import cost
from tune_rsst.search.spaces import Space, find, samples
from tune_rsst.settings import written
from tune_rsst.settings.resolved import resolve

NAMES = sorted(SPACES)
ON_DIGITS = {"digits": [], "penalty": ["dataset=digits", "rate=0.4"]}


def fixed_of(name: str, *overrides: str) -> dict[str, Any]:
    return resolve(written.given(None, [f"space={name}", *overrides])).fixed


def effective(found: RSSTConfig) -> tuple[Any, ...]:
    """What the trial computes."""
    return tuple(sorted((key, repr(value)) for key, value in found.identity.items()))


@pytest.mark.parametrize("where", ["own data", "digits"])
@pytest.mark.parametrize("name", NAMES)
def test_200_samples_are_valid_and_no_two_are_the_same_trial(name: str, where: str) -> None:
    overrides = ON_DIGITS.get(name, ["dataset=digits"]) if where == "digits" else []
    drawn = [found for _, found in samples(find(name), fixed_of(name, *overrides), 200)]
    assert len({effective(found) for found in drawn}) == 200
    assert where == "own data" or {found.dataset for found in drawn} == {"digits"}


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_decides_something(name: str) -> None:
    """A searched parameter is a knob, or becomes one; none is drawn for nothing."""
    for draw, _ in samples(find(name), fixed_of(name), 40):
        for parameter, value in draw.params.items():
            knob = re.sub("^(pretrained|scratch)_", "", parameter)
            assert draw.knobs[knob] == value


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 10**6),
    epochs=st.integers(1, 300),
    target=st.floats(0.02, 0.95),
    arch=st.sampled_from(["vit_tiny", "vit_small", "vit_base", "vit_digits"]),
    dataset=st.sampled_from(["cifar10", "cifar100", "digits"]),
)
def test_spaces_follow_what_the_user_fixes(
    name: str, seed: int, epochs: int, target: float, arch: str, dataset: str
) -> None:
    given_knobs = {"epochs": epochs, "target_density": target, "arch": arch, "dataset": dataset}
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed)).ask()
    draw = find(name).draw(trial, given_knobs)
    found = RSSTConfig.from_knobs(draw.knobs)
    assert not set(draw.params) & set(given_knobs)
    assert (found.epochs, found.arch, found.dataset) == (epochs, arch, dataset) and found.warmup <= epochs
    assert found.kept_share_after(found.rounds - 1) == pytest.approx(target)


@pytest.mark.parametrize("name", NAMES)
def test_a_fixed_knob_leaves_the_search(name: str) -> None:
    for draw, found in samples(find(name), fixed_of(name, "lr=0.002", "warmup=1"), 30):
        assert found.lr == 0.002 and found.warmup == 1
        assert not any(parameter.endswith(("lr", "warmup")) for parameter in draw.params)


@pytest.mark.parametrize("name", NAMES)
def test_distributions_never_change_between_trials_and_a_bare_optuna_trial_will_do(name: str) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen: dict[str, Any] = {}
    for _ in range(30):
        trial = study.ask()
        RSSTConfig.from_knobs(SPACES[name](trial))
        for parameter, distribution in trial.distributions.items():
            assert seen.setdefault(parameter, distribution) == distribution


def test_the_guides_values_are_in_range() -> None:
    for name, guide in (("scratch", {"lr": 1e-3, "warmup": 40}), ("pretrained", {"lr": 5e-4, "warmup": 20})):
        draw, _ = next(samples(find(name), fixed_of(name), 1))
        guide |= {"prunings": 8, "reg_granularity_prune": 0.3}
        for parameter, value in guide.items():
            assert draw.ranges[parameter].low <= value <= draw.ranges[parameter].high


def test_init_compare_gives_each_start_its_own_ranges_and_weights_only_to_those_that_want_them() -> None:
    both = [d for d, _ in samples(find("init_compare"), fixed_of("init_compare", "weights=w.safetensors"), 40)]
    for draw in both:
        word = "pretrained_" if draw.knobs["pretrained"] else "scratch_"
        assert {f"{word}lr", f"{word}warmup"} <= set(draw.params)
        assert (draw.knobs["weights"] is None) == (not draw.knobs["pretrained"])
    found = [RSSTConfig.from_knobs(draw.knobs) for draw in both]
    assert {c.epochs for c in found if c.pretrained} == {80} and {c.epochs for c in found if not c.pretrained} == {150}


def test_l2_has_a_range_of_its_own() -> None:
    for form, widest in (("normalized", 2.0), ("l2", 30.0)):
        draw, _ = next(samples(find("penalty"), fixed_of("penalty", f"penalty_form={form}"), 1))
        assert draw.ranges["reg_granularity_prune"].high == widest


@pytest.mark.parametrize("name", [n for n in NAMES if n != "digits"])
def test_the_docstring_has_command_result_and_the_true_number_of_rounds(name: str) -> None:
    text = inspect.getdoc(SPACES[name]) or ""
    assert f"Command: tune-rsst sweep space={name}" in text and "Best so far: " in text
    stated = re.search(r"Cost: (\d+)(?: to (\d+))? rounds of (\d+)(?: or (\d+))? epochs", text)
    assert stated is not None
    found = [c for _, c in samples(find(name), fixed_of(name), 200)]
    least, most = min(c.rounds for c in found), max(c.rounds for c in found)
    assert (str(least), str(most)) == (stated[1], stated[2] or stated[1])
    assert {str(c.epochs) for c in found} == {e for e in (stated[3], stated[4]) if e}


def test_a_step_of_the_final_size_removes_another_number_of_neurons_in_every_named_model() -> None:
    assert all(int(dim * ratio) % UNITS == 0 for dim, _, _, ratio, _ in NAMED.values())


def test_cost_is_that_of_the_model_a_trial_ends_with() -> None:
    """39,970 parameters and 0.1871e6 MACs: what digits trials of kept share 0.3 report (docs/experiments.md)."""
    _, found = next(samples(find("digits"), fixed_of("digits", "rate=0.4"), 1))
    paid = cost(found)
    assert (paid.rounds, paid.epochs_at_most, paid.params) == (4, 56, 39_970)
    assert paid.gmacs == pytest.approx(0.1871e-3, rel=1e-3)


def test_granularity_and_scope_decide_what_is_left() -> None:
    found = {}
    for granularity in ("both", "head", "neuron"):
        for scope in ("layer", "global"):
            words = ("dataset=digits", "rate=0.4", f"granularity={granularity}", f"scope={scope}")
            found[granularity, scope] = cost(next(samples(find("scratch"), fixed_of("scratch", *words), 1))[1]).params
    assert found["both", "layer"] < min(found["neuron", "layer"], found["head", "layer"])
    assert found["head", "layer"] != found["head", "global"], "16 heads · 0.3 = 5, but 4 heads · 0.3 = 1 in each of 4"


def test_a_wrong_space_is_refused_with_its_name() -> None:
    with pytest.raises(ConfigError, match=r"^space = scrach: .*did you mean scratch"):
        find("scrach")

    def broken(trial: Any) -> dict[str, Any]:
        return {"dataset": "digits", "lr": -trial.suggest_float("lr", 1e-4, 1e-3)}

    with pytest.raises(ConfigError, match=r"^space = mine.py:broken: .* lr = -"):
        list(samples(Space("mine.py:broken", broken), {}, 1))
