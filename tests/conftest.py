"""Fixtures that several test folders share; a fixture used by one folder lives there."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout that the tests run in."""
    return Path(__file__).resolve().parents[1]
