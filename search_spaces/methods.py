"""Spaces over the method itself: how the doomed are pressed, and which units go by which score.

arch, epochs, batch size, lr and warmup are the guide's (trainables/rsst/config/presets.py) where a space does
not search them.
"""

from __future__ import annotations

from search_spaces.parts import Knobs, Suggest, guides, penalty_height, pruning_rate, ramp, training
from trainables.rsst.config import KNOBS


def penalty(trial: Suggest) -> Knobs:
    """How the doomed are pressed: reg_granularity_prune, the ramp and its exponents; lr, warmup and rate are fixed.

    Its range of reg_granularity_prune depends on `penalty_form` (normalized, or l2 when the sweep fixes that).

    Command: tune-rsst sweep space=penalty target_density=0.3
    To try it: tune-rsst sweep space=penalty dataset=digits rate=0.4
    Cost: 9 rounds of 150 epochs a trial on cifar100 (14 on digits).
    Best so far: not run yet.
    """
    return {**guides(trial, pretrained=False), "rate": 0.15, **ramp(trial), **penalty_height(trial)}


def method(trial: Suggest) -> Knobs:
    """Which units go and how: criteria, scope, granularity and struct, with lr, warmup and rate (prunings) for each.

    granularity = head or neuron leaves the other kind alone, so those trials end larger at the same kept share. A fair
    comparison is by size: objective=pareto pareto_against=gmacs, or objective=constrained max_gmacs=… .
    granularity = element is left out: it removes no tensor rows, so no MACs. refill knows no penalty, so none is drawn.

    Command: tune-rsst sweep space=method objective=pareto pareto_against=gmacs target_density=0.3
    To try it: tune-rsst sweep space=method dataset=digits objective=pareto pareto_against=gmacs
    Cost: 4 to 13 rounds of 150 epochs a trial on cifar100 (14 on digits).
    Best so far: not run yet.
    """
    struct = trial.suggest_categorical("struct", ("rsst", "refill"))
    return {
        "struct": struct,
        "criteria": trial.suggest_categorical("criteria", KNOBS["criteria"].choices),
        "scope": trial.suggest_categorical("scope", ("layer", "global")),
        "granularity": trial.suggest_categorical("granularity", ("both", "head", "neuron")),
        **training(trial, pretrained=False),
        **pruning_rate(trial, 0.1, 0.4),
        **(penalty_height(trial) if struct == "rsst" else {}),
    }
