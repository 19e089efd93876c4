"""Folders of a local Ray: short enough for its sockets, removed after the sweep."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tune_rsst.storage.home import home

# An AF_UNIX path may have 107 bytes, and this is what Ray puts below its folder.
LONGEST_RAY_FOLDER = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.123")


@contextmanager
def ray_folder() -> Iterator[Path]:
    """The folder for a local Ray, below the home, by a path that its sockets and commands take; emptied at the end."""
    real = home() / ".ray"
    real.mkdir(parents=True, exist_ok=True)
    _own_token(home() / ".ray_token")
    link = None
    try:
        if len(str(real).encode()) > LONGEST_RAY_FOLDER or not re.fullmatch(r"[\w/.-]+", str(real), re.ASCII):
            link = Path(tempfile.mkdtemp(prefix="rsst")) / "r"
            link.symlink_to(real, target_is_directory=True)
        yield link or real
    finally:
        if link is not None:
            link.unlink(missing_ok=True)
            link.parent.rmdir()


def forget_sessions() -> None:
    """Remove Ray's session folders; they hold nothing we need. Those of live processes stay."""
    for session in (home() / ".ray").glob("session_*"):
        if session.is_symlink():
            session.unlink(missing_ok=True)
        elif not Path(f"/proc/{session.name.rpartition('_')[2]}").exists() or session.name.endswith(f"_{os.getpid()}"):
            shutil.rmtree(session, ignore_errors=True)
    with suppress(OSError):
        (home() / ".ray").rmdir()


def _own_token(token: Path) -> None:
    """Token authentication for the local Ray, with a token below the home that only the owner can read.

    It is not in Ray's folder, which Ray makes writable for everybody.
    """
    if os.environ.get("RAY_AUTH_MODE"):
        return
    if not token.exists():
        fd = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
