"""Limits that are known before a trial runs: its last model's parameters and MACs follow from its knobs.

In: an objective, trials' configs. Out: which of them break a limit, by how much; a refusal where all do.
Exact, scope = global included: how many units stay is fixed, and all layers of a ViT are alike
(trainables/rsst/size.py). Latency is known after training only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainables.rsst.config import ConfigError, RSSTConfig
from tune_rsst.ledger.objective import LIMITS, SLACK, Objective

if TYPE_CHECKING:
    from trainables.rsst.model.vit import Architecture

KNOWN = ("params", "gmacs")
SETTING = {metric: key for key, metric in LIMITS.items()}


class KnownSizes:
    """The final sizes of trials, as far as `objective` limits them; a data set is looked at once."""

    def __init__(self, objective: Objective) -> None:
        self.limits = {name: most for name, most in objective.limits.items() if name in KNOWN}
        self._dense: dict[tuple[Any, ...], Architecture] = {}

    def of(self, config: RSSTConfig) -> dict[str, float]:
        """Metric → the final model's; empty without limits, and where the data set can't be looked at here."""
        if not self.limits:
            return {}
        from trainables.rsst import size

        key = (config.arch, config.img_size, config.patch_size, config.dataset, config.data)
        try:
            if key not in self._dense:
                self._dense[key] = size.architecture_of(config)
        except ConfigError:  # the driver of a cluster need not have the images
            return {}
        found = size.size_of(size.final_architecture(config, self._dense[key]))
        return {name: getattr(found, name) for name in self.limits}

    def broken(self, sizes: dict[str, float]) -> str | None:
        """The limits that `sizes` break, in words: "params 43,066 > max_params 40,000"; None where they keep all."""
        over = [name for name, value in sizes.items() if value / self.limits[name] - 1.0 > SLACK]
        said = (f"{name} {sizes[name]:,.9g} > {SETTING[name]} {self.limits[name]:,.9g}" for name in over)
        return ", ".join(said) or None


@dataclass(frozen=True)
class Reach:
    """How many of `draws` keep the limits that are known before training; `words`: these limits."""

    within: tuple[RSSTConfig, ...] = ()
    draws: int = 0
    words: str = ""

    @property
    def line(self) -> str:
        """For the plan; empty without such limits."""
        if not self.words:
            return ""
        return f"{len(self.within)} of {self.draws} random draws keep {self.words}; the others would not be trained"


def reach(objective: Objective, draws: Sequence[RSSTConfig], *, refuse: bool) -> Reach:
    """What `draws` of the space reach; with `refuse` limits that none of them keeps are refused."""
    known = KnownSizes(objective)
    sizes = [known.of(config) for config in draws]
    within = tuple(config for config, size in zip(draws, sizes, strict=True) if known.broken(size) is None)
    words = ", ".join(f"{SETTING[name]} {most:,.9g}" for name, most in known.limits.items())
    if refuse and not within:
        _refuse(known, sizes)
    return Reach(within, len(draws), words)


def _refuse(known: KnownSizes, sizes: Sequence[dict[str, float]]) -> None:
    """Name the limit that no draw keeps, or say that none keeps them all together."""
    hint = "raise it, or let the space end smaller (target_density, arch)"
    for name, most in known.limits.items():
        least = min(size[name] for size in sizes)
        if least / most - 1.0 > SLACK:
            valid = f"at least {least:,.9g}, the least final {name} of {len(sizes)} random draws of the space"
            raise ConfigError(SETTING[name], f"{most:,.9g}", valid, hint)
    nearest = min(sizes, key=lambda size: max(value / known.limits[name] for name, value in size.items()))
    keys, values = (
        [f(name) for name in known.limits] for f in (SETTING.__getitem__, lambda n: f"{known.limits[n]:,.9g}")
    )
    valid = f"limits that one of {len(sizes)} random draws keeps together; the nearest has "
    valid += ", ".join(f"{name} {value:,.9g}" for name, value in nearest.items())
    raise ConfigError(" and ".join(keys), " and ".join(values), valid, hint.replace("it,", "one of them,"))
