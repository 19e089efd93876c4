"""Finds the function of a search space: a published name, a file of the user's, a module.

In: an address: NAME, path/to/file.py:function or module:function.
Out: the function, or one line that says what is wrong, with the file and the line where it is.

trainables/user_code/loading.py imports the file. Only the driver imports spaces, workers never.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from search_spaces import SPACES
from trainables.rsst.config import ConfigError
from trainables.storage.files import expanded
from trainables.user_code.loading import in_one_line, module_at, module_named

FORM = "path/to/file.py:function or module:function"


def function_at(address: str) -> Callable[[Any], Any]:
    """The function of the space of that name, or at that place."""
    if address in SPACES:
        return SPACES[address]
    place, colon, name = address.rpartition(":")
    if not colon:
        close = get_close_matches(address, SPACES, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "`tune-rsst spaces` lists them"
        if address.endswith(".py") and os.path.isfile(expanded(address)):
            hint = f"add the function: {address}:{(_functions(_module(address, address)) or ['function'])[0]}"
        raise ConfigError("space", address, f"{', '.join(SPACES)}, {FORM}", hint)
    module = _module(address, place)
    function = getattr(module, name, None)
    if function is None:
        has = ", ".join(_functions(module)) or "none"
        raise ConfigError("space", address, f"a function that {place} has", f"it has {has}")
    _refuse_other_callables(address, name, function)
    return function  # type: ignore[no-any-return]


def file_of(function: Callable[[Any], Any]) -> Path:
    """The file that a space is written in."""
    return Path(inspect.unwrap(function).__code__.co_filename)


def line_of(function: Callable[[Any], Any], knob: str = "") -> str:
    """ " (NAME, line 3)": where a space names `knob`, or begins; "" without its source."""
    try:
        lines, first = inspect.getsourcelines(inspect.unwrap(function))
    except OSError:
        return ""
    written = (f'"{knob}"', f"'{knob}'", f"{knob}=")
    names = (number for number, text in enumerate(lines, first) if any(word in text for word in written))
    return f" ({file_of(function).name}, line {next(names, first) if knob else first})"


def from_any_folder(address: str) -> str:
    """The address of a space in a file, or in a module below the current folder, as it is found from any folder."""
    place, _, function = address.rpartition(":")
    if not place.endswith(".py") and re.fullmatch(r"\w+(\.\w+)*", place):
        beside = Path(*place.split("."))
        files = (beside.with_suffix(".py"), beside / "__init__.py")
        place = next((str(file) for file in files if os.path.isfile(file)), place)
    return f"{expanded(place)}:{function}" if place.endswith(".py") else address


def _functions(module: ModuleType) -> list[str]:
    """Names of its own functions that could be spaces."""
    functions = inspect.getmembers(module, inspect.isfunction)
    own = [(n, f) for n, f in functions if f.__name__ == n and n[0] != "_" and f.__module__ == module.__name__]
    return [n for n, f in own if len(inspect.signature(f).parameters) == 1]


def _refuse_other_callables(address: str, name: str, function: Any) -> None:
    what = ""
    if getattr(function, "__name__", "") == "<lambda>":
        what = "a lambda"
    elif not inspect.isfunction(function) or "<locals>" in function.__qualname__:
        what = f"no module-level function (it is of the type {type(function).__name__})"
    elif inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        what = "an async function"
    elif inspect.isgeneratorfunction(function):
        what = "a generator (it has a yield)"
    else:
        try:
            inspect.signature(function).bind(object())
        except TypeError as error:
            what = f"not to be called with a trial alone: {error}"
    if what:
        raise ConfigError(
            "space", address, "a function f(trial) defined with def at the top of a module", f"{name} is {what}"
        )


def _module(address: str, place: str) -> ModuleType:
    """The module at `place`, a .py file or a dotted name."""
    path = expanded(place) if place.endswith(".py") else None
    try:
        return module_at(path) if path else module_named(place)
    except (Exception, SystemExit) as error:
        where = path.parent if path else Path.cwd()
        raise ConfigError("space", address, f"{FORM} that can be imported", in_one_line(error, where)) from error
