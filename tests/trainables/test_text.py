"""What a user or foreign code wrote is shown in one printable line of bounded length, in bounded time."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from trainables.errors import ConfigError
from trainables.text import MOST, in_csv, quoted, shown, with_hint


class Mute(Exception):
    def __str__(self) -> str:
        raise OSError("no words")


def endless() -> list[Any]:
    """A list that a small YAML file can describe by aliases: 9^9 entries."""
    found: Any = "lol"
    for _ in range(9):
        found = [found] * 9
    return found  # type: ignore[no-any-return]


CASES: dict[str, tuple[object, str]] = {
    "plain": ("0.5", "0.5"),
    "nothing": (None, "None"),
    "letters": ("图片 é", "图片 é"),
    "lines": ("a\nb\r\nc\x85d\u2028e", r"a\nb\r\nc\x85d\u2028e"),
    "terminal": ("\x1b[2J\x07", r"\x1b[2J\x07"),
    "direction": ("a\u202eb", r"a\u202eb"),
    "no text": ("\udcff", r"\udcff"),
    "zero": ("a\0b", r"a\x00b"),
    "exception without words": (KeyError(), "KeyError"),
    "exception that raises": (Mute(), "(Mute)"),
    "whole number": (10**5000, "(int of 16,610 bits)"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_can_not_be_printed_is_escaped(name: str) -> None:
    value, expected = CASES[name]
    assert shown(value) == expected


@pytest.mark.parametrize(
    "value",
    ["x" * 10**7, "\n" * 10**6, "/very/long" * 50 + "/end.pth", endless(), {"a": endless()}, ("a\n" * 500,)],
    ids=["letters", "lines", "path", "list", "dict", "tuple"],
)
def test_what_is_long_keeps_its_ends(value: object) -> None:
    text = shown(value)
    assert len(text) <= MOST and text.isprintable()
    if isinstance(value, str):
        assert "…" in text and text.endswith(repr(value[-3:])[1:-1])


def test_an_error_shows_its_fields_in_one_line_and_keeps_them() -> None:
    error = ConfigError("k\ney", "v\x1b[31m" * 99, "fine", "do\nthis")
    line = str(error)
    assert line.startswith(r"k\ney = v\x1b[31m") and line.endswith(r": valid is fine; do\nthis") and len(line) < 300
    assert (error.key, error.hint) == ("k\ney", "do\nthis")


@pytest.mark.parametrize("word", ["a b", "it's", "x\ny", "\x1b[2J", "\u202ex\\'", "$(x) `x`", "-x", "é\x9b"], ids=ascii)
def test_a_word_of_a_command_is_printable_and_the_shell_reads_it_as_it_was(word: str) -> None:
    line = f"printf %s {quoted(word)}"
    assert line.isprintable()
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout.decode() == word


@pytest.mark.parametrize("cell", [1.5, -2, None, "-1", "=A1", " =A1", "+", "@x", "\t=1", "plain", "a\nb"], ids=ascii)
def test_a_text_in_a_csv_is_no_formula_and_a_number_stays_one(cell: object) -> None:
    found = in_csv(cell)
    assert found == cell if not isinstance(cell, str) else str(found).lstrip()[:1] not in ("=", "+", "-", "@")


@pytest.mark.parametrize(
    ("said", "hint", "line"),
    [
        ("Missing argument 'N'.", "see x --help", "Missing argument 'N'; see x --help"),
        ("No such command 'sho'. Did you mean 'show'?", "see x --help", "No such command 'sho'. Did you mean 'show'?"),
        ("valid is 1 or 2", "say which", "valid is 1 or 2; say which"),
        ("not read: …\n", "see x", "not read: …; see x"),
        ("It ends here.", "", "It ends here."),
    ],
)
def test_a_hint_follows_with_one_mark(said: str, hint: str, line: str) -> None:
    assert with_hint(said, hint) == line
