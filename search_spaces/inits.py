"""Spaces over the guide's knobs (lr, warmup, prunings, reg_granularity_prune): scratch, pretrained, the two compared.

arch, epochs and batch size are the guide's (trainables/rsst/config/presets.py): vit_small on cifar100 unless the
sweep says otherwise (`arch=vit_base`, `dataset=digits`).
"""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.parts import Knobs, Suggest, fixed, guides, penalty_height, preset, pruning_rate, training
from trainables.rsst.config import KNOBS, prunings_to

GUIDED: Mapping[str, bool] = {"scratch": False, "pretrained": True}
"""Spaces that the seed guide has values for → whether they start from trained weights."""


def scratch(trial: Suggest) -> Knobs:
    """lr, warmup, prunings and reg_granularity_prune from random weights, around the guide's values.

    With shared=true lr and warmup are of a grid, so that trials share dense rounds (docs/models.md).

    Command: tune-rsst sweep space=scratch target_density=0.3
    To try it: tune-rsst sweep space=scratch dataset=digits
    Cost: 4 to 13 rounds of 150 epochs a trial on cifar100 (14 on digits).
    Best so far: not run yet.
    """
    return {
        "pretrained": False,
        **training(trial, pretrained=False),
        **pruning_rate(trial, 0.1, 0.4),
        **penalty_height(trial),
    }


def pretrained(trial: Suggest) -> Knobs:
    """lr, warmup, prunings and reg_granularity_prune from ImageNet weights, around the guide's values.

    With shared=true lr and warmup are of a grid, so that trials share dense rounds (docs/models.md).

    Command: tune-rsst sweep space=pretrained target_density=0.3
    To try it: tune-rsst sweep space=pretrained dataset=digits weights=FILE (a digits model of your own)
    Cost: 4 to 13 rounds of 80 epochs a trial on cifar100 (14 on digits).
    Best so far: not run yet.
    """
    return {
        "pretrained": True,
        **training(trial, pretrained=True),
        **pruning_rate(trial, 0.1, 0.4),
        **penalty_height(trial),
    }


def init_compare(trial: Suggest) -> Knobs:
    """Pretrained or scratch as a choice, each with its own epochs and its own ranges of lr and warmup.

    The parameters pretrained_lr, pretrained_warmup, scratch_lr and scratch_warmup become the knobs lr and warmup.
    A scratch trial leaves `weights=FILE` out.

    Command: tune-rsst sweep space=init_compare target_density=0.3
    To try it: tune-rsst sweep space=init_compare dataset=digits weights=FILE (a digits model of your own)
    Cost: 4 to 13 rounds of 80 or 150 epochs a trial on cifar100 (14 on digits).
    Best so far: not run yet.
    """
    starts_trained = bool(trial.suggest_categorical("pretrained", (True, False)))
    return {
        "pretrained": starts_trained,
        **training(trial, starts_trained, "pretrained_" if starts_trained else "scratch_"),
        **pruning_rate(trial, 0.1, 0.4),
        **penalty_height(trial),
    }


def guide(trial: Suggest, space: str) -> Knobs:
    """The seed guide's values of what `space`, one of `GUIDED`, may search: its lr, warm-up, g and rate 0.15.

    With a `target_density` of the sweep the rate is the number of prunings that it takes to there.
    """
    base = preset(trial, GUIDED[space])
    rate, target = KNOBS["rate"].default, fixed(trial).get("target_density")
    found: Knobs = {"rate": rate, "reg_granularity_prune": base["reg_granularity_prune"]}
    if isinstance(target, float):
        found["prunings"] = prunings_to(target, rate)
    return {**guides(trial, GUIDED[space]), **found}
