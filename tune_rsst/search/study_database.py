"""The database that holds Optuna's study: opened, and checked beforehand. Other people's studies are never changed.

In: a database URL. Out: Optuna's storage, or one line that says why not, without the password.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import optuna
from sqlalchemy import Connection, create_engine, inspect, text

from trainables.rsst.config import ConfigError
from trainables.storage.modes import make_database
from trainables.storage.secrets import hide_password

NOT_DAMAGED = ("locked", "readonly", "read-only", "disk i/o", "is full", "unable to open", "permission")


def opened(url: str, own_file: bool) -> optuna.storages.RDBStorage:
    """The database at `url`; the sweep's own file, if damaged, is renamed: the ledger has the study."""
    try:
        if own_file:
            file = Path(url.removeprefix("sqlite:///").partition("?")[0])
            if file.is_symlink() and not file.exists():  # sqlite would make the study where the link leads
                _put_aside(file)
            make_database(file)
        return optuna.storages.RDBStorage(url)
    except Exception as error:  # noqa: BLE001  (whatever the database's driver raises)
        return renewed(url, error, own_file)


def renewed(url: str, error: Exception, own_file: bool) -> optuna.storages.RDBStorage:
    """A new database at `url`, whose use has raised `error`; the old file is renamed. Only the sweep's own is.

    What does not mean that the file is damaged (it is locked, can't be written to) is a ConfigError. What is no regular
    file at all (a folder, a pipe, a link that leads nowhere) is damaged whatever sqlite says of it.
    """
    file, said = Path(url.removeprefix("sqlite:///")), f"{error} {error.__cause__}".lower()
    intact = os.path.isfile(file) and any(word in said for word in NOT_DAMAGED)
    if not own_file or not os.path.lexists(file) or intact:
        raise _unreachable("optuna_storage", url, error) from None
    _put_aside(file)
    for more in ("-journal", "-wal", "-shm"):
        file.with_name(file.name + more).unlink(missing_ok=True)
    return optuna.storages.RDBStorage(url)


def _put_aside(file: Path) -> None:
    file.rename(file.with_name(f"{file.name}.damaged-{time.time_ns()}"))


def check(url: str, name: str) -> str:
    """Check that the database at `url` can hold a study called `name`. Writes nothing; returns what it found."""
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///").partition("?")[0]).exists():
        return f"{url} is not there yet"
    with connection("optuna_storage", url) as found:
        studies = text("select 1 from studies where study_name = :name")
        there = inspect(found).has_table("studies") and found.execute(studies, {"name": name}).first()
    if there:
        refuse_study_of_another(name, url)
    return f"{hide_password(url)} answers"


@contextmanager
def connection(setting: str, url: str) -> Iterator[Connection]:
    """A connection to the database at `url`, which `setting` names."""
    try:
        engine = create_engine(url)
        with engine.connect() as made:
            yield made
        engine.dispose()
    except Exception as error:  # noqa: BLE001  (whatever the database's driver raises)
        raise _unreachable(setting, url, error) from None


def _unreachable(setting: str, url: str, error: Exception) -> ConfigError:
    valid = f"{'memory, or ' if setting == 'optuna_storage' else ''}the URL of a database that can be reached"
    return ConfigError(setting, hide_password(url), valid, hide_password(str(error).splitlines()[0]))


def refuse_study_of_another(name: str, url: str) -> NoReturn:
    """Raises ConfigError, always."""
    valid = f"a database without a study {name} of another sweep"
    raise ConfigError("optuna_storage", hide_password(url), valid, "choose another name=, or optuna_storage=memory")
