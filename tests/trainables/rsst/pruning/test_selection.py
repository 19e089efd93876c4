"""Who goes: counts, floors, ties and rankings, by hand and for any scores."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.rsst.config import RSSTConfig
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.vit import build
from trainables.rsst.pruning.compact import Units, all_units, narrowed
from trainables.rsst.pruning.importance import Scores
from trainables.rsst.pruning.pruners import Form, density
from trainables.rsst.pruning.selection import keep_count, select_elements, select_units

SHARES = st.floats(0.0, 1.0)


def scores(heads: Sequence[Sequence[float]], neurons: Sequence[Sequence[float]] | None = None) -> Scores:
    def tensors(layers: Sequence[Sequence[float]]) -> tuple[torch.Tensor, ...]:
        return tuple(torch.tensor(list(layer), dtype=torch.float64) for layer in layers)

    return Scores(tensors(heads), tensors(neurons if neurons is not None else [[1.0]] * len(heads)))


def doomed_heads(heads: Sequence[Sequence[float]], share: float, scope: str) -> tuple[tuple[int, ...], ...]:
    found = scores(heads)
    totals = {"head": [len(x) for x in heads], "neuron": [1] * len(heads)}
    return select_units(found, totals, share, scope=scope, granularity="head").heads  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("total", "share", "least", "kept"),
    [
        (10, 0.85, 1, 9),
        (10, 0.84, 1, 8),
        (3, 0.5, 1, 2),
        (3, 0.1, 1, 1),
        (3, 0.0, 1, 1),
        (24, 0.1, 12, 12),
        (7, 1, 1, 7),
    ],
)
def test_the_kept_count_rounds_half_up_and_meets_its_floor(total: int, share: float, least: int, kept: int) -> None:
    assert keep_count(total, share, least) == kept


def test_layer_scope_ranks_inside_each_layer() -> None:
    assert doomed_heads([[1, 4, 2, 3], [40, 10, 20, 30]], 0.5, "layer") == ((0, 2), (1, 2))


def test_global_scope_divides_by_the_layers_mean_and_ranks_all_together() -> None:
    # relative: 0.4 1.6 0.8 1.2 | 0.26 0.52 0.78 2.44: the five smallest of eight; plain scores would spare layer 1
    assert doomed_heads([[1, 4, 2, 3], [10, 20, 30, 94]], 3 / 8, "global") == ((0, 2), (0, 1, 2))


def test_global_scope_leaves_the_best_unit_of_every_layer() -> None:
    # relative: 1.05 1.0 0.95 | 0.3 0.3 2.4; with two to keep, each layer's best stays although 1.05 > … is not needed
    assert doomed_heads([[1.05, 1.0, 0.95], [1, 1, 8]], 0.0, "global") == ((1, 2), (0, 1))
    # three to keep: the best of the others is 1.0 of layer 0
    assert doomed_heads([[1.05, 1.0, 0.95], [1, 1, 8]], 0.5, "global") == ((2,), (0, 1))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_among_equal_scores_the_lower_index_stays(scope: str) -> None:
    assert doomed_heads([[5, 5, 5, 5], [5, 5, 5, 5]], 0.5, "layer") == ((2, 3), (2, 3))
    assert doomed_heads([[5, 5, 5, 5], [5, 5, 5, 5]], 0.5, "global") == ((3,), (1, 2, 3))
    assert doomed_heads([[0, 0, 0, 0]], 0.5, scope) == ((2, 3),)


@pytest.mark.parametrize(
    ("granularity", "kinds"), [("head", {"heads"}), ("neuron", {"neurons"}), ("both", {"heads", "neurons"})]
)
def test_granularity_says_which_kinds_go(granularity: str, kinds: set[str]) -> None:
    found = scores([[1, 2]], [[1, 2, 3, 4]])
    units = select_units(found, {"head": [2], "neuron": [4]}, 0.5, scope="layer", granularity=granularity)
    assert {"heads"} & kinds == ({"heads"} if units.heads == ((0,),) else set())
    assert {"neurons"} & kinds == ({"neurons"} if units.neurons == ((0, 1),) else set())


layer = st.lists(st.floats(0, 10, allow_subnormal=False), min_size=1, max_size=9)


@given(st.lists(layer, min_size=1, max_size=4), SHARES, st.sampled_from(["layer", "global"]))
def test_for_any_scores_the_counts_are_as_asked_and_the_best_stay(
    heads: list[list[float]], share: float, scope: str
) -> None:
    doomed = doomed_heads(heads, share, scope)
    kept = [len(x) - len(d) for x, d in zip(heads, doomed, strict=True)]
    assert min(kept) >= 1
    if scope == "layer":
        assert kept == [max(math.floor(share * len(x) + 0.5), 1) for x in heads]
    else:
        assert sum(kept) == max(math.floor(share * sum(map(len, heads)) + 0.5), len(heads))
    for values, gone in zip(heads, doomed, strict=True):
        stay = [v for i, v in enumerate(values) if i not in gone]
        assert all(values[i] <= min(stay) for i in gone)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.floats(0.02, 0.95), st.integers(1, 20), st.integers())
def test_rounding_never_piles_up_over_the_prunings(counts: list[int], rate: float, prunings: int, seed: int) -> None:
    """Pruned again and again from ever fewer units, the counts are those of the schedule's share of the first ones."""
    draw = random.Random(seed)
    for scope in ("layer", "global"):
        alive = Units(tuple(tuple(range(n)) for n in counts), tuple((0,) for _ in counts))
        for k in range(1, prunings + 1):
            share = (1 - rate) ** k
            found = scores([[draw.random() for _ in x] for x in alive.heads])
            totals = {"head": counts, "neuron": [1] * len(counts)}
            alive = alive.without(select_units(found, totals, share, scope=scope, granularity="head"))  # type: ignore[arg-type]
            kept = alive.counts("head")
            if scope == "layer":
                assert kept == tuple(max(math.floor(share * n + 0.5), 1) for n in counts)
            else:
                assert sum(kept) == max(math.floor(share * sum(counts) + 0.5), len(counts))


def pruned_to_the_end(config: RSSTConfig) -> Form:
    """Every pruning of a trial with random scores; shapes only, on the meta device."""
    form = Form.unpruned(architecture(config, in_chans=3, num_classes=100))
    totals = {"head": form.full.heads, "neuron": form.full.neurons}
    for k in range(1, config.rounds):
        torch.manual_seed(k)
        found = Scores(
            tuple(torch.rand(n) for n in form.arch.heads), tuple(torch.rand(n) for n in form.arch.neurons)
        )  # fmt: skip
        gone = select_units(found, totals, config.kept_share_after(k), scope=config.scope, granularity="both")  # type: ignore[arg-type]
        form = Form(form.full, narrowed(form.arch, all_units(form.arch).without(gone)), form.alive.without(gone))
    return form


def test_vit_tiny_after_15_rounds_at_15_percent_ends_near_density_22_percent() -> None:
    """1 of 3 heads (49,344 parameters each) and 39 of 384 neurons (385 each): 64,359 of 295,872 in every layer."""
    config = RSSTConfig.from_knobs({"arch": "vit_tiny", "rate": 0.15, "pruning_times": 15})
    form = pruned_to_the_end(config)
    assert config.kept_share_after(14) == pytest.approx(0.85**14) == pytest.approx(0.103, abs=5e-4)
    assert form.arch.heads == (1,) * 9 and form.arch.neurons == (39,) * 9
    found = density(form, build(form.arch, "meta").state_dict())
    assert found == pytest.approx(64359 / 295872, rel=1e-12) == pytest.approx(0.22, abs=0.005)


@pytest.mark.parametrize(("rate", "prunings"), [(0.1, 12), (0.15, 8), (0.33, 4), (0.7, 1), (0.71, 1)])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_target_density_is_met_up_to_whole_units_at_any_rate(rate: float, prunings: int, scope: str) -> None:
    config = RSSTConfig.from_knobs({"dataset": "digits", "target_density": 0.3, "rate": rate, "scope": scope})
    assert config.rounds == 1 + prunings
    form = pruned_to_the_end(config)
    assert sum(form.arch.heads) == (4 if scope == "layer" else 5)  # 1.2 of 4 a layer; 4.8 of 16
    assert sum(form.arch.neurons) == (4 * 38 if scope == "layer" else 154)  # 38.4 of 128 a layer; 153.6 of 512


def test_elements_go_by_one_magnitude_ranking_over_all_matrices() -> None:
    weights = {"b": torch.tensor([[0.1, -5.0], [2.0, -0.3]]), "a": torch.tensor([[-0.2, 4.0]])}
    first = select_elements(weights, {}, 0.5)
    assert {name: mask.tolist() for name, mask in first.items()} == {
        "a": [[True, False]],
        "b": [[True, False], [False, True]],
    }
    # what is dead is not doomed again, even if it is large; two of six stay
    second = select_elements(weights, {"b": torch.tensor([[True, True], [False, True]])}, 1 / 3)
    assert {name: mask.tolist() for name, mask in second.items()} == {
        "a": [[True, False]],
        "b": [[False, False], [False, False]],
    }
