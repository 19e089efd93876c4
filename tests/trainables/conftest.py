"""Fixtures of the trial's tests: `toy` (the network and short runs), `tiny` (its images)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.trainables import toy as toy_module
from trainables.rsst.data.load import ImageData


@pytest.fixture(scope="module")
def toy() -> Iterator[None]:
    """The toy network under its name `vit_toy` and a latency that costs nothing, for one test module."""
    with toy_module.installed():
        yield


@pytest.fixture(scope="session")
def tiny() -> ImageData:
    """96 / 48 / 48 digits."""
    return toy_module.images()
