"""A disk that is full from one write on: one line, no traceback, and a resume ends as if nothing had been."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chaos import full_disk
from tests.trainables import toy
from tune_rsst.cli import app

FIRST, LAST = 1, -1
POINTS = [("sweep:_write", LAST), ("checkpoint:save", FIRST), ("saved:save_pruned", LAST), ("best:write_best", FIRST)]


@pytest.fixture(scope="module")
def left_alone() -> Iterator[tuple[dict[str, int], Any]]:
    with toy.installed():
        yield full_disk.points()


@pytest.mark.medium
@pytest.mark.parametrize(("point", "time"), POINTS)
def test_a_full_disk_costs_one_line_and_a_resume_ends_the_same(
    point: str, time: int, left_alone: tuple[dict[str, int], Any]
) -> None:
    """All points: `python -m tests.chaos.full_disk`."""
    seen, right = left_alone
    row, fine = full_disk.tried(point, seen[point] if time == LAST else time, right)
    assert fine and "space left" in row[3], row


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE])
def test_what_the_system_refuses_is_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(**_: Any) -> None:
        raise OSError(number, "it is full", "/some/where")

    monkeypatch.setattr(app, "app", refused)
    with pytest.raises(SystemExit) as end:
        app.main()
    said = capsys.readouterr().err.strip()
    assert end.value.code == 1 and said.count("\n") == 0 and "it is full: '/some/where'" in said
    assert said.startswith("error: ") and said.endswith("give the same command again when this is mended")
