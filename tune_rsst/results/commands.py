"""Commands that a person can paste: what to do next with a sweep, how to run a trial again.

In: a sweep, a trial's knobs, the folder of a single run.
Out: commands as text. The table, the report page, MLflow's notes and the last line of a sweep print these. They work
from any folder and outside an activated environment, with TUNE_RSST_HOME and storage= where the sweep needs them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from trainables.rsst.config import KNOBS
from trainables.text import command, quoted, single_run
from tune_rsst.ledger.repeats.wanted import Wanted
from tune_rsst.ledger.spending import raised
from tune_rsst.ledger.tail import LedgerTail
from tune_rsst.ledger.view import SweepView
from tune_rsst.results.ranking import best_of
from tune_rsst.storage.cursor import load_cursor
from tune_rsst.storage.folder import Sweep, SweepFolder

# What an MLflow that is only looked at does not need; with one worker it is up in a third of the time.
MLFLOW_QUIET = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true"
RESUME = "Go on with it"
MLFLOW_HERE = "http://127.0.0.1:5000"
TRAINING = "workflowType=machine_learning"  # else MLflow 3 shows its pages for language models


def _program(name: str) -> str:
    """A program of this Python's environment, by its absolute path."""
    path = Path(sys.executable).parent / name
    return quoted(path) if path.exists() else f"{quoted(sys.executable)} -m {name.replace('-', '_')}"


def tune_rsst(folder: SweepFolder, *words: object) -> str:
    """`tune-rsst WORDS` for a sweep of the home that `folder` is in."""
    return " ".join([f"TUNE_RSST_HOME={quoted(folder.path.parent)}", _program("tune-rsst"), *map(quoted, words)])


def resume(folder: SweepFolder, settings: Mapping[str, Any], *more: str) -> str:
    """Continue the sweep, with `more` settings; `settings` as the ledger holds them."""
    storage = [f"storage={settings['storage']}"] if settings.get("storage") else []
    return tune_rsst(folder, "sweep", "--name", folder.name, "--resume", *storage, *more)


def go_on(folder: SweepFolder, view: SweepView) -> str:
    """Continue the sweep so that trials run: where a budget is spent, with as much again."""
    return resume(folder, view.settings, *raised(view.spending, view.settings))


def why_at_rest(folder: SweepFolder, view: SweepView, spent: str | None) -> str:
    """One line for a sweep that begins nothing: it is finished, or a budget is `spent` (the words of `used_up`)."""
    if spent is None:
        return f"{folder.name} is finished: nothing to go on with"
    ended = len(view.trials) - len(view.unfinished)
    counted = f"{ended} of {view.settings['trials']} trials have ended"
    return f"{spent}; {counted}, nothing is lost. Go on with: {go_on(folder, view)}"


def confirm(sweep: Sweep) -> str:
    """Go on with what was asked of `tune-rsst confirm` last."""
    wanted = Wanted.last(sweep.view)
    assert wanted is not None
    asked = ["--top", len(wanted.trials), "--seeds", len(wanted.seeds), *(["--split"] if wanted.split else [])]
    return tune_rsst(sweep.folder, "confirm", sweep.name, *asked)


def mlflow_page(sweep: Sweep) -> str:
    """Where a browser shows the sweep's runs: on its MLflow server, or on the one that the printed command starts.

    All experiments, as long as MLflow has not been reached.
    """
    try:
        uri = urlsplit(str(sweep.view.settings.get("mlflow_tracking_uri")))
    except ValueError:  # brackets that hold no address
        uri = urlsplit("")
    host, path = quote(uri.netloc.rpartition("@")[2], safe="[]:"), quote(uri.path.rstrip("/"), safe="/%")
    server = f"{uri.scheme}://{host}{path}"
    top = f"{server if uri.scheme in ('http', 'https') else MLFLOW_HERE}/#/experiments"
    experiment = load_cursor(sweep.folder.cursor).experiment_id
    if experiment is None:
        return f"{top}?{TRAINING}"
    its_own = quote(f"tags.sweep_uid = '{LedgerTail(sweep.folder.ledger).uid()}'", safe="")
    return f"{top}/{experiment}/runs?{TRAINING}&searchFilter={its_own}"


def next_commands(sweep: Sweep) -> list[tuple[str, str]]:
    """(what for, command) of what one may want to do next; each works when pasted, from any folder."""
    folder, view, state = sweep.folder, sweep.view, sweep.state
    uri = str(view.settings.get("mlflow_tracking_uri"))
    commands = []
    if state == "interrupted":
        commands.append((RESUME, go_on(folder, view)))
    if state != "running" and view.confirm is not None and (wanted := Wanted.last(view)) and wanted.left(view):
        commands.append(("Go on with the runs that confirm it", confirm(sweep)))
    if sweep.killed:
        sync = tune_rsst(folder, "sync", folder.name)
        commands.append(("It was killed: tell MLflow so, if it is not to be continued", sync))
    if state == "finished" and any(t.state == "failed" and not t.fails_again for t in view.trials.values()):
        retry = tune_rsst(folder, "retry", folder.name)
        commands.append(("Try the failed trials again, from their checkpoints", retry))
    if uri.startswith("sqlite:"):
        server = f"ui --workers 1 --port 5000 --backend-store-uri {quoted(uri)}"
        what = f"Look at it in MLflow, at {mlflow_page(sweep)}"
        commands.append((what, f"{MLFLOW_QUIET} {_program('mlflow')} {server}"))
    if folder.best.exists():
        best = best_of(view)
        where = folder.path / "best_rerun" / (best.trial if best else "best")
        commands.append(("Run the best trial again, alone", single_run(folder.best, where)))
    commands.append(("See this table again", tune_rsst(folder, "show", folder.name)))
    return commands


def of_a_rerun(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a trial's knobs that running it again, alone, needs. Knobs of another version are kept."""
    left_out = {name for name, knob in KNOBS.items() if not knob.in_rerun}
    return {name: value for name, value in knobs.items() if value is not None and name not in left_out}


def rerun_command(knobs: Mapping[str, Any]) -> str:
    """The trial alone, on one machine, without Ray: every knob as a flag."""
    words = [sys.executable, "-m", "trainables"]
    for name, value in of_a_rerun(knobs).items():
        if value is True:
            words.append(f"--{name}")
        elif isinstance(value, str) and value.startswith("-"):  # else it would be a flag of its own
            words.append(f"--{name}={value}")
        else:
            words += [f"--{name}", str(value).lower() if isinstance(value, bool) else str(value)]
    return command(words)
