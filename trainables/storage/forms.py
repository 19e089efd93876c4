"""What a value that was read back must look like: forms of JSON, and a strict reader of it.

In: bytes that claim to be JSON; a form. Out: the value, or `WrongForm`, which says in one line what is wrong.

    MANIFEST = record({"state.json": text(SHA256), "tensors.safetensors": text(SHA256)})

A form is a function of a value and of where it stands. What passes can be used without a further look: no key is there
twice or missing, no number is infinite or longer than 64 bits, nothing is nested beyond `DEEPEST`, every text can be
written down again. That the *content* is right is a checksum's business (state_files.py).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Form = Callable[[Any, str], None]

DEEPEST = 40
SHOWN = 60
SHA256 = r"[0-9a-f]{64}"
HEX = r"[0-9a-f]{4,64}"
NAME_OF_A_FILE = r"[^\x00-\x1f/.][^\x00-\x1f/]{0,199}"
"""One that lies right in its folder, is not hidden, and fits every file system."""


class WrongForm(ValueError):
    """What was read is not what is written there. One line."""


def parsed(content: bytes) -> Any:
    """The value of JSON in UTF-8, with every key once.

    Raises:
        WrongForm: it is none, or holds what no program can use (NaN, 1e999, numbers without end, half a letter).
    """
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_each_once, parse_constant=_no_number)
        _usable(value, DEEPEST)
    except WrongForm:
        raise
    except RecursionError:
        raise WrongForm("it is nested too deeply") from None
    except ValueError as error:
        raise WrongForm(f"it is no JSON: {str(error).splitlines()[0][:SHOWN]}") from None
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise WrongForm("a key is there twice")
    return found


def _no_number(word: str) -> None:
    raise WrongForm(f"{word} is no number")


def _usable(value: Any, levels: int) -> None:
    if isinstance(value, str):
        if not value.isascii():
            value.encode("utf-8")
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int | float):
        if not (abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)):
            raise WrongForm("a number is too large")
    elif levels == 0:
        raise WrongForm("it is nested too deeply")
    elif isinstance(value, dict):
        for name, one in value.items():
            _usable(name, 0)
            _usable(one, levels - 1)
    else:
        for one in value:
            _usable(one, levels - 1)


def _refuse(where: str, valid: str, value: Any) -> None:
    text = repr(value)[: SHOWN + 1]
    raise WrongForm(f"{where or 'it'} is {text[:SHOWN]}{'…' if len(text) > SHOWN else ''}, not {valid}")


def anything(value: Any, where: str) -> None:
    """Any value; `parsed` has seen to it that it can be used."""


def flag(value: Any, where: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        _refuse(where, "true or false", value)


def number(value: Any, where: str) -> None:
    """Any number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(where, "a number", value)


def whole(least: int = 0, most: int = 2**63 - 1) -> Form:
    """A whole number within bounds."""

    def check(value: Any, where: str) -> None:
        if type(value) is not int or not least <= value <= most:
            _refuse(where, f"a whole number from {least}" + (f" to {most}" if most < 2**63 - 1 else ""), value)

    return check


def text(pattern: str = r"(?s:.*)", most: int = 100_000) -> Form:
    """A text of at most `most` characters that is as a whole what the pattern says."""
    matches = re.compile(pattern).fullmatch

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or len(value) > most or not matches(value):
            _refuse(where, "such a text as is written there", value)

    return check


def one_of(*values: object) -> Form:
    """One of these, of the same type."""

    def check(value: Any, where: str) -> None:
        if not any(type(value) is type(one) and value == one for one in values):
            _refuse(where, " or ".join(map(str, values)), value)

    return check


def maybe(form: Form) -> Form:
    """The form, or null."""

    def check(value: Any, where: str) -> None:
        if value is not None:
            form(value, where)

    return check


def either(*forms: Form) -> Form:
    """One of the forms; the last one says what is wrong."""

    def check(value: Any, where: str) -> None:
        for form in forms[:-1]:
            try:
                return form(value, where)
            except WrongForm:
                continue
        return forms[-1](value, where)

    return check


def listed(form: Form = anything) -> Form:
    """A list of values of one form."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list):
            _refuse(where, "a list", value)
        for at, one in enumerate(value):
            form(one, f"{where}[{at}]")

    return check


def mapping(form: Form = anything, keys: str = r"(?s:.*)") -> Form:
    """Names of one pattern with values of one form."""
    name = text(keys)

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            _refuse(where, "a list of names and values", value)
        for key, one in value.items():
            name(key, f"a name in {where or 'it'}")
            form(one, f"{where}.{key}".lstrip("."))

    return check


def record(required: Mapping[str, Form], optional: Mapping[str, Form] | None = None, *, more: bool = False) -> Form:
    """Fields by name. `optional` ones may be absent; others may stand there only with `more`."""
    known = {**required, **(optional or {})}

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            _refuse(where, "a list of names and values", value)
        prefix = f"{where}." if where else ""
        if missing := required.keys() - value.keys():
            raise WrongForm(f"{prefix}{min(missing)} is missing")
        if not more and (unknown := value.keys() - known.keys()):
            raise WrongForm(f"{prefix}{min(unknown)[:SHOWN]} is not written there")
        for name, form in known.items():
            if name in value:
                form(value[name], f"{prefix}{name}")

    return check
