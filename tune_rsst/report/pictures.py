"""Pictures for MLflow, drawn in a process of their own, so that neither the event loop nor the upload waits for a core.

`python -m tune_rsst.report.pictures SWEEP_FOLDER TRIAL… [--sweep]` draws from the ledger. Files:
SWEEP/pictures/TRIAL/*.png, SWEEP/pictures/*.png and *.html, SWEEP/report.html. Comes in: names.
Goes out: paths; a failure is one line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tune_rsst.storage.folder import SweepFolder

TIMEOUT_S, LOOK_S = 600.0, 0.25  # on a machine whose cores are all training, nice programs get little
NICENESS = 10


class BrokenOff(Exception):
    """There was something more urgent than pictures."""


class Pictures:
    """Draws pictures of one sweep in a child process, which is stopped as soon as `go_on()` is false."""

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder
        self.go_on: Callable[[], bool] = lambda: True

    def of_trials(self, trials: Sequence[str], timeout_s: float = TIMEOUT_S) -> dict[str, list[Path]]:
        """Paths by trial; errors as in `of_sweep`."""
        self._draw(list(trials), timeout_s)
        return {trial: sorted((self._folder.pictures / trial).glob("*.png")) for trial in trials}

    def of_sweep(self, timeout_s: float = TIMEOUT_S) -> list[Path]:
        """Paths of the sweep's own pictures and of the report.

        Raises:
            BrokenOff: not `go_on`.
            RuntimeError: drawing failed; one line.
        """
        self._draw(["--sweep"], timeout_s)
        return [*sorted(self._folder.pictures.glob("*.png")), self._folder.report]

    def _draw(self, words: list[str], timeout_s: float) -> None:
        command = [sys.executable, "-m", "tune_rsst.report.pictures", str(self._folder.path), *words]
        fonts = {"MPLCONFIGDIR": str(self._folder.path.parent / ".matplotlib")}  # nothing is written outside the home
        environment = {**fonts, **os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        deadline = time.monotonic() + max(1.0, timeout_s)
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as child:
            try:
                said = self._wait(child, deadline, timeout_s)
            finally:
                child.kill()
        if child.returncode:
            last = (said.strip().splitlines() or ["no reason given"])[-1]
            raise RuntimeError(f"pictures: {last}")

    def _wait(self, child: subprocess.Popen[str], deadline: float, timeout_s: float) -> str:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return child.communicate(timeout=LOOK_S)[1]
            if not self.go_on():
                raise BrokenOff
            if time.monotonic() > deadline:
                raise RuntimeError(f"pictures: not drawn within {timeout_s:.0f} s")


def main(words: Sequence[str]) -> None:
    """Draw what `words` ask for."""
    from tune_rsst.report.trial_figures import save_trial
    from tune_rsst.storage.folder import Sweep

    os.nice(NICENESS)
    folder = SweepFolder(Path(words[0]))
    sweep = Sweep.of(folder)
    for trial in words[1:]:
        if trial != "--sweep":
            save_trial(sweep.view.trials[trial], folder.pictures / trial)
    if "--sweep" in words:
        from tune_rsst.report.page import write_report
        from tune_rsst.report.sweep_figures import save_figures

        save_figures(sweep.view, folder.pictures)
        write_report(replace(sweep, state="finished") if sweep.view.ended else sweep, folder.report)


if __name__ == "__main__":
    main(sys.argv[1:])
