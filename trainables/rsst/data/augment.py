"""Training augmentation on whole batches, on the device that holds the images: the same code and draws on CPU and GPU.

In: the training images, a policy, and the draws of a step. Out: a batch.
`drawn` makes the draws of a step on the CPU from its seed alone; no global random state is read or moved. An epoch
makes those of all its steps at its start and copies them once (trainables/rsst/training/plan.py), so that nothing is
sent to a GPU between two steps. Shapes: B images, C channels, H height, W width.

| policy | what it does |
|---|---|
| none | nothing |
| flip | mirrors each image with probability ½ |
| crop | moves each image by up to 4 pixels (an eighth of the side where that is less); mean grey comes in |
| standard | crop, then flip |
| strong | crop, flip, RandAugment (2 operations, magnitude 9), mixup (0.8) or cutmix (1.0), erasing (p = ¼) |

Label smoothing is a knob of its own (the loss applies it to every policy).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.rsst.config import KNOBS
from trainables.rsst.data import randaugment
from trainables.rsst.data.batches import Batch, TrialImages

POLICIES = KNOBS["augment"].choices
CHOSEN, DOWN, RIGHT, MIRRORED = range(4)  # rows of `Draws.rows`; strong has more
ERASED = slice(4, 8)
OPERATIONS = 8

ERASE_PROBABILITY = 0.25
ERASE_AREA = (0.02, 1 / 3)  # share of the image, as in timm
ERASE_ASPECT = (0.3, 1 / 0.3)
MIXUP_ALPHA = 0.8


@dataclass(frozen=True)
class Mix:
    """How a batch is mixed with itself, moved on by one image: `share` of each image and label stays.

    `box` (top, left, bottom, right) is what cutmix replaces; None is mixup.
    """

    share: float
    box: tuple[int, int, int, int] | None


@dataclass(frozen=True)
class Draws:
    """What one step draws for its B images.

    `rows` int32 (rows, B): number of the image; but for none, pixels to move down and right, and whether it is
    mirrored; for strong also the erased rectangle (top, left, bottom, right) and RandAugment's rows. `groups` and `mix`
    are strong's and stay on the host.
    """

    rows: Tensor
    groups: tuple[randaugment.Groups, ...] = ()
    mix: Mix | None = None

    def on(self, rows: Tensor) -> Draws:
        """The same with `rows` somewhere else."""
        return replace(self, rows=rows)


def drawn(policy: str, chosen: Tensor, side: int, seed: int) -> Draws:
    """The draws of one step.

    Args:
        policy: one of POLICIES.
        chosen: int64 (B,), numbers of the images.
        side: H = W.
        seed: of this step; any int in 0 … 2⁶³ − 1.
    """
    if policy == "none":
        return Draws(chosen[None].int())
    count, pad = len(chosen), _pad(side)
    draws = torch.Generator().manual_seed(seed)
    rows = torch.zeros(4, count, dtype=torch.int32)
    rows[CHOSEN] = chosen
    if policy != "flip":
        rows[[DOWN, RIGHT]] = torch.randint(2 * pad + 1, (2, count), generator=draws).int() - pad
    if policy != "crop":
        rows[MIRRORED] = torch.rand(count, generator=draws) < 0.5
    if policy != "strong":
        return Draws(rows)
    mix = _mix(side, draws)
    rectangles = _rectangles(count, side, draws)
    operations, groups = randaugment.drawn(count, draws)
    return Draws(torch.cat([rows, rectangles, operations]), groups, mix)


def augmented(images: TrialImages, policy: str, draws: Draws) -> Batch:
    """The batch of a step; only `strong` makes its targets probabilities."""
    chosen = draws.rows[CHOSEN].long()
    if policy == "none":
        return images.batch(images.train[chosen])
    pixels, outside = _moved(images.train.images, chosen, draws.rows)
    labels = images.train.labels[chosen]
    if policy != "strong":
        return Batch(images.normalised(pixels).masked_fill_(outside, 0.0), labels)
    grey = (images.mean * 255.0).round().to(torch.uint8)
    pixels = randaugment.applied(torch.where(outside, grey, pixels), draws.rows[OPERATIONS:], draws.groups)
    assert draws.mix is not None, "strong mixes every batch"
    mixed = _mixed(Batch(images.normalised(pixels), labels), draws.mix, images.num_classes)
    return Batch(_erased(mixed.images, draws.rows[ERASED]), mixed.targets)


def _pad(side: int) -> int:
    """The most pixels that an image moves by."""
    return min(4, max(1, side // 8))


def _moved(images: Tensor, chosen: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The chosen images, moved and mirrored by one gather; what came in from outside, bool (B, 1, H, W)."""
    count, (channels, height, width) = len(chosen), images.shape[1:]
    y, x = (torch.arange(n, device=images.device) for n in (height, width))
    across = torch.where(rows[MIRRORED, :, None] > 0, width - 1 - x, x)
    from_y, from_x = y + rows[DOWN, :, None], across + rows[RIGHT, :, None]
    outside_y, outside_x = (from_y < 0) | (from_y >= height), (from_x < 0) | (from_x >= width)
    at = from_y.clamp(0, height - 1)[:, :, None] * width + from_x.clamp(0, width - 1)[:, None, :]
    at = at.long().view(count, 1, height * width).expand(-1, channels, -1)
    pixels = images[chosen].view(count, channels, height * width).gather(2, at).view(count, channels, height, width)
    return pixels, (outside_y[:, :, None] | outside_x[:, None, :])[:, None]


def _mix(side: int, draws: torch.Generator) -> Mix:
    """mixup or cutmix, by a coin; cutmix keeps the share of the image that its box really leaves."""
    if torch.rand((), generator=draws) < 0.5:
        return Mix(_beta(MIXUP_ALPHA, draws), None)
    half = int(0.5 * math.sqrt(float(torch.rand((), generator=draws))) * side)
    y, x = torch.randint(side, (2,), generator=draws).tolist()
    top, left, bottom, right = max(y - half, 0), max(x - half, 0), min(y + half, side), min(x + half, side)
    return Mix(1.0 - (bottom - top) * (right - left) / side**2, (top, left, bottom, right))


def _beta(alpha: float, draws: torch.Generator) -> float:
    """A draw of Beta(alpha, alpha) for alpha < 1 (Jöhnk 1964)."""
    while True:
        x, y = (torch.rand(2, generator=draws, dtype=torch.float64) ** (1.0 / alpha)).tolist()
        if 0.0 < x + y <= 1.0:
            return float(x / (x + y))


def _mixed(batch: Batch, mix: Mix, num_classes: int) -> Batch:
    """mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019), each image with the one before it in the batch."""
    images, others = batch.images, batch.images.roll(1, 0)
    if mix.box is None:
        images = torch.lerp(others, images, mix.share)
    else:
        top, left, bottom, right = mix.box
        images[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    targets = F.one_hot(batch.targets, num_classes).to(images.dtype)
    return Batch(images, torch.lerp(targets.roll(1, 0), targets, mix.share))


def _rectangles(count: int, side: int, draws: torch.Generator) -> Tensor:
    """int32 (4, B): a rectangle in about a quarter of the images, sizes as in timm; empty in the others."""
    u = torch.rand(5, count, generator=draws)
    area = side**2 * (ERASE_AREA[0] + u[1] * (ERASE_AREA[1] - ERASE_AREA[0]))
    low, high = math.log(ERASE_ASPECT[0]), math.log(ERASE_ASPECT[1])
    aspect = torch.exp(low + u[2] * (high - low))
    tall = (area * aspect).sqrt().round().clamp(1, max(side - 1, 1))
    wide = (area / aspect).sqrt().round().clamp(1, max(side - 1, 1))
    top, left = (u[3] * (side - tall + 1)).floor(), (u[4] * (side - wide + 1)).floor()
    return (torch.stack([top, left, top + tall, left + wide]) * (u[0] < ERASE_PROBABILITY)).int()


def _erased(images: Tensor, rectangles: Tensor) -> Tensor:
    """Zeros, the mean of normalised images, in each image's rectangle."""
    top, left, bottom, right = rectangles[:, :, None]
    y, x = (torch.arange(n, device=images.device) for n in images.shape[2:])
    inside = ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None, :]
    return images.masked_fill(inside[:, None], 0.0)
