"""The database that holds Optuna's study: opened, and looked at beforehand. Other people's studies are never touched.

Comes in: a database URL. Goes out: Optuna's storage, or one line that says why not, without the password.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NoReturn

import optuna

from trainables.rsst.config import ConfigError
from trainables.storage.secrets import hide_password

DAMAGED = ("not a database", "malformed")


def opened(url: str, own_file: bool) -> optuna.storages.RDBStorage:
    """The database at `url`; the sweep's own file is put aside where it is no database: the ledger has the study."""
    file = Path(url.removeprefix("sqlite:///"))
    try:
        return optuna.storages.RDBStorage(url)
    except Exception as error:  # noqa: BLE001  (whatever the database's driver raises)
        reason = str(error).splitlines()[0]
        if own_file and any(word in str(error) for word in DAMAGED):
            file.rename(file.with_name(f"{file.name}.damaged-{time.time_ns()}"))
            return optuna.storages.RDBStorage(url)
        valid = "memory, or the URL of a database that can be reached"
        raise ConfigError("optuna_storage", hide_password(url), valid, hide_password(reason)) from None


def check_storage(url: str, name: str) -> None:
    """That a new sweep `name` can have its study in the database at `url`; writes nothing."""
    from sqlalchemy import create_engine, inspect, text

    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///").partition("?")[0]).exists():
        return
    try:
        engine = create_engine(url)
        with engine.connect() as connection:
            there = (
                inspect(connection).has_table("studies")
                and connection.execute(text("select 1 from studies where study_name = :name"), {"name": name}).first()
            )
        engine.dispose()
    except Exception as error:  # noqa: BLE001  (whatever the database's driver raises)
        reason = hide_password(str(error).splitlines()[0])
        valid = "memory, or the URL of a database that can be reached"
        raise ConfigError("optuna_storage", hide_password(url), valid, reason) from None
    if there:
        refuse_study_of_another(name, url)


def refuse_study_of_another(name: str, url: str) -> NoReturn:
    """Raises ConfigError, always."""
    valid = f"a database without a study {name} of another sweep"
    raise ConfigError("optuna_storage", hide_password(url), valid, "choose another name=, or optuna_storage=memory")
