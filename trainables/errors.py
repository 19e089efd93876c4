"""The error of both packages for bad input: one line, exit code 2. Which failures of a trial are certain.

A library that no part of the base needs belongs to an extra (`EXTRAS`); where it is missing, that is bad input too.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from trainables.text import LONGEST_LINE, shown, with_hint

FAILS_AGAIN = "it would fail again: "
"""How the reason of a failed trial begins that no second try would help."""
EXTRAS = {
    "boto3": "s3",
    "botocore": "s3",
    "matplotlib": "report",
    "mlflow": "sweep",
    "obstore": "cloud",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "optuna": "sweep",
    "pandas": "sweep",
    "plotly": "sweep",
    "psutil": "system-metrics",
    "psycopg": "postgres",
    "pydantic": "sweep",
    "pynvml": "system-metrics",
    "ray": "sweep",
    "rich": "sweep",
    "sqlalchemy": "sweep",
    "tensorboardX": "sweep",
    "typer": "sweep",
}
"""Module → the extra of pyproject.toml that brings it."""
_OF_THE_PROGRAM = (TypeError, ValueError, LookupError, ArithmeticError, AssertionError, AttributeError)


class ConfigError(ValueError):
    """Bad input, in one line: key, value, what is valid, what to do. The fields are as they were given."""

    def __init__(self, key: str, value: object, valid: str, hint: str = "") -> None:
        self.key, self.value, self.valid, self.hint = key, value, valid, hint
        said = with_hint(f"valid is {valid}", hint)
        super().__init__(f"{shown(key)} = {shown(value)}: {shown(said, LONGEST_LINE)}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.value, self.valid, self.hint)


class NotInstalled(ConfigError, ImportError):
    """A library of an extra is missing. For a command one line; in Python an ImportError."""

    def __init__(self, module: str) -> None:
        ConfigError.__init__(self, "environment", sys.prefix, f"one with {module}", install(module))
        self.name = module

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name,)


def install(module: str) -> str:
    """What to type where `module` is missing; an extra from where this program came, which need not be an index."""
    extra = EXTRAS.get(module)
    return f"pip install {module}" if extra is None else _from_where(extra, *_installed())


def _installed() -> tuple[Path | None, dict[str, Any]]:
    """The checkout that this module lies in, or None; and pip's record of where the distribution came from."""
    root = Path(__file__).resolve().parents[1]
    if (root / "pyproject.toml").is_file():
        return root, {}
    try:
        read = distribution("tune-rsst").read_text  # a file of its metadata, always UTF-8
        recorded = json.loads(read("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        recorded = {}
    return None, recorded if isinstance(recorded, dict) else {}


def _from_where(extra: str, checkout: Path | None, recorded: dict[str, Any]) -> str:
    """pip's command. `recorded` is a direct_url.json, as packaging.python.org has it."""
    address = str(recorded.get("url", ""))
    if checkout:
        return f"pip install -e {shlex.quote(f'{checkout}[{extra}]')}"
    if "dir_info" in recorded and address.startswith("file://"):
        return f"pip install {shlex.quote(f'{url2pathname(urlsplit(address).path)}[{extra}]')}"
    if version := recorded.get("vcs_info"):
        address = f"{version['vcs']}+{address}@{version['commit_id']}"
    return f"pip install {shlex.quote(f'tune-rsst[{extra}]' + (f' @ {address}' if address else ''))}"


def require(extra: str) -> None:
    """Refuse an environment that lacks a library of `extra`; imports none."""
    for module, its in EXTRAS.items():
        if its == extra and module not in sys.modules and find_spec(module) is None:
            raise NotInstalled(module)


@contextmanager
def explained() -> Iterator[None]:
    """Within, the import of a missing library of an extra says what to install."""
    try:
        yield
    except ImportError as error:
        if error.name not in EXTRAS or isinstance(error, NotInstalled):
            raise
        raise NotInstalled(error.name) from None


class PluginError(RuntimeError):
    """A function of the user's raised, or gave what it must not; one line with its name."""


def certain(error: Exception) -> str | None:
    """The reason of a trial that fails so wherever it is tried: its numbers or its model; None where it may not.

    Files, memory, devices and other processes may be well again; bad input may be put right (`ConfigError`).
    """
    if isinstance(error, PluginError):
        return f"{FAILS_AGAIN}{error}"
    of_shapes = type(error) is RuntimeError and re.search(
        r"shapes? |size of tensor|must match the size|dtype", str(error)
    )
    if isinstance(error, ConfigError) or not (isinstance(error, _OF_THE_PROGRAM) or of_shapes):
        return None
    return f"{FAILS_AGAIN}{type(error).__name__}: {shown(error)}"
