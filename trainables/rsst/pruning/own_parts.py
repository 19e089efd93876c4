"""Whether the user's own parts of a trial do what they must: tried before anything expensive begins.

In: a config whose plug-ins this process may run. Out: nothing, or a `ConfigError` that names the plug-in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from trainables.errors import ConfigError, PluginError
from trainables.plugins import Permission, plugins_in
from trainables.rsst.config import RSSTConfig
from trainables.rsst.data import own
from trainables.rsst.pruning import own_criterion, ramps
from trainables.user_code.source import Source

CHECKS: Mapping[str, tuple[Callable[[RSSTConfig], object], str]] = {
    "dataset": (lambda c: own.images_of(c.dataset, c.data), "a function f(data) that gives images and labels"),
    "criteria": (
        lambda c: own_criterion.check(c.criteria),
        "a function f(units, batches) that scores each unit",
    ),
    "RST_schedule": (lambda c: ramps.check(c.RST_schedule), "a function f(t) that rises from f(0) = 0 to f(1) = 1"),
}


def check(config: RSSTConfig, used: Sequence[tuple[str, str]] | None = None) -> None:
    """Call each plug-in of `config` (of those, the `used` ones) once on something tiny."""
    for key, value in plugins_in(config.knobs()) if used is None else used:
        try:
            CHECKS[key][0](config)
        except PluginError as error:
            raise ConfigError(key, value, CHECKS[key][1], str(error).partition(": ")[2]) from error


def permitted(config: RSSTConfig, permission: Permission, *, images_given: bool = False) -> list[Source]:
    """Let this process run the plug-ins of `config`, and try them; the files to keep a copy of.

    `images_given`: the process has the images already, by arrays, and no code is behind the knob dataset.
    """
    used = [(key, value) for key, value in plugins_in(config.knobs()) if key != "dataset" or not images_given]
    sources = [permission.grant(*one) for one in used]
    check(config, used)
    return [source for source in sources if source is not None]
