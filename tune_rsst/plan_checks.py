"""What a plan refuses, or says, besides bad values: models that are none, data with nothing to learn, unsafe folders.

Comes in: drawn trials, settings. Goes out: a ConfigError, or lines for people.
"""

from __future__ import annotations

from collections.abc import Iterable

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data import describe
from trainables.rsst.vit import architecture, build
from tune_rsst import home
from tune_rsst.config import SweepSettings
from tune_rsst.filesystem import network_filesystem


def refuse_unsuitable_data(configs: Iterable[RSSTConfig]) -> None:
    """A sweep compares what was learned; a data set that is there for speed tests has nothing to learn."""
    for dataset, folder in {(c.dataset, c.data) for c in configs}:
        if not describe(dataset, folder).sweepable:
            raise ConfigError("dataset", dataset, "a data set with something to learn", "this one is for speed tests")


def refuse_what_is_no_model(configs: Iterable[RSSTConfig]) -> None:
    """Build each model that differs in what decides its shape, without memory for its weights."""
    for one in {(c.arch, c.img_size, c.patch_size, c.dataset, c.data): c for c in configs}.values():
        about = describe(one.dataset, one.data)
        build(architecture(one, in_chans=about.in_chans, num_classes=about.num_classes), "meta")


def where_sqlite_is_unsafe(settings: SweepSettings) -> list[str]:
    """What to say of defaults that lie on a network file system."""
    kind = network_filesystem(home.home())
    if kind is None or not str(settings.mlflow_tracking_uri).startswith(f"sqlite:///{home.home()}"):
        return []
    hint = "give mlflow_tracking_uri=http://… of a server, or of a database on a local disk"
    return [f"{home.home()} is {kind}, where sqlite's locks do not hold: {hint}"]
