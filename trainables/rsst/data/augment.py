"""Training augmentation on whole batches, on the device that holds them: the same code and draws on CPU and GPU.

In: a batch, a policy and one seed per step (trainables/rsst/training/epoch.py hands them in).
Out: a batch.
The result depends on the arguments alone: every random number comes from `seed` and is drawn on the CPU; no global
random state is read or moved. Shapes: B images, C channels, H height, W width.

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

import torch
from torch import Tensor
from torchvision.transforms import v2

from trainables.rsst.config import KNOBS
from trainables.rsst.data.batches import Batch

POLICIES = KNOBS["augment"].choices

RANDAUGMENT_GROUP = 8  # images that share one draw of RandAugment's operations
ERASE_PROBABILITY = 0.25
ERASE_AREA = (0.02, 1 / 3)  # share of the image, as in timm
ERASE_ASPECT = (0.3, 1 / 0.3)


def augment(
    batch: Batch,
    policy: str,
    num_classes: int,
    seed: int,
    *,
    mean: Tensor | None = None,
    std: Tensor | None = None,
) -> Batch:
    """A changed copy of a training batch; only `strong` makes its targets probabilities.

    Args:
        batch: its targets are class numbers.
        policy: one of POLICIES.
        num_classes: width of the targets that mixing makes.
        seed: of this step; any int in 0 … 2⁶³ − 1.
        mean: what the images were normalised with, broadcastable to (C, 1, 1); only `strong` needs it and `std`,
            because RandAugment's colour operations are defined on 0 … 255.
        std: see `mean`.

    Raises:
        ValueError: unknown policy, or `strong` without mean and std.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy = {policy}: valid is {', '.join(POLICIES)}")
    if policy == "none":
        return batch
    images = batch.images
    draws = torch.Generator().manual_seed(seed)
    if policy != "flip":
        images = _crop(images, draws)
    if policy != "crop":
        images = _flip(images, draws)
    if policy != "strong":
        return Batch(images, batch.targets)
    if mean is None or std is None:
        raise ValueError("policy = strong: valid is with mean and std given, which its colour operations need")
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global CPU generator
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=draws)))
        images = _randaugment(images, mean, std)
        mix = v2.MixUp(alpha=0.8, num_classes=num_classes) if torch.rand(()) < 0.5 else _cutmix(num_classes)
        images, targets = mix(images, batch.targets)
    return Batch(_erase(images, draws), targets)


def _cutmix(num_classes: int) -> v2.CutMix:
    return v2.CutMix(alpha=1.0, num_classes=num_classes)


def _flip(images: Tensor, draws: torch.Generator) -> Tensor:
    mirrored = torch.rand(len(images), generator=draws) < 0.5
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(3), images)


def _crop(images: Tensor, draws: torch.Generator) -> Tensor:
    """Each image moved by its own (dy, dx); zeros (the mean of normalised images) come in at the edge."""
    count, _, height, width = images.shape
    pad = min(4, max(1, min(height, width) // 8))
    padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
    corner = torch.randint(2 * pad + 1, (2, count), generator=draws).to(images.device)
    rows = corner[0][:, None] + torch.arange(height, device=images.device)
    columns = corner[1][:, None] + torch.arange(width, device=images.device)
    image = torch.arange(count, device=images.device)[:, None, None]
    # indexing beside the channel dimension puts it last
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _randaugment(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """torchvision's RandAugment on uint8 pixels; each group of RANDAUGMENT_GROUP images has its own operations."""
    operation = v2.RandAugment(num_ops=2, magnitude=9, fill=128)
    pixels = ((images * std + mean) * 255.0).round().clamp(0, 255).to(torch.uint8)
    changed = torch.cat([operation(group) for group in pixels.split(RANDAUGMENT_GROUP)])
    return (changed.to(images.dtype) / 255.0 - mean) / std


def _erase(images: Tensor, draws: torch.Generator) -> Tensor:
    """A rectangle set to zero (the mean) in about a quarter of the images; sizes as in timm."""
    count, _, height, width = images.shape
    u = torch.rand(5, count, generator=draws)
    area = height * width * (ERASE_AREA[0] + u[1] * (ERASE_AREA[1] - ERASE_AREA[0]))
    low, high = math.log(ERASE_ASPECT[0]), math.log(ERASE_ASPECT[1])
    aspect = torch.exp(low + u[2] * (high - low))
    tall = (area * aspect).sqrt().round().clamp(1, height - 1)
    wide = (area / aspect).sqrt().round().clamp(1, width - 1)
    top, left = (u[3] * (height - tall + 1)).floor(), (u[4] * (width - wide + 1)).floor()
    y, x = torch.arange(height), torch.arange(width)
    in_rows = (y >= top[:, None]) & (y < (top + tall)[:, None])
    in_columns = (x >= left[:, None]) & (x < (left + wide)[:, None])
    chosen = (u[0] < ERASE_PROBABILITY)[:, None, None] & in_rows[:, :, None] & in_columns[:, None, :]
    return images.masked_fill(chosen.to(images.device)[:, None], 0.0)
