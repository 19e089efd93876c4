"""Scores by hand on two heads and two neurons, saliency against finite differences, criteria all different."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.trainables import toy
from trainables.rsst.config import KNOBS
from trainables.rsst.data.batches import Batch
from trainables.rsst.data.load import ImageData
from trainables.rsst.model.vit import Architecture, build
from trainables.rsst.pruning.importance import Scores, score
from trainables.rsst.running import Running

CRITERIA = KNOBS["criteria"].choices


def hand_made() -> tuple[torch.nn.Module, Architecture]:
    """D = 4, one layer, 2 heads of 2, 2 neurons; weights set by hand, biases 100 to show that they are not scored."""
    sizes = {"img_size": 4, "patch_size": 4, "in_chans": 1, "num_classes": 3}
    arch = Architecture("", sizes | {"embed_dim": 4, "depth": 1, "num_heads": 2, "mlp_ratio": 0.5}, 2, (2,), (2,))
    model = build(arch)
    block = model.blocks[0]
    with torch.no_grad():
        for bias in (block.attn.qkv.bias, block.mlp.fc1.bias):
            bias.fill_(100.0)
        # rows 0-1 q of head 0, 2-3 q of head 1, then k, then v; proj columns 0-1 head 0
        block.attn.qkv.weight.copy_(torch.tensor([1, 1, 2, 2] * 3, dtype=torch.float)[:, None].expand(12, 4))
        block.attn.proj.weight.copy_(torch.tensor([-1.0, -1.0, 3.0, 3.0]).expand(4, 4))
        block.mlp.fc1.weight.copy_(torch.tensor([[0.5], [-4.0]]).expand(2, 4))
        block.mlp.fc2.weight.copy_(torch.tensor([0.25, 5.0]).expand(4, 2))
    return model, arch


NOTHING = Batch(torch.zeros(1, 1, 4, 4), torch.zeros(1, dtype=torch.int64))


def test_magnitude_by_hand() -> None:
    """head 0: 6 rows and 2 columns of four 1s; head 1: 6 · 4 · 2 + 2 · 4 · 3; neurons: 4 · (½ + ¼), 4 · (4 + 5)."""
    model, arch = hand_made()
    found = score("magnitude", model, arch, NOTHING, rate=0.5)
    assert found.heads[0].tolist() == [32.0, 72.0]
    assert found.neurons[0].tolist() == [3.0, 36.0]


def test_remain_by_hand() -> None:
    """80 weights sorted: 4 of ¼, 4 of ½, 32 of 1, 24 of 2, 8 of 3, 4 of 4, 4 of 5."""
    model, arch = hand_made()
    heads = {0.05: [32, 32], 0.6: [0, 32], 0.9: [0, 0], 0.45: [32, 32]}
    neurons = {0.05: [4, 8], 0.6: [0, 8], 0.9: [0, 8], 0.45: [0, 8]}
    for rate in heads:
        found = score("remain", model, arch, NOTHING, rate=rate)
        assert found.heads[0].tolist() == heads[rate], rate
        assert found.neurons[0].tolist() == neurons[rate], rate


class Activations(torch.nn.Module):
    """Passes what goes into `proj` or `fc2` through `change`, and keeps it."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.scale: Tensor | None = None
        self.seen = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x if self.scale is None else x * self.scale
        return self.inner(self.seen)


@pytest.fixture(scope="module")
def trained(toy: None, tiny: ImageData) -> tuple[Running, list[Batch]]:
    """A toy trained for one round, and 20 calibration images."""
    config = toy_config()
    trial = Running.resumed(config, tiny, toy_state(config, tiny))
    return trial, list(trial.images.calibration(20, seed=0))


def toy_config() -> toy.RSSTConfig:
    return toy.config(pruning_times=1, epochs=6)


def toy_state(config: toy.RSSTConfig, tiny: ImageData) -> toy.TrialState:
    return toy.last_state(config, tiny)


def wrapped(trial: Running) -> Iterator[tuple[str, int, int, Activations]]:
    """(kind, layer, width of a unit, wrapper) of every place where units are measured; taken off again afterwards."""
    for layer, block in enumerate(trial.model.blocks):
        for kind, owner, name, width in (("head", block.attn, "proj", 4), ("neuron", block.mlp, "fc2", 1)):
            inner = getattr(owner, name)
            wrapper = Activations(inner)
            setattr(owner, name, wrapper)
            yield kind, layer, width, wrapper
            setattr(owner, name, inner)


def of(found: Scores, kind: str, layer: int) -> Tensor:
    return found.of(kind)[layer]  # type: ignore[arg-type]


@torch.no_grad()
def test_l1_and_l2_are_the_mean_and_root_mean_square_activation(trained: tuple[Running, list[Batch]]) -> None:
    trial, calibration = trained
    model = trial.model.eval()
    l1, l2 = (score(c, model, trial.form.arch, calibration, rate=0.3) for c in ("l1", "l2"))
    for kind, layer, width, wrapper in wrapped(trial):
        model(calibration[0].images)
        a = wrapper.seen.double().unflatten(-1, (-1, width))  # (B, N, U, K)
        assert torch.allclose(of(l1, kind, layer), a.abs().mean(dim=(0, 1, 3)), rtol=1e-9)
        assert torch.allclose(of(l2, kind, layer), a.pow(2).mean(dim=(0, 1, 3)).sqrt(), rtol=1e-9)


@torch.no_grad()
def test_saliency_is_the_change_of_each_images_loss_when_the_unit_fades(trained: tuple[Running, list[Batch]]) -> None:
    """d loss / d s at s = 1, the unit's activation times s, by central differences in float64; |·| image by image."""
    trial, calibration = trained
    found = score("saliency", trial.model, trial.form.arch, calibration, rate=0.3)
    model = trial.model.double().eval()
    images = calibration[0].images.double()

    def losses(wrapper: Activations, scale: Tensor) -> Tensor:
        wrapper.scale = scale
        result = F.cross_entropy(model(images), calibration[0].targets, reduction="none")
        wrapper.scale = None
        return result

    step = 1e-4
    for kind, layer, width, wrapper in wrapped(trial):
        for unit in range(len(of(found, kind, layer))):
            one = torch.zeros(len(of(found, kind, layer)) * width, dtype=torch.float64)
            one[unit * width : (unit + 1) * width] = step
            slope = (losses(wrapper, 1 + one) - losses(wrapper, 1 - one)) / (2 * step)
            assert float(of(found, kind, layer)[unit]) == pytest.approx(float(slope.abs().sum()), rel=1e-3, abs=1e-6)
    trial.model.float()


def test_the_batch_size_of_the_scoring_pass_does_not_matter(trained: tuple[Running, list[Batch]]) -> None:
    trial, calibration = trained
    for criterion in ("l1", "l2", "saliency"):
        whole = score(criterion, trial.model, trial.form.arch, calibration, rate=0.3)
        parts = score(criterion, trial.model, trial.form.arch, calibration[0].split(7), rate=0.3)
        for a, b in zip([*whole.heads, *whole.neurons], [*parts.heads, *parts.neurons], strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-7)


def test_scoring_leaves_no_trace(trained: tuple[Running, list[Batch]]) -> None:
    trial, calibration = trained
    model = trial.model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for criterion in CRITERIA:
        score(criterion, model, trial.form.arch, calibration, rate=0.3)
        assert model.training and all(p.grad is None for p in model.parameters())
        assert not any(m._forward_pre_hooks for m in model.modules())
    assert toy.same_tensors(before, model.state_dict())


def test_no_two_criteria_rank_a_fixed_model_alike(trained: tuple[Running, list[Batch]]) -> None:
    """Neither all heads together, nor the neurons of any layer."""
    trial, calibration = trained
    found = {c: score(c, trial.model, trial.form.arch, calibration, rate=0.3) for c in CRITERIA}
    assert set(found) == {"magnitude", "l1", "l2", "saliency", "remain"}
    for a, b in combinations(CRITERIA, 2):
        for layer in range(2):
            ranks = [torch.argsort(found[c].neurons[layer], stable=True).tolist() for c in (a, b)]
            assert ranks[0] != ranks[1], (a, b, layer)
        heads = [torch.argsort(torch.cat(found[c].heads), stable=True).tolist() for c in (a, b)]
        assert heads[0] != heads[1], (a, b)
