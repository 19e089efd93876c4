"""What the driver is told when Tune has lost a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tune_rsst.adapters import _reason


class _LostTrial:
    """Tune's trial as far as `_reason` looks: nothing was pickled, because the worker could raise nothing."""

    def __init__(self, error_file: Path | None, error: Exception | None = None) -> None:
        self.error_file, self._error = error_file, error

    def get_pickled_error(self) -> Exception | None:
        return self._error


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        (None, None, "the worker was lost: its process or its node is gone"),
        ("Failure # 1\nThe node died.\n\n", None, "the worker was lost: The node died."),
        (None, ValueError("first\nlast"), "ValueError: last"),
        (None, ValueError(), "ValueError: no message"),
    ],
)  # fmt: skip
def test_the_reason_is_a_line_that_says_something(tmp_path: Path, text: str, error: Any, reason: str) -> None:
    file = tmp_path / "error.txt"
    if text is not None:
        file.write_text(text)
    assert _reason(_LostTrial(file if text is not None else None, error)) == reason  # type: ignore[arg-type]
