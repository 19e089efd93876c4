"""What listens while a sweep runs on a local Ray, and which of its processes have a secret of the environment.

In: a small sweep, which is started with canaries in its environment. Out: a line for each process with the addresses
that it listens on; processes, command lines and files with a canary.
`python -m benchmarks.sockets` prints the list in docs/security.md.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

CANARIES = {
    "AWS_ACCESS_KEY_ID": "canary-1-id",
    "AWS_SECRET_ACCESS_KEY": "canary-2-secret",
    "MLFLOW_TRACKING_PASSWORD": "canary-3-password",
    "SOME_API_TOKEN": "canary-4-token",
    "DATABASE_URL": "postgresql://user:canary-5-address@db/x",
}
FOUND = re.compile(rb"canary-\d-\w+")
SWEEP = ("sweep", "name=scan", "trials=1", "confirm=0", "epochs=1", "target_density=0.7", "stopping=none")
EVERY_S = 0.2


@dataclass
class Seen:
    """`listening`: (process, address) of sockets of the internet; `secrets`: process → canaries in its environment,
    `commands`: command lines with one; `files`: files with one, while it ran or after."""

    listening: set[tuple[str, str]] = field(default_factory=set)
    secrets: dict[str, set[str]] = field(default_factory=dict)
    commands: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    processes: set[str] = field(default_factory=set)

    def look(self, driver: int, folder: Path) -> None:
        """Add what is there now."""
        own: list[str] = []
        for process in _family(driver):
            try:
                own = own or process.cmdline()
                if process.pid == driver or process.cmdline() != own:  # else a copy that is about to begin a program
                    self._look_at(process, process.pid == driver)
            except (psutil.Error, OSError):
                continue
        self.files |= {str(path.relative_to(folder)) for path in files_with_canaries(folder)}

    def _look_at(self, process: psutil.Process, is_driver: bool) -> None:
        words = process.cmdline()
        name = "the driver" if is_driver else _name(process.name(), words)
        self.processes.add(name)
        if FOUND.search(" ".join(words).encode()):
            self.commands.add(name)
        for one in process.net_connections("inet"):
            if one.status == psutil.CONN_LISTEN or (one.type == socket.SOCK_DGRAM and not one.raddr):
                self.listening.add((name, one.laddr.ip))
        with open(f"/proc/{process.pid}/environ", "rb") as environ:
            if found := set(FOUND.findall(environ.read())):
                self.secrets.setdefault(name, set()).update(map(bytes.decode, found))


def _family(driver: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(driver)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _name(name: str, words: list[str]) -> str:
    """ray::SweepTrainable of ray::SweepTrainable.train; monitor.py of a Python that runs it."""
    if name in ("raylet", "gcs_server"):
        return name
    script = next((Path(word).name for word in words[1:] if word.endswith(".py")), "")
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    return script or module or (words[0].split(".")[0].split()[0] if words and words[0].strip() else name)


def files_with_canaries(folder: Path) -> Iterator[Path]:
    """Regular files below `folder` that hold one."""
    for path in (Path(place, name) for place, _, names in os.walk(folder) for name in names):
        try:
            if path.is_file() and FOUND.search(path.read_bytes()):
                yield path
        except OSError:
            continue


def scan(home: Path, *words: str) -> tuple[Seen, str]:
    """Run a sweep in `home` and look at it until it has ended. Returns what was seen, and what it printed."""
    seen = Seen()
    dropped = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "OPTUNA_STORAGE")
    environ = {name: value for name, value in os.environ.items() if name not in dropped}
    environ |= {"TUNE_RSST_HOME": str(home), "OMP_NUM_THREADS": "1", **CANARIES}
    command = [sys.executable, "-m", "tune_rsst", *(words or SWEEP)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        while child.poll() is None:
            seen.look(child.pid, home)
            time.sleep(EVERY_S)
        printed = child.stdout.read() if child.stdout else ""
    seen.look(child.pid, home)
    if FOUND.search(printed.encode()):
        seen.files.add("(what it printed)")
    return seen, printed


def main() -> None:
    """Print what was seen."""
    with tempfile.TemporaryDirectory(prefix="sockets-") as folder:
        seen, printed = scan(Path(folder) / "home")
    print("| process of a local sweep | listens on |\n|---|---|")
    for name in sorted({name for name, _ in seen.listening}):
        print(f"| {name} | {', '.join(sorted(address for one, address in seen.listening if one == name))} |")
    quiet = sorted(seen.processes - {name for name, _ in seen.listening})
    print(f"\nProcesses that listen on nothing: {', '.join(quiet)}")
    print("Processes with a canary in their environment: " + ("; ".join(sorted(seen.secrets)) or "none"))
    print("Command lines with a canary: " + (", ".join(sorted(seen.commands)) or "none"))
    print("Files with a canary: " + (", ".join(sorted(seen.files)) or "none"))
    print(next((line for line in printed.splitlines() if line.startswith("Sweep scan: finished")), printed))


if __name__ == "__main__":
    main()
