"""Pretrained weights of a sweep: resolved once, on the driver, and given to every trial as one verified copy.

In: the trials that a space may ask for. Out: the two knobs (weights, weights_digest) that make a trial use exactly
these weights. So no worker asks a hub, and no two trials start from different ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.model.pretrained import ResolvedWeights, check_fit, copy_verified, intact, resolve
from trainables.rsst.model.vit import build
from trainables.rsst.size import architecture_of
from trainables.storage.files import one_name


class SweepWeights:
    """Weights by (arch, weights); missing ones are refused or fall back, as on_missing_weights says."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str | None], ResolvedWeights] = {}
        self._fitting: dict[tuple[Any, ...], tuple[str, ...]] = {}
        self._folder: Path | None = None

    def record(self) -> list[dict[str, Any]]:
        """What was found, JSON-able, for the ledger; `recalled` reads it."""
        return [
            {"arch": arch, "weights": weights, "digest": found.digest, "source": found.source, "problem": found.problem}
            for (arch, weights), found in self._found.items()
        ]

    def lines(self) -> list[str]:
        """What was found and decided, for the user before the sweep begins."""
        lines = {}  # in order, each once
        for (arch, weights), found in self._found.items():
            if found.path is None:
                lines[f"weights: none for {arch}, because {found.problem}: its trials start from RANDOM weights"] = 1
                continue
            lines[f"weights: {found.source}, digest {found.digest}"] = 1
            decided = (notes for sizes, notes in self._fitting.items() if sizes[:2] == (arch, weights))
            lines |= {f"weights: {found.source}: {note}": 1 for notes in decided for note in notes}
        return list(lines)

    @classmethod
    def recalled(cls, record: Iterable[dict[str, Any]], folder: Path) -> SweepWeights:
        """What an earlier driver found, with its copies in `folder`: a resume starts from the same weights."""
        known = cls()
        for entry in record:
            digest = entry["digest"]
            path = folder / one_name(f"weights-{digest}.safetensors") if digest else None
            if path is not None and not intact(path, digest):
                raise ConfigError("weights", path, f"the sweep's own copy with digest {digest}", "put it back")
            found = ResolvedWeights(path, digest, entry["source"], entry["problem"])
            known._found[entry["arch"], entry["weights"]] = found
        return known

    def look_for(self, configs: Iterable[RSSTConfig]) -> None:
        """Resolve the weights of all `configs` that ask for some, and refuse those that do not fit."""
        for config in configs:
            if not config.pretrained:
                continue
            name = config.arch, config.weights
            new = name not in self._found
            found = resolve(config) if new else self._found[name]
            sizes = *name, config.patch_embed, config.img_size, config.patch_size, config.dataset, config.data
            if found.path is not None and sizes not in self._fitting:  # once, not in the first step of every trial
                own = config if new else RSSTConfig.from_knobs({**config.knobs(), **found.knobs()})
                self._fitting[sizes] = check_fit(own, build(architecture_of(own), "meta"))
            self._found[name] = found

    def copy_into(self, folder: Path) -> None:
        """Keep what was found in `folder`, where every worker reads it."""
        self._folder = folder
        self._found = {name: copy_verified(found, folder) for name, found in self._found.items()}

    def complete(self, config: RSSTConfig) -> RSSTConfig:
        """`config` with the address and digest of its weights."""
        if not config.pretrained or config.weights_digest is not None:
            return config
        known = (config.arch, config.weights) in self._found
        self.look_for([config])
        if not known and self._folder is not None:
            self.copy_into(self._folder)
        knobs: dict[str, Any] = config.knobs() | self._found[config.arch, config.weights].knobs()
        return RSSTConfig.from_knobs(knobs)
