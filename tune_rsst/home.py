"""Where things lie: TUNE_RSST_HOME, the sweeps in it, and the folders that Ray needs while a sweep runs.

TUNE_RSST_HOME/            default: .tune_rsst in the current folder
  mlflow.db mlartifacts/   one MLflow for all sweeps of this home
  .ray/ .ray_token         Ray's own files while it runs; the key of its local services
  .matplotlib/             the list of fonts for the pictures
  SWEEP/                   ledger.jsonl settings.yaml driver.lock trials/ optuna.db best.yaml best_model/
                           pictures/ report.html exports/
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from trainables.rsst.config import ConfigError
from tune_rsst.config import hide_password
from tune_rsst.ledger import LEDGER_NAME, decode

# An AF_UNIX path may have 107 bytes, and this is what Ray puts below its folder.
LONGEST_RAY_FOLDER = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.123")


PASSWORD_MARK = "***"
PASSWORD_IN = {"mlflow_tracking_uri": "MLFLOW_TRACKING_URI", "optuna_storage": "OPTUNA_STORAGE"}
JOB_FOLDER = "/runtime_resources/working_dir_files/"


@dataclass(frozen=True)
class SweepFolder:
    """Paths of one sweep."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def ledger(self) -> Path:
        return self.path / LEDGER_NAME

    @property
    def settings(self) -> Path:
        return self.path / "settings.yaml"

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    @property
    def cursor(self) -> Path:
        return self.path / "mlflow_cursor.json"

    @property
    def study(self) -> str:
        return f"sqlite:///{self.path / 'optuna.db'}"

    @property
    def tune(self) -> Path:
        return self.path / ".tune"

    @property
    def best(self) -> Path:
        return self.path / "best.yaml"

    @property
    def best_model(self) -> Path:
        return self.path / "best_model"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def weights(self) -> Path:
        return self.path / "weights"

    def store(self, fingerprint: str) -> Path:
        return self.trials / fingerprint

    def with_own_weights(self, knobs: dict[str, Any]) -> dict[str, Any]:
        """`knobs` with the sweep's copy of the weights as it lies here, also where the home was another one before."""
        digest = knobs.get("weights_digest")
        own = self.weights / f"weights-{digest}.safetensors"
        return {**knobs, "weights": str(own)} if digest and own.exists() else knobs


def home() -> Path:
    """Absolute path of TUNE_RSST_HOME; it need not exist.

    Raises:
        ConfigError: it is not set, and the current folder is one that Ray makes for a job and removes again.
    """
    if not os.environ.get("TUNE_RSST_HOME") and JOB_FOLDER in str(Path.cwd()):
        valid = "a folder that every node mounts, set in the job's runtime_env or on the nodes"
        raise ConfigError("TUNE_RSST_HOME", None, valid, "what lies in a job's own folder goes with the job")
    return Path(os.environ.get("TUNE_RSST_HOME") or ".tune_rsst").expanduser().absolute()


def with_passwords(recorded: Mapping[str, Any]) -> dict[str, str]:
    """Those addresses of a sweep whose password was left out, as the environment has them now."""
    found = {name: os.environ.get(variable, "") for name, variable in PASSWORD_IN.items()}
    left_out = {n for n in found if PASSWORD_MARK in str(recorded.get(n)) and hide_password(found[n]) == recorded[n]}
    return {name: found[name] for name in left_out}


def default_tracking_uri() -> str:
    """MLFLOW_TRACKING_URI where it is set, else the sqlite file of this home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def make(folder: Path) -> None:
    """Make `folder` and what it lies in.

    Raises:
        ConfigError: it can't be made, or nothing can be written in it.
    """
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
    return sorted((f for f in found if _started_at(f)), key=lambda f: (_started_at(f), f.name))


def _started_at(folder: SweepFolder) -> float:
    """When the sweep began; 0 while its first line is not written."""
    with folder.ledger.open("rb") as file:
        first = decode(file.readline())
    return float(first["time"]) if first else 0.0


def find(name: str | None) -> SweepFolder:
    """The sweep of that name, or the newest.

    Raises:
        ConfigError: there is none.
    """
    known = sweeps()
    if name is None and known:
        return known[-1]
    for folder in known:
        if folder.name == name:
            return folder
    if not known:
        hint = "start one: tune-rsst sweep" if name is None else "there is none yet"
        raise ConfigError("sweep", name or "(the newest)", f"a sweep in {home()}", hint)
    close = get_close_matches(name or "", [f.name for f in known], n=3)
    hint = (
        f"did you mean {' or '.join(close)}?"
        if close
        else f"sweeps there: {', '.join(f.name for f in known[-5:]) or 'none'}"
    )
    raise ConfigError("sweep", name, f"a sweep in {home()}", hint)


@contextmanager
def ray_folder() -> Iterator[Path]:
    """The folder for a local Ray, below the home but by a path that is short enough for sockets; emptied at the end."""
    real = home() / ".ray"
    real.mkdir(parents=True, exist_ok=True)
    _own_token(home() / ".ray_token")
    link = None
    try:
        if len(str(real).encode()) > LONGEST_RAY_FOLDER:
            link = Path(tempfile.mkdtemp(prefix="rsst")) / "r"
            link.symlink_to(real, target_is_directory=True)
        yield link or real
    finally:
        if link is not None:
            link.unlink(missing_ok=True)
            link.parent.rmdir()


def forget_sessions() -> None:
    """Remove what Ray left behind: its own state is disposable, ours is not in it. Sessions of live processes stay."""
    for session in (home() / ".ray").glob("session_*"):
        if session.is_symlink():
            session.unlink(missing_ok=True)
        elif not Path(f"/proc/{session.name.rpartition('_')[2]}").exists() or session.name.endswith(f"_{os.getpid()}"):
            shutil.rmtree(session, ignore_errors=True)
    with suppress(OSError):
        (home() / ".ray").rmdir()


def _own_token(token: Path) -> None:
    """Token authentication for the local Ray, with a token that lies below the home and is the owner's alone.

    It is not in Ray's folder, which Ray makes writable for everybody.
    """
    if os.environ.get("RAY_AUTH_MODE"):
        return
    if not token.exists():
        fd = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_hex(32))
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
