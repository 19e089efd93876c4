"""Fixtures that several test folders share; a fixture used by one folder lives there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azure_server import AzureServer, azure_server
from tests.postgres import Postgres, postgres
from tests.s3_server import S3Server, s3_server
from tune_rsst.storage.folder import SweepFolder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A set in a test's name stands in another order in every second process: two workers then see other tests."""
    for item in items:
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        sets = [value for value in values if isinstance(value, set | frozenset) and len(value) > 1]
        if any(str(value) in item.name for value in sets):
            raise pytest.UsageError(f"{item.nodeid}: a set in a test's name; give the test an id, or a tuple")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of an earlier run of the tests, or of this machine's user, is taken over: images, dense rounds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_RSST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout that the tests run in."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def digits_sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A finished sweep of four real trials on the digits, complete in a sqlite MLflow beside it."""
    from tests.tune_rsst.real_sweep import real_sweep
    from tune_rsst.storage.folder import Sweep
    from tune_rsst.tracking.uploader import Uploader

    folder = real_sweep(tmp_path_factory.mktemp("digits"))
    uploader = Uploader(folder, Sweep.of(folder).view.settings)
    assert uploader.sync_once(120) == 0, uploader.problems
    return folder


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server on this machine, started when the first test asks for it."""
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def azure() -> Iterator[AzureServer]:
    """The same of Azure's."""
    with azure_server() as server:
        yield server


@pytest.fixture(scope="session", params=["s3", "azure"])
def cloud(request: pytest.FixtureRequest) -> S3Server | AzureServer:
    """Each object storage that can be run on this machine."""
    found: S3Server | AzureServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def database() -> Iterator[Postgres]:
    """A PostgreSQL server on this machine, started when the first test asks for it."""
    with postgres() as server:
        yield server
