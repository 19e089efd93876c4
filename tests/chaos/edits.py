"""A value that somebody has edited. In: a stream of random numbers, a value of JSON. Out: another one."""

from __future__ import annotations

import random
from typing import Any


def edited(draw: random.Random, value: Any) -> Any:
    """`value` with one part of it gone, doubled, or of another type."""
    if isinstance(value, dict) and value:
        name = draw.choice(sorted(value))
        other: dict[str, Any] = {k: v for k, v in value.items() if k != name or draw.random() < 0.7}
        return other if name not in other else {**other, name: edited(draw, value[name])}
    if isinstance(value, list) and value:
        at = draw.randrange(len(value))
        return [*value[:at], *draw.choice([[], [value[at]] * 2, [edited(draw, value[at])]]), *value[at + 1 :]]
    return draw.choice([None, True, -1, 10**30, 0.5, "", "x" * 300, [], {}])
