"""The sweep's own study, where something else than a file has its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trainables.rsst.config import ConfigError
from tune_rsst.search.study_database import opened

STRANGE: dict[str, Callable[[Path], object]] = {
    "folder": lambda path: path.mkdir(),
    "pipe": lambda path: os.mkfifo(path),
    "link that leads nowhere": lambda path: path.symlink_to(path.parent / "no" / "file"),
    "link to itself": lambda path: path.symlink_to(path),
    "endless": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_no_file_is_put_aside_and_the_study_begins_anew(strange: str, tmp_path: Path) -> None:
    file = tmp_path / "optuna.db"
    STRANGE[strange](file)
    storage = opened(f"sqlite:///{file}", own_file=True)
    assert storage.get_all_studies() == [] and file.is_file()
    assert [os.path.lexists(one) for one in tmp_path.glob("optuna.db.damaged-*")] == [True]


def test_a_link_to_a_file_that_is_not_there_is_no_way_out_of_the_home(tmp_path: Path) -> None:
    """Found by `make chaos --seed 72`: sqlite made the study where the link led."""
    file = tmp_path / "home" / "optuna.db"
    file.parent.mkdir()
    file.symlink_to(tmp_path / "elsewhere")
    assert opened(f"sqlite:///{file}", own_file=True).get_all_studies() == []
    assert file.is_file() and not file.is_symlink() and [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_link_to_a_database_that_is_there_is_kept(tmp_path: Path) -> None:
    file, there = tmp_path / "optuna.db", tmp_path / "there.db"
    opened(f"sqlite:///{there}", own_file=True)
    file.symlink_to(there)
    assert opened(f"sqlite:///{file}", own_file=True).get_all_studies() == [] and file.is_symlink()


@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_not_the_sweeps_own_is_left_as_it_is(strange: str, tmp_path: Path) -> None:
    file = tmp_path / "optuna.db"
    STRANGE[strange](file)
    with pytest.raises(ConfigError, match="optuna_storage = "):
        opened(f"sqlite:///{file}", own_file=False)
    assert [path.name for path in tmp_path.iterdir()] == ["optuna.db"] and not file.is_file()
