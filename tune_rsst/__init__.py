"""Sweeps over RSST trials: Ray Tune runs them, Optuna chooses them, MLflow shows them, the ledger remembers them.

The files here tell the story, the folders hold the subjects. One side decides and runs (search, driver, runners), one
side shows (results, report, tracking); neither imports the other. Both stand on ledger, settings and storage.

conduct.py     one sweep from the lock to the exit code
ending.py      how it ends
driver/        the one decision maker: compare, end, ask; knows no Ray
intake.py      what comes back from runs is written first
interrupt.py   signals while a sweep ends
cli/           the ways in: the commands, and the same from Python
planning/      what a sweep will do, whether it can run here, what it will cost
runners/       where trials run: Ray Tune, local or on a cluster
search/        what to try and when to stop: the Optuna study, search spaces, early stopping
tracking/      MLflow from the ledger; the only folder that imports mlflow
report/        pictures and the HTML page
results/       what was found, as text and files
storage/       where a sweep is stored: the home, its folders, a bucket
settings/      what the user wrote
ledger/        the truth of a sweep, and what it says

For scripts and notebooks: `tune_rsst.sweep(…)` and `tune_rsst.load(…)` give a `tune_rsst.Sweep` (docs/python.md).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune_rsst.cli.api import Sweep as Sweep
    from tune_rsst.cli.api import load as load
    from tune_rsst.cli.api import sweep as sweep

__all__ = ["Sweep", "load", "sweep"]


def __getattr__(name: str) -> Any:
    """What scripts use, loaded when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trainables.errors import explained

    with explained():
        from tune_rsst.cli import api

    return getattr(api, name)
