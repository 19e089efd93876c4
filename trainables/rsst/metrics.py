"""The one list of metrics: what a trial reports, and how it is shown. Shares and accuracies are in [0, 1].

Tables, the report page, the CSV, MLflow and axes of figures take their metrics from here.
Imports no torch, so that whoever only shows a sweep can read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainables.rsst.event import Kind
from trainables.text import one_line


@dataclass(frozen=True)
class Metric:
    """What the rest of the program may know about one metric.

    unit     of a number; "" for a count or a text
    form     format of a number for people
    per      when MLflow gets it: a curve per epoch, a curve per round, once at the end (final); start: before training
    better   the better direction, where there is one
    label    what people call it; without one it is not on the report page
    column   heading in tables of a terminal; without one it is in no table
    legend   what that column means
    leaves   columns with a higher number leave a narrow terminal first; those with 0 stay
    tag      MLflow keeps it as a tag
    words    a text for the run's own log, in no table or file of results
    uneven   column and label are for sweeps with uneven classes only (`shown`)
    aim      column and label are for sweeps whose objective it is only
    several  column and label are for sweeps with several seeds a trial only
    """

    unit: str
    help: str
    form: str = ""
    per: tuple[Kind, ...] = ()
    better: Literal["higher", "lower", ""] = ""
    label: str = ""
    column: str = ""
    legend: str = ""
    leaves: int = 4
    tag: bool = False
    words: bool = False
    uneven: bool = False
    aim: bool = False
    several: bool = False

    @property
    def heading(self) -> str:
        """The label with its unit, for heads of columns and axes."""
        return self.label if self.unit in ("", *self.label.split()) else f"{self.label} ({self.unit})"

    def text(self, value: Any) -> str:
        """`value` for people; empty where there is none."""
        return "" if value is None else one_line(format(value, self.form))


_BALANCED = "mean accuracy of the classes (share)"
_BOTH: tuple[Kind, ...] = ("round", "final")

# fmt: off
METRICS: Mapping[str, Metric] = {
    "round": Metric("", "round, from 0"),
    "epoch": Metric("epochs", "epochs of the round that are done"),
    # the start: what the trial began with
    "data_digest": Metric("", "digest of the images", per=("start",), tag=True),
    "images": Metric("", "what is known of the images", per=("start",), words=True),
    "class_ratio": Metric(
        "", "images of the largest class against the smallest, in validation or test, whichever is more uneven",
        per=("start",), tag=True),
    "weights_digest": Metric("", "digest of the pretrained weights", per=("start",), tag=True),
    "source": Metric("", "where the weights came from", words=True),
    "lines": Metric("", "what was done to the weights", words=True),
    "warning": Metric("", "why these are not the weights that were asked for", words=True),
    "listing": Metric("", "each tensor of the weights", words=True),
    "grid": Metric("", "sides of images and patches, number of tokens", words=True),
    "grid_warning": Metric("", "why the grid of patches is too coarse", words=True),
    "torch_version": Metric("", "version of PyTorch", tag=True),
    "num_threads": Metric("", "CPU threads of the trial", tag=True),
    "device": Metric("", "cpu or cuda", tag=True),
    "training_numbers": Metric("", "what products of matrices are computed in while training", tag=True),
    "linear_kernels": Metric("", "what computes float32 linear layers: onednn, or torch as it chooses", tag=True),
    "device_name": Metric("", "name of the GPU, or kind of CPU", tag=True),
    "micro_batch_size": Metric("images", "images that go through the model at a time, where less than the batch"),
    # an epoch
    "train_loss": Metric("nats", "mean training loss of the epoch", per=("epoch",)),
    "lr": Metric("", "learning rate of the epoch's last step", per=("epoch",)),
    "doomed_norm_left": Metric(
        "share", "norm of the doomed weights against the round's start", per=("epoch",), better="lower"),
    "val_top1_before_hardening": Metric(
        "share", "validation accuracy before the doomed are removed", per=("epoch",), better="higher"),
    "seconds": Metric("s", "wall time of the epoch or of the round's epochs"),
    # a round, and the end; columns of tables come in this order
    "val_top1": Metric(
        "share", "validation accuracy after hardening", ".4f", _BOTH, "higher",
        label="val_top1", column="val_top1", legend="accuracy (share)", leaves=0),
    "val_top5": Metric(
        "share", "validation images whose class is among the five likeliest", ".4f", _BOTH, "higher",
        label="val_top5", column="val_top5", legend="accuracy (share)", leaves=0, aim=True),
    "val_loss": Metric(
        "nats", "mean validation loss", ".4f", _BOTH, "lower",
        label="val_loss", column="val_loss", legend="mean validation loss (nats)", leaves=0, aim=True),
    "objective": Metric(
        "", "what the objective's own function makes of the metrics", ".4f", _BOTH,
        label="objective", column="objective", legend="value of the objective's function", leaves=0, aim=True),
    "test_top1": Metric(
        "share", "test accuracy of the final model, computed once", ".4f", ("final",), "higher",
        label="test_top1", column="test_top1", legend="accuracy (share)", leaves=0),
    "seeds": Metric(
        "", "runs with different seeds, of which the trial's values are the means", "d",
        label="seeds", column="seeds", legend="runs that values are means of", leaves=0, several=True),
    "val_top1_std": Metric(
        "share", "sample standard deviation of val_top1 over the runs of a trial with different seeds", ".4f",
        label="std of val_top1", column="std", legend="standard deviation of val_top1 over them (share)", leaves=1,
        several=True),
    "test_loss": Metric("nats", "mean test loss of the final model", per=("final",), better="lower"),
    "dense_top1": Metric(
        "share", "validation accuracy of the dense model: val_top1 of round 0", ".4f", _BOTH, "higher",
        label="dense val_top1", column="dense", legend="val_top1 of the dense round 0 (share)", leaves=2),
    "top1_drop": Metric(
        "share", "dense_top1 minus val_top1: what the pruning has cost", ".4f", _BOTH, "lower",
        label="drop against dense", column="drop", legend="dense minus val_top1 (share)", leaves=2),
    "val_balanced_accuracy": Metric(
        "share", "mean accuracy of the classes on validation, each class counting the same", ".4f", _BOTH, "higher",
        label="balanced validation accuracy", column="val_balanced", legend=_BALANCED, leaves=1, uneven=True),
    "test_balanced_accuracy": Metric(
        "share", "mean accuracy of the classes on test, each class counting the same", ".4f", ("final",), "higher",
        label="balanced test accuracy", column="test_balanced", legend=_BALANCED, leaves=1, uneven=True),
    "val_class_accuracy": Metric("share", "validation accuracy of each class; none where it has no images"),
    "test_class_accuracy": Metric("share", "test accuracy of each class; none where it has no images"),
    "kept_share": Metric(
        "share", "units kept of units, over the kinds that are removed", ".3f", _BOTH, "lower",
        label="kept share", column="kept", legend="share of units", leaves=0),
    "kept_share_asked": Metric("share", "kept share that the schedule asks for after this round", per=_BOTH),
    "density": Metric(
        "share", "prunable parameters kept", ".3f", _BOTH, "lower",
        label="density", column="density", legend="share of prunable parameters", leaves=0),
    "params": Metric(
        "count", "parameters of the model", ",", _BOTH, "lower",
        label="parameters", column="params", leaves=5),
    "gmacs": Metric(
        "GMACs", "1e9 multiply-accumulates of one image's forward pass", ".4g", _BOTH, "lower",
        label="compute of one image", column="gmacs", legend="1e9 MACs of an image", leaves=4),
    "latency_ms": Metric(
        "ms", "median forward pass of one image", ".3f", _BOTH, "lower", label="latency of one image"),
    "latency_iqr_ms": Metric("ms", "interquartile range of latency_ms"),
    "latency_batch_ms": Metric(
        "ms", "median forward pass of batch_size images, micro_batch_size at a time", "", _BOTH, "lower"),
    "latency_batch_iqr_ms": Metric("ms", "interquartile range of latency_batch_ms"),
    "round_gap": Metric(
        "share", "validation accuracy just before minus just after the removal of this round", per=("round",)),
    "hardening_gap": Metric(
        "share", "largest absolute round_gap so far", ".4f", _BOTH, "lower",
        label="hardening gap", column="gap", legend="accuracy lost by hardening (share)", leaves=2),
    "predictions_changed": Metric(
        "share", "validation images whose predicted class the removal changed", "", _BOTH, "lower"),
    "compacted": Metric("", "false where granularity = element has set entries to zero: the tensors did not shrink"),
    "heads_kept": Metric("heads", "heads kept, all layers", per=_BOTH),
    "neurons_kept": Metric("neurons", "MLP neurons kept, all layers", per=_BOTH),
    "heads_kept_per_layer": Metric("heads", "heads kept in each layer"),
    "neurons_kept_per_layer": Metric("neurons", "MLP neurons kept in each layer"),
    "epochs_trained": Metric(
        "epochs", "epochs of all rounds that are done", per=_BOTH, label="epochs", column="epochs", leaves=6),
    "epochs_adopted": Metric(
        "epochs", "those of them that another trial with the same dense round had trained", per=("final",)),
    "adopted_from": Metric("", "fingerprint of the trial that had trained the dense round", tag=True),
    "init_effective": Metric(
        "", "what the weights really started from", per=("start",), tag=True,
        label="started from", column="init_effective", leaves=1),
}
# fmt: on

UNEVEN = 1.5
"""Classes are uneven from this `class_ratio` on."""

CIRCUMSTANCES = frozenset(name for name, m in METRICS.items() if m.unit in ("s", "ms") or "adopted" in name)
"""Metrics that differ between identical runs."""


def said(metrics: Mapping[str, Any], *names: str) -> str:
    """Metrics in a sentence: "val_top1 0.9708, kept share 0.301"."""
    there = [name for name in names if metrics.get(name) is not None]
    return ", ".join(f"{METRICS[name].label} {METRICS[name].text(metrics[name])}" for name in there)


def uneven(metrics: Mapping[str, Any]) -> bool:
    """Whether the classes of a trial's images differ so much in size that accuracy alone misleads."""
    return bool(metrics.get("class_ratio", 1.0) >= UNEVEN)


def shown(trials: Iterable[Mapping[str, Any]], aim: str = "") -> list[str]:
    """Metrics that people are shown of these trials, in a sweep that is after `aim`.

    Those for uneven classes only where some are uneven, those for an aim only where it is that one, those of several
    seeds only where there are such.
    """
    told = list(trials)
    some, several = any(map(uneven, told)), any("seeds" in metrics for metrics in told)
    fitting = {n: (some or not m.uneven) and (several or not m.several) and not m.aim for n, m in METRICS.items()}
    return [name for name, fits in fitting.items() if fits or name == aim]


def is_words(name: str) -> bool:
    """Whether it is a text for the run's own log; a name of another version is not."""
    return name in METRICS and METRICS[name].words


def kept_per(event: Kind) -> tuple[str, ...]:
    """Metrics whose value at each such event (start, epoch, round, final) is kept."""
    return tuple(name for name, metric in METRICS.items() if event in metric.per)
