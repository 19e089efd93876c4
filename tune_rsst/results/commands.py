"""Commands that a person can paste: what to do next with a sweep, how to run a trial again.

In: a sweep. Out: commands as text.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainables.rsst.config import KNOBS
from tune_rsst.results.ranking import best_of
from tune_rsst.storage.folder import Sweep

# What an MLflow that is only looked at does not need; with one worker it is up in a third of the time.
MLFLOW_QUIET = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true"
MLFLOW_PAGE = "http://127.0.0.1:5000/?workflowType=machine_learning"


def _program(name: str) -> str:
    """A program of this Python's environment, by its absolute path."""
    path = Path(sys.executable).parent / name
    return shlex.quote(str(path)) if path.exists() else f"{shlex.quote(sys.executable)} -m {name.replace('-', '_')}"


def next_commands(sweep: Sweep) -> list[tuple[str, str]]:
    """(what for, command) of what one may want to do next; each works when pasted, from any folder."""
    q: Callable[[object], str] = lambda value: shlex.quote(str(value))  # noqa: E731
    folder, view, state = sweep.folder, sweep.view, sweep.state
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


def of_a_rerun(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a trial's knobs that running it again, alone, needs. Knobs of another version are kept."""
    left_out = {name for name, knob in KNOBS.items() if not knob.in_rerun}
    return {name: value for name, value in knobs.items() if value is not None and name not in left_out}


def rerun_command(knobs: Mapping[str, Any]) -> str:
    """The trial alone, on one machine, without Ray: every knob as a flag."""
    words = ["python", "-m", "trainables"]
    for name, value in of_a_rerun(knobs).items():
        words.append(f"--{name}")
        if value is not True:
            words.append(str(value).lower() if isinstance(value, bool) else str(value))
    return shlex.join(words)


def resume_command(sweep: str) -> str:
    """Go on with the sweep."""
    return shlex.join(["tune-rsst", "sweep", "--name", sweep, "--resume"])
