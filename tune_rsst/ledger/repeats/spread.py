"""Several runs of one configuration as numbers: mean, standard deviation, interval.

In: values. Out: a `Spread`; metrics that are means.

The interval is Student's: of n values with mean m and sample standard deviation s it is m ± t·s/√n, where t is the
97.5 % point of Student's distribution with n − 1 degrees of freedom ("Student", The probable error of a mean,
Biometrika 6, 1908). It holds for values that are independent and normal; accuracies of a few seeds are so roughly.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

CONFIDENCE = 0.95


def within(t: float, freedom: int) -> float:
    """Share of Student's distribution between −t and t; M. Abramowitz, I. Stegun, Handbook, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    if freedom % 2 == 0:
        term = total = 1.0
        for k in range(2, freedom, 2):
            term *= square * (k - 1) / k
            total += term
        return sine * total
    if freedom == 1:
        return 2 * angle / math.pi
    term = total = math.cos(angle)
    for k in range(3, freedom, 2):
        term *= square * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total)


@cache
def student_t(freedom: int, confidence: float = CONFIDENCE) -> float:
    """t with the share `confidence` of Student's distribution between −t and t, by halving."""
    low, high = 0.0, 1.0
    while within(high, freedom) < confidence:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, freedom) < confidence else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Spread:
    """Of n values: mean, sample standard deviation, and the interval; the last two only for n of 2 and more."""

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None without values."""
        if not values:
            return None
        mean, n = statistics.fmean(values), len(values)
        if n == 1:
            return cls(n, mean, None, None, None)
        deviation = statistics.stdev(values)
        half = student_t(n - 1) * deviation / math.sqrt(n)
        return cls(n, mean, deviation, mean - half, mean + half)

    def overlaps(self, other: Spread) -> bool:
        """Whether the intervals have a value in common."""
        ends = self.low, self.high, other.low, other.high
        if None in ends:
            return True
        return self.low <= other.high and other.low <= self.high  # type: ignore[operator]


def averaged(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The metrics of several runs of one configuration: numbers that differ are means, all else is the first one's.

    Also `seeds`, how many there are, and `val_top1_std`, the sample standard deviation.
    """
    found = dict(runs[0])
    for name, first in found.items():
        values = [run.get(name) for run in runs]
        if any(value != first for value in values) and all(map(_is_number, values)):
            found[name] = statistics.fmean(values)  # type: ignore[arg-type]
    top1 = [run["val_top1"] for run in runs if _is_number(run.get("val_top1"))]
    found["seeds"] = len(runs)
    return found | ({"val_top1_std": statistics.stdev(top1)} if len(top1) > 1 else {})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
