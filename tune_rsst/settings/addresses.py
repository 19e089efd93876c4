"""Addresses of databases and servers among the settings, and the passwords in them.

In: settings. Out: settings without passwords, with passwords from the environment, or a ConfigError.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.rsst.config import ConfigError
from trainables.storage.secrets import hide_password

PASSWORD_MARK = "***"
PASSWORD_IN = {"mlflow_tracking_uri": "MLFLOW_TRACKING_URI", "optuna_storage": "OPTUNA_STORAGE"}


def without_secrets(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`flat` with passwords in addresses replaced, for files and records."""
    return {name: hide_password(value) if isinstance(value, str) else value for name, value in flat.items()}


def with_passwords(recorded: Mapping[str, Any]) -> dict[str, str]:
    """Those addresses of a sweep whose password was left out, as the environment has them now."""
    found = {name: os.environ.get(variable, "") for name, variable in PASSWORD_IN.items()}
    left_out = {n for n in found if PASSWORD_MARK in str(recorded.get(n)) and hide_password(found[n]) == recorded[n]}
    return {name: found[name] for name in left_out}


def sqlite_uri(home: Path) -> str:
    """Tracking address of the database below `home`, always absolute: a job's working directory is not kept."""
    return f"sqlite:///{home.absolute() / 'mlflow.db'}"


def check_tracking_uri(uri: str) -> str:
    """`uri` when a sweep can use it."""
    if re.match(r"(https?|postgresql|mysql|mssql)(\+\w+)?://.", uri) or _sqlite_file(uri) is not None:
        return uri
    valid = "http(s)://…, sqlite:////absolute/path.db or a database URL"
    raise ConfigError("mlflow_tracking_uri", hide_password(uri), valid, "leave it out for sqlite in TUNE_RSST_HOME")


def _sqlite_file(tracking_uri: str) -> Path | None:
    match = re.fullmatch(r"sqlite:///(/[^?]+)(\?.*)?", tracking_uri)
    return Path(match[1]) if match else None
