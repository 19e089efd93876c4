"""The process of a sweep that Python code asked for (api.py): plans and runs it as the command line does.

    python -m tune_rsst.cli.child REQUEST.json ANSWER.json PARENT

In: what to do, as JSON; the process id of who asked. Out: the command's lines; how it went, as JSON; the exit code.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.leaving import interruptible, lasting_output, leave
from trainables.progress import every, watched
from trainables.rsst.config import ConfigError
from trainables.storage.bucket import StorageError
from trainables.storage.files import replaced
from tune_rsst.ledger.file import LedgerError
from tune_rsst.ledger.lock import SweepBusy
from tune_rsst.storage import home

if TYPE_CHECKING:
    from tune_rsst.planning.plan import Finished, Plan

END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
INTERRUPTED = 130


def main() -> int:
    """Do what the request says; returns the exit code of the command line."""
    request, answer, parent = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

    def tell(found: Mapping[str, Any]) -> None:
        with replaced(answer) as new:
            new.write_text(json.dumps(found), encoding="utf-8")

    with lasting_output(), interruptible(), home.writing():
        found: dict[str, Any] = {"code": INTERRUPTED, "reason": "interrupted before the sweep began"}
        with suppress(KeyboardInterrupt):
            end_with(parent)
            found = answer_to(json.loads(request.read_text(encoding="utf-8")), tell)
        tell(found)
    return int(found["code"])


def end_with(parent: int) -> None:
    """When the parent is gone this process gets SIGTERM and ends in order (Linux only; elsewhere it goes on)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(END_WITH_PARENT, signal.SIGTERM)
        if os.getppid() != parent:
            raise KeyboardInterrupt


def shown_value(value: Any) -> Any:
    """`value` as JSON can carry it."""
    return value if isinstance(value, str | int | float | None) else str(value)


def answer_to(request: Mapping[str, Any], tell: Callable[[Mapping[str, Any]], object]) -> dict[str, Any]:
    """Plan and run. Returns `code`, the exit code; `sweep`, its name, which `tell` gets before it runs.

    And `reason`, why it broke off, or `refused`, what makes the ConfigError.
    """
    found: dict[str, Any] = {}
    try:
        _run(request, found, tell)
    except ConfigError as error:
        found |= {"code": 2, "refused": [error.key, shown_value(error.value), error.valid, error.hint]}
    except PermissionError as error:
        found |= {"code": 2, "reason": str(home.closed_to_us(Path(error.filename or home.home())))}
    except OSError as error:
        found |= {"code": 1, "reason": f"{error}; {home.NOTHING_LOST}"}
    except SweepBusy as error:
        found |= {"code": 2, "reason": str(error)}
    except (LedgerError, StorageError) as error:
        found |= {"code": 1, "reason": str(error)}
    return found


def _run(request: Mapping[str, Any], found: dict[str, Any], tell: Callable[[Mapping[str, Any]], object]) -> None:
    from tune_rsst.conduct import run
    from tune_rsst.planning.begin import make_plan
    from tune_rsst.planning.plan import Finished
    from tune_rsst.planning.preflight import TELL_EVERY_S
    from tune_rsst.planning.resume import extension, second_try
    from tune_rsst.results.table import make_console, say

    plan: Plan | Finished
    with watched(every(TELL_EVERY_S, print)):
        if request["command"] == "sweep":
            plan = make_plan(request["settings"], None, resume=False)
        else:
            go_on = extension if request["command"] == "extend" else second_try
            plan = go_on(request["sweep"], request["trials"], {"trust": True} if request.get("trust") else {})
    console = make_console()
    if plan.note:
        say(console, plan.note)
    found["sweep"] = (plan.sweep.folder if isinstance(plan, Finished) else plan.folder).name
    tell(found)
    found["code"] = run(plan, console, tell=lambda problem: found.update(reason=problem))


if __name__ == "__main__":
    leave(main())
