"""A terminal may be in any encoding: what it can't show is escaped, and never ends a run. A wrong word gets one line.

In: the words of a command line. Out: standard output and error that take every text; a ConfigError for words that are
no text. Both programs begin with `ready`. Files (run.log among them) are UTF-8 always.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NoReturn

from trainables.errors import ConfigError
from trainables.text import LONGEST_LINE, shown, with_hint


def ready(words: Sequence[str]) -> None:
    """Make the standard streams take every character; refuse `words` that no file could hold."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # None has not: the stream is closed
            stream.reconfigure(errors="backslashreplace")
    for word in words:
        if not is_text(word):
            raise ConfigError("argument", ascii(word), "text in UTF-8", why_no_text())


def is_text(word: str) -> bool:
    """Whether `word` can be written down; bytes that are in no encoding come as lone surrogates."""
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def why_no_text() -> str:
    """What to do about a word that is no text here."""
    encoding = sys.getfilesystemencoding()
    if encoding.lower().replace("-", "") != "utf8":
        return f"file names are read as {encoding} here: set PYTHONUTF8=1, or a locale in UTF-8"
    return "rename it"


class OneLineParser(argparse.ArgumentParser):
    """argparse without abbreviations; an error is one line that names the flag and the closest valid one."""

    def __init__(self, prog: str, description: str | None) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, allow_abbrev=False, formatter_class=form)

    def error(self, message: str) -> NoReturn:
        """End the program."""
        unknown = message.partition("unrecognized arguments: ")[2].split(" ")[0].partition("=")[0]
        close = get_close_matches(unknown[:99], self._option_string_actions, n=1) if unknown else []
        hint = f"did you mean {close[0]}?" if close else f"see {self.prog} --help"
        print(f"error: {shown(with_hint(message, hint), LONGEST_LINE)}", file=sys.stderr)
        raise SystemExit(2)
