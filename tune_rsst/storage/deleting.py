"""A sweep's folder goes as a whole: it is renamed first, so that a kill half-way leaves no half of a sweep.

In: the sweep's name. Out: lines that say what went and what stays.
"""

from __future__ import annotations

from pathlib import Path

from trainables.storage.files import is_temporary, remove_folder, remove_leftovers
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.ledger.lock import SweepBusy, driving
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep, SweepFolder, is_driven


def leftovers(name: str) -> list[Path]:
    """What a `delete` of the sweep `name` left in the home when it was killed."""
    there = home.home().iterdir() if home.home().is_dir() else ()
    return [path for path in there if is_temporary(path) and path.name.startswith(f".{name}.")]


def remove_half(name: str) -> None:
    """Finish a `delete` that was killed."""
    remove_leftovers(home.home(), of=name)


def what_stays(folder: SweepFolder) -> list[str]:
    """A line for each place outside the folder that holds something of the sweep."""
    try:
        settings = Sweep.of(folder).view.settings
    except LedgerError as error:
        return [f"what else there is of it is not known: {error}"]
    lines = [f"its runs in MLflow stay: {settings.get('mlflow_tracking_uri')}"]
    if (study := settings.get("optuna_storage")) and study != folder.study:
        lines.append(f"its Optuna study stays: {study}")
    if storage := settings.get("storage"):
        lines.append(f"its copy in the bucket stays: {storage.rstrip('/')}/{folder.name}")
    return lines


def delete(folder: SweepFolder, storage: str | None) -> None:
    """Remove the sweep's folder: ledger, checkpoints, models, exports, pictures. `storage`: the bucket that it is in.

    Raises:
        OSError: the folder can't be renamed.
    """
    if is_driven(folder, storage):
        raise SweepBusy(f"name = {folder.name}: a driver is running this sweep; stop it first")
    with driving(folder.path):
        remove_folder(folder.path)
