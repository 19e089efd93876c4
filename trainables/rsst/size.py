"""What a trial costs and how small its model ends, before anything is trained: rounds, epochs, parameters, MACs.

Comes in: a trial's config. Goes out: numbers. The model is built on the meta device: no memory, no weights, no images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainables.rsst.config import RSSTConfig
from trainables.rsst.config import RSSTConfig
from trainables.rsst.store.checkpoint import KEEP


@dataclass(frozen=True)
class Cost:
    """`epochs_at_most`: all rounds, without early stopping. `params`, `gmacs`: of the model after the last round."""

    rounds: int
    epochs_at_most: int
    params: int
    gmacs: float


def cost(config: RSSTConfig) -> Cost:
    """Cost of the trial (about 0.1 s for vit_small).

    All layers of a ViT are alike, so parameters and MACs depend on how many units are left, not on their layers:
    scope = global ends as scope = layer does, up to whole units. granularity = element shrinks nothing.

    Raises:
        ConfigError: there is no such model or data set.
    """
    from trainables.rsst.data.sources import describe
    from trainables.rsst.model.vit import architecture

    spec = describe(config.dataset, config.data)
    full = architecture(config, in_chans=spec.in_chans, num_classes=spec.num_classes)
    share = config.kept_share_after(config.rounds - 1)
    heads, neurons = full.heads, full.neurons
    if config.granularity in ("head", "both"):
        heads = _left(heads, share, config.scope)
    if config.granularity in ("neuron", "both"):
        neurons = _left(neurons, share, config.scope)
    params, macs = _size(json.dumps(full.with_counts(heads, neurons).to_json()))
    return Cost(config.rounds, config.rounds * config.epochs, params, macs)


@lru_cache(maxsize=1024)
def _size(architecture_json: str) -> tuple[int, float]:
    """Parameters and GMACs; trials of one sweep have few shapes, and counting takes most of the time."""
    from trainables.rsst.model.cost import gmacs, parameters
    from trainables.rsst.model.vit import Architecture, build

    arch = Architecture.from_json(json.loads(architecture_json))
    return parameters(build(arch, "meta")), gmacs(arch)


def _left(totals: Sequence[int], share: float, scope: str) -> tuple[int, ...]:
    """Units of each layer after the last round; scope = global is spread evenly."""
    from trainables.rsst.pruning.selection import keep_count

    if scope == "layer":
        return tuple(keep_count(total, share) for total in totals)
    base, over = divmod(keep_count(sum(totals), share, least=len(totals)), len(totals))
    return tuple(base + (index < over) for index in range(len(totals)))


def disk_mib(config: RSSTConfig, parameters: int) -> float:
    """Checkpoints that are kept at a time (weights, rewind weights, optimizer state of the dense model), and the model.

    An upper figure: they shrink with the model.
    """
    copies = 1 + (config.rewind != "none") + (2 if config.optimizer == "adamw" else 1)
    return (KEEP * copies + 1) * 4 * parameters / 2**20
