"""The servers that a sweep away from home needs, one of each for the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.storage.postgres import Postgres, postgres
from tests.storage.s3_server import S3Server, s3_server


@pytest.fixture(scope="package")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="package")
def database() -> Iterator[Postgres]:
    with postgres() as server:
        yield server
