"""Pictures for MLflow, drawn in a child process, so that neither the event loop nor the upload waits for a core.

`python -m tune_rsst.report.pictures SWEEP_FOLDER TRIAL… [--sweep]` draws from the ledger. Files:
SWEEP/pictures/TRIAL/*.png, SWEEP/pictures/*.png and *.html, SWEEP/report.html.

In: names. Out: files; a failure is one line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from trainables.storage.files import remove_leftovers
from trainables.storage.secrets import is_secret
from tune_rsst.storage.folder import SweepFolder

TIMEOUT_S, LOOK_S = 600.0, 0.25  # on a machine whose cores are all training, nice programs get little
NICENESS = 10
SWEEP = "--sweep"


def draw(folder: SweepFolder, *names: str, timeout_s: float = TIMEOUT_S) -> Iterator[None]:
    """Draw the pictures of the trials `names`, or of the sweep for `--sweep`, in a child process.

    Yields a few times a second until they are drawn; whoever stops iterating ends the drawing.

    Raises:
        RuntimeError: drawing failed; one line.
    """
    command = [sys.executable, "-m", "tune_rsst.report.pictures", str(folder.path), *names]
    fonts = {"MPLCONFIGDIR": str(folder.path.parent / ".matplotlib")}  # nothing is written outside the home
    own = {name: value for name, value in os.environ.items() if not is_secret(name, value)}
    environment = {**fonts, **own, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    deadline = time.monotonic() + max(1.0, timeout_s)
    quiet, piped = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdout=quiet, stderr=piped, encoding="utf-8", errors="replace"
    ) as child:
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    errors = child.communicate(timeout=LOOK_S)[1]
                    break
                yield
                if time.monotonic() > deadline:
                    raise RuntimeError(f"pictures: not drawn within {timeout_s:.0f} s")
        finally:
            child.kill()
            child.wait()
            for place in (folder.path, folder.pictures, *map(folder.pictures_of, set(names) - {SWEEP})):
                with suppress(OSError):
                    remove_leftovers(place, by=child.pid)
    if child.returncode:
        last = (errors.strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeError(f"pictures: {last}")


def main(words: Sequence[str]) -> None:
    """Draw what `words` ask for."""
    from trainables.figures import save_trial
    from tune_rsst.storage.folder import Sweep

    folder = SweepFolder(Path(words[0]))
    sweep = Sweep.of(folder)
    if sweep.view.unfinished:
        os.nice(NICENESS)  # trials that train go first
    for trial in words[1:]:
        if trial != SWEEP:
            save_trial(sweep.view.trials[trial], folder.pictures_of(trial))
    if SWEEP in words:
        from tune_rsst.report.page import write_report
        from tune_rsst.report.sweep_figures import save_figures

        save_figures(sweep.view, folder.pictures)
        write_report(replace(sweep, state="finished") if sweep.view.ended else sweep, folder.report)


if __name__ == "__main__":
    main(sys.argv[1:])
