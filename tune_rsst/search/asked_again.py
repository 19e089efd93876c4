"""A suggestion of the study read again: the same line of the ledger follows from it, where the space is the same.

In: the study's address, a suggestion in it. Out: the fields of its `suggested`, `repeated` or `infeasible` line.
Nothing is written to the study.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.trial import FixedTrial, FrozenTrial

from trainables.rsst.config import ConfigError
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.view import trial_key
from tune_rsst.search.limits import KnownSizes
from tune_rsst.search.pretrained import SweepWeights
from tune_rsst.search.samplers import GENERATION
from tune_rsst.search.study import UID
from tune_rsst.search.suggestions import Space
from tune_rsst.settings.settings import SweepSettings


def trials_of(address: str, name: str, uid: str | None) -> dict[int, FrozenTrial]:
    """The study's trials by number; empty where it can't be read, or is of another sweep than `uid` (None: of any)."""
    try:
        study = optuna.load_study(study_name=name, storage=optuna.storages.RDBStorage(address))
        if uid is not None and study.user_attrs.get(UID) != uid:
            return {}
        return {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    except Exception:  # noqa: BLE001  whatever the database's driver raises: nothing can be learnt from it
        return {}


def asked_again(
    asked: FrozenTrial, space: Space, weights: SweepWeights, settings: SweepSettings, known: Mapping[str, str]
) -> dict[str, Any]:
    """The line of a suggestion without its time; `known`: fingerprint → trial, for those that were given out before."""
    distributions = {name: distribution_to_json(one) for name, one in asked.distributions.items()}
    said = {"number": asked.number, "params": dict(asked.params), "distributions": distributions}
    if generation := {name: value for name, value in asked.system_attrs.items() if name.endswith(GENERATION)}:
        said["sampler"] = {"trial": generation}
    try:
        fixed = settings.fixed_in_trials
        config = weights.complete(space.configured(space.draw(FixedTrial(dict(asked.params)), fixed), fixed))
    except (ConfigError, ValueError) as error:
        return {"event": "repeated", **said, "of": None, "reason": str(error)}
    if config.fingerprint in known:
        return {"event": "repeated", **said, "of": known[config.fingerprint], "reason": None}
    sizes = KnownSizes(Objective.of(settings.flat()))
    found = sizes.of(config)
    if reason := sizes.broken(found):
        return {"event": "infeasible", **said, "fingerprint": config.fingerprint, "metrics": found, "reason": reason}
    about = {"knobs": config.knobs(), "fingerprint": config.fingerprint, "rounds": config.rounds}
    return {"event": "suggested", "trial": trial_key(asked.number), **said, **about}
