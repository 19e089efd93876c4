"""Removal of units: which rows and columns go, rewind weights alongside, density by hand."""

from __future__ import annotations

import pytest
import torch

from tests.trainables import toy
from trainables.rsst.data.load import ImageData
from trainables.rsst.experiment import run
from trainables.rsst.model.vit import Architecture
from trainables.rsst.pruning.compact import Units, all_units, slice_weights, unit_masks, unit_parameters, zeroed
from trainables.rsst.pruning.pruners import Doomed, ElementPruner, Form, UnitPruner, density
from trainables.rsst.running import Running

ARCH = Architecture("", {"img_size": 4, "in_chans": 1}, 2, (3,), (4,))
# every entry says where it stood: row · 100 + column
QKV = torch.arange(18.0)[:, None] * 100 + torch.arange(6)
WEIGHTS = {
    "blocks.0.attn.qkv.weight": QKV,
    "blocks.0.attn.qkv.bias": torch.arange(18.0),
    "blocks.0.attn.proj.weight": QKV[:6, :6],
    "blocks.0.attn.proj.bias": torch.arange(6.0),
    "blocks.0.mlp.fc1.weight": QKV[:4, :6],
    "blocks.0.mlp.fc1.bias": torch.arange(4.0),
    "blocks.0.mlp.fc2.weight": QKV[:6, :4],
    "norm.weight": torch.ones(6),
}


def test_slicing_keeps_the_rows_and_columns_of_the_units_that_stay() -> None:
    sliced = slice_weights(WEIGHTS, ARCH, Units(((0, 2),), ((3,),)))
    assert sliced["blocks.0.attn.qkv.bias"].tolist() == [0, 1, 4, 5, 6, 7, 10, 11, 12, 13, 16, 17]
    assert sliced["blocks.0.attn.qkv.weight"][:, 0].tolist() == [
        r * 100 for r in (0, 1, 4, 5, 6, 7, 10, 11, 12, 13, 16, 17)
    ]
    assert sliced["blocks.0.attn.proj.weight"][0].tolist() == [0, 1, 4, 5]
    assert sliced["blocks.0.attn.proj.bias"].tolist() == [0, 1, 2, 3, 4, 5]
    assert sliced["blocks.0.mlp.fc1.weight"][:, 0].tolist() == [300]
    assert sliced["blocks.0.mlp.fc1.bias"].tolist() == [3]
    assert sliced["blocks.0.mlp.fc2.weight"][1].tolist() == [103]
    assert sliced["norm.weight"].tolist() == [1] * 6
    assert WEIGHTS["blocks.0.attn.qkv.weight"].shape == (18, 6)


def test_masks_mark_what_slicing_drops() -> None:
    doomed = Units(((1,),), ((0, 1, 2),))
    masks = unit_masks(WEIGHTS, ARCH, doomed)
    assert "norm.weight" not in masks and "blocks.0.attn.proj.bias" not in masks
    assert masks["blocks.0.attn.qkv.bias"].nonzero().flatten().tolist() == [2, 3, 8, 9, 14, 15]
    kept = slice_weights(WEIGHTS, ARCH, all_units(ARCH).without(doomed))
    for name, tensor in WEIGHTS.items():
        dropped = int(masks[name].sum()) if name in masks else 0
        assert kept[name].numel() == tensor.numel() - dropped
        assert zeroed(WEIGHTS, masks)[name].sum() == kept[name].sum()


def test_what_a_unit_owns_and_the_density_by_hand() -> None:
    """head: 3 · 2 rows of 6, 6 biases, 2 columns of 6 = 54; neuron: a row of 6, a bias, a column of 6 = 13."""
    assert unit_parameters(ARCH, "head", 0, WEIGHTS) == 54
    assert unit_parameters(ARCH, "neuron", 0, WEIGHTS) == 13
    form = Form.unpruned(ARCH)
    assert density(form, WEIGHTS) == 1.0
    weights, form = UnitPruner().remove(WEIGHTS, form, Doomed(Units(((1,),), ((0, 1, 2),))))
    assert density(form, weights) == pytest.approx((2 * 54 + 13) / (3 * 54 + 4 * 13))
    assert form.alive == Units(((0, 2),), ((3,),))
    weights, form = UnitPruner().remove(weights, form, Doomed(Units(((0,),), ((),))))
    assert form.alive == Units(((2,),), ((3,),))  # numbers of the unpruned model
    assert weights["blocks.0.attn.qkv.bias"].tolist() == [4, 5, 10, 11, 16, 17]


def test_density_counts_dead_elements_and_masks_add_up() -> None:
    first = {"blocks.0.mlp.fc1.weight": torch.zeros(4, 6, dtype=torch.bool)}
    first["blocks.0.mlp.fc1.weight"][0, :4] = True
    second = {"blocks.0.mlp.fc1.weight": first["blocks.0.mlp.fc1.weight"].roll(1, dims=0)}
    weights, form = ElementPruner().remove(WEIGHTS, Form.unpruned(ARCH), Doomed(entries=first))
    weights, form = ElementPruner().remove(weights, form, Doomed(entries=second))
    assert density(form, weights) == pytest.approx(1 - 8 / 214)
    fc1 = weights["blocks.0.mlp.fc1.weight"]
    assert fc1.count_nonzero() == 24 - 8 and weights["blocks.0.attn.qkv.weight"].equal(QKV)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("rewind", ["init", "epoch:1"])
def test_rewind_weights_are_sliced_alongside_and_are_what_the_next_round_starts_from(
    tiny: ImageData, rewind: str
) -> None:
    config = toy.config(rewind=rewind, pruning_times=3)
    events = list(run_with_states(config, tiny))
    fresh = Running.fresh(config, tiny)
    source = (
        fresh.model.state_dict() if rewind == "init" else next(s for k, s in events if k == "epoch").group("weights")
    )
    after_round_1 = [s for k, s in events if k == "round"][1]
    alive = Units.from_json(after_round_1.meta["alive"])
    assert alive.counts("head") == (3, 3) and alive.counts("neuron") == (22, 22)
    sliced = slice_weights(source, fresh.form.full, alive)
    assert toy.same_tensors(after_round_1.group("rewind"), sliced)
    trial = Running.resumed(config, tiny, after_round_1)
    trial.choose_doomed()
    trial.rewind_weights()
    assert toy.same_tensors(dict(trial.model.state_dict()), sliced)


def run_with_states(config: toy.RSSTConfig, tiny: ImageData) -> list[tuple[str, toy.TrialState]]:
    return [(event.kind, event.snapshot()) for event in run(config, tiny)]
