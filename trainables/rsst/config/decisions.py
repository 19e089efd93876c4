"""What became of the knobs that somebody gave: those that do nothing here, and a rate that is rounded.

In: the knobs as they were given, the configurations that they led to (a sweep has many). Out: lines for the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainables.rsst.config import presets
from trainables.rsst.config.config import KNOBS, RSSTConfig
from trainables.rsst.config.knobs import converted


def decisions(given: Mapping[str, Any], configs: Sequence[RSSTConfig]) -> list[str]:
    """A line for each given knob that does nothing in any of `configs`, and for a rate that is not the effective one.

    A knob that was given the value that it has anyway is passed over.
    """
    lines = [_rounded(converted(KNOBS["rate"], given["rate"]), configs)] if "rate" in given else []
    for name in given:
        knob, others = KNOBS[name], {k: v for k, v in given.items() if k != name}
        value, usual = converted(knob, given[name]), presets.defaults(others).get(name, knob.default)
        if knob.acts_when and value != usual and not any(knob.acts(config) for config in configs):
            lines.append(f"{name} = {value} does nothing here: it acts with {knob.acts_when[0]}")
    return [line for line in lines if line]


def _rounded(rate: float, configs: Sequence[RSSTConfig]) -> str:
    target, prunings, effective = configs[0].target_density, configs[0].prunings, configs[0].rate
    reported = "the effective rate, which is reported as rate"
    if len({config.target_density for config in configs}) > 1:
        return f"rate = {rate:g} is rounded in each trial so that it ends at its own target_density: {reported}"
    if target is None or abs(effective - rate) < 1e-9:
        return ""
    means = f"rate = {rate:g} with target_density = {target:g} means {prunings} prunings"
    return f"{means}; each removes {effective:.4g}, {reported}"
