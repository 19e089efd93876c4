"""Why a store could not do what it was asked, in one line that a person can read, without passwords.

Comes in: whatever MLflow, a database or a connection raised. Goes out: a text.
"""

from __future__ import annotations

import textwrap

from trainables.storage.secrets import hide_password

LONGEST = 240


def reason(error: BaseException) -> str:
    """What the system said at the bottom of `error`, such as "Connection refused"; else its own text, shortened."""
    below: BaseException | None = error
    told = str(error) or type(error).__name__
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            told = f"can't be reached: {below.strerror}"
        elif isinstance(below, TimeoutError):
            told = "can't be reached: it did not answer in time"
        below = below.__cause__ or below.__context__
    told = told.partition("(Background on this error")[0]
    return hide_password(textwrap.shorten(told, LONGEST, placeholder=" …"))
