"""Where a run was started: code, host and user, for its record.

In: nothing. Out: texts; what can't be known is left out.
"""

from __future__ import annotations

import getpass
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("tune-rsst", "torch", "torchvision", "timm", "numpy", "ray", "optuna", "mlflow")

SOURCE = Path(__file__).resolve().parents[1]


def origin() -> dict[str, str]:
    """`git` (the commit of this code, with -dirty where files differ from it), `host`, `user`."""
    found = {"host": platform.node()}
    with suppress(OSError, KeyError):  # a user id without a name, as in containers
        found["user"] = getpass.getuser()
    if commit := _commit():
        found["git"] = commit
    return {name: value for name, value in found.items() if value}


def _commit() -> str:
    """Empty where this code lies in no checkout of its own: a site-packages below somebody's checkout is none."""
    if not (SOURCE / ".git").exists():
        return ""
    head = _git("rev-parse", "HEAD")
    return f"{head}-dirty" if head and _git("status", "--porcelain", "--untracked-files=no") else head


def _git(*words: str) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(SOURCE), *words]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=5, check=True)
        return done.stdout.strip()
    return ""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide its numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
