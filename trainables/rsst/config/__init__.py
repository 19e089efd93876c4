"""The knobs of a trial: names, types, defaults, checks. `RSSTConfig` is a checked, frozen set of them."""

from trainables.errors import ConfigError
from trainables.rsst.config.acting import ABSENT
from trainables.rsst.config.config import KNOBS, METHOD_VERSION, RSSTConfig, checked
from trainables.rsst.config.decisions import decisions
from trainables.rsst.config.knobs import Knob, check_range, converted
from trainables.rsst.config.schedule import overlaid, prunings_to
from trainables.rsst.config.written import KNOBS_BY_NAME, config_in, knobs_in_file, read_config

__all__ = [
    "ABSENT",
    "KNOBS",
    "KNOBS_BY_NAME",
    "METHOD_VERSION",
    "ConfigError",
    "Knob",
    "RSSTConfig",
    "check_range",
    "checked",
    "config_in",
    "converted",
    "decisions",
    "knobs_in_file",
    "overlaid",
    "prunings_to",
    "read_config",
]
