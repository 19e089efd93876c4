"""What a new sweep takes over from earlier ones: finished trials that are points of its own search.

In: the new sweep's settings and space; names or folders of earlier sweeps.
Out: records for the new ledger's first line, which hold all that the study needs; what was left out, by reason.

An earlier trial is compatible when this space, given its parameters and knobs, makes the same trial (apart from the
seed and from where it ran), when it had the same images, and when it reported what this objective asks for. Earlier
trials guide the search. They are not trials of the new sweep: not in its ranking, rungs or MLflow runs.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

from trainables.plugins import PluginError
from trainables.rsst.config import KNOBS, METHOD_VERSION, ConfigError, RSSTConfig
from trainables.rsst.data.load import load as load_images
from trainables.storage.files import expanded
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.view import TrialView, data_key
from tune_rsst.search.pretrained import SweepWeights
from tune_rsst.search.spaces import Space
from tune_rsst.settings.settings import SweepSettings
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep, SweepFolder

OTHER = f"trained by another method (not {METHOD_VERSION}, this version's)"
Images = dict[tuple[Any, ...], str | None]  # digests by `data_key`; None where this machine does not have the images


@dataclass(frozen=True)
class WarmStart:
    """`trials`: records for the ledger. `left_out`: reason → how many."""

    trials: tuple[dict[str, Any], ...] = ()
    left_out: tuple[tuple[str, int], ...] = ()

    def record(self) -> dict[str, Any]:
        """Fields of the ledger's first line; none without earlier trials."""
        return {"warm_start": list(self.trials), "warm_start_left_out": dict(self.left_out)} if self.trials else {}

    @property
    def line(self) -> str | None:
        """For people; None without earlier trials."""
        if not self.trials and not self.left_out:
            return None
        left = ", ".join(f"{count} {reason}" for reason, count in self.left_out)
        return f"warm start: {len(self.trials)} former trials guide the search{left and f'; left out: {left}'}"


def gather(settings: SweepSettings, space: Space, weights: SweepWeights) -> WarmStart:
    """The compatible trials of the sweeps in `settings.warm_start`, in the order of these."""
    taken: dict[str, dict[str, Any]] = {}
    left_out: Counter[str] = Counter()
    images: Images = {}
    for name in settings.warm_start:
        folder = SweepFolder(expanded(name))
        if "/" not in name or not folder.ledger.is_file():
            folder = home.find(name)
        view = Sweep.of(folder).view
        for trial in view.trials.values():
            found = _taken_over(trial, settings, space, weights, images) if view.method == METHOD_VERSION else OTHER
            if isinstance(found, str):
                left_out[found] += 1
            elif found["fingerprint"] in taken:
                left_out["there twice"] += 1
            else:
                known = {"trial": f"{folder.name}/{trial.trial}", "number": len(taken)}
                taken[found["fingerprint"]] = {**found, **known}
    if settings.warm_start and not taken:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "they have no trials"
        valid = "sweeps with finished trials that this space, objective and data could have given"
        raise ConfigError("warm_start", " ".join(settings.warm_start), valid, f"left out: {why}")
    return WarmStart(tuple(taken.values()), tuple(left_out.most_common()))


def _taken_over(
    trial: TrialView, settings: SweepSettings, space: Space, weights: SweepWeights, images: Images
) -> dict[str, Any] | str:
    """The record of a compatible trial, or why it is not compatible."""
    from optuna.distributions import distribution_to_json

    if trial.state != "finished":
        return trial.state
    objective = Objective.of(settings.flat())
    try:
        metrics = {**trial.metrics, **objective.aim.computed(trial.metrics)}
    except PluginError:
        return "without what the objective's function needs"
    if objective.values(metrics) is None or not objective.limits.keys() <= metrics.keys():
        return "without a number that the objective asks for"
    there = RSSTConfig.from_knobs(trial.knobs)
    point = _point({**there.knobs(), **trial.params})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # all that Optuna does about a value out of its range
            draw = space.draw(point, settings.fixed_in_trials)
        config = weights.complete(RSSTConfig.from_knobs(draw.knobs))
    except ConfigError:
        return "outside this space's ranges"
    follow = ["seed", "split_seed", "pruning_times", "prunings", "rate"]
    names = [*(name for name in KNOBS if name not in follow), *follow[3:]]
    if other := [name for name in names if there.identity.get(name) != config.identity.get(name)]:
        return f"with another {other[0]}"
    if not _same_images(trial, config, images):
        return "with other images, or images that are not on this machine"
    used = {"val_top1", "test_top1", "params", "kept_share", "kept_share_asked"}
    used |= {objective.metric, objective.against, *objective.limits}
    return {
        "params": dict(point.params),
        "distributions": {name: distribution_to_json(d) for name, d in point.distributions.items()},
        "fingerprint": trial.fingerprint,
        "metrics": {name: value for name, value in metrics.items() if name in used},
    }


def _point(knobs: dict[str, Any]) -> Any:
    """An Optuna trial that answers with `knobs`.

    A rate was rounded to the least one with as many prunings: below a range it is the range's least, and the prunings
    tell whether that is the same trial.
    """
    from optuna.trial import FixedTrial

    class Point(FixedTrial):
        def suggest_float(self, name: str, low: float, *rest: Any, **more: Any) -> float:
            if name == "rate":
                self._params[name] = max(self._params[name], low)
            return super().suggest_float(name, low, *rest, **more)

    return Point(knobs)


def _same_images(trial: TrialView, config: RSSTConfig, images: Images) -> bool:
    """Whether this sweep's images, split by the earlier trial's seed, are those it had; yes where that is unknown."""
    if not trial.data_digest:
        return True
    place = data_key(trial.knobs)
    if place not in images:
        try:
            seeds = {name: trial.knobs.get(name) for name in ("seed", "split_seed")}
            images[place] = load_images(RSSTConfig.from_knobs({**config.knobs(), **seeds})).digest
        except ConfigError:
            images[place] = None
    return images[place] == trial.data_digest
