"""Words that both packages print: what a user or foreign code wrote, in one line; commands, durations, numbers, nouns.

Every message shows a key, a value, a path, a name or the text of a foreign exception by `shown`: `ConfigError` and the
last lines of both programs do so themselves. Texts that came from a ledger, which may be a stranger's, go to a page by
`in_html`, into Markdown by `in_markdown` and `fenced`, into a spreadsheet by `in_csv`, into JSON by `in_json`, into a
command by `quoted`, and everywhere else by `one_line`.
"""

from __future__ import annotations

import json
import re
import reprlib
import shlex
import sys
import textwrap
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

MOST = 200
"""Characters of what is not ours."""
LONGEST_LINE = 2000
"""Characters of a message that ends a program; commands to copy stay whole in it."""
_TAIL = 60  # a path's end says more than its middle

_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 4  # an alias of YAML can make a small file an endless list
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxdict = _BRIEF.maxset = _BRIEF.maxfrozenset = 20
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = MOST

_WRAPPER = textwrap.TextWrapper(114, break_long_words=False, break_on_hyphens=False)  # paths stay whole


def shown(value: object, most: int = MOST) -> str:
    """`value`, from a user or from foreign code, in one line of at most `most` characters.

    What can't be printed is escaped as Python does: line breaks, escape sequences of terminals, signs that turn the
    direction of writing, bytes in no encoding. Of what is longer the middle is left out.
    """
    text = value if isinstance(value, str) else _in_words(value)
    if len(text) > most:
        text = f"{text[:most]}{text[-most:]}"
    text = one_line(text)
    if len(text) <= most:
        return text
    tail = min(_TAIL, most // 3)
    return f"{text[: most - tail - 1]}…{text[-tail:]}"


def one_line(text: str) -> str:
    """`text` with whatever can't be printed escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def with_hint(said: str, hint: str) -> str:
    """`said; hint`. A full stop at the end of what a library says goes; its question is a hint already."""
    said = said.rstrip()
    return said if not hint or said.endswith("?") else f"{said.rstrip('.')}; {hint}"


def in_html(text: object) -> str:
    """`text` for a page, in an element or in the quotes of an attribute."""
    return escape(one_line(str(text)))


def in_markdown(text: object) -> str:
    """`text` as Markdown that shows it as it is: no markup, links, pictures or cells of its own, and no HTML."""
    return re.sub(r"([\\`*\[\]()|~!])|(?<!\w)_|_(?!\w)", r"\\\g<0>", in_html(text))


def fenced(text: str) -> list[str]:
    """`text` as lines of Markdown that are shown as they are; no run of backticks in it ends them."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [fence, one_line(text), fence]


def in_csv(value: object) -> object:
    """`value` for a cell; a text that a spreadsheet would compute as a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    return f"'{one_line(value)}" if value.lstrip()[:1] in ("=", "+", "-", "@") and value.strip() else one_line(value)


def in_json(value: Any) -> str:
    """`value` as JSON in one line; what a terminal can't print, or would obey, is escaped as JSON does."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def quoted(word: object) -> str:
    """`word` for a command that a shell takes; what can't be printed as bash and zsh write it."""
    text = str(word)
    if text.isprintable():
        return shlex.quote(text)
    escaped = (c if c.isprintable() and c not in "'\\" else _byte_by_byte(c) for c in text)
    return f"$'{''.join(escaped)}'"


def _byte_by_byte(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))


def _in_words(value: object) -> str:
    """What str() says, in bounded time; an exception without a text says its type."""
    try:
        if isinstance(value, dict | list | tuple | set | frozenset):
            return _BRIEF.repr(value)
        return str(value) or (type(value).__name__ if isinstance(value, BaseException) else "")
    except Exception:  # noqa: BLE001  foreign code writes itself; a whole number has a limit of digits
        size = f" of {value.bit_length():,} bits" if isinstance(value, int) else ""
        return f"({type(value).__name__}{size})"


def duration(seconds: float) -> str:
    """45 s, 3 min 20 s, 2 h 05 min, 9 d 04 h"""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def amount(done: float, total: float, unit: str) -> str:
    """1,280/45,000 images, 12/48 MiB; without a total 312 images, 0.5 images, 12 MiB."""
    if unit == "bytes":
        done, total, unit = done / 2**20, total / 2**20, "MiB"
    whole = f"{done:,.0f}" if done >= 10 or done == int(done) else f"{done:.2g}"
    return f"{whole}/{total:,.0f} {unit}" if total else f"{whole} {unit}"


def mib(number: float) -> str:
    """1.5 MiB, 640 MiB, 12.3 GiB."""
    return (
        f"{number / 1024:,.1f} GiB"
        if number >= 10 * 1024
        else f"{number:,.1f} MiB"
        if number < 100
        else f"{number:,.0f} MiB"
    )


def short(value: object) -> str:
    """A number with three significant digits, anything else in one line."""
    return f"{value:.3g}" if isinstance(value, float) else one_line(str(value))


def command(words: Iterable[object]) -> str:
    """The words as one line that a shell takes."""
    return " ".join(map(quoted, words))


def single_run(config: Path, save_dir: Path) -> str:
    """The command that begins or continues the trial of a config file alone, in `save_dir`, from any folder."""
    return command(
        [sys.executable, "-m", "trainables", "--config", str(config), "--save_dir", str(save_dir), "--resume"]
    )


def go_on_command(save_dir: Path) -> str:
    """The command that goes on with the trial that `save_dir` holds, from any folder."""
    return command([sys.executable, "-m", "trainables", "--save_dir", str(save_dir), "--resume"])


def framed(warning: str) -> str:
    """`warning` in a frame that is as wide as its longest line; lines are broken to fit a terminal."""
    lines = [part for line in warning.splitlines() for part in _WRAPPER.wrap(line)]
    width = max(len(line) for line in lines)
    bar = "!" * (width + 4)
    return "\n".join([bar, *(f"! {line:{width}} !" for line in lines), bar])


def counted(number: int, noun: str) -> str:
    """1 round, 2 rounds."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
