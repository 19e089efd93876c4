"""What a sweep found: ranking, the best trial, the JSON of `show`, the commands to type next, best.yaml and best_model.

Comes in: the ledger's view and the sweep's folder. Goes out: JSON, files. Nothing here changes the sweep.
"""

from __future__ import annotations

from typing import Any

from trainables.rsst.metrics import METRICS, is_words, kept_per
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.results.ranking import best_of, pareto_front, standing
from tune_rsst.storage.folder import SweepFolder

# What a person compares, from the first round on, and how far the trial is.
ALWAYS = (*(name for name in kept_per("round") if METRICS[name].column), "round", "epochs_trained")


def trial_json(trial: TrialView) -> dict[str, Any]:
    """One trial as `show --json` prints it. Metrics that are not known yet are null."""
    m = trial.metrics
    return {
        "id": trial.trial,
        "state": trial.state,
        "params": trial.params,
        "metrics": {**dict.fromkeys(ALWAYS), **{k: v for k, v in m.items() if not is_words(k)}},
        "reason": trial.reason,
        "places": trial.places,
        "rounds": trial.rounds,
        "fingerprint": trial.fingerprint,
        "knobs": trial.knobs,
    }


def as_json(folder: SweepFolder, view: SweepView, state: str, parent_run_id: str | None) -> dict[str, Any]:
    """The object that `show --json` prints."""
    best = best_of(view)
    return {
        "name": folder.name,
        "state": state,
        "objective": view.settings.get("objective"),
        "target_density": view.settings.get("target_density"),
        "mlflow_tracking_uri": view.settings.get("mlflow_tracking_uri"),
        "mlflow_experiment": view.settings.get("mlflow_experiment"),
        "mlflow_parent_run_id": parent_run_id,
        "folder": str(folder.path),
        "best": trial_json(best) if best else None,
        "pareto": pareto_front(view),
        "warm_start": sorted(view.former),
        "standing": standing(view),
        "trials": [trial_json(t) for t in view.trials.values()],
    }
