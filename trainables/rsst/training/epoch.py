"""One epoch of a round: optimizer steps, learning-rate schedule, penalty. Knows no rounds but the number it is given.

Comes in: model, images, optimizer, penalty, the epoch's place in the round. Goes out: the mean training loss.
Nothing is read back from the device within an epoch. A step is an optimizer step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.rsst.config import RSSTConfig
from trainables.rsst.data.augment import augment
from trainables.rsst.data.batches import Split
from trainables.rsst.pruning.penalty import Penalty
from trainables.rsst.seeding import derived, generator
from trainables.rsst.training.schedule import Clock, learning_rate

"""What torch and its libraries say where they raise a plain RuntimeError for want of memory."""


class TrialDiverged(RuntimeError):
    """The training loss is not finite; says in which round, epoch and step."""


def make_optimizer(config: RSSTConfig, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW or SGD; weight decay acts on weight matrices, not on biases, norms, class token or position embedding."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or name in ("cls_token", "pos_embed", "reg_token")
        (free if plain else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)


def train_epoch(
    model: nn.Module,
    train: Split,
    optimizer: torch.optim.Optimizer,
    penalty: Penalty,
    config: RSSTConfig,
    clock: Clock,
    *,
    num_classes: int,
    round: int,
    epoch: int,
) -> tuple[float, float]:
    """Train epoch `epoch` (from 0) of round `round` in place; returns the mean loss and the last learning rate.

    Raises:
        TrialDiverged: a step's loss was not finite.
    """
    model.train()
    torch.manual_seed(derived(config.seed, "dropout", round, epoch))
    device = train.labels.device
    order = torch.randperm(len(train.labels), generator=generator(config.seed, "order", round, epoch)).to(device)
    losses: list[Tensor] = []
    rate = 0.0
    for at, index in enumerate(order.split(config.batch_size)):
        step = epoch * clock.steps_per_epoch + at
        rate = learning_rate(config, clock, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        seed = derived(config.seed, "augment", round, epoch, at)
        images, targets = augment(
            train.batch(index), train.labels[index], config.augment, num_classes, seed, mean=train.mean, std=train.std
        )
        optimizer.zero_grad(set_to_none=True)
        loss = _gradients(model, images, targets, config)
        t_from, t_to = clock.progress(step), clock.progress(step + 1)
        penalty.before_step(t_to)
        optimizer.step()
        penalty.after_step(t_from, t_to)
        losses.append(loss)
    return _mean_of_finite(torch.stack(losses), round, epoch), rate


def _gradients(model: nn.Module, images: Tensor, targets: Tensor, config: RSSTConfig) -> Tensor:
    """Add the gradients of the batch's mean loss to the parameters' and return that loss, detached.

    With micro_batch_size the batch goes through the model in pieces, each weighted by its share of the images.
    """
    pieces = [(images, targets)]
    if config.micro_batch_size is not None and config.micro_batch_size < len(images):
        size = config.micro_batch_size
        pieces = list(zip(images.split(size), targets.split(size), strict=True))
    total: Tensor | None = None
    for part, wanted in pieces:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=config.amp):
            logits = model(part)
        loss = F.cross_entropy(logits.float(), wanted, label_smoothing=config.label_smoothing)
        if len(pieces) > 1:
            loss = loss * (len(part) / len(images))
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
