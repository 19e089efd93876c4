"""What `tune-rsst sweep` is about to do: a new sweep or one that goes on, checked before anything is written.

In: settings. Out: a `Plan`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data.sources import describe
from trainables.rsst.model.vit import build
from trainables.rsst.size import architecture_of
from trainables.worker.system_metrics import INSTALL, missing_library
from tune_rsst.planning.warm_start import WarmStart
from tune_rsst.search import spaces, study
from tune_rsst.search.pretrained import SweepWeights
from tune_rsst.search.spaces import Space, sized
from tune_rsst.settings import rules
from tune_rsst.settings import settings as config
from tune_rsst.settings.addresses import PASSWORD_IN, PASSWORD_MARK, check_tracking_uri
from tune_rsst.settings.settings import SweepSettings
from tune_rsst.storage import home
from tune_rsst.storage.filesystem import network_filesystem
from tune_rsst.storage.folder import Sweep, SweepFolder


@dataclass(frozen=True)
class Plan:
    """A sweep that can be run: settings are complete, the space gives valid trials, the weights were found.

    `draws`: trials drawn at random, all that is known of the space before the study is asked. `starts`: what its trials
    will begin from, pretrained, scratch or both. `sweep`: what a resume goes on with. `again`: failed trials to be
    tried again. `note`: to be said before it runs.
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

    @property
    def resumes(self) -> bool:
        """Whether it goes on with a sweep that was begun before."""
        return self.sweep is not None


@dataclass(frozen=True)
class Finished:
    """In place of a plan: the sweep has ended, and nothing more was asked of it."""

    sweep: Sweep
    settings: SweepSettings
    note: str | None = None


def checked(
    settings: SweepSettings,
    folder: SweepFolder,
    *,
    weights: SweepWeights | None = None,
    sweep: Sweep | None = None,
    note: str | None = None,
) -> Plan:
    rules.check(settings)
    if settings.system_metrics and (missing := missing_library()):
        raise ConfigError("system_metrics", True, f"false, or {missing} installed on every node", INSTALL)
    space = sized(spaces.find(settings.space), settings)
    drawn, draws = zip(*spaces.samples(space, settings.fixed_in_trials, spaces.VALIDATION_DRAWS), strict=True)
    if not all(draw.params for draw in drawn):
        hint = "every knob in it is fixed: free one, or run it with python -m trainables"
        raise ConfigError("space", space.address, "a space with something to search", hint)
    spaces.ranges(space, drawn)
    refuse_unsuitable_data(draws)
    refuse_what_is_no_model(draws)
    settings = config.with_checked_knobs(settings, draws[0].knobs())
    weights = weights or SweepWeights()
    weights.look_for(draws)
    starts = tuple(sorted({"pretrained" if weights.complete(c).weights_digest else "scratch" for c in draws}))
    study.check_sampler(settings.sampler, conditional := len({frozenset(draw.params) for draw in drawn}) > 1)
    digest = spaces.digest(drawn, settings.fixed)
    return Plan(settings, space, digest, conditional, folder, weights, sweep, note, draws=draws, starts=starts)


def addresses_of(settings: SweepSettings, folder: SweepFolder) -> dict[str, str]:
    """Where the records go, with the defaults filled in. The study needs no file: the ledger makes it anew."""
    default = "memory" if network_filesystem(folder.path) else folder.study
    return {
        "mlflow_tracking_uri": check_tracking_uri(settings.mlflow_tracking_uri or home.default_tracking_uri()),
        "optuna_storage": settings.optuna_storage or os.environ.get("OPTUNA_STORAGE") or default,
    }


def ask_again_for_passwords(settings: SweepSettings) -> None:
    for name in PASSWORD_IN:
        value = getattr(settings, name)
        if value and PASSWORD_MARK in value:
            raise ConfigError(
                name, value, "an address with its password", f"passwords are not kept: set {PASSWORD_IN[name]} again"
            )


def refuse_unsuitable_data(configs: Iterable[RSSTConfig]) -> None:
    """A sweep compares what was learned; a data set that is there for speed tests has nothing to learn."""
    for dataset, folder in {(c.dataset, c.data) for c in configs}:
        if not describe(dataset, folder).sweepable:
            raise ConfigError("dataset", dataset, "a data set with something to learn", "this one is for speed tests")


def refuse_what_is_no_model(configs: Iterable[RSSTConfig]) -> None:
    """Build each model that differs in what decides its shape, without memory for its weights."""
    for one in {(c.arch, c.img_size, c.patch_size, c.dataset, c.data): c for c in configs}.values():
        build(architecture_of(one), "meta")


def where_sqlite_is_unsafe(settings: SweepSettings) -> list[str]:
    """What to say of defaults that lie on a network file system."""
    kind = network_filesystem(home.home())
    if kind is None or not str(settings.mlflow_tracking_uri).startswith(f"sqlite:///{home.home()}"):
        return []
    hint = "give mlflow_tracking_uri=http://… of a server, or of a database on a local disk"
    return [f"{home.home()} is {kind}, where sqlite's locks do not hold: {hint}"]
