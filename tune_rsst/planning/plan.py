"""What `tune-rsst sweep` is about to do: a new sweep or a resumed one, checked before anything is written.

In: settings. Out: a `Plan`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from trainables.errors import install, require
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data.sources import describe
from trainables.rsst.size import architecture_of
from trainables.storage.files import replaced
from trainables.storage.filesystem import network_filesystem
from trainables.user_code.source import Source
from trainables.worker.system_metrics import missing_library
from tune_rsst.ledger.objective import Objective
from tune_rsst.planning.own_plugins import OwnPlugins
from tune_rsst.planning.own_space import own_space
from tune_rsst.planning.warm_start import WarmStart
from tune_rsst.search import limits, points, space_rules, spaces
from tune_rsst.search.limits import Reach
from tune_rsst.search.pretrained import SweepWeights
from tune_rsst.search.spaces import Space
from tune_rsst.settings.addresses import PASSWORD_IN, PASSWORD_MARK, check_tracking_uri, without_secrets
from tune_rsst.settings.settings import SweepSettings
from tune_rsst.settings.written import HEAD, sealed
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep, SweepFolder


@dataclass(frozen=True)
class Plan:
    """A sweep that can be run: settings are complete, the space gives valid trials, the weights were found.

    `draws`: trials drawn at random, all that is known of the space before the study is asked. `starts`: what trials
    begin from, pretrained, scratch or both. `sweep`: what a resume continues. `again`: failed trials to run again.
    `reach`: which draws keep the limits that are known before training; the others would not be trained.
    `points`: what is suggested first, as the ledger's first line has it; draws are of these where all trials are.
    `dense_meet`: whether two different trials of the draws and points have the same dense round.
    `note`: for the user, before it runs. `source`: the files of a space of the user's; `sources`: plug-ins' too.
    """

    settings: SweepSettings
    space: Space
    space_digest: str
    conditional: bool
    folder: SweepFolder
    weights: SweepWeights
    sweep: Sweep | None = None
    note: str | None = None
    more_trials: int = 0
    warm: WarmStart = field(default_factory=WarmStart)
    draws: tuple[RSSTConfig, ...] = ()
    starts: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    reach: Reach = field(default_factory=Reach)
    points: tuple[Mapping[str, Any], ...] = ()
    dense_meet: bool = True
    source: Source | None = None
    sources: tuple[Source, ...] = ()

    def record(self) -> dict[str, Any]:
        """What the ledger's first line says of it, beside the settings."""
        sources = {"sources": {"space": self.source.record()}} if self.source else {}
        found = {"space_digest": self.space_digest, "weights": self.weights.record(), "starts": list(self.starts)}
        points = {"points": list(self.points)} if self.points else {}
        return {**found, **sources, **self.warm.record(), **points}

    def write_settings(self) -> None:
        """Without defaults that point into this sweep's own folder, so that a copy of the file does not reuse them."""
        own = {"optuna_storage": self.folder.study, "mlflow_tracking_uri": home.default_tracking_uri()}
        kept = {name: value for name, value in self.settings.flat().items() if name not in own or value != own[name]}
        text = yaml.safe_dump(without_secrets(kept), sort_keys=False, allow_unicode=True)
        head = f"{HEAD}{self.folder.name}; start one like it: tune-rsst sweep THIS_FILE name=ANOTHER\n"
        with replaced(self.folder.settings) as new:
            new.write_text(sealed(head, text), encoding="utf-8")

    def copy_files(self) -> None:
        """Keep in the sweep's folder what it needs that lies elsewhere: the space's code, pretrained weights."""
        for source in self.sources:
            try:
                source.copy_into(self.folder.code)
            except OSError as error:
                key, value = ("space", self.settings.space) if source is self.source else ("plug-in", source.path)
                raise ConfigError(key, value, "a file that can be copied into the sweep", str(error)) from None
        self.weights.copy_into(self.folder.weights)

    @property
    def to_train(self) -> tuple[RSSTConfig, ...]:
        """The draws that would be trained; all, where a sweep that goes on has limits that none keeps."""
        return self.reach.within or self.draws

    @property
    def resumes(self) -> bool:
        """Whether it continues an earlier sweep."""
        return self.sweep is not None


@dataclass(frozen=True)
class Finished:
    """In place of a plan: nothing is to run, because the sweep has ended or a budget is `spent` (which, in words)."""

    sweep: Sweep
    settings: SweepSettings
    note: str | None = None
    spent: str | None = None


def checked(
    settings: SweepSettings,
    folder: SweepFolder,
    *,
    weights: SweepWeights | None = None,
    sweep: Sweep | None = None,
    note: str | None = None,
) -> Plan:
    """A plan with these settings; a ConfigError if its trials could not run."""
    require("sweep")
    if settings.system_metrics and (missing := missing_library()):
        hint = install(missing)
        raise ConfigError("system_metrics", True, f"false, or {missing} installed on every node", hint)
    written = settings
    own = OwnPlugins.of(settings, folder, sweep)
    settings, space, source = own_space(settings, folder, sweep)
    settings, space, sampled = spaces.settle(settings, space, count=spaces.VALIDATION_DRAWS)
    drawn, draws = zip(*sampled, strict=True)
    codes = own.tried(settings, draws)
    if not all(draw.params for draw in drawn):
        hint = "every knob in it is fixed: free one, or run it with python -m trainables"
        raise ConfigError("space", space.address, "a space with something to search", hint)
    spaces.ranges(space, drawn)
    said = space_rules.check(space, written, sampled)
    first = points.First(tuple(sweep.view.points)) if sweep else points.first(space, settings)
    note = note if sweep else "\n".join([*said, *first.notes]) or None
    if sweep is None:  # else the digest of the ranges tells
        spaces.check_same_again(space, settings.fixed_in_trials, drawn)
        settings = settings.model_copy(update={"trials": first.trials(settings)})
    digest = spaces.digest(drawn, settings.fixed)
    tried = (*draws, *first.configs)
    draws = first.configs[: settings.trials] if len(first.configs) >= settings.trials else draws
    for dataset, images in {(c.dataset, c.data) for c in tried}:
        if not describe(dataset, images).sweepable:
            raise ConfigError("dataset", dataset, "a data set with something to learn", "this one is for speed tests")
    for one in {(c.arch, c.img_size, c.patch_size, c.dataset, c.data, c.compile): c for c in tried}.values():
        architecture_of(one)  # an error if it is no model that runs; no memory for its weights
    weights = weights or SweepWeights()
    weights.look_for(tried)
    starts = tuple(sorted({"pretrained" if weights.complete(c).weights_digest else "scratch" for c in tried}))
    space_rules.check_sampler(settings.sampler, conditional := len({frozenset(draw.params) for draw in drawn}) > 1)
    kept = limits.reach(Objective.of(settings.flat()), draws, refuse=sweep is None)
    sources = (*([source] if source else []), *codes)
    found = Plan(settings, space, digest, conditional, folder, weights, sweep, note, source=source, sources=sources)
    return replace(found, draws=draws, starts=starts, reach=kept, points=first.points, dense_meet=_dense_meet(tried))


def _dense_meet(tried: Sequence[RSSTConfig]) -> bool:
    rounds = {config.fingerprint: config.of_round_0.fingerprint for config in tried}
    return len(set(rounds.values())) < len(rounds)


def with_addresses(settings: SweepSettings, folder: SweepFolder) -> SweepSettings:
    """`settings` with where the records go. The study needs no file: it is rebuilt from the ledger."""
    for name, variable in PASSWORD_IN.items():
        if PASSWORD_MARK in (value := getattr(settings, name) or ""):
            hint = f"passwords are not kept: set {variable} again"
            raise ConfigError(name, value, "an address with its password", hint)
    tracking = check_tracking_uri(settings.mlflow_tracking_uri or home.default_tracking_uri())
    default = "memory" if network_filesystem(folder.path) else folder.study
    study_address = settings.optuna_storage or os.environ.get("OPTUNA_STORAGE") or default
    return settings.model_copy(update={"mlflow_tracking_uri": tracking, "optuna_storage": study_address})


def where_sqlite_is_unsafe(settings: SweepSettings) -> list[str]:
    """A warning if the default tracking database is on a network file system."""
    kind = network_filesystem(home.home())
    if kind is None or not str(settings.mlflow_tracking_uri).startswith(f"sqlite:///{home.home()}"):
        return []
    hint = "give mlflow_tracking_uri=http://… of a server, or of a database on a local disk"
    return [f"{home.home()} is {kind}, where sqlite's locks do not hold: {hint}"]
