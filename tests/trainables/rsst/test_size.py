"""What a trial costs before it is trained, against the trial itself."""

from __future__ import annotations

from typing import Any

import pytest

from tests.trainables import toy
from trainables.rsst import measure, size
from trainables.rsst.data.load import ImageData
from trainables.rsst.experiment import run
from trainables.rsst.model.vit import Architecture

pytestmark = pytest.mark.usefixtures("toy")
# (granularity, scope) → heads and neurons of the two layers after two prunings at rate 0.3, which keep 0.49:
# of 4 heads and 32 neurons a layer 2 and 16, of the model's 8 and 64 together 4 and 31.
FINAL = {
    ("head", "layer"): ((2, 2), (32, 32)),
    ("head", "global"): ((2, 2), (32, 32)),
    ("neuron", "layer"): ((4, 4), (16, 16)),
    ("neuron", "global"): ((4, 4), (16, 15)),
    ("both", "layer"): ((2, 2), (16, 16)),
    ("both", "global"): ((2, 2), (16, 15)),
    ("element", "global"): ((4, 4), (32, 32)),
}


@pytest.mark.parametrize(("granularity", "scope"), FINAL)
def test_the_final_model_is_the_one_that_the_trial_ends_with(granularity: str, scope: str, tiny: ImageData) -> None:
    config = toy.config(granularity=granularity, scope=scope, epochs=1)
    final = size.final_architecture(config)
    assert (final.heads, final.neurons) == FINAL[granularity, scope]
    *_, last = run(config, tiny)
    found = size.cost(config)
    assert (found.params, found.gmacs) == (last.metrics["params"], pytest.approx(last.metrics["gmacs"]))


@pytest.mark.parametrize("granularity", ["head", "neuron", "both", "element"])
def test_what_is_measured_is_the_dense_model_and_the_final_one(
    granularity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Head and neuron were measured as if both kinds of unit were pruned."""
    config = toy.config(granularity=granularity)
    timed: list[int] = []

    def noted(config: Any, model: Any, *rest: Any) -> float:
        timed.append(sum(tensor.numel() for tensor in model.parameters()))
        return 1e-3

    monkeypatch.setattr(measure, "_seconds_per_image", noted)
    measure.measure(config, seconds=0.0)
    full, final = size.architecture_of(config), size.final_architecture(config)
    assert timed == [size.size_of(full).params, size.size_of(final).params]
    assert (timed[0] == timed[1]) == (granularity == "element")


def test_each_dense_architecture_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Architecture] = []
    real = size.architecture_of

    def counted(config: Any) -> Architecture:
        built.append(real(config))
        return built[-1]

    monkeypatch.setattr(size, "architecture_of", counted)
    sizes = size.dense_sizes([toy.config(seed=s) for s in range(5)])
    assert len(built) == 1 and sizes == [size.size_of(built[0])] * 5
