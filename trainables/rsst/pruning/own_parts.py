"""Whether the user's own parts of a trial do what they must: tried before anything expensive begins.

In: a config whose plug-ins this process may run. Out: nothing, or a `ConfigError` that names the plug-in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trainables.errors import ConfigError, PluginError
from trainables.plugins import Permission, plugins_in
from trainables.rsst.config import RSSTConfig
from trainables.rsst.pruning import own_criterion, ramps
from trainables.user_code.source import Source

CHECKS: Mapping[str, tuple[Callable[[str], None], str]] = {
    "criteria": (own_criterion.check, "a function f(units, batches) that gives a score for each unit"),
    "RST_schedule": (ramps.check, "a function f(t) that rises from f(0) = 0 to f(1) = 1"),
}


def check(config: RSSTConfig) -> None:
    """Call each plug-in of `config` once on something tiny."""
    for key, value in plugins_in(config.knobs()):
        try:
            CHECKS[key][0](value)
        except PluginError as error:
            raise ConfigError(key, value, CHECKS[key][1], str(error).partition(": ")[2]) from error


def permitted(config: RSSTConfig, permission: Permission) -> list[Source]:
    """Let this process run the plug-ins of `config`, and try them; the files to keep a copy of."""
    sources = [permission.grant(*used) for used in plugins_in(config.knobs())]
    check(config)
    return [source for source in sources if source is not None]
