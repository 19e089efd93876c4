"""Whether the sweep's own functions do what they must, before anything is written: they are called once.

In: settings. Out: nothing, or a `ConfigError` that names the function.
"""

from __future__ import annotations

from typing import Any

from trainables.plugins import PluginError, is_plugin, load
from trainables.rsst.config import ConfigError
from trainables.rsst.metrics import METRICS
from tune_rsst.ledger.objective import AIM, Objective
from tune_rsst.search.stopping import StoppingRule
from tune_rsst.settings.settings import SweepSettings


def check(settings: SweepSettings) -> None:
    """Call the objective's function and the stopping rule with reports as they look."""
    key = "objective"
    try:
        Objective.of(settings.flat()).aim.computed(sample_report(1))
        key = "stopping"
        if is_plugin(settings.stopping):
            load(key, settings.stopping, 2)
            StoppingRule(settings.stopping).answer((sample_report(0),), {"t0001": (sample_report(0), sample_report(1))})
    except PluginError as error:
        valid = {
            "objective": "a function of a report's metrics that gives a finite number",
            "stopping": "a function of a trial's reports and the others' that gives true, false or a reason",
        }[key]
        hint = f"called with a report as trials give it: {str(error).partition(': ')[2]}"
        raise ConfigError(key, getattr(settings, key), valid, hint) from error


def sample_report(round: int) -> dict[str, Any]:
    """A hardened round as trials report it, of middling numbers."""
    numbers: dict[str, Any] = {name: 0.5 for name, m in METRICS.items() if "round" in m.per and name != AIM}
    numbers |= {"round": round, "epoch": 2, "epochs_trained": 2 * (round + 1), "params": 10_000, "seconds": 1.0}
    numbers |= {"heads_kept": 4, "neurons_kept": 32, "heads_kept_per_layer": [2, 2], "neurons_kept_per_layer": [16, 16]}
    return numbers | {"val_class_accuracy": [0.5, 0.5], "val_top1_before_hardening": 0.5, "compacted": True}
