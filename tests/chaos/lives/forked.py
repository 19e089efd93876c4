"""A child of this process that runs a function, as far as the injector uses a process: what takes seconds is loaded."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from trainables.leaving import interruptible
from trainables.rsst.config import ConfigError
from tune_rsst.ledger.file import LedgerError


class Forked:
    """Runs `what` with `environment` and its output in `log`."""

    def __init__(self, what: Callable[[], int], environment: Mapping[str, str], log: Path) -> None:
        self._process = multiprocessing.get_context("fork").Process(target=self._run, args=(what, environment, log))
        self._process.start()
        self.pid = self._process.pid

    @staticmethod
    def _run(what: Callable[[], int], environment: Mapping[str, str], log: Path) -> None:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(environment)
        os.setsid()
        code = 130
        with suppress(KeyboardInterrupt), interruptible():
            try:
                code = what()
            except (ConfigError, LedgerError) as error:
                print(error)
                code = 1
        sys.stdout.flush()
        os._exit(code)

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, when it has ended."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("life", timeout or 0.0)
        return self._process.exitcode

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()


def command(*words: str) -> int:
    """`tune-rsst WORDS` in this process, which ends with it."""
    from tune_rsst.__main__ import main

    sys.argv = ["tune-rsst", *words]
    main()
    return 0


def load() -> None:
    """What every command loads first."""
    import torch  # noqa: F401

    from tune_rsst.cli import app  # noqa: F401
    from tune_rsst.planning import begin, preflight, repair  # noqa: F401
