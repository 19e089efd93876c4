"""The knobs of a trial: names, types, defaults, checks. `RSSTConfig` is a checked, frozen set of them."""

from trainables.errors import ConfigError
from trainables.rsst.config.config import KNOBS, RSSTConfig
from trainables.rsst.config.knobs import Knob, check_range, converted

__all__ = ["KNOBS", "ConfigError", "Knob", "RSSTConfig", "check_range", "converted"]
