"""Hostile input from a seed: command lines, YAML files, spaces, image folders, weights files, all in this process.

    python -m tests.chaos.fuzz --seed 7                       # the counts of docs/reliability.md
    python -m tests.chaos.fuzz --seed 7 --kind yaml --first 123 --count 1   # one case again

In: a seed; case i of a kind is a function of (seed, kind, i). Out: for each kind how many were taken and how many
refused in one line. Whatever else happens (a traceback, two lines, more than LIMIT_S) is printed with the case's
number, and ends in exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.chaos import hostile_files, hostile_words
from trainables.rsst.config import ConfigError

LIMIT_S = 10
LONGEST = 2500
COUNTS = {"words": 3000, "single": 3000, "commands": 500, "yaml": 3000, "spaces": 500, "folders": 250, "weights": 250}
Case = Callable[[random.Random, Path], object]
KINDS: dict[str, Case] = {
    "words": hostile_words.sweep_words,
    "single": hostile_words.single_words,
    "commands": hostile_words.commands,
    "yaml": hostile_words.yaml_files,
    "spaces": hostile_words.spaces,
    "folders": hostile_files.folders,
    "weights": hostile_files.weights,
}


class Hang(BaseException):
    """No part of the program may catch it."""


@contextlib.contextmanager
def limited() -> Iterator[None]:
    def late(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(kind: str, seed: int, number: int) -> tuple[str, str]:
    """(taken, refused or FAULT, what was said) of one case."""
    folder, out, err = Path(tempfile.mkdtemp(prefix="fuzz-")), io.StringIO(), io.StringIO()
    here, code, line = Path.cwd(), 0, ""
    try:
        os.chdir(folder)
        with limited(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            KINDS[kind](random.Random(f"{seed} {kind} {number}"), folder)
    except ConfigError as error:
        code, line = 2, f"error: {error}\n"
    except SystemExit as end:
        code, line = end.code if isinstance(end.code, int) else 1, err.getvalue()
    except Hang:
        return "FAULT", f"more than {LIMIT_S} s"
    except BaseException:  # noqa: BLE001  that is what is looked for
        return "FAULT", traceback.format_exc()
    finally:
        os.chdir(here)
        shutil.rmtree(folder, ignore_errors=True)
    if code == 0:
        return "taken", ""
    fine = code == 2 and line.count("\n") == 1 and line.startswith("error: ") and line[:-1].isprintable()
    return ("refused" if fine and len(line) <= LONGEST else "FAULT"), f"exit code {code}: {line}"


def run(kind: str, seed: int, first: int, count: int) -> tuple[Counter[str], list[str]]:
    """How `count` cases ended, and the faults."""
    found, faults = Counter[str](), []
    for number in range(first, first + count):
        how, said = outcome(kind, seed, number)
        found[how] += 1
        if how == "FAULT":
            faults.append(f"{kind}, seed {seed}, case {number}: {said}")
    return found, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int)
    given = parser.parse_args()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"TUNE_RSST_HOME": f"{home}/home", "TUNE_RSST_CACHE": f"{home}/cache"}
        for kind in [given.kind] if given.kind else KINDS:
            found, bad = run(kind, given.seed, given.first, given.count or COUNTS[kind])
            print(f"{kind}: seed {given.seed}, {dict(found)}", flush=True)
            faults += bad
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
