"""The one list of metrics: what a trial reports, with units. Shares and accuracies are in [0, 1].

Imports no torch, so that whoever only shows a sweep can read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """Unit, meaning and, where one is better, the better direction of a metric."""

    unit: str
    help: str
    better: Literal["higher", "lower", ""] = ""


METRICS: Mapping[str, Metric] = {
    "round": Metric("", "round, from 0"),
    "epoch": Metric("epochs", "epochs of the round that are done"),
    "epochs_trained": Metric("epochs", "epochs of all rounds that are done"),
    "train_loss": Metric("nats", "mean training loss of the epoch"),
    "lr": Metric("", "learning rate of the epoch's last step"),
    "doomed_norm_left": Metric("share", "norm of the doomed weights against the round's start", "lower"),
    "val_top1_before_hardening": Metric("share", "validation accuracy before the doomed are removed", "higher"),
    "val_top1": Metric("share", "validation accuracy after hardening", "higher"),
    "round_gap": Metric("share", "validation accuracy just before minus just after the removal of this round"),
    "hardening_gap": Metric("share", "largest absolute round_gap so far", "lower"),
    "predictions_changed": Metric("share", "validation images whose predicted class the removal changed", "lower"),
    "kept_share": Metric("share", "units kept of units, over the kinds that are removed"),
    "kept_share_asked": Metric("share", "kept share that the schedule asks for after this round"),
    "density": Metric("share", "prunable parameters kept", "lower"),
    "compacted": Metric("", "whether the tensors shrank; granularity = element only sets entries to zero"),
    "heads_kept": Metric("heads", "heads kept, all layers"),
    "neurons_kept": Metric("neurons", "MLP neurons kept, all layers"),
    "heads_kept_per_layer": Metric("heads", "heads kept in each layer"),
    "neurons_kept_per_layer": Metric("neurons", "MLP neurons kept in each layer"),
    "micro_batch_size": Metric("images", "images in memory at a time, where less than the batch"),
    "params": Metric("", "parameters of the model", "lower"),
    "gmacs": Metric("1e9 MACs", "multiply-accumulates of one image's forward pass", "lower"),
    "latency_ms": Metric("ms", "median forward pass of one image", "lower"),
    "latency_iqr_ms": Metric("ms", "interquartile range of latency_ms"),
    "latency_batch_ms": Metric("ms", "median forward pass of batch_size images", "lower"),
    "latency_batch_iqr_ms": Metric("ms", "interquartile range of latency_batch_ms"),
    "seconds": Metric("s", "wall time of the epoch or of the round's epochs"),
    "test_top1": Metric("share", "test accuracy of the final model, computed once", "higher"),
    "test_loss": Metric("nats", "mean test loss of the final model", "lower"),
}

TIMES = frozenset(("seconds", "latency_ms", "latency_iqr_ms", "latency_batch_ms", "latency_batch_iqr_ms"))
"""Metrics that differ between identical runs."""
