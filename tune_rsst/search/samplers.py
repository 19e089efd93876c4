"""Optuna's samplers: made for one suggestion, and what they keep in the study for the next ones.

In: settings, the number of a suggestion. Out: the sampler; the state that a rebuilt study must have again.
Each is seeded with (seed, number), so that a resumed sweep does not repeat its random draws.
"""

from __future__ import annotations

import hashlib
from typing import Any

from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study

from tune_rsst.settings.settings import SweepSettings

GENERATION, POSITION = ":generation", "last sample id"  # how Optuna's samplers call their attributes


def make_sampler(settings: SweepSettings, number: int, conditional: bool) -> BaseSampler:
    """The sampler of suggestion `number`; `conditional`: parameters depend on others."""
    seed = int.from_bytes(hashlib.sha256(f"{settings.seed}:{number}".encode()).digest()[:4], "big")
    match settings.sampler:
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=settings.startup_trials)
        case "qmc":  # one sequence for the whole sweep; the study counts the points taken
            return QMCSampler(seed=settings.seed, scramble=True, warn_asynchronous_seeding=False)
        case "nsga2" | "nsga3" as name:
            return {"nsga2": NSGAIISampler, "nsga3": NSGAIIISampler}[name](seed=seed)
        case "random" | "grid":  # a grid's points are complete: nothing is left to draw
            return RandomSampler(seed=seed)
    return TPESampler(
        seed=seed,
        n_startup_trials=settings.startup_trials,
        multivariate=True if conditional else None,  # None: yes for one objective, no for several (Optuna's default)
        group=conditional,
        constant_liar=True,
    )


def state_after(study: Study, number: int, sampler: str) -> dict[str, Any]:
    """What `sampler` left in the study with suggestion `number`: the trial's generation, the sequence's position."""
    if sampler in ("nsga2", "nsga3"):
        frozen = study.get_trials(deepcopy=False)[number]
        return {"trial": {k: v for k, v in frozen.system_attrs.items() if k.endswith(GENERATION)}}
    if sampler == "qmc":
        kept = study._storage.get_study_system_attrs(study._study_id)
        return {"study": {k: v for k, v in kept.items() if k.endswith(POSITION)}}
    return {}
