"""Where things are: TUNE_RSST_HOME, the sweeps in it, and the folders that Ray needs while a sweep runs.

TUNE_RSST_HOME/            default: .tune_rsst in the current folder
  mlflow.db mlartifacts/   one MLflow for all sweeps of this home
  .ray/ .ray_token         Ray's own files while it runs; the key of its local services
  .matplotlib/             the list of fonts for the pictures
  SWEEP/                   ledger.jsonl settings.yaml driver.lock trials/ optuna.db best.yaml best_model/
                           pictures/ report.html exports/
"""

from __future__ import annotations

import os
import tempfile
from difflib import get_close_matches
from pathlib import Path

from trainables.rsst.config import ConfigError
from tune_rsst.ledger.file import LEDGER_NAME, decode
from tune_rsst.storage.folder import SweepFolder

JOB_FOLDER = "/runtime_resources/working_dir_files/"


def home() -> Path:
    """Absolute path of TUNE_RSST_HOME; it need not exist."""
    if not os.environ.get("TUNE_RSST_HOME") and JOB_FOLDER in str(Path.cwd()):
        valid = "a folder that every node mounts, set in the job's runtime_env or on the nodes"
        raise ConfigError("TUNE_RSST_HOME", None, valid, "what is in a job's own folder goes with the job")
    return Path(os.environ.get("TUNE_RSST_HOME") or ".tune_rsst").expanduser().absolute()


def default_tracking_uri() -> str:
    """MLFLOW_TRACKING_URI where it is set, else the sqlite file of this home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def make(folder: Path) -> None:
    """Make `folder` and its parents, and check that it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-"):
            pass
    except OSError as error:
        where = "an existing TUNE_RSST_HOME, or one that can be made and written to"
        raise ConfigError("TUNE_RSST_HOME", home(), where, f"{folder}: {error.strerror}") from None


def sweeps() -> list[SweepFolder]:
    """All sweeps of this home, oldest first."""
    if not home().is_dir():
        return []
    found = [SweepFolder(path.parent) for path in home().glob(f"*/{LEDGER_NAME}")]
    begun = sorted((began, folder.name, folder) for folder in found if (began := _started_at(folder)))
    return [folder for _, _, folder in begun]


def _started_at(folder: SweepFolder) -> float:
    """When the sweep began; 0 while its first line is not written."""
    with folder.ledger.open("rb") as file:
        first = decode(file.readline())
    return float(first["time"]) if first else 0.0


def find(name: str | None) -> SweepFolder:
    """The sweep of that name, or the newest."""
    known = sweeps()
    found = known[-1:] if name is None else [folder for folder in known if folder.name == name]
    if found:
        return found[0]
    names = [folder.name for folder in known]
    close = get_close_matches(name or "", names, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"sweeps there: {', '.join(names[-5:])}"
    if not known:
        hint = "start one: tune-rsst sweep" if name is None else "there is none yet"
    raise ConfigError("sweep", "(the newest)" if name is None else name, f"a sweep in {home()}", hint)
