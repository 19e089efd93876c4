"""The default sweep's space: scikit-learn's digits, a ViT of 64 × 4, down to the target density in 3 to 6 rounds."""

from __future__ import annotations

from search_spaces.parts import Knobs, Suggest, epochs_of, fixed, learning_rate, penalty_height, pruning_rate, warmup


def digits(trial: Suggest) -> Knobs:
    """lr, warmup, prunings and reg_granularity_prune on the embedded digits, 14 epochs a round.

    Label smoothing is fixed at 0.1: validation accuracy at the target was higher with it in each of three seeds tried
    (docs/experiments.md).
    Each pruning removes 0.215 to 0.54 of the units: 5 to 2 prunings to a kept share of 0.3, after a dense round.

    With shared=true lr and warmup are of a grid, so that trials share dense rounds (docs/models.md).

    Command: tune-rsst sweep space=digits target_density=0.3
    """
    return {
        "dataset": "digits",
        "epochs": 14,
        "label_smoothing": 0.1,
        **learning_rate(trial, 4e-4, 4e-3),
        **warmup(trial, min(4, epochs_of(fixed(trial), 14))),
        **pruning_rate(trial, 0.215, 0.54),
        **penalty_height(trial),
    }
