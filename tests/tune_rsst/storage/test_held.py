"""A driver holds its sweep in the bucket: who has it is named, and who loses it writes nothing more."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.s3_server import BUCKET, S3Server
from trainables.storage import lease
from trainables.storage.bucket import Bucket, StorageError
from tune_rsst.interrupt import Interruption
from tune_rsst.ledger.file import Ledger
from tune_rsst.ledger.lock import SweepBusy, driving
from tune_rsst.storage.bucket import held
from tune_rsst.storage.folder import Sweep, SweepFolder, is_driven

ADDRESS = f"s3://{BUCKET}/group"


def test_a_second_driver_is_refused_in_one_line(s3: S3Server, tmp_path: Path) -> None:
    s3.empty()
    first, second = SweepFolder(tmp_path / "a" / "sweep"), SweepFolder(tmp_path / "b" / "sweep")
    told = r"^name = sweep: a driver on .* is driving this sweep in s3://.*/sweep; wait for it, or stop it$"
    with (
        held(ADDRESS, first, print, Interruption()),
        pytest.raises(SweepBusy, match=told),
        held(ADDRESS, second, print, Interruption()),
    ):
        pass


def test_who_loses_the_sweep_writes_nothing_more(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.empty()
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    interruption = Interruption()
    with held(ADDRESS, SweepFolder(tmp_path / "sweep"), print, interruption):
        other = {"id": "abcd", "renewed": 1.0, "machine": "m", "host": "other", "folder": "/f", "pid": 7}
        Bucket(f"{ADDRESS}/sweep").write(lease.LEASE_KEY, json.dumps(other).encode())
        deadline = time.monotonic() + 20
        while not interruption.broken and time.monotonic() < deadline:
            time.sleep(0.05)
    told = "a driver on other (process 7) has taken this sweep over; nothing more is written here"
    assert interruption.problem == told


def test_who_only_looks_sees_a_driver_on_another_machine(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.empty()
    here, there = SweepFolder(tmp_path / "a" / "sweep"), SweepFolder(tmp_path / "b" / "sweep")
    here.path.mkdir(parents=True)
    ledger = Ledger(here.ledger)
    ledger.append("sweep_started", name="sweep", settings={"storage": ADDRESS})
    ledger.close()
    with held(ADDRESS, there, print, Interruption()):
        assert is_driven(here, ADDRESS) and not is_driven(here, None)
        assert (Sweep.of(here, elsewhere=True).state, Sweep.of(here).state) == ("running", "interrupted")
    assert not is_driven(here, ADDRESS) and Sweep.of(here, elsewhere=True).state == "interrupted"
    with driving(here.path):
        assert is_driven(here, None) and Sweep.of(here).state == "running"

    def away(*_: object) -> None:
        raise StorageError(f"storage = {ADDRESS}: it does not answer")

    monkeypatch.setattr(Bucket, "find", away)
    assert not is_driven(here, ADDRESS)
    assert "it does not answer; whether a driver elsewhere runs sweep is not known" in capsys.readouterr().err
