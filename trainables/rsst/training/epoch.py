"""One epoch of a round: batches, gradients, optimizer steps.

In: a `Training`, the number of the epoch. Out: the mean training loss and the last learning rate.
Nothing is read back from the device within an epoch. A step is an optimizer step.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.progress import TRAINING, tracked
from trainables.rsst.config import RSSTConfig
from trainables.rsst.data.batches import Batch
from trainables.rsst.seeding import derived
from trainables.rsst.training.block import compiled_blocks
from trainables.rsst.training.kernels import fast_kernels, repeatable, tf32
from trainables.rsst.training.linear import fast_linears
from trainables.rsst.training.plan import EpochPlan
from trainables.rsst.training.schedule import learning_rate
from trainables.rsst.training.setup import Training


class TrialDiverged(RuntimeError):
    """A loss, a weight, a score or a metric is not finite; says in which round, epoch and step."""


def train_epoch(training: Training, epoch: int) -> tuple[float, float]:
    """Train epoch `epoch` (from 0) of the round in place; returns the mean loss and the last learning rate.

    Raises:
        TrialDiverged: a step's loss was not finite.
    """
    config, images, round = training.config, training.images, training.round
    training.model.train()
    torch.manual_seed(derived(config.seed, "dropout", round, epoch))
    with repeatable(config.deterministic), fast_linears(training.model, images.device.type), _compiled(training):
        losses, rate = _steps(training, epoch, EpochPlan.of(config, images, round, epoch))
    return _mean_of_finite(losses, round, epoch), rate


def _compiled(training: Training) -> AbstractContextManager[None]:
    """With `compile` the blocks are compiled for the number of images that goes through the model at a time."""
    config, images = training.config, training.images
    if not config.compile:
        return nullcontext()
    most = config.micro_batch_size or config.batch_size
    at_once = min(most, config.batch_size, len(images.train))
    return compiled_blocks(training.model, at_once, amp=config.amp)


def refuse_broken(training: Training, epoch: int) -> None:
    """Refuse weights and moments that are not finite after epoch `epoch` (from 0): one read for all of them.

    The losses of the epoch were finite, so the last step broke them; of gradients that are not finite one of the two
    has a trace. A moment alone is broken where a gradient's square is too large: its weight would never move again.

    Raises:
        TrialDiverged: one of them is not.
    """
    tensors = {f"weight {name}": weight.detach() for name, weight in training.model.named_parameters()}
    for name, weight in training.model.named_parameters():
        moments = training.optimizer.state.get(weight, {})
        tensors |= {f"{key} of {name}": value for key, value in moments.items() if isinstance(value, Tensor)}
    largest = torch.stack([value.abs().max().float().to(training.images.device) for value in tensors.values()])
    for name, size in zip(tensors, largest.tolist(), strict=True):
        if not math.isfinite(size):
            step = training.clock.steps_per_epoch - 1
            raise TrialDiverged(f"round {training.round}, epoch {epoch + 1}, step {step}: the {name} is {size}")


def _steps(training: Training, epoch: int, plan: EpochPlan) -> tuple[Tensor, float]:
    """Take the steps of the plan; returns their losses (S,), still on the device, and the last learning rate."""
    config, images, clock = training.config, training.images, training.clock
    losses: list[Tensor] = []
    rate = 0.0
    for at in tracked(TRAINING, range(len(plan.steps)), plan.images, size=lambda at: plan.steps[at].rows.shape[1]):
        step = epoch * clock.steps_per_epoch + at
        rate = learning_rate(config, clock, step)
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        batch = plan.batch(images, at)
        training.optimizer.zero_grad(set_to_none=True)
        with tf32(images.device.type, allowed=True):
            losses.append(_gradients(training.model, batch, config))
        t_from, t_to = clock.progress(step), clock.progress(step + 1)
        training.penalty.before_step(t_to)
        training.optimizer.step()
        training.penalty.after_step(t_from, t_to)
    return torch.stack(losses), rate


def _gradients(model: nn.Module, batch: Batch, config: RSSTConfig) -> Tensor:
    """Add the gradients of the batch's mean loss to the parameters' and return that loss, detached.

    With micro_batch_size the batch goes through the model in pieces, each weighted by its share of the images.
    """
    size = config.micro_batch_size
    pieces = batch.split(size) if size is not None and size < len(batch) else [batch]
    total: Tensor | None = None
    for piece in pieces:
        device = piece.images.device.type
        with torch.autocast(device, torch.bfloat16, enabled=config.amp), fast_kernels(device, config.amp):
            logits = model(piece.images)
        loss = F.cross_entropy(logits.float(), piece.targets, label_smoothing=config.label_smoothing)
        if len(pieces) > 1:
            loss = loss * (len(piece) / len(batch))
        loss.backward()
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None, "a batch has images"
    return total


def _mean_of_finite(losses: Tensor, round: int, epoch: int) -> float:
    finite = torch.isfinite(losses)
    if not bool(finite.all()):
        step = int((~finite).nonzero()[0])
        raise TrialDiverged(f"round {round}, epoch {epoch + 1}, step {step}: the loss is {float(losses[step])}")
    return float(losses.double().mean())
