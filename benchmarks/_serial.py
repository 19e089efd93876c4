"""A sweep by its settings in this process, one trial after the other, without Ray; part of other benchmarks.

    python -m benchmarks._serial key=value …

In: what `tune-rsst sweep` takes. Out: its exit code.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from rich.console import Console

from tune_rsst import conduct
from tune_rsst.planning import begin
from tune_rsst.planning.plan import Finished
from tune_rsst.runners import serial
from tune_rsst.settings import written


def sweep(words: Sequence[str]) -> int:
    """Run it, or go on with it."""
    plan = begin.make_plan(written.written_in(list(words)), None, False)
    runner = None if isinstance(plan, Finished) else partial(serial.run, folder=plan.folder)
    return conduct.run(plan, Console(), runner)


if __name__ == "__main__":
    raise SystemExit(sweep(sys.argv[1:]))
