"""What a trial costs and how small its model ends, before anything is trained: rounds, epochs, parameters, MACs.

In: a trial's config. Out: architectures and numbers. The model is built on the meta device: no memory, no weights, no
images. Whatever needs the parameters, MACs or unit counts of a config's model asks here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from trainables.rsst.config import RSSTConfig
from trainables.rsst.store.checkpoint import KEEP

if TYPE_CHECKING:
    from trainables.rsst.model.vit import Architecture


FIXED = (
    0.15  # share of a ViT's parameters that is in no unit, or in the last head of a layer: for the disk's figure alone
)


@dataclass(frozen=True)
class Size:
    """Parameters and 1e9 MACs per image of a model."""

    params: int
    gmacs: float


@dataclass(frozen=True)
class Cost:
    """`epochs_at_most`: all rounds, without early stopping. `params`, `gmacs`: of the model after the last round."""

    rounds: int
    epochs_at_most: int
    params: int
    gmacs: float


def architecture_of(config: RSSTConfig) -> Architecture:
    """The model that a trial of `config` begins with, for the channels and classes of its data set."""
    from trainables.rsst.data.sources import describe
    from trainables.rsst.model.accepted import architecture, started

    about = describe(config.dataset, config.data)
    return started(config, architecture(config, in_chans=about.in_chans, num_classes=about.num_classes))


def final_architecture(config: RSSTConfig, full: Architecture | None = None) -> Architecture:
    """The model after the last round; with scope = global the units of all layers are spread evenly.

    Only the kinds of unit that `granularity` prunes get fewer; granularity = element shrinks nothing.
    """
    full = full or architecture_of(config)
    share = config.kept_share_after(config.rounds - 1)
    heads, neurons = full.heads, full.neurons
    if config.granularity in ("head", "both"):
        heads = _left(heads, share, config.scope)
    if config.granularity in ("neuron", "both"):
        neurons = _left(neurons, share, config.scope)
    return full.with_counts(heads, neurons)


def cost(config: RSSTConfig) -> Cost:
    """Cost of the trial (about 0.1 s for vit_small).

    All layers of a ViT are alike, so parameters and MACs depend on how many units are left, not on their layers:
    scope = global ends as scope = layer does, up to whole units.
    """
    size = size_of(final_architecture(config))
    return Cost(config.rounds, config.rounds * config.epochs, size.params, size.gmacs)


def dense_sizes(configs: Iterable[RSSTConfig]) -> list[Size]:
    """The size of each config's dense model; each architecture is built once."""
    known: dict[Any, Size] = {}
    found = []
    for config in configs:
        key = (config.arch, config.img_size, config.patch_size, config.dataset, config.data)
        if key not in known:
            known[key] = size_of(architecture_of(config))
        found.append(known[key])
    return found


def size_of(arch: Architecture) -> Size:
    """Parameters and MACs of `arch`."""
    return _size(json.dumps(arch.to_json()))


@lru_cache(maxsize=1024)
def _size(architecture_json: str) -> Size:
    """Parameters and GMACs; trials of one sweep have few shapes, and counting takes most of the time."""
    from trainables.rsst.model.cost import gmacs, parameters
    from trainables.rsst.model.vit import Architecture, build

    arch = Architecture.from_json(json.loads(architecture_json))
    return Size(parameters(build(arch, "meta")), gmacs(arch))


def _left(totals: Sequence[int], share: float, scope: str) -> tuple[int, ...]:
    """Units of each layer after the last round; scope = global is spread evenly."""
    from trainables.rsst.pruning.selection import keep_count

    if scope == "layer":
        return tuple(keep_count(total, share) for total in totals)
    base, over = divmod(keep_count(sum(totals), share, least=len(totals)), len(totals))
    return tuple(base + (index < over) for index in range(len(totals)))


def disk_mib(config: RSSTConfig, parameters: int) -> float:
    """Checkpoints that are kept at a time (weights, rewind weights, optimizer state of the dense model), the model, and
    the models of rounds.

    An upper figure: checkpoints shrink with the model.
    """
    copies = 1 + (config.rewind != "none") + (2 if config.optimizer == "adamw" else 1)
    shares = [config.kept_share_after(r) for r in range(min(config.rounds, config.keep_rounds))]
    models = sum(FIXED + (1 - FIXED) * share if config.granularity == "both" else 1.0 for share in shares)
    return (KEEP * copies + 1 + models) * 4 * parameters / 2**20
