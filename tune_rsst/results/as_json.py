"""What a sweep found, as the JSON of `show --json`.

In: a sweep. Out: JSON-able objects.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from trainables.rsst.metrics import METRICS, is_words, kept_per
from tune_rsst.ledger import spending
from tune_rsst.ledger.view import TrialView
from tune_rsst.results import replicated
from tune_rsst.results.commands import mlflow_page
from tune_rsst.results.ranking import best_of, pareto_front, rounds_front, standing
from tune_rsst.storage.folder import Sweep

# What a person compares, from the first round on, and how far the trial is.
ALWAYS = (
    *(name for name in kept_per("round") if METRICS[name].column and not METRICS[name].aim),
    "round",
    "epochs_trained",
)


def trial_json(trial: TrialView) -> dict[str, Any]:
    """One trial as `show --json` prints it. Metrics that are not known yet are null."""
    m = trial.metrics
    return {
        "id": trial.trial,
        "state": trial.state,
        "params": trial.searched,
        "suggested_by": trial.suggested_by,
        "metrics": {**dict.fromkeys(ALWAYS), **{k: v for k, v in m.items() if not is_words(k)}},
        "reason": trial.reason,
        "places": trial.places,
        "rounds": trial.rounds,
        "fingerprint": trial.fingerprint,
        "knobs": trial.knobs,
        **({"replicates": replicated.as_json(trial)} if trial.seeds > 1 else {}),
    }


def as_json(sweep: Sweep, parent_run_id: str | None) -> dict[str, Any]:
    """The object that `show --json` prints."""
    view = sweep.view
    best = best_of(view)
    return {
        "name": sweep.name,
        "state": sweep.state,
        "objective": view.settings.get("objective"),
        "target_density": view.settings.get("target_density"),
        "mlflow_tracking_uri": view.settings.get("mlflow_tracking_uri"),
        "mlflow_experiment": view.settings.get("mlflow_experiment"),
        "mlflow_parent_run_id": parent_run_id,
        "mlflow_page": mlflow_page(sweep),
        "folder": str(sweep.folder.path),
        "best": trial_json(best) if best else None,
        "pareto": pareto_front(view),
        "rounds_front": [asdict(one) for one in rounds_front(view)],
        "warm_start": sorted(view.former),
        "not_valid": [r["reason"] for r in view.repeats if r.get("reason")],
        "infeasible": [{n: r[n] for n in ("number", "params", "metrics", "reason")} for r in view.infeasible],
        "standing": standing(view),
        "spent": spending.as_json(view.spending, view.settings),
        "trials": [trial_json(t) for t in view.trials.values()],
    }
