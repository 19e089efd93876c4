"""Models by name: the guide's own, and timm's; the grid of patches that each sees.

In: a name, or a config. Out: sides in pixels, what is said about them; one line for a name that no model has.
Only here does the config ask timm, and only about names that are not in `NAMED`: --help needs no torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from trainables.errors import ConfigError
from trainables.text import counted

if TYPE_CHECKING:
    from trainables.rsst.config.config import RSSTConfig

# embed dim, depth, heads, MLP ratio, and timm's name for its ImageNet weights
NAMED: dict[str, tuple[int, int, int, float, str | None]] = {
    "vit_digits": (64, 4, 4, 2.0, None),
    "vit_tiny": (192, 9, 3, 2.0, None),
    "vit_small": (384, 12, 6, 4.0, "vit_small_patch16_224"),
    "vit_base": (768, 12, 12, 4.0, "vit_base_patch16_224"),
}
GRID = (32, 4)  # image side, patch side of the named models; a timm model brings its own
DIGITS_GRID = (8, 4)
FEW_TOKENS = 16
PLAIN = "a timm VisionTransformer with a plain patch embedding"


def grid_of(arch: str, digits: bool, given: Mapping[str, Any]) -> tuple[int, int]:
    """(image side, patch side) of `arch`; timm is only asked where one of the two is not `given`."""
    if arch in NAMED:
        return DIGITS_GRID if digits else GRID
    if "img_size" in given and "patch_size" in given:
        return given["img_size"], given["patch_size"]
    return own_sizes(arch)


@lru_cache(maxsize=256)
def own_sizes(arch: str) -> tuple[int, int]:
    """(image side, patch side) of the timm model `arch`, by timm's own configuration of it (0.1 to 1 s, once).

    The image side is what whole patches cover: 378 of the 384 pixels where patches are 14.
    """
    import timm
    import torch
    from timm.layers import PatchEmbed
    from timm.models.vision_transformer import VisionTransformer

    _require_known(arch)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old names that timm maps to new ones
            model = timm.create_model(arch, pretrained=False)
    except Exception as error:
        raise ConfigError("arch", arch, PLAIN, f"timm does not build it: {reason(error)}") from error
    if not isinstance(model, VisionTransformer):
        raise ConfigError("arch", arch, PLAIN, f"this one is a {type(model).__name__}")
    if type(model.patch_embed) is not PatchEmbed:
        raise ConfigError("arch", arch, PLAIN, f"its patch_embed is a {type(model.patch_embed).__name__}")
    sides = tuple(model.pretrained_cfg["input_size"][1:]), model.patch_embed.patch_size
    for height, width in sides:
        if height != width:
            raise ConfigError("arch", arch, "a model of square images and patches", f"its own are {height} × {width}")
    image, patch = int(sides[0][0]), int(sides[1][0])
    return image - image % patch, patch


def grid_words(config: RSSTConfig) -> str:
    """Images, patches and tokens in words, and how they stand to timm's own."""
    side, patch = config.img_size, config.patch_size
    words = f"images of {side} × {side} pixels in patches of {patch} × {patch}: {counted(_tokens(config), 'token')}"
    if config.arch in NAMED:
        return words
    own = own_sizes(config.arch)
    return f"{words}, " + ("timm's own" if own == (side, patch) else f"where timm's own are {own[0]} and {own[1]}")


def few_tokens(config: RSSTConfig) -> str | None:
    """What to say of a grid that is too coarse to tell images apart; the digits' own one is as fine as they are."""
    own = config.arch in NAMED and config.dataset == "digits" and (config.img_size, config.patch_size) == DIGITS_GRID
    if _tokens(config) >= FEW_TOKENS or own:
        return None
    return (
        f"{config.arch} sees its images (img_size {config.img_size}, patch_size {config.patch_size}) as "
        f"{counted(_tokens(config), 'token')}, fewer than {FEW_TOKENS}: give a larger img_size or a smaller patch_size"
    )


def reason(error: Exception) -> str:
    """The first line of an error of timm or torch; many of theirs have no text at all."""
    text = str(error).strip().splitlines()
    return text[0] if text else "it says no reason"


def _tokens(config: RSSTConfig) -> int:
    return int((config.img_size // config.patch_size) ** 2)


def _require_known(arch: str) -> None:
    """Refuse what is no name of timm's."""
    import timm

    valid = f"{', '.join(NAMED)} or a timm ViT by its name"
    if any(sign in arch for sign in ":/\\"):
        hint = "addresses and paths are not taken: give timm's name of the model, and its file by weights"
        raise ConfigError("arch", arch, valid, hint)
    if not timm.is_model(arch) or arch.endswith("."):
        known = [*NAMED, *timm.list_models(module=["vision_transformer", "deit"])]
        close = [n for n in known if n == arch.lower()] or get_close_matches(arch.lower(), known, n=3, cutoff=0.7)
        hint = f"did you mean {' or '.join(close)}?" if close else "timm has no model of that name"
        raise ConfigError("arch", arch, valid, hint)
