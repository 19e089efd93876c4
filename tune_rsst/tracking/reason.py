"""Why a store has failed, in one line that a person can read, without passwords.

In: whatever MLflow, a database or a connection raised. Out: a text.
"""

from __future__ import annotations

import textwrap

from trainables.storage.secrets import hide_password

LONGEST = 240


def reason(error: BaseException) -> str:
    """The operating system's reason below `error`, such as "Connection refused"; else its own text, shortened."""
    below: BaseException | None = error
    line = str(error) or type(error).__name__
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            line = f"can't be reached: {below.strerror}"
        elif isinstance(below, TimeoutError):
            line = "can't be reached: it did not answer in time"
        below = below.__cause__ or below.__context__
    line = line.partition("(Background on this error")[0]
    return hide_password(textwrap.shorten(line, LONGEST, placeholder=" …"))
