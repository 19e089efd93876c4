"""`tune-rsst track`: keeps a single run's record in MLflow level with its folder, once or until the run has ended.

In: SAVE_DIR, an MLflow, perhaps a sweep to put the run below.
Out: the record as single.py wants it; a line whenever it has changed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from trainables.rsst.config import ConfigError
from trainables.storage.files import expanded
from trainables.storage.secrets import hide_password
from tune_rsst.tracking.reason import reason
from tune_rsst.tracking.single import read
from tune_rsst.tracking.writes import PARENT

FOLLOW_S = 2.0


class Follower:
    """Keeps an MLflow run level with a run's folder; raises whatever the store raises."""

    def __init__(self, save_dir: Path, uri: str, experiment: str, sweep: str | None) -> None:
        """Connect; `sweep` names the one to put the run below."""
        from tune_rsst.tracking.runs import SweepRuns

        self.run = read(save_dir)
        self._place = _place_below(uri, experiment, sweep) if sweep is not None else {}
        self._store = SweepRuns(uri, experiment, self.run.uid)
        if self._place and PARENT in self._store.runs:
            _refuse_to_move(uri, self.run_id, self._place)
        self._done = 0

    @property
    def run_id(self) -> str:
        return self._store.runs[PARENT]

    def step(self) -> int:
        """Upload what is new; the number of events that are in MLflow now.

        Raises:
            RuntimeError: MLflow will never take it.
        """
        self.run = read(self.run.folder, self._place)
        refusal = self._store.put(self.run.write(self._store.start_ms(PARENT, self.run), self._done), self.run)
        if refusal:
            raise RuntimeError(f"MLflow: {refusal}")
        self._done = len(self.run.events)
        return self._done


def keep_level(save_dir: Path, uri: str, experiment: str, sweep: str | None, follow: bool) -> None:
    """Upload once or, with `follow`, from the run's beginning until it has ended; prints what is there.

    Raises:
        ConnectionError: MLflow can't be reached, or refuses; one line without passwords. Not with `follow`.
    """
    if follow:
        _wait_for_a_run(save_dir)
    read(save_dir)
    follower: Follower | None = None
    shown, warned = "", ""
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
            if line != warned:
                print(f"{line}; trying again", file=sys.stderr, flush=True)
            warned = line
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
    folder = expanded(save_dir)
    begun = folder / "config.json"
    if not begun.exists():
        print(f"{save_dir}: no run has begun there yet, waiting for one; Ctrl-C ends", flush=True)
    while not begun.exists() and (folder.is_dir() or not folder.exists()):
        time.sleep(FOLLOW_S)


def _place_below(uri: str, experiment: str, sweep: str) -> dict[str, str]:
    """The tags that put a run below the newest sweep of that name."""
    from tune_rsst.tracking.runs import find_parent_run

    parent = find_parent_run(uri, experiment, sweep)
    if parent is None:
        raise ConfigError("sweep", sweep, f"a sweep in the experiment {experiment} of that MLflow")
    return {"sweep": sweep, "mlflow.parentRunId": parent}


def _refuse_to_move(uri: str, run_id: str, place: dict[str, str]) -> None:
    """A run belongs to one sweep."""
    from tune_rsst.tracking.runs import _client

    tags = _client(uri).get_run(run_id).data.tags
    if (parent := tags.get("mlflow.parentRunId")) not in (None, place["mlflow.parentRunId"]):
        there = f"{tags.get('sweep', 'another one')} (its run is {parent})"
        raise ConfigError("sweep", place["sweep"], f"the sweep that this run is below already, {there}")
