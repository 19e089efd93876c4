"""The files of a sweep's runs in MLflow: pictures of each trial that has ended, report and best.yaml of the sweep.

Comes in: the uploader's store and plan, in the uploader's thread. Goes out: artifacts; what went wrong, as lines.
A tag of the run says which version of its files is there, so that nothing is drawn or sent twice, also after a restart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from trainables.storage.retrying import RetryingThread
from tune_rsst.report.pictures import TIMEOUT_S, BrokenOff, Pictures
from tune_rsst.storage.folder import SweepFolder
from tune_rsst.tracking.writes import PARENT, RunWrites

if TYPE_CHECKING:
    from tune_rsst.tracking.runs import SweepRuns


TRIES = 2
AT_ONCE = 8


class RunFiles:
    """Uploads the files of one sweep; whatever fails costs the sweep nothing."""

    def __init__(self, folder: SweepFolder) -> None:
        self._folder, self._pictures = folder, Pictures(folder)
        self._tried: Counter[tuple[str, str]] = Counter()

    def upload(
        self, store: SweepRuns, plan: RunWrites, thread: RetryingThread, meanwhile: Callable[[], bool]
    ) -> list[str]:
        """Draw and upload what is due. Returns one line for each failure.

        `meanwhile` uploads new lines while a picture is being drawn; where it can't, or where the thread gets into a
        hurry, this comes back at once: lines go first, pictures are for later.
        """
        problems: list[str] = []
        hurried = thread.hurried
        self._pictures.go_on = lambda: (not thread.hurried or hurried) and meanwhile()
        due = [(run, version) for run, version in _versions(plan) if self._is_due(store, run, version)]
        trials = [(run, version) for run, version in due if run != PARENT]
        groups = [trials[i : i + AT_ONCE] for i in range(0, len(trials), AT_ONCE)]
        for group in [*groups, *([item] for item in due if item[0] == PARENT)]:
            left_s = min(TIMEOUT_S, thread.time_left_s)
            if left_s <= 1.0 or not self._pictures.go_on():
                break
            self._tried.update(group)
            if not thread.attempt(partial(self._put, store, group, left_s)):
                names = ", ".join(run or plan.view.name for run, _ in group)
                problems.append(f"the files of {names} are not in MLflow")
        return problems

    def _is_due(self, store: SweepRuns, run: str, version: str) -> bool:
        return not store.has_files(run, version) and self._tried[run, version] < TRIES

    def _put(self, store: SweepRuns, group: list[tuple[str, str]], left_s: float) -> None:
        try:
            self._draw_and_put(store, group, left_s)
        except BrokenOff:
            self._tried.subtract(group)

    def _draw_and_put(self, store: SweepRuns, group: list[tuple[str, str]], left_s: float) -> None:
        if group[0][0] == PARENT:
            drawn = self._pictures.of_sweep(left_s)
            files = {"pictures": [p for p in drawn if p.suffix == ".png"], "": [p for p in drawn if p.suffix != ".png"]}
            files[""] += [self._folder.best] if self._folder.best.exists() else []
            store.put_files(PARENT, files, group[0][1])
            return
        pictures = self._pictures.of_trials([run for run, _ in group], left_s)
        for run, version in group:
            store.put_files(run, {"pictures": pictures[run]}, version)


def _versions(plan: RunWrites) -> list[tuple[str, str]]:
    """(run, version) of the runs that have ended; an extended sweep gets new files at its next end."""
    found = [(t.trial, f"{t.state} {len(t.round_events)} rounds") for t in plan.view.trials.values() if t.ended_at]
    if plan.state == "finished":
        found.append((PARENT, f"{plan.state} {len(found)} trials"))
    return found
