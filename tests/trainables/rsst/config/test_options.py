"""Every option changes the result, no two choices are aliases, and every pair of choices runs together."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Mapping
from typing import Any

import pytest

from tests.trainables import toy
from trainables.rsst.config import KNOBS, RSSTConfig
from trainables.rsst.data.load import ImageData

pytestmark = pytest.mark.usefixtures("toy")

# knob → (what it needs to matter, two values); short runs of the toy
CHANGES: dict[str, tuple[dict[str, Any], tuple[Any, Any]]] = {
    "arch": ({}, ("vit_toy", "vit_digits")),
    "img_size": ({}, (8, 12)),
    "patch_size": ({}, (4, 2)),
    "augment": ({}, ("none", "flip")),
    "label_smoothing": ({}, (0.0, 0.1)),
    "epochs": ({}, (1, 2)),
    "lr": ({}, (5e-3, 4e-3)),
    "warmup": ({}, (0, 1)),
    "batch_size": ({}, (32, 33)),
    "optimizer": ({}, ("adamw", "sgd")),
    "momentum": ({}, (0.9, 0.8)),
    "weight_decay": ({}, (0.05, 0.0)),
    "lr_schedule": ({"epochs": 3}, ("cosine", "multistep")),
    "amp": ({}, (False, True)),
    "struct": ({}, ("rsst", "refill")),
    "criteria": ({}, ("l1", "magnitude")),
    "calibration_images": ({}, (96, 3)),
    "pruning_times": ({}, (1, 2)),
    "rate": ({}, (0.3, 0.4)),
    "target_density": ({}, (None, 0.5)),
    "granularity": ({}, ("both", "neuron")),
    "scope": ({}, ("layer", "global")),
    "rewind": ({}, ("init", "none")),
    "penalty_form": ({}, ("normalized", "l2")),
    "RST_schedule": ({}, ("x", "x^2")),
    "exponents": ({}, (2.0, 3.0)),
    "reg_granularity_prune": ({}, (0.3, 0.2)),
    "seed": ({}, (0, 1)),
}
EXEMPT = {
    "split_seed": "the toy's images are not split by seed; ../data/test_load.py",
    "dataset": "another data set is another result; the tests in ../data load them",
    "allow_duplicates": "matters to image folders only; ../data/test_repeats.py",
    "pretrained": "needs weights; test_pretrained.py",
    "weights_digest": "refuses weights, changes no number by itself; test_pretrained.py",
    "start_units": "needs a pruned model; ../model/test_further.py",
    "patch_embed": "matters to pretrained weights only; test_pretrained.py",
    "compile": "Inductor's numbers, a minute to compile; ../training/test_block.py and test_inductor.py",
    "prunings": "pruning_times in another count; test_identity.py",
    "num_threads": "the same sums in another order: on the toy's small matrices often the same bits",
}
CHOICES = {
    "criteria": {"rate": 0.5},
    "RST_schedule": {"reg_granularity_prune": 0.1},
    "granularity": {},
    "augment": {"img_size": 16},
    "struct": {},
    "scope": {},
    "penalty_form": {},
    "optimizer": {},
    "lr_schedule": {"epochs": 3},
}


def numbers(config: RSSTConfig, tiny: ImageData) -> str:
    """What training came to, apart from what the config says outright: losses, the doomed norm left, test loss."""
    events = toy.outcome(config, tiny if config.img_size == 8 else toy.images(config))
    names = ("train_loss", "val_top1_before_hardening", "doomed_norm_left", "test_loss")
    return json.dumps([[metrics.get(name) for name in names] for _, metrics in events])


def outcome(tiny: ImageData, **knobs: Any) -> str:
    """The numbers of a trial of two rounds."""
    return numbers(toy.config(**{"pruning_times": 2} | knobs), tiny)


def test_every_knob_that_determines_the_numbers_is_tried_or_exempt_for_a_reason() -> None:
    assert CHANGES.keys() | EXEMPT.keys() == {name for name, knob in KNOBS.items() if knob.in_fingerprint}
    assert not CHANGES.keys() & EXEMPT.keys()


@pytest.mark.parametrize("name", CHANGES)
def test_every_option_changes_the_result_and_the_fingerprint(tiny: ImageData, name: str) -> None:
    needs, (one, other) = CHANGES[name]
    if name == "target_density":  # its rounds follow from rate, so none are given
        knobs: list[dict[str, Any]] = [{"pruning_times": 3}, {"target_density": other}]
        configs = [
            RSSTConfig.from_knobs({k: v for k, v in toy.KNOBS.items() if k != "pruning_times"} | k_) for k_ in knobs
        ]
        assert configs[0].rounds == configs[1].rounds == 3
        results = [numbers(config, tiny) for config in configs]
    else:
        configs = [toy.config(**needs | {name: value}) for value in (one, other)]
        results = [outcome(tiny, **needs | {name: value}) for value in (one, other)]
    assert results[0] != results[1]
    assert configs[0].fingerprint != configs[1].fingerprint


@pytest.mark.parametrize("name", CHOICES)
def test_no_two_choices_are_aliases(tiny: ImageData, name: str) -> None:
    results = {choice: outcome(tiny, **CHOICES[name] | {name: choice}) for choice in KNOBS[name].choices}
    assert len(set(results.values())) == len(results) >= 2


def test_each_rewind_is_another_start(tiny: ImageData) -> None:
    """Three rounds of two epochs: the end of round 0 (epoch:2) and going on (none) part at the third round."""
    results = {r: outcome(tiny, rewind=r, pruning_times=3) for r in ("init", "none", "epoch:1", "epoch:2")}
    assert len(set(results.values())) == 4


OPTIONS: dict[str, tuple[str, ...]] = {
    "criteria": KNOBS["criteria"].choices,
    "RST_schedule": KNOBS["RST_schedule"].choices,
    "granularity": KNOBS["granularity"].choices,
    "scope": KNOBS["scope"].choices,
    "struct": KNOBS["struct"].choices,
    "rewind": ("init", "none", "epoch:1"),
    "optimizer": KNOBS["optimizer"].choices,
    "penalty_form": KNOBS["penalty_form"].choices,
    "lr_schedule": KNOBS["lr_schedule"].choices,
}
Pair = frozenset[tuple[str, str]]


def possible(row: Mapping[str, str]) -> bool:
    """element is one global magnitude ranking: RSSTConfig refuses it with other criteria or scopes."""
    return row.get("granularity") != "element" or (
        row.get("criteria", "magnitude") == "magnitude" and row.get("scope", "global") == "global"
    )


def pairs_of(row: Mapping[str, str]) -> set[Pair]:
    return {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}


def all_pairs() -> set[Pair]:
    singles = [(name, value) for name, values in OPTIONS.items() for value in values]
    return {
        frozenset(pair)
        for pair in itertools.combinations(singles, 2)
        if pair[0][0] != pair[1][0] and possible(dict(pair))
    }


def covering_rows() -> list[dict[str, str]]:
    """Greedy: rows of one choice per option, each built around a pair that is not covered yet, until none is left."""
    draw, left, rows = random.Random(0), all_pairs(), list[dict[str, str]]()
    while left:
        start = dict(sorted(min(left, key=sorted)))
        tried = []
        for _ in range(20):
            row = dict(start)
            for name in draw.sample(sorted(OPTIONS), len(OPTIONS)):
                fits = [v for v in OPTIONS[name] if possible({**row, name: v})]
                row.setdefault(name, max(fits, key=lambda v: (len(pairs_of({**row, name: v}) & left), draw.random())))
            tried.append(row)
        best = max(tried, key=lambda r: len(pairs_of(r) & left))
        left -= pairs_of(best)
        rows.append(best)
    return rows


ROWS = covering_rows()


def test_the_rows_cover_every_possible_pair() -> None:
    assert set().union(*(pairs_of(row) for row in ROWS)) >= all_pairs()
    assert all(possible(row) for row in ROWS) and len(ROWS) < 60


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row.values()))
def test_every_pair_of_options_runs_together(tiny: ImageData, row: dict[str, str]) -> None:
    config = toy.config(**row, epochs=1, warmup=0, batch_size=48)
    events = toy.outcome(config, tiny)
    assert [kind for kind, _ in events] == ["start", *["epoch", "round"] * 3, "final"]
    json.dumps(events, allow_nan=False)
    rounds = [metrics for kind, metrics in events if kind == "round"]
    kept = [m["kept_share"] for m in rounds]
    assert kept == sorted(kept, reverse=True) and kept[0] == 1.0 and kept[-1] == pytest.approx(0.49, abs=0.06)
    pressed = ["doomed_norm_left" in metrics for kind, metrics in events if kind == "epoch"]
    assert pressed == [False, *[row["struct"] == "rsst"] * 2]
    assert all(m["params"] == rounds[0]["params"] for m in rounds) == (row["granularity"] == "element")
    assert rounds[-1]["density"] < 1 and 0 <= events[-1][1]["test_top1"] <= 1
    gaps = [abs(m["round_gap"]) for m in rounds]
    assert [m["hardening_gap"] for m in rounds] == pytest.approx(list(itertools.accumulate(gaps, max)))
    assert all(math.isfinite(m["val_top1"]) for m in rounds)
