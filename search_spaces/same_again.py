"""Is a space a function of its suggestions alone? A resume, an extension and a warm start rely on it.

In: a space of the user's, and trials drawn from it.
Out: nothing, or a refusal that names what came out differently when the same suggestions were given again: in this
process in another order (random numbers, counters, a clock), and in new processes with other hash seeds, another time
zone and none of the user's environment variables (sets, the hour, the environment). The child is
`python -m search_spaces.same_again`; like all of search_spaces it imports no Optuna, so it starts quickly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from search_spaces.parts import Asked
from search_spaces.space_files import function_at
from trainables.rsst.config import ConfigError
from trainables.text import LONGEST_LINE, shown

TRIALS = 8  # given again: a space may be slow
CHILDREN = 6  # two texts in a set come in the same order in every second process
LIMIT_S = 300.0
KEPT = {"PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV"}  # of the environment: what Python and its packages need
KEPT_BEGIN = ("PYTHON", "LC_", "LD_", "CONDA", "CUDA", "OMP_", "TUNE_RSST_")

Answer = dict[str, Any]
"""What a space did with one trial's suggestions: `asks` in order, and the `knobs` that it gave, all as text."""


@dataclass
class Given(Asked):
    """Gives a space the suggestions of a trial that was drawn before, and writes down what it asks for."""

    params: Mapping[str, Any]
    fixed: Mapping[str, Any]
    asks: list[str] = field(default_factory=list)

    def _answer(self, kind: str, name: str, *limits: Any, **how: Any) -> Any:
        if name in self.fixed:
            return self.fixed[name]
        self.asks.append(f"{name}, {_in_words(kind, *limits, **how)}")
        return self.params[name]


def _in_words(kind: str, *limits: Any, **how: Any) -> str:
    if kind == "categorical":
        return f"one of {list(limits[0])}"
    number = {"float": "a number", "int": "a whole number"}[kind]
    return f"{number} from {limits[0]!r} to {limits[1]!r} (step {how['step']}, log {how['log']})"


Function = Callable[[Any], Any]
Trials = Sequence[Mapping[str, Any]]
"""The suggestions of each."""


def answers(function: Function, fixed: Mapping[str, Any], trials: Trials) -> list[Answer]:
    """What `function` does with each of `trials`."""
    found = []
    for params in trials:
        given = Given(params, fixed)
        try:
            knobs = {name: repr(value) for name, value in function(given).items()}
        except Exception as error:  # noqa: BLE001  (it asks for another parameter, or its own code fails now)
            knobs = {"an error": f"{type(error).__name__}: {error}"}
        found.append({"asks": given.asks, "knobs": knobs})
    return found


def check(address: str, function: Function, fixed: Mapping[str, Any], trials: Trials) -> None:
    """Refuse the space `function` at `address` unless the suggestions in `trials` always give the same."""
    trials = trials[:TRIALS]
    first = answers(function, fixed, trials)
    _compare(address, first, answers(function, fixed, trials[::-1])[::-1], "a second time")
    order = json.dumps({"address": address, "fixed": dict(fixed), "trials": list(trials)})
    children = [_start(seed) for seed in range(1, CHILDREN + 1)]
    try:
        for child in children:
            assert child.stdin is not None
            with suppress(BrokenPipeError), child.stdin:  # it failed at once: its own line says why
                child.stdin.write(order)
        for child in children:
            _compare(address, first, _answer_of(address, child), "in another process")
    finally:
        for child in children:
            child.kill()
            child.wait()


def _start(seed: int) -> subprocess.Popen[str]:
    own = {k: v for k, v in os.environ.items() if k in KEPT or k.startswith(KEPT_BEGIN)}
    own |= {"PYTHONHASHSEED": str(seed), "TZ": "Etc/GMT+12" if seed % 2 else "Etc/GMT-9", "PYTHONIOENCODING": "utf-8"}
    own |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-m", "search_spaces.same_again"]  # -P: a json.py beside the space is not ours
    piped = subprocess.PIPE
    return subprocess.Popen(
        command, env=own, stdin=piped, stdout=piped, stderr=piped, encoding="utf-8", errors="replace"
    )


def _answer_of(address: str, child: subprocess.Popen[str]) -> list[Answer]:
    try:
        child.stdin = None
        out, errors = child.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        raise ConfigError("space", address, f"a function that gives {TRIALS} trials in {LIMIT_S:.0f} s") from None
    if child.returncode:
        last = (errors.strip().splitlines() or ["no reason given"])[-1].removeprefix("error: ")
        raise _refusal(address, f"in another process, without the environment variables of this one: {last}")
    return list(json.loads(out))


def _compare(address: str, first: list[Answer], again: list[Answer], when: str) -> None:
    for one, other in zip(first, again, strict=True):
        if one == other:
            continue
        for before, now in zip([*one["asks"], "nothing more"], [*other["asks"], "nothing more"], strict=False):
            if before != now:
                raise _refusal(address, f"for the same suggestions it asked for {before}, and {when} for {now}")
        names = [*one["knobs"], *other["knobs"]]
        name = next((n for n in names if one["knobs"].get(n) != other["knobs"].get(n)), None)
        if name is None:
            continue
        before, now = (answer["knobs"].get(name, "left out") for answer in (one, other))
        raise _refusal(address, f"for the same suggestions {name} was {before}, and {when} {now}")


def _refusal(address: str, found: str) -> ConfigError:
    valid = "a function of its suggestions alone: no random numbers, clock, counters, sets or environment of its own"
    return ConfigError("space", address, valid, " ".join(found.split()))


def main() -> None:
    """Answer the parent's order from stdin; what the space prints, at exit too, goes to stderr."""
    order = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        found = answers(function_at(order["address"]), order["fixed"], order["trials"])
    except ConfigError as error:
        print(f"error: {shown(error, LONGEST_LINE)}", file=sys.stderr)
        raise SystemExit(2) from None
    answer.write(json.dumps(found))
    answer.close()


if __name__ == "__main__":
    main()
