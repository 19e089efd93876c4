"""What a sweep found: ranking, the best trial, the JSON of `show`, the commands to type next, best.yaml and best_model.

Comes in: the ledger's view and the sweep's folder. Goes out: JSON, files. Nothing here changes the sweep.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tune_rsst.home import SweepFolder
from tune_rsst.ledger import is_running, read
from tune_rsst.objective import best_of, order, pareto_front, standing
from tune_rsst.storage import fetch_model
from tune_rsst.view import SweepView, TrialView

MODEL_FILES = ("model.safetensors", "architecture.json", "report.json")
# What an MLflow that is only looked at does not need; with one worker it is up in a third of the time.
MLFLOW_QUIET = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true"
MLFLOW_PAGE = "http://127.0.0.1:5000/?workflowType=machine_learning"
ALWAYS = ("val_top1", "density", "kept_share", "params", "gmacs", "hardening_gap", "round", "epochs_trained")
RERUN_LEAVES_OUT = ("save_dir", "on_missing_weights")


def load(folder: SweepFolder) -> tuple[SweepView, str]:
    """The view of the sweep in `folder`, and its state.

    Raises:
        LedgerError: the ledger is damaged.
    """
    running = is_running(folder.path)
    view = SweepView.of(read(folder.ledger))
    return view, view.state(running)


def rank(view: SweepView) -> list[TrialView]:
    """Ended trials: finished ones that the objective allows, best first; other finished ones, stopped, failed."""
    places, groups = standing(view), ("feasible", "infeasible", "stopped", "failed")
    ended = [t for t in view.trials.values() if places[t.trial] in groups]
    return sorted(ended, key=lambda t: (groups.index(places[t.trial]), *order(t)))


def trial_json(trial: TrialView) -> dict[str, Any]:
    """One trial as `show --json` prints it. Metrics that are not known yet are null."""
    m = trial.metrics
    return {
        "id": trial.trial,
        "state": trial.state,
        "params": trial.params,
        "metrics": {**dict.fromkeys(ALWAYS), **{k: v for k, v in m.items() if k not in ("lines", "source", "warning")}},
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


def _program(name: str) -> str:
    """A program of this Python's environment, by its absolute path."""
    path = Path(sys.executable).parent / name
    return shlex.quote(str(path)) if path.exists() else f"{shlex.quote(sys.executable)} -m {name.replace('-', '_')}"


def next_commands(folder: SweepFolder, view: SweepView, state: str) -> list[tuple[str, str]]:
    """(what for, command) of what one may want to do next; each works when pasted, from any folder."""
    q: Callable[[object], str] = lambda value: shlex.quote(str(value))  # noqa: E731
    home = f"TUNE_RSST_HOME={q(folder.path.parent)}"
    uri = str(view.settings.get("mlflow_tracking_uri"))
    there = f" storage={q(view.settings['storage'])}" if view.settings.get("storage") else ""
    commands = []
    if state == "interrupted":
        again = f"sweep --name {q(folder.name)} --resume{there}"
        commands.append(("Go on with it", f"{home} {_program('tune-rsst')} {again}"))
    if state == "finished" and view.count("failed"):
        retry = f"{home} {_program('tune-rsst')} retry {q(folder.name)}"
        commands.append(("Try the failed trials again, from their checkpoints", retry))
    if uri.startswith("sqlite:"):
        commands.append(
            (
                f"Look at it in MLflow, at {MLFLOW_PAGE}",
                f"{MLFLOW_QUIET} {_program('mlflow')} ui --workers 1 --port 5000 --backend-store-uri {q(uri)}",
            )
        )
    if folder.best.exists():
        best = best_of(view)
        where = folder.path / "best_rerun" / (best.trial if best else "best")
        rerun = f"{q(sys.executable)} -m trainables --config {q(folder.best)} --save_dir {q(where)} --resume"
        commands.append(("Run the best trial again, alone", rerun))
    commands.append(("See this table again", f"{home} {_program('tune-rsst')} show {q(folder.name)}"))
    return commands


def best_is_written(folder: SweepFolder, view: SweepView) -> bool:
    """Whether best.yaml and the best model are there, as far as there is a best trial."""
    return best_of(view) is None or (
        folder.best.exists() and all((folder.best_model / n).exists() for n in MODEL_FILES)
    )


def write_best(folder: SweepFolder, view: SweepView) -> TrialView | None:
    """Write best.yaml and best_model/ of the best trial there is; each file under a temporary name first."""
    best = best_of(view)
    if best is None:
        return None
    m = best.metrics
    lines = [
        f"# Sweep {folder.name}, trial {best.trial}: val_top1 {m['val_top1']:.4f}, test_top1 {m['test_top1']:.4f}, "
        f"kept share {m['kept_share']:.4f}, init_effective {m.get('init_effective')}",
        f"# Searched: {', '.join(best.params)}. Fingerprint {best.fingerprint}.",
        "# python -m trainables --config best.yaml --save_dir FOLDER",
    ]
    kept = {name: value for name, value in best.knobs.items() if name not in RERUN_LEAVES_OUT and value is not None}
    lines += [f"{name}: {json.dumps(value)}" for name, value in kept.items()]
    temporary = folder.path / ".best.yaml.tmp"
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(folder.best)
    fetch_model(folder, view.settings.get("storage"), best.fingerprint)
    _copy_model(folder.store(best.fingerprint), folder.best_model)
    return best


def _copy_model(store: Path, target: Path) -> None:
    new = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    for name in MODEL_FILES:
        shutil.copy2(store / name, new / name)
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
