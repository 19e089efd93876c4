"""Points that a sweep tries first, as the user wrote them: a list of parameters with their values.

In: the path of a YAML file, or the list itself. Out: one mapping a point; tune_rsst/search/points.py compares them with
the space.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from trainables.plain_yaml import YamlError, list_in
from trainables.rsst.config import ConfigError
from trainables.storage.files import expanded

MOST = 10_000
FORM = "a list of points, each with its parameters' values: [{lr: 0.001, prunings: 3}, {lr: [0.001, 0.002]}]"


def read(given: Any) -> tuple[dict[str, Any], ...]:
    """The points in `given`: the name of a file, a list, or None. A list of values in a point makes a point of each."""
    entries = _in_file(given) if isinstance(given, str) else given
    if entries is None:
        return ()
    if not isinstance(entries, list | tuple):
        raise ConfigError("points", entries, FORM)
    found: dict[str, dict[str, Any]] = {}
    for number, entry in enumerate(entries, start=1):
        for point in _spread(number, entry):
            if len(found) >= MOST:
                raise ConfigError("points", f"more than {MOST:,}", f"at most {MOST:,} points")
            if found.setdefault(repr(sorted(point.items())), point) is not point:
                raise ConfigError(f"points, point {number}", point, "no point that was there before", "leave it out")
    return tuple(found.values())


def _in_file(path: str) -> Any:
    try:
        return list_in(expanded(path))
    except OSError as error:
        raise ConfigError("points", path, f"a YAML file that can be read ({error.strerror})") from None
    except YamlError as error:
        raise ConfigError("points", path, FORM, str(error)) from None


def _spread(number: int, entry: Any) -> Iterator[dict[str, Any]]:
    """The points that `entry` is: every combination of the values of those parameters that have several."""
    if not isinstance(entry, dict) or not entry or not all(isinstance(name, str) for name in entry):
        raise ConfigError(f"points, point {number}", entry, "parameters with values, such as {lr: 0.001, prunings: 3}")
    for name, value in entry.items():
        values = value if isinstance(value, list | tuple) else [value]
        if not values or not all(one is None or isinstance(one, bool | int | float | str) for one in values):
            raise ConfigError(f"points, point {number}: {name}", value, "one value, or a list of some")
    lists = ([*value] if isinstance(value, list | tuple) else [value] for value in entry.values())
    for values in product(*lists):
        yield dict(zip(entry, values, strict=True))
