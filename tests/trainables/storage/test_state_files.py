"""State that is read back is what was written: its checksum, its form, a regular file of a bounded size."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from trainables.storage.forms import WrongForm, mapping, number
from trainables.storage.state_files import read_state, replace_state

FORM = mapping(number)


@pytest.mark.parametrize("value", [{}, {"a": 1}, {"ä": 0.1 + 0.2, "b": -(2**62)}])
def test_what_was_written_comes_back(tmp_path: Path, value: dict[str, Any]) -> None:
    replace_state(tmp_path / "f", value)
    assert read_state(tmp_path / "f", FORM) == value
    laid_out = json.dumps(json.loads((tmp_path / "f").read_text()), indent=7, ensure_ascii=True)
    (tmp_path / "f").write_text(laid_out)
    assert read_state(tmp_path / "f", FORM) == value


def test_every_other_digit_is_noticed(tmp_path: Path) -> None:
    replace_state(tmp_path / "f", {"a": 12345})
    text = (tmp_path / "f").read_text()
    (tmp_path / "f").write_text(text.replace("12345", "12346"))
    with pytest.raises(WrongForm, match="another checksum"):
        read_state(tmp_path / "f", FORM)


def test_a_file_without_a_checksum_is_taken_only_where_versions_had_none(tmp_path: Path) -> None:
    (tmp_path / "f").write_text('{"a": 1}')
    assert read_state(tmp_path / "f", FORM, seal="may") == read_state(tmp_path / "f", FORM, seal="none") == {"a": 1}
    with pytest.raises(WrongForm, match="no checksum"):
        read_state(tmp_path / "f", FORM)


@pytest.mark.parametrize("what", ["missing", "folder", "fifo", "loop", "endless", "dangling", "large"])
def test_what_is_no_regular_file_of_that_size_is_never_waited_for(tmp_path: Path, what: str) -> None:
    path = tmp_path / "f"
    if what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "large":
        path.write_bytes(b" " * 2000)
    elif what != "missing":
        path.symlink_to({"loop": path, "endless": Path("/dev/zero"), "dangling": tmp_path / "none"}[what])
    with pytest.raises((OSError, WrongForm)):
        read_state(path, FORM, most=1000)


@pytest.mark.parametrize("what", ["a folder", "a folder with files", "a pipe", "a link", "a link that leads round"])
def test_state_takes_its_place_whatever_lies_there(tmp_path: Path, what: str) -> None:
    """Found by `make chaos --seed 61`: where a folder lay in the cursor's place, MLflow got nothing more."""
    path, other = tmp_path / "f", tmp_path / "other"
    other.mkdir()
    (other / "kept").write_bytes(b"1")
    if what.startswith("a folder"):
        path.mkdir()
        if what == "a folder with files":
            (path / "kept").write_bytes(b"2")
    elif what == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(other if what == "a link" else path)
    replace_state(path, {"a": 1})
    assert read_state(path, FORM) == {"a": 1} and path.is_file() and not path.is_symlink()
    assert [one.name for one in other.iterdir()] == ["kept"]
    aside = [one for one in tmp_path.iterdir() if one not in (path, other)]
    assert len(aside) == what.startswith("a folder") and all(one.name.startswith("f.damaged-") for one in aside)
    assert [one.name for folder in aside for one in folder.iterdir()] == ["kept"] * (what == "a folder with files")
