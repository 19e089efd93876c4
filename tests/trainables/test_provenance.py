"""Where a sweep was started is recorded from the checkout that this code is in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from trainables import provenance


def test_the_commit_of_this_checkout_is_recorded() -> None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert provenance.origin()["git"].removesuffix("-dirty") == head.stdout.strip()
