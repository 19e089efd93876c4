"""`tune-rsst track`: brings a single run's record in MLflow level with its folder, once or as long as the run lasts.

Comes in: SAVE_DIR, an MLflow, perhaps a sweep to put the run below. Goes out: what single.py wants in the record is
there; a line whenever that has changed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from trainables.rsst.config import ConfigError
from trainables.storage.secrets import hide_password
from tune_rsst.tracking.reason import reason
from tune_rsst.tracking.single import SinglePlan, read
from tune_rsst.tracking.writes import PARENT

FOLLOW_S = 2.0


class Follower:
    """Keeps an MLflow run level with a run's folder."""

    def __init__(self, save_dir: Path, uri: str, experiment: str, sweep: str | None) -> None:
        """Connect.

        Raises:
            Exception: the store can't be reached.
        """
        from tune_rsst.tracking.runs import SweepRuns

        self.run = read(save_dir)
        joined = None if sweep is None else (sweep, _parent_run(uri, experiment, sweep))
        self._joined = joined
        self._store = SweepRuns(uri, experiment, self.run.uid)
        if joined is not None and PARENT in self._store.runs:
            _refuse_to_move(uri, self.run_id, joined)
        self._done = 0

    @property
    def run_id(self) -> str:
        return self._store.runs[PARENT]

    def step(self) -> int:
        """Upload what is new; the number of events that are in MLflow now.

        Raises:
            RuntimeError: MLflow will never take it.
            Exception: the store can't be reached; try again.
        """
        self.run = read(self.run.folder)
        plan = SinglePlan(self.run, self._joined)
        refusal = self._store.put(plan.write(self._store.start_ms(PARENT, plan), self._done), plan)
        if refusal:
            raise RuntimeError(f"MLflow: {refusal}")
        self._done = len(self.run.events)
        return self._done


def keep_level(save_dir: Path, uri: str, experiment: str, sweep: str | None, follow: bool) -> None:
    """Upload once or, with `follow`, from the run's beginning until it has ended; says what is there.

    Raises:
        ConnectionError: MLflow can't be reached, or refuses; one line without passwords. Not with `follow`.
    """
    if follow:
        _wait_for_a_run(save_dir)
    read(save_dir)
    follower: Follower | None = None
    shown, told = "", ""
    while True:
        try:
            follower = follower or Follower(save_dir, uri, experiment, sweep)
            count = follower.step()
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001  (whatever a store raises)
            line = f"mlflow = {hide_password(uri)}: {reason(error)}"
            if not follow:
                raise ConnectionError(line) from None
            if line != told:
                print(f"{line}; trying again", file=sys.stderr, flush=True)
            told = line
        else:
            below = f", below the sweep {sweep}" if sweep else ""
            line = f"{save_dir}: {count} events in run {follower.run_id} ({follower.run.state}){below}"
            if line != shown:
                print(line, flush=True)
            shown = line
            if follower.run.state != "running" or not follow:
                return
        time.sleep(FOLLOW_S)


def _wait_for_a_run(save_dir: Path) -> None:
    folder = save_dir.expanduser()
    begun = folder / "config.json"
    if not begun.exists():
        print(f"{save_dir}: no run has begun there yet, waiting for one; Ctrl-C ends", flush=True)
    while not begun.exists() and (folder.is_dir() or not folder.exists()):
        time.sleep(FOLLOW_S)


def _parent_run(uri: str, experiment: str, sweep: str) -> str:
    from tune_rsst.tracking.runs import _client, find_parent_run

    parent = find_parent_run(uri, experiment, sweep)
    if parent is None:
        _client(uri).get_experiment_by_name(experiment)  # raises where nobody answers: that is another problem
        raise ConfigError("sweep", sweep, f"a sweep in the experiment {experiment} of that MLflow")
    return parent


def _refuse_to_move(uri: str, run_id: str, joined: tuple[str, str]) -> None:
    """A run belongs to one sweep."""
    from tune_rsst.tracking.runs import _client

    tags = _client(uri).get_run(run_id).data.tags
    if tags.get("mlflow.parentRunId", joined[1]) != joined[1]:
        there = f"{tags.get('sweep', 'another one')} (its run is {tags['mlflow.parentRunId']})"
        raise ConfigError("sweep", joined[0], f"the sweep that this run is below already, {there}")
