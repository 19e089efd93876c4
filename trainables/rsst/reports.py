"""How a trial's reports are put together: at its start, after a round, at its end, and as report.json.

In: a running trial. Out: dicts of numbers by the names of metrics.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from trainables.rsst.config import KNOBS, METHOD_VERSION
from trainables.rsst.config.models import few_tokens, grid_words
from trainables.rsst.event import Event, Kind, Metrics
from trainables.rsst.model.cost import gmacs, latency, latency_budget_s, parameters
from trainables.rsst.pruning.pruners import density
from trainables.rsst.training.device import environment
from trainables.rsst.training.evaluation import balanced, class_ratio, evaluate

if TYPE_CHECKING:
    from trainables.rsst.config import RSSTConfig
    from trainables.rsst.running import Running


def start_metrics(trial: Running) -> dict[str, Any]:
    """The report before the first step: what the trial starts from, and what the dense model costs."""
    known = ("init_effective", "weights_digest", "source", "lines", "warning", "listing")
    return {
        "round": 0,
        "epoch": 0,
        "epochs_trained": 0,
        "params": parameters(trial.model),
        "gmacs": gmacs(trial.form.arch),
        "grid": grid_words(trial.config),
        "grid_warning": few_tokens(trial.config),
        **{name: trial.init[name] for name in known},
        **micro_batch(trial.config),
        "data_digest": trial.about.digest,
        "images": trial.about.to_json(),
        "class_ratio": max(
            class_ratio(part, trial.images.num_classes) for part in (trial.images.val, trial.images.test)
        ),
        **environment(trial.config, trial.images.device),
    }


def micro_batch(config: RSSTConfig) -> dict[str, int]:
    """micro_batch_size where it is smaller than the batch, else nothing."""
    size = config.micro_batch_size
    return {"micro_batch_size": size} if size is not None and size < config.batch_size else {}


def round_metrics(trial: Running) -> dict[str, Any]:
    """The report of a round that has just been hardened."""
    arch, removal = trial.form.arch, trial.removal
    found = trial.validated()
    top1, by_class = found.top1, found.by_class
    gap = removal.before - removal.after if removal.before is not None and removal.after is not None else 0.0
    past = of_kind(trial.history, "round")
    dense = past[0]["val_top1"] if past else top1
    seconds = sum(m["seconds"] for m in of_kind(trial.history, "epoch") if m["round"] == trial.round)
    budget_s, at_a_time = latency_budget_s(seconds), trial.config.micro_batch_size
    one = latency(trial.model, arch.input_shape(), 1, budget_s=budget_s)
    many = latency(trial.model, arch.input_shape(), trial.config.batch_size, at_a_time=at_a_time, budget_s=budget_s)
    return {
        "round": trial.round,
        "epoch": trial.epoch,
        "epochs_trained": trial.epochs_trained,
        "epochs_adopted": sum("adopted_from" in metrics for metrics in of_kind(trial.history, "epoch")),
        "val_top1_before_hardening": top1 if removal.before is None else removal.before,
        "val_top1": top1,
        "val_top5": found.top5,
        "val_loss": found.exact_loss,
        "dense_top1": dense,
        "top1_drop": dense - top1,
        "val_balanced_accuracy": balanced(by_class),
        "val_class_accuracy": by_class,
        "round_gap": gap,
        "hardening_gap": max(abs(g) for g in (gap, *(metrics["round_gap"] for metrics in past))),
        "predictions_changed": removal.changed,
        "kept_share": trial.pruner.kept_share(trial.form, trial.config),
        "kept_share_asked": trial.config.kept_share_after(trial.round) * trial.start_share,
        "compacted": not trial.form.dead,
        "density": density(trial.form, trial.model.state_dict()),
        "heads_kept": sum(arch.heads),
        "neurons_kept": sum(arch.neurons),
        "heads_kept_per_layer": list(arch.heads),
        "neurons_kept_per_layer": list(arch.neurons),
        "params": parameters(trial.model),
        "gmacs": gmacs(arch),
        "latency_ms": one.median_ms,
        "latency_iqr_ms": one.iqr_ms,
        "latency_batch_ms": many.median_ms,
        "latency_batch_iqr_ms": many.iqr_ms,
        "seconds": seconds,
    }


def final_metrics(trial: Running) -> dict[str, Any]:
    """The last round's report, the test accuracy of the final model, and where the trial came from."""
    test = evaluate(trial.model, trial.images, trial.images.test)
    return {
        **of_kind(trial.history, "round")[-1],
        "test_top1": test.top1,
        "test_loss": test.loss,
        "test_balanced_accuracy": balanced(test.by_class),
        "test_class_accuracy": test.by_class,
        "init_effective": trial.init["init_effective"],
        "weights_digest": trial.init["weights_digest"],
        **micro_batch(trial.config),
        **environment(trial.config, trial.images.device),
    }


def of_kind(events: Iterable[Event], kind: Kind) -> list[Metrics]:
    """The metrics of all events of one kind, oldest first."""
    return [event.metrics for event in events if event.kind == kind]


def report_of(config: RSSTConfig, history: Sequence[Event]) -> dict[str, Any]:
    """report.json of a trial: config, fingerprint, start, rounds, epochs, and the final metrics when finished.

    `WRITTEN_REPORT` (event.py) is its form.
    """
    start, final = ((of_kind(history, kind) or [{}])[-1] for kind in ("start", "final"))
    return {
        "config": config.knobs(),
        "fingerprint": config.fingerprint,
        "method": METHOD_VERSION,
        "idle": [name for name, knob in KNOBS.items() if knob.in_fingerprint and not knob.acts(config)],
        "init_effective": start.get("init_effective"),
        "weights_digest": start.get("weights_digest"),
        "start": start,
        "rounds": of_kind(history, "round"),
        "epochs": of_kind(history, "epoch"),
        "test_top1": final.get("test_top1"),
        "final": final,
    }
