"""Which values a knob takes, whatever the other knobs are: in words, and as a function.

In: nothing. Out: the checks that the declarations in config.py name.
"""

from __future__ import annotations

import re

from trainables.rsst.config import acting
from trainables.rsst.config.knobs import Check
from trainables.rsst.config.schedule import MAX_ROUNDS

_COUNTS = r"[1-9]\d{0,6}(,[1-9]\d{0,6}){0,999}/[1-9]\d{0,6}(,[1-9]\d{0,6}){0,999}"
POSITIVE: Check = ("a number > 0", lambda v: v > 0)
NOT_NEGATIVE: Check = ("a number ≥ 0", lambda v: v >= 0)
OPEN_UNIT: Check = ("between 0 and 1, both excluded", lambda v: 0 < v < 1)
SHARE: Check = ("at least 0 and below 1", lambda v: 0 <= v < 1)
AT_LEAST_1: Check = ("a whole number ≥ 1", lambda v: v >= 1)
COUNT: Check = ("a whole number ≥ 0", lambda v: v >= 0)
REWIND: Check = (
    "init, none or epoch:K with K ≥ 1",
    lambda v: v in ("init", "none") or acting.rewind_epoch(v) is not None,
)
UNITS: Check = ("as a pruned model has them, such as 2,1/16,5", lambda v: re.fullmatch(_COUNTS, v) is not None)
SIDE: Check = ("1 to 4096", lambda v: 1 <= v <= 4096)
THREADS: Check = ("1 to 1024", lambda v: 1 <= v <= 1024)
HEIGHT: Check = ("0 to 100", lambda v: 0 <= v <= 100)
ROUNDS: Check = (f"1 to {MAX_ROUNDS}", lambda v: 1 <= v <= MAX_ROUNDS)
PRUNINGS: Check = (f"0 to {MAX_ROUNDS - 1}", lambda v: 0 <= v < MAX_ROUNDS)
NAME: Check = ("a name that is not empty", lambda v: bool(v))
