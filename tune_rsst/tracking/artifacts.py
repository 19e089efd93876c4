"""The files of a sweep's runs in MLflow: pictures of each trial that has ended, report and best.yaml of the sweep.

In: the uploader's store and plan, in the uploader's thread. Out: artifacts; what went wrong, as lines.
A tag of the run says which version of its files is there, so that nothing is drawn or sent twice, also after a restart.

uploader.py → artifacts.py → pictures.py: each asks the next for one step more, and none asks back. What is more
urgent than pictures (new lines, the end of the sweep) the uploader decides between two steps.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from tune_rsst.report.pictures import TIMEOUT_S, draw
from tune_rsst.storage.folder import SweepFolder
from tune_rsst.tracking.writes import PARENT, RunWrites

if TYPE_CHECKING:
    from tune_rsst.tracking.runs import SweepRuns


TRIES = 2
AT_ONCE = 8


class RunFiles:
    """Uploads the files of one sweep; whatever fails costs the sweep nothing."""

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder
        self._tried: Counter[tuple[str, str]] = Counter()

    def upload(self, store: SweepRuns, plan: RunWrites, time_left_s: float) -> Generator[str | None, None, None]:
        """Draw and upload what is due, within `time_left_s`.

        Yields a few times a second: a line where something failed, else None. Closing it ends the drawing, which is
        tried again at the next call.
        """
        deadline = time.monotonic() + time_left_s
        due = [item for item in _versions(plan) if self._tried[item] < TRIES and not store.has_files(*item)]
        for group in self._groups(due):
            yield None
            left_s = min(TIMEOUT_S, deadline - time.monotonic())
            if left_s <= 1.0:
                return
            problems = []
            try:
                yield from self._draw_and_put(store, group, left_s)
            except Exception as error:  # noqa: BLE001  whatever a child process or a store does may not reach the sweep
                names = ", ".join(run or plan.view.name for run, _ in group)
                problems = [str(error) or type(error).__name__, f"the files of {names} are not in MLflow"]
            self._tried.update(group)
            yield from problems

    def _groups(self, due: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
        """What one child process draws. What has failed before is drawn alone, so that it keeps back nothing else."""
        together, alone = [item for item in due if not self._tried[item]], [[item] for item in due if self._tried[item]]
        return [together[i : i + AT_ONCE] for i in range(0, len(together), AT_ONCE)] + alone

    def _draw_and_put(self, store: SweepRuns, group: list[tuple[str, str]], left_s: float) -> Iterator[None]:
        folder = self._folder
        yield from draw(folder, *("--sweep" if run == PARENT else run for run, _ in group), timeout_s=left_s)
        for run, version in group:
            if run != PARENT:
                store.put_files(run, {"pictures": sorted(folder.pictures_of(run).glob("*.png"))}, version)
                continue
            best = [folder.best] if folder.best.exists() else []
            store.put_files(
                run, {"pictures": sorted(folder.pictures.glob("*.png")), "": [folder.report, *best]}, version
            )


def _versions(plan: RunWrites) -> list[tuple[str, str]]:
    """(run, version) of the runs that have ended; an extended sweep gets new files at its next end."""
    found = [(t.trial, f"{t.state} {len(t.round_events)} rounds") for t in plan.view.trials.values() if t.ended_at]
    if plan.state == "finished":
        repeated = sum(bool(run.ended_at) for run in plan.view.confirm.trials.values()) if plan.view.confirm else 0
        more = f", {repeated} runs again" if repeated and not plan.repeats else ""
        found.append((PARENT, f"{plan.state} {len(found)} trials{more}"))
    return found
