"""The methods that RSST is compared with: one-shot removal and Torch-Pruning's pruners, trained by the core.

In: a dense model (state after round 0), kept share, epochs.
Out: `Outcome`, the pruned and tuned model.
All of them train with the core's `train_epoch` (same data order rules, optimizer, schedule) and rebuild the pruned
network with the core's `build`, so that parameters and MACs are counted alike; the logits are compared when rebuilt.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from timm.models.vision_transformer import VisionTransformer

from trainables.rsst.config import RSSTConfig
from trainables.rsst.data.batches import TrialImages, on_device
from trainables.rsst.data.load import ImageData
from trainables.rsst.experiment import run
from trainables.rsst.model.vit import Architecture, build
from trainables.rsst.pruning.pruners import Form, UnitPruner
from trainables.rsst.pruning.selection import keep_count
from trainables.rsst.state import TrialState
from trainables.rsst.training.epoch import train_epoch
from trainables.rsst.training.evaluation import evaluate
from trainables.rsst.training.schedule import Clock, clock_for
from trainables.rsst.training.setup import StepPenalty, Training


@dataclass
class Outcome:
    """A pruned model, what its removal did to the validation images, and the seconds its epochs took."""

    model: VisionTransformer
    arch: Architecture
    gap: float
    changed: float
    seconds: float


def dense_model(state: TrialState) -> tuple[VisionTransformer, Architecture]:
    """The dense model that round 0 trained."""
    arch = Architecture.from_json(state.meta["full"])
    model = build(arch)
    model.load_state_dict(state.group("weights"))
    return model, arch


def dense_seconds(state: TrialState) -> float:
    """Seconds that the epochs of the dense round took."""
    return sum(event["seconds"] for event in state.meta["history"] if event["kind"] == "epoch")


class Trainer:
    """Epochs of the core's training for models that the round loop does not know."""

    def __init__(self, config: RSSTConfig, data: ImageData) -> None:
        self.config, self.images = config, on_device(data, torch.device("cpu"))
        self.seconds = 0.0
        self._phase = 0

    def train(self, model: VisionTransformer, epochs: int, penalty: StepPenalty | None = None) -> None:
        """One phase of `epochs` epochs: a new optimizer, warm-up, cosine. Validates once an epoch, as the core does."""
        self._phase += 1
        steps = clock_for(self.config, len(self.images.train)).steps_per_epoch
        clock = Clock(epochs, steps, min(self.config.warmup, epochs))
        training = Training.begin(self.config, model, self.images, penalty=penalty, clock=clock, round=self._phase)
        for epoch in range(epochs):
            began = time.perf_counter()
            train_epoch(training, epoch)
            evaluate(model, self.images, self.images.val)
            self.seconds += time.perf_counter() - began


def one_shot(config: RSSTConfig, data: ImageData, state: TrialState, share: float, epochs: int) -> Outcome:
    """Score the dense model with the core's criterion, remove everything at once, train `epochs` epochs."""
    trainer = Trainer(config, data)
    model, arch = dense_model(state)
    pruner, form = UnitPruner(), Form.unpruned(arch)
    calibration = trainer.images.calibration(config.calibration_images, config.seed)
    doomed = pruner.choose(model, form, config, calibration, share)
    before = evaluate(model, trainer.images, trainer.images.val)
    weights, form = pruner.remove(model.state_dict(), form, doomed)
    small = build(form.arch)
    small.load_state_dict(weights)
    after = evaluate(small, trainer.images, trainer.images.val)
    trainer.train(small, epochs)
    return Outcome(small, form.arch, before.top1 - after.top1, after.changed(before), trainer.seconds)


def torch_pruning_magnitude(
    config: RSSTConfig, data: ImageData, state: TrialState, share: float, epochs: int
) -> Outcome:
    """Torch-Pruning's MagnitudePruner (group magnitude, per layer), once, then `epochs` epochs."""
    trainer = Trainer(config, data)
    model, arch = dense_model(state)
    with Unfused(model):
        pruner = tp.pruner.MagnitudePruner(
            model, _example(arch), importance=tp.importance.GroupMagnitudeImportance(p=2), **_ratios(model, arch, share)
        )
    return _removed_and_tuned(pruner, model, arch, share, trainer, epochs)


def torch_pruning_growing(
    config: RSSTConfig, data: ImageData, state: TrialState, share: float, press: int, tune: int, delta: float
) -> Outcome:
    """Torch-Pruning's GrowingRegPruner: `press` epochs with its penalty, grown once an epoch; removal; `tune` epochs.

    `delta` is both its first coefficient (reg) and the growth (delta_reg); the library's default is 1e-5.
    """
    trainer = Trainer(config, data)
    model, arch = dense_model(state)
    with Unfused(model):
        pruner = tp.pruner.GrowingRegPruner(
            model,
            _example(arch),
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            reg=delta,
            delta_reg=delta,
            **_ratios(model, arch, share),
        )
    steps = clock_for(config, len(trainer.images.train)).steps_per_epoch
    trainer.train(model, press, GrowingPenalty(pruner, model, steps))
    return _removed_and_tuned(pruner, model, arch, share, trainer, tune)


class GrowingPenalty:
    """Torch-Pruning's `regularize` in the place of the core's penalty: called after backward, before the step."""

    def __init__(self, pruner: Any, model: VisionTransformer, steps_per_epoch: int) -> None:
        self.pruner, self.model, self.every, self.step = pruner, model, steps_per_epoch, 0

    def before_step(self, t: float) -> None:
        """Add its gradient; grow its coefficients when an epoch is complete."""
        self.pruner.regularize(self.model)
        self.step += 1
        if self.step % self.every == 0:
            self.pruner.update_reg()

    def after_step(self, t_from: float, t_to: float) -> None:
        """Nothing: it acts through the gradient."""


class Unfused:
    """Attention without the fused kernel while Torch-Pruning traces the graph."""

    def __init__(self, model: VisionTransformer) -> None:
        self.parts = [block.attn for block in model.blocks]

    def __enter__(self) -> None:
        self.before = [part.fused_attn for part in self.parts]
        for part in self.parts:
            part.fused_attn = False

    def __exit__(self, *error: object) -> None:
        for part, fused in zip(self.parts, self.before, strict=True):
            part.fused_attn = fused


def _example(arch: Architecture) -> torch.Tensor:
    return torch.zeros(1, *arch.input_shape())


def _ratios(model: VisionTransformer, arch: Architecture, share: float) -> dict[str, Any]:
    """Per layer the same counts as the core's: whole heads and MLP neurons; residual width and head dims untouched."""
    heads, neurons = arch.heads[0], arch.neurons[0]
    return {
        "pruning_ratio": 1.0 - (keep_count(neurons, share) + 0.01) / neurons,
        "head_pruning_ratio": 1.0 - (keep_count(heads, share) + 0.01) / heads,
        "num_heads": {block.attn.qkv: heads for block in model.blocks},
        "prune_num_heads": True,
        "prune_head_dims": False,
        "ignored_layers": [model.head, model.patch_embed.proj],
    }


def _removed_and_tuned(
    pruner: Any, model: VisionTransformer, arch: Architecture, share: float, trainer: Trainer, epochs: int
) -> Outcome:
    before = evaluate(model, trainer.images, trainer.images.val)
    pruner.step()
    for block in model.blocks:
        block.attn.num_heads = pruner.num_heads[block.attn.qkv]
        block.attn.attn_dim = block.attn.num_heads * block.attn.head_dim
    heads = [keep_count(total, share) for total in arch.heads]
    neurons = [keep_count(total, share) for total in arch.neurons]
    assert heads == [block.attn.num_heads for block in model.blocks], "Torch-Pruning kept other heads than asked for"
    small_arch = arch.with_counts(heads, neurons)
    small = build(small_arch)
    small.load_state_dict(model.state_dict())
    after = evaluate(small, trainer.images, trainer.images.val)
    assert after.changed(evaluate(model, trainer.images, trainer.images.val)) == 0.0, "rebuilt differently"
    trainer.train(small, epochs)
    return Outcome(small, small_arch, before.top1 - after.top1, after.changed(before), trainer.seconds)


def core_trial(config: RSSTConfig, data: ImageData, state: TrialState, *, read_test: bool) -> dict[str, Any]:
    """RSST or refill from its dense round on: metrics of the last event, the final one only with `read_test`."""
    metrics: dict[str, Any] = {}
    seconds = dense_seconds(state)
    for event in run(config, data, state):
        if event.kind == "epoch":
            seconds += event.metrics["seconds"]
        else:
            metrics = event.metrics
        if event.kind == "round" and event.metrics["round"] == config.rounds - 1 and not read_test:
            break
    return {**metrics, "seconds": seconds}


def images_of(data: ImageData) -> TrialImages:
    """The splits of `data` on the CPU."""
    return on_device(data, torch.device("cpu"))
