"""Command lines, YAML files and spaces that nobody should write, from a random stream.

In: a stream and an empty folder. Out: nothing where the program takes them, else its ConfigError or SystemExit.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from trainables import __main__ as single
from trainables.rsst.config import KNOBS
from tune_rsst.cli import app
from tune_rsst.search.spaces import settle
from tune_rsst.settings.resolved import resolve
from tune_rsst.settings.settings import settings_names
from tune_rsst.settings.written import KNOBS_OF_A_SWEEP, written_in

ODD = (
    "",
    " ",
    "0",
    "-1",
    "1e999",
    "nan",
    "-inf",
    "0x10",
    "1_000",
    "٣",
    "½",
    "1e-320",
    "9" * 400,
    "0.5",
    "3",
    "true",
    "null",
    "None",
    "~",
    "~nobody/x",
    "[",
    "[]",
    "[1,2",
    "{}",
    "{a: 1}",
    "[[[[[[[[[[1]]]]]]]]]]",
    "!!float x",
    "!!timestamp 1",
    "*a",
    "&a b",
    "a\nb",
    "a\r",
    "\x1b[2J",
    "\0",
    "\udcff",
    "\u202e",
    "x" * 5000,
    "/" * 5000,
    "../..",
    "/dev/zero",
    "/proc",
    "/dev/null",
    "file:///x",
    "s3://",
    "sqlite:///",
    "postgresql://u:p@h/d",
    "%s%n",
    "${HOME}",
    "`x`",
    "'",
    '"',
    "digits",
    "vit_tiny",
    "x.py:f",
    "os:system",
    "__main__:main",
    ":",
    "::",
    "=",
    "==",
    ",",
    "图片",
    "💥",
    "-",
    "--",
    "--help=1",
    "-x",
    "\ufeff",
    "1.5.2",
    "2026-11-27",
)


def value(stream: random.Random, of: str = "") -> str:
    """Something odd, or something that might fit, or a damaged one of these."""
    knob = KNOBS.get(of)
    likely = [*(knob.choices or ()), str(knob.default)] if knob else []
    text = stream.choice([*likely, stream.choice(ODD)])
    if stream.random() < 0.2:
        at = stream.randrange(len(text) + 1)
        text = text[:at] + chr(stream.choice([stream.randrange(128), stream.randrange(0x3000)])) + text[at:]
    return text


def name(stream: random.Random, names: list[str]) -> str:
    found = stream.choice(names)
    if stream.random() < 0.1:
        found = stream.choice([found + stream.choice(ODD[:40]), found[1:], found.upper(), stream.choice(ODD)])
    return found


def sweep_words(stream: random.Random, folder: Path) -> None:
    names = [*settings_names(), *KNOBS_OF_A_SWEEP]
    words = [f"{(n := name(stream, names))}={value(stream, n)}" for _ in range(stream.randint(1, 4))]
    if stream.random() < 0.1:
        words[0] = stream.choice(ODD)
    settle(resolve(written_in(words)))


def single_words(stream: random.Random, folder: Path) -> None:
    words = ["--print-config"]
    for _ in range(stream.randint(1, 4)):
        flag = name(stream, list(KNOBS))
        given = value(stream, flag)
        words += [f"--{flag}={given}"] if stream.random() < 0.5 else [f"--{flag}", given]
    _ended(single.main(words))


def commands(stream: random.Random, folder: Path) -> None:
    """Commands of tune-rsst that name a sweep, in a home that has none."""
    command = stream.choice(["show", "report", "export", "extend", "retry", "sync", "spaces", "settings", "nope"])
    options = ["--json", "--csv", "--where", "--pareto", "--to", "--round", "--samples", "--name"]
    words = [stream.choice([value(stream), *options]) for _ in range(stream.randint(0, 3))]
    before, sys.argv = sys.argv, ["tune-rsst", command, *words]
    try:
        app.main()
    finally:
        sys.argv = before


def yaml_files(stream: random.Random, folder: Path) -> None:
    names = [*settings_names(), *KNOBS_OF_A_SWEEP]
    lines = []
    for _ in range(stream.randint(0, 6)):
        sign = stream.choice([": ", ": ", ": ", ":", ": !!float ", ": !!timestamp ", ": &a ", ": *a", ": |\n  ", "\t:"])
        lines.append(f"{(n := name(stream, names))}{sign}{value(stream, n)}")
    text = "\n".join(lines).encode("utf-8", "surrogateescape" if stream.random() < 0.5 else "replace")
    for _ in range(stream.choice([0, 0, 1, 5])):
        at = stream.randrange(len(text) + 1)
        text = text[:at] + bytes([stream.randrange(256)]) + text[at + stream.randint(0, 1) :]
    (folder / "a.yaml").write_bytes(text)
    if stream.random() < 0.5:
        settle(resolve(written_in(["a.yaml"])))
    else:
        _ended(single.main(["--config", "a.yaml", "--print-config"]))


FINE = {
    "lr": "float('lr', 1e-4, 1e-2, log=True)",
    "epochs": "int('epochs', 2, 4)",
    "criteria": "categorical('criteria', ['l1', 'l2'])",
}
RANGES = (
    "trial.suggest_float({n!r}, {a}, {b})",
    "trial.suggest_int({n!r}, {a}, {b})",
    "trial.suggest_categorical({n!r}, [{a}, {b}])",
    "trial.suggest_float({n!r}, {a}, {b}, log=True)",
    "trial.suggest_int({n!r}, {a}, {b}, step=0)",
    "{a}",
    "[{a}]",
    "{{}}",
    "lambda: 1",
    "trial.suggest_float({n!r})",
    "trial.suggest_discrete({n!r})",
    "trial.number",
    "object()",
    "1 / 0",
    "exec('(')",
    "open('no')",
)
ENDS = (
    "return found",
    "return",
    "return [found]",
    "return found.items()",
    "yield found",
    "raise SystemExit(3)",
    "return 1/0",
    "raise ValueError('a\\nb')",
    "found['found'] = found; return found",
    "retur found",
)


def spaces(stream: random.Random, folder: Path) -> None:
    lines = ["def space(trial):", "    found = {}"]
    lines += stream.sample([f"    found[{n!r}] = trial.suggest_{how}" for n, how in FINE.items()], stream.randint(1, 3))
    odd = stream.random() < 0.7
    for _ in range(stream.randint(0, 2) if odd else 0):
        n = name(stream, list(KNOBS))
        a, b = (stream.choice(["0", "1", "0.1", "0.9", "-1", "'x'", "None", "1e999", "True", "10**400"]) for _ in "ab")
        lines.append(f"    found[{n!r}] = {stream.choice(RANGES).format(n=n, a=a, b=b)}")
    lines.append(f"    {stream.choice(ENDS) if odd else ENDS[0]}")
    text = "\n".join(lines)
    if stream.random() < 0.1:
        at = stream.randrange(len(text))
        text = text[:at] + chr(stream.randrange(0x3000)) + text[at + 1 :]
    (folder / "own.py").write_text(text, encoding="utf-8", errors="replace")
    words = [f"space={folder / 'own.py'}:{stream.choice(['space', 'space', 'spac', '', 'a.b'])}", "dataset=digits"]
    *_, drawn = settle(resolve(written_in([*words, "arch=vit_digits"])), count=3)
    assert drawn


def _ended(code: Any) -> None:
    """As the program ends."""
    if code:
        raise SystemExit(code)
