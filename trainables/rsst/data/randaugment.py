"""RandAugment (Cubuk et al. 2019) on a batch: two operations of magnitude 9 for each image, drawn beforehand.

In: uint8 images, the drawn operations, and which images have which (known to the host). Out: uint8 images.
Each operation acts once on all images that drew it, so the number of kernels does not grow with the batch. Operations
and magnitudes are those of RandAugment in torchvision.transforms.v2 (9 of 31 bins); a sign is drawn for each.
Shapes: B images, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

SLOTS = 2
GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
COLOUR = ("brightness", "color", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize")
NAMES = (*GEOMETRIC, *COLOUR, "identity")
SHEAR, TRANSLATE, ROTATE_DEGREES, BLEND = 0.09, 150 / 331 * 0.3, 9.0, 0.27
POSTERIZE_BITS, SOLARIZE_FROM = 7, 0.7 * 255
FILL = 128  # what a geometric operation leaves empty

Groups = tuple[tuple[str, bool, int, int], ...]
"""(operation, whether it is negative, first, last + 1) of the images of a slot, in the order of its row of positions"""


def drawn(count: int, draws: torch.Generator) -> tuple[Tensor, tuple[Groups, ...]]:
    """int32 (2 · SLOTS, B): the codes of each slot, then positions in the batch by code; the groups of each slot.

    A code is 2 · (number in NAMES) + (1 where the operation is negative).
    """
    codes = 2 * torch.randint(len(NAMES), (SLOTS, count), generator=draws)
    codes += torch.rand(SLOTS, count, generator=draws) < 0.5
    positions = codes.argsort(dim=1, stable=True)
    groups = tuple(_groups(row.gather(0, at).tolist()) for row, at in zip(codes, positions, strict=True))
    return torch.cat([codes, positions]).int(), groups


def _groups(codes: list[int]) -> Groups:
    """Groups of ascending codes. All geometric operations are one: their images have a matrix each."""
    found, start = [], 0
    for (name, negative), run in groupby(codes, key=_operation):
        end = start + len(list(run))
        if name != "identity":
            found.append((name, negative, start, end))
        start = end
    return tuple(found)


def _operation(code: int) -> tuple[str, bool]:
    name = NAMES[code // 2]
    return ("geometric", False) if name in GEOMETRIC else (name, code % 2 == 1)


def applied(pixels: Tensor, rows: Tensor, groups: tuple[Groups, ...]) -> Tensor:
    """`pixels` uint8 (B, C, H, W), changed in place, after both slots; `rows` as `drawn` gives them."""
    for slot, found in enumerate(groups):
        for name, negative, start, end in found:
            where = rows[SLOTS + slot, start:end].long()
            part = pixels.index_select(0, where)
            if name == "geometric":
                part = geometric(part, rows[slot].index_select(0, where).long())
            else:
                part = colour(name, negative)(part)
            pixels.index_copy_(0, where, part)
    return pixels


def geometric(pixels: Tensor, codes: Tensor) -> Tensor:
    """Each image moved by the operation of its own code: nearest pixel, FILL where none is."""
    grid = F.affine_grid(_matrices(pixels.shape[3], pixels.device)[codes], list(pixels.shape), align_corners=False)
    inside = (grid.abs() < 1.0).all(dim=3)[:, None]
    moved = F.grid_sample(pixels.float(), grid, mode="nearest", align_corners=False)
    return torch.where(inside, moved, float(FILL)).to(torch.uint8)


@lru_cache(maxsize=8)
def _matrices(width: int, device: torch.device) -> Tensor:
    """(2 · len(GEOMETRIC), 2, 3): from the output's coordinates, −1 … 1, to those of the pixel to take."""
    shift, angle, one = 2 * int(TRANSLATE * width) / width, math.radians(ROTATE_DEGREES), (1.0, 0.0, 0.0)
    matrices = []
    for sign in (1.0, -1.0):
        shear, move, sine = sign * SHEAR, -sign * shift, sign * math.sin(angle)
        matrices.append(
            [
                [(1.0, shear, shear), (0.0, 1.0, 0.0)],
                [one, (shear, 1.0, shear)],
                [(1.0, 0.0, move), (0.0, 1.0, 0.0)],
                [one, (0.0, 1.0, move)],
                [(math.cos(angle), -sine, 0.0), (sine, math.cos(angle), 0.0)],
            ]
        )
    table = torch.tensor(matrices, dtype=torch.float32).transpose(0, 1)  # operation, sign
    return table.reshape(-1, 2, 3).to(device)


@lru_cache(maxsize=32)
def colour(name: str, negative: bool) -> Callable[[Tensor], Tensor]:
    """One of COLOUR as a function of uint8 images."""
    factor = 1.0 - BLEND if negative else 1.0 + BLEND
    by_name: dict[str, Callable[[Tensor], Tensor]] = {
        "brightness": partial(tv.adjust_brightness, brightness_factor=factor),
        "color": partial(tv.adjust_saturation, saturation_factor=factor),
        "contrast": partial(tv.adjust_contrast, contrast_factor=factor),
        "sharpness": partial(_sharpened, factor=factor),
        "posterize": partial(tv.posterize, bits=POSTERIZE_BITS),
        "solarize": partial(tv.solarize, threshold=SOLARIZE_FROM),
        "autocontrast": tv.autocontrast,
        "equalize": tv.equalize,
    }
    return by_name[name]


def _sharpened(pixels: Tensor, factor: float) -> Tensor:
    """torchvision's adjust_sharpness; that one makes its kernel anew on the host each time."""
    if min(pixels.shape[2:]) <= 2:
        return pixels
    exact = pixels.float()
    inner = exact[..., 1:-1, 1:-1]
    smooth = ((9.0 * F.avg_pool2d(exact, 3, stride=1) + 4.0 * inner) / 13.0).round()
    inner.add_(smooth - inner, alpha=1.0 - factor)
    return exact.clamp_(0, 255).to(torch.uint8)
