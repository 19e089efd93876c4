"""Where things are: TUNE_RSST_HOME, the sweeps in it, and the folders that Ray needs while a sweep runs.

TUNE_RSST_HOME/            default: .tune_rsst in the current folder
  mlflow.db mlartifacts/   one MLflow for all sweeps of this home
  cache/                   prepared images and downloads (trainables/rsst/data/node_cache.py)
  .ray/ .ray_token         Ray's own files while it runs; the key of its local services
  .matplotlib/             the list of fonts for the pictures
  SWEEP/                   ledger.jsonl settings.yaml driver.lock trials/ optuna.db best.yaml best_model/
                           pictures/ report.html exports/ code/ (the user's own, trainables/user_code/source.py)
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import unquote

from trainables.rsst.config import ConfigError
from trainables.storage import modes
from trainables.storage.files import open_regular
from trainables.terminal import is_text, why_no_text
from tune_rsst.ledger.content import SWEEP_NAME
from tune_rsst.ledger.file import LEDGER_NAME, Lines, read_on, refuse_damaged
from tune_rsst.ledger.lines import LONGEST as LONGEST_LINE
from tune_rsst.ledger.lines import LedgerError, decode
from tune_rsst.storage.folder import SweepFolder

OWN = {"cache", "mlartifacts", "mlflow.db", "mlruns"}  # in the home, beside the sweeps
BEGINNING = {"driver.lock", "settings.yaml", "code", "weights"}  # what a sweep writes before its ledger
LONGEST = 380  # bytes: sqlite opens paths of 512 at most, and a sweep's name has up to 100
ARTIFACTS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
NOTHING_LOST = "what was written by then is whole; give the same command again when this is mended"  # a full disk, say
JOB_FOLDER = "/runtime_resources/working_dir_files/"


def home() -> Path:
    """Absolute path of TUNE_RSST_HOME; it need not exist."""
    if not os.environ.get("TUNE_RSST_HOME") and JOB_FOLDER in str(Path.cwd()):
        valid = "a folder that every node mounts, set in the job's runtime_env or on the nodes"
        raise ConfigError("TUNE_RSST_HOME", None, valid, "what is in a job's own folder goes with the job")
    given = os.environ.get("TUNE_RSST_HOME") or ".tune_rsst"
    try:
        path = Path(given).expanduser().absolute()
    except RuntimeError as error:  # ~nobody
        raise ConfigError("TUNE_RSST_HOME", given, "a folder", str(error)) from None
    _refuse_odd(path)
    return path


def _refuse_odd(path: Path) -> None:
    """Refuse a home that a database's address, a ledger's line or a printed command could not hold as it is."""
    text, valid = str(path), "a folder whose path is text in UTF-8, in one line, without ? % { }"
    if not is_text(text) or os.fsencode(text) != text.encode():
        raise ConfigError("TUNE_RSST_HOME", ascii(text), valid, why_no_text())
    odd = [char for char in text if char in "?%{}" or unicodedata.category(char) in ("Cc", "Zl", "Zp")]
    if odd:
        raise ConfigError("TUNE_RSST_HOME", ascii(text), valid, f"it has {odd[0]!a}: choose another folder")
    if len(text.encode()) > LONGEST:
        raise ConfigError(
            "TUNE_RSST_HOME", f"{text[:80]}…", f"a path of at most {LONGEST} bytes", "choose a shorter one"
        )


@contextmanager
def writing(target: Path | None = None) -> Iterator[None]:
    """Within, what this process writes is whose the home is (modes.py); a `target` outside it is as the user has it."""
    try:
        place = home()
    except ConfigError:  # said by the command that needs one
        place = Path(os.devnull)
    with modes.following(place, target):
        yield


def share(group: str) -> None:
    """Let `group` share this home, which is made where missing."""
    try:
        modes.share(home(), group)
    except ValueError as error:
        raise ConfigError("shared_group", group, f"the group that shares {home()}, or a new home", str(error)) from None
    except OSError as error:
        valid = f"a group to which {home()} can be given"
        raise ConfigError("shared_group", group, valid, f"{home()}: {error.strerror}") from None


def closed_to_us(path: Path) -> ConfigError:
    """What is said where this user may not read or write `path`."""
    hint = "its owner lets a group in with shared_group=GROUP; or choose a home of your own"
    return ConfigError("TUNE_RSST_HOME", home(), f"a home that you may use; {path} is {modes.owner_of(path)}'s", hint)


def _refuse_closed() -> None:
    try:
        home().stat()
    except PermissionError:
        raise closed_to_us(home()) from None
    except OSError:
        return
    if home().is_dir() and not os.access(home(), os.R_OK | os.X_OK):
        raise closed_to_us(home())


def check_writable() -> None:
    """Refuse a home that can't be made or written to, before anything is prepared in it. Writes nothing."""
    _refuse_closed()
    place = home()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        why = "can't be written to" if place.is_dir() else "is no folder"
        raise ConfigError("TUNE_RSST_HOME", home(), "a folder that can be made and written to", f"{place} {why}")


def refuse_taken(name: str) -> None:
    """Refuse a new sweep's name that the home needs itself, or that something else in it has, but for upper case."""
    refuse_damaged(SweepFolder(home() / name).ledger)
    there = list(home().iterdir()) if home().is_dir() else []
    same = [path for path in there if path.name.casefold() == name.casefold() and not _begun(path, name)]
    if same or name.casefold() in OWN:
        hint = f"{same[0]} is there already" if same else "the home keeps files of its own under it"
        raise ConfigError("name", name, f"a name that nothing else in {home()} has, in upper or lower case", hint)


def _begun(path: Path, name: str) -> bool:
    """Whether `path` is what a sweep `name` left that was killed before its first line, or an empty folder."""
    if path.name != name or not path.is_dir():
        return False
    files = {file.name for file in path.iterdir() if not file.name.startswith(".")}
    return LEDGER_NAME in files or files <= BEGINNING


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
    """All sweeps of this home that have begun, oldest first."""
    begun = sorted((began, folder.name, folder) for folder in folders() if (began := _started_at(folder)))
    return [folder for _, _, folder in begun]


def folders() -> list[SweepFolder]:
    """All folders with a ledger and a sweep's name, by name, also where its first line can't be read."""
    _refuse_closed()
    found = sorted(home().glob(f"*/{LEDGER_NAME}")) if home().is_dir() else []
    return [SweepFolder(path.parent) for path in found if SWEEP_NAME.fullmatch(path.parent.name)]


def artifacts_follow() -> None:
    """Make this home's MLflow look for its files here, where the home was moved or copied since they were written.

    MLflow keeps absolute paths. Artifacts that lie elsewhere, or that both paths lead to, stay as they are.
    """
    database, files = home() / "mlflow.db", home() / "mlartifacts"
    if not database.is_file() or not files.is_dir():
        return
    with suppress(sqlite3.Error, OSError), closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True)) as found:
        for (place,) in found.execute("select distinct artifact_location from experiments").fetchall():
            old, mark, rest = str(place).rpartition("/mlartifacts/")
            new = home().as_uri() if old.startswith("file:") else str(home())
            if not mark or old == new or not (files / unquote(rest)).is_dir() or _same(old, files):
                continue
            for table, column in ARTIFACTS:
                here = f"update {table} set {column} = ? || substr({column}, ?) where substr({column}, 1, ?) = ?"
                with suppress(sqlite3.OperationalError), found:  # an older MLflow has not this table
                    found.execute(here, (new, len(old) + 1, len(old + mark), old + mark))


def _same(old: str, files: Path) -> bool:
    before = Path(unquote(old.removeprefix("file://"))) / files.name
    return before.exists() and before.samefile(files)


def _holds_more(folder: SweepFolder) -> bool:
    """Whether a sweep that has no first line holds what one has after it: whoever reads its ledger says so."""
    try:
        read_on(folder.ledger, Lines())
    except LedgerError:
        return True
    return False


def _started_at(folder: SweepFolder) -> float:
    """When the sweep began; 0 while its first line is not written, or can't be read."""
    try:
        with open_regular(folder.ledger) as file:
            first = decode(file.readline(LONGEST_LINE))
    except OSError:
        return 0.0
    return float(first.event["time"]) if first else 0.0


def find(name: str | None) -> SweepFolder:
    """The sweep of that name, or the newest."""
    artifacts_follow()
    known = sweeps()
    found = known[-1:] if name is None else [folder for folder in known if folder.name == name]
    if found := found or [folder for folder in folders() if folder.name == name and _holds_more(folder)]:
        return found[0]
    names = [folder.name for folder in known]
    close = get_close_matches(name or "", names, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"sweeps there: {', '.join(names[-5:])}"
    if not known:
        hint = "start one: tune-rsst sweep" if name is None else "there is none yet"
    raise ConfigError("sweep", "(the newest)" if name is None else name, f"a sweep in {home()}", hint)
