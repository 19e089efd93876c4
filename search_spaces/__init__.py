"""Search spaces: define-by-run functions that turn suggestions into knobs of one trial.

parts.py    ranges that several spaces share
digits.py   the default sweep
inits.py    scratch, pretrained, init_compare: the guide's knobs
methods.py  penalty, method: how units are pressed, which units go
SPACES      name → function; `tune-rsst sweep space=NAME`, or your own: space=path/to/file.py:function

space_files.py  finds the function, one of these or your own
same_again.py   whether it is a function of its suggestions alone
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from search_spaces.digits import digits
from search_spaces.inits import GUIDED as GUIDED
from search_spaces.inits import init_compare, pretrained, scratch
from search_spaces.methods import method, penalty
from search_spaces.parts import Knobs, Suggest

SHARED = ("digits", "scratch", "pretrained")
"""Spaces that draw lr and warmup from a grid where the sweep has `shared=true`."""

Space = Callable[[Suggest], Knobs]

SPACES: Mapping[str, Space] = MappingProxyType(
    {
        "digits": digits,
        "scratch": scratch,
        "pretrained": pretrained,
        "init_compare": init_compare,
        "penalty": penalty,
        "method": method,
    }
)
