"""Which values of two knobs contradict each other.

In: a complete config. Out: nothing, or a `ConfigError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainables.errors import ConfigError

if TYPE_CHECKING:
    from trainables.rsst.config.config import RSSTConfig


def check_pairs(c: RSSTConfig) -> None:
    """Refuse knobs that contradict each other."""
    if c.start_units:
        if not (c.pretrained and c.weights):
            raise ConfigError("start_units", c.start_units, "left out without weights of a pruned model")
        if c.target_density is not None:
            hint = "give pruning_times and rate, which count from there"
            raise ConfigError("target_density", c.target_density, "left out where a pruned model is the start", hint)
        if c.granularity == "element":
            raise ConfigError("granularity", c.granularity, "head, neuron or both where a pruned model is the start")
    if c.warmup > c.epochs:
        raise ConfigError("warmup", c.warmup, f"0 to epochs ({c.epochs})", "give warmup, or more epochs")
    if c.img_size % c.patch_size:
        least = c.img_size - c.img_size % c.patch_size
        sides = " or ".join(str(side) for side in (least, least + c.patch_size) if side)
        hint = f"give img_size {sides}, or another patch_size"
        raise ConfigError("img_size", c.img_size, f"a multiple of patch_size ({c.patch_size})", hint)
    if c.dataset == "folder" and not c.data:
        raise ConfigError("data", c.data, "the image folder's path when dataset = folder", "give data")
    if c.granularity == "element" and c.criteria != "magnitude":
        raise ConfigError("criteria", c.criteria, "magnitude with granularity = element", "leave criteria out")
    if c.granularity == "element" and c.scope != "global":
        raise ConfigError("scope", c.scope, "global with granularity = element", "leave scope out")
    if c.rewind_epoch is not None and c.rewind_epoch > c.epochs:
        raise ConfigError("rewind", c.rewind, f"epoch:1 to epoch:{c.epochs} (epochs of round 0)")
    if c.weights and not c.pretrained:
        raise ConfigError(
            "weights", c.weights, "given together with pretrained", "add pretrained, or leave weights out"
        )
