"""Installs this checkout for `make setup`: by uv, which is several times as fast, or by pip where uv might differ.

    .venv/bin/python tools/install.py .venv/constraints.txt '.[all,bench,dev]'

uv does not read pip's configuration: it is told what pip's says of indexes, folders of wheels, certificates and times.
Where that says more, where a torch is there already (it may be one of the system's, which uv does not see), and where
uv is not to be had or fails, pip does it all.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
FOR_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "retries": "UV_HTTP_RETRIES",
    "trusted-host": "UV_INSECURE_HOST",
    "proxy": "ALL_PROXY",
}
"""Key of pip's configuration → the variable that says the same to uv."""
OF_PIP_ALONE = {
    "disable-pip-version-check", "no-input", "progress-bar", "root-user-action", "no-compile", "quiet", "verbose",
    "no-warn-script-location", "break-system-packages", "cache-dir",
}  # fmt: skip
"""Keys that say nothing of what is installed."""
ORDER = ("global.", "install.", ":env:.")  # later ones win
ONE_LIST = {"UV_FIND_LINKS": ","}  # what is between its parts; elsewhere a space


def environment_for_uv(listed: str) -> dict[str, str] | None:
    """What `pip config list` printed, as variables of uv; None where it says what uv is not known to take."""
    found: dict[str, str] = {}
    lines = [line.partition("=") for line in listed.splitlines() if "=" in line]
    for prefix in ORDER:
        for name, _, value in lines:
            key = name.removeprefix(prefix)
            if key == name or key in OF_PIP_ALONE:
                continue
            if key not in FOR_UV:
                return None
            variable = FOR_UV[key]
            found[variable] = ONE_LIST.get(variable, " ").join(str(ast.literal_eval(value)).split())
    known = all(name.startswith(ORDER) for name, _, _ in lines)
    return found | {"UV_INDEX_STRATEGY": "unsafe-best-match"} if known else None  # pip's way: the best of all indexes


def by_uv(words: list[str], environment: Mapping[str, str]) -> bool:
    """Whether uv has installed it."""
    if subprocess.run([*PIP, "install", "--quiet", "--no-compile", *words[:2], "uv"], check=False).returncode != 0:
        return False
    command = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable, *words]
    return subprocess.run(command, env={**os.environ, **environment}, check=False).returncode == 0


def main() -> int:
    """Command line."""
    constraints, checkout = sys.argv[1:]
    words = ["-c", constraints, "-e", checkout]
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=False).stdout
    environment = environment_for_uv(listed) if find_spec("torch") is None else None
    if environment is not None and by_uv(words, environment):
        return 0
    return subprocess.run([*PIP, "install", "--no-compile", *words], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
