"""A driver holds its sweep in the bucket: who has it is named, and who loses it writes nothing more."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.azure_server import AzureServer
from tests.s3_server import S3Server
from trainables.storage import lease
from trainables.storage.bucket import Bucket, StorageError
from tune_rsst.interrupt import Interruption
from tune_rsst.ledger.file import Ledger
from tune_rsst.ledger.lock import SweepBusy, driving
from tune_rsst.storage.bucket import held
from tune_rsst.storage.folder import Sweep, SweepFolder, is_driven


@pytest.fixture
def address(cloud: S3Server | AzureServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of an empty place; leases are renewed often."""
    cloud.empty()
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    return f"{cloud.address}/group"


def test_a_second_driver_is_refused_in_one_line(address: str, tmp_path: Path) -> None:
    first, second = SweepFolder(tmp_path / "a" / "sweep"), SweepFolder(tmp_path / "b" / "sweep")
    told = r"^name = sweep: a driver on .* is driving this sweep in \w\w://.*/sweep; wait for it, or stop it$"
    with (
        held(address, first, print, Interruption()),
        pytest.raises(SweepBusy, match=told),
        held(address, second, print, Interruption()),
    ):
        pass


def test_who_loses_the_sweep_writes_nothing_more(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interruption = Interruption()
    with held(address, SweepFolder(tmp_path / "sweep"), print, interruption):
        other = {"id": "abcd", "renewed": 1.0, "machine": "m", "host": "other", "folder": "/f", "pid": 7}
        Bucket(f"{address}/sweep").write(lease.LEASE_KEY, json.dumps(other).encode())
        deadline = time.monotonic() + 20
        while not interruption.broken and time.monotonic() < deadline:
            time.sleep(0.05)
    told = "a driver on other (process 7) has taken this sweep over; nothing more is written here"
    assert interruption.problem == told


def test_who_only_looks_sees_a_driver_on_another_machine(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = SweepFolder(tmp_path / "a" / "sweep"), SweepFolder(tmp_path / "b" / "sweep")
    here.path.mkdir(parents=True)
    ledger = Ledger(here.ledger)
    ledger.append("sweep_started", name="sweep", settings={"storage": address})
    ledger.close()
    with held(address, there, print, Interruption()):
        assert is_driven(here, address) and not is_driven(here, None)
        assert (Sweep.of(here, elsewhere=True).state, Sweep.of(here).state) == ("running", "interrupted")
    assert not is_driven(here, address) and Sweep.of(here, elsewhere=True).state == "interrupted"
    with driving(here.path):
        assert is_driven(here, None) and Sweep.of(here).state == "running"

    def away(*_: object) -> None:
        raise StorageError(f"storage = {address}: it does not answer")

    monkeypatch.setattr(Bucket, "find", away)
    assert not is_driven(here, address)
    assert "it does not answer; whether a driver elsewhere runs sweep is not known" in capsys.readouterr().err
