"""The ledger as numbered objects: the same lines, one writer, nothing lost on the way to an empty home."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.azure_server import AzureServer
from tests.s3_server import S3Server
from trainables.storage.bucket import Bucket, Taken
from tune_rsst.interrupt import Interruption
from tune_rsst.ledger.file import Ledger, read
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.ledger.lock import SweepBusy
from tune_rsst.storage import ledger_objects
from tune_rsst.storage.ledger_objects import LedgerObjects, bring_ledger, read_objects


@pytest.fixture
def bucket(cloud: S3Server | AzureServer, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    cloud.empty()
    monkeypatch.setattr(ledger_objects, "GATHER_S", 0.0)
    return Bucket(f"{cloud.address}/group/sweep")


def written(path: Path, bucket: Bucket, lines: int, first: int = 0) -> Ledger:
    ledger, interruption = Ledger(path), Interruption()
    objects = LedgerObjects(path, bucket, interruption)
    objects.start()
    for n in range(first, first + lines):
        ledger.append("reported", n=n)
        objects.notify()
    assert objects.close(30) is None and interruption.problem is None
    return ledger


def test_an_empty_home_gets_the_same_lines(bucket: Bucket, tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", bucket, 20)
    assert bring_ledger(bucket, tmp_path / "b" / "ledger.jsonl", "now") is None
    assert (tmp_path / "b" / "ledger.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    assert [e["n"] for e in read(tmp_path / "b" / "ledger.jsonl")] == list(range(20))


def test_the_next_driver_gathers_what_there_is_into_one_object(bucket: Bucket, tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", bucket, 5).close()
    written(tmp_path / "a.jsonl", bucket, 5, first=5).close()
    before = len(bucket.keys("ledger/"))
    written(tmp_path / "a.jsonl", bucket, 0)
    assert before > 1 and bucket.keys("ledger/") == ["ledger/000000000.jsonl"]
    assert read_objects(bucket) == (tmp_path / "a.jsonl").read_bytes()


def test_many_objects_are_gathered_while_the_sweep_runs(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_objects, "MANY", 3)
    ledger = Ledger(tmp_path / "a.jsonl")
    objects = LedgerObjects(tmp_path / "a.jsonl", bucket, Interruption())
    monkeypatch.setattr(objects._thread, "start", lambda: None)  # this test pushes itself: one object a line
    objects.start()
    for n in range(10):
        ledger.append("reported", n=n)
        objects._push()
    assert len(bucket.keys("ledger/")) <= 3 and read_objects(bucket) == (tmp_path / "a.jsonl").read_bytes()


def test_a_torn_line_is_not_sent(bucket: Bucket, tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", bucket, 3).close()
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(b'{"event":"rep')
    objects = LedgerObjects(tmp_path / "a.jsonl", bucket, Interruption())
    objects.start()
    objects.notify()
    assert objects.close(10) is None
    assert (read_objects(bucket) or b"").count(b"\n") == 3 and (read_objects(bucket) or b"").endswith(b"\n")


def test_of_two_drivers_one_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    """Both begin with the same three lines; what the second writes at the place of the first's is not taken."""
    written(tmp_path / "a.jsonl", bucket, 3)
    bring_ledger(bucket, tmp_path / "b.jsonl", "now")
    interruption = Interruption()
    second = LedgerObjects(tmp_path / "b.jsonl", bucket, interruption)
    second.start()
    written(tmp_path / "a.jsonl", bucket, 1, first=3)
    Ledger(tmp_path / "b.jsonl").append("reported", n=-1)
    second.notify()
    deadline = time.monotonic() + 20
    while not interruption.broken and time.monotonic() < deadline:
        time.sleep(0.02)
    told = "another driver has written to this sweep's ledger; nothing more is written here"
    assert interruption.problem == told and second.close(5) is not None
    assert [e.get("n") for e in read(tmp_path / "a.jsonl")] == [0, 1, 2, 3]
    assert read_objects(bucket) == (tmp_path / "a.jsonl").read_bytes()


def test_a_driver_that_is_behind_may_not_begin(bucket: Bucket, tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", bucket, 3)
    Ledger(tmp_path / "b.jsonl").append("sweep_started", n=0)
    with pytest.raises(SweepBusy, match="another driver went on"):
        LedgerObjects(tmp_path / "b.jsonl", bucket, Interruption()).start()


def test_an_answer_that_was_lost_is_no_other_driver(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Bucket.write

    def write(self: Bucket, key: str, data: bytes, *, new: bool = False, version: str | None = None) -> str:
        real(self, key, data, new=new, version=version)
        if new:
            raise Taken("retried by the client, and refused the second time")
        return ""

    monkeypatch.setattr(Bucket, "write", write)
    written(tmp_path / "a.jsonl", bucket, 4)
    assert read_objects(bucket) == (tmp_path / "a.jsonl").read_bytes()


def test_an_object_of_a_driver_that_had_lost_the_sweep_is_passed_over(bucket: Bucket, tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", bucket, 6).close()
    written(tmp_path / "a.jsonl", bucket, 0).close()  # gathered: the numbers 1 to 5 are free again
    Ledger(tmp_path / "stale.jsonl").append("reported", n=-1)
    bucket.write("ledger/000000004.jsonl", (tmp_path / "stale.jsonl").read_bytes() * 5)
    assert read_objects(bucket) == (tmp_path / "a.jsonl").read_bytes()


def test_a_missing_object_is_said(bucket: Bucket, tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", bucket, 3).close()
    written(tmp_path / "a.jsonl", bucket, 3, first=3).close()
    bucket.delete(["ledger/000000000.jsonl"])
    with pytest.raises(LedgerError, match="what comes before ledger/"):
        read_objects(bucket)


def test_a_home_that_is_ahead_stays_as_it_is(bucket: Bucket, tmp_path: Path) -> None:
    ledger = written(tmp_path / "a.jsonl", bucket, 3)
    ledger.append("reported", n=3)
    before = (tmp_path / "a.jsonl").read_bytes()
    assert bring_ledger(bucket, tmp_path / "a.jsonl", "now") is None
    assert (tmp_path / "a.jsonl").read_bytes() == before


def test_lines_that_only_this_home_has_are_kept_aside(bucket: Bucket, tmp_path: Path) -> None:
    """The machine died with lines that had not left it; the sweep went on elsewhere; the machine came back."""
    old = written(tmp_path / "a.jsonl", bucket, 3)
    bring_ledger(bucket, tmp_path / "b.jsonl", "now")
    written(tmp_path / "b.jsonl", bucket, 2, first=10)
    old.append("reported", n=3)
    kept = (tmp_path / "a.jsonl").read_bytes()
    said = bring_ledger(bucket, tmp_path / "a.jsonl", "20261124")
    assert said is not None and "went on elsewhere" in said and "a.jsonl.20261124.aside" in said
    assert (tmp_path / "a.jsonl.20261124.aside").read_bytes() == kept
    assert [e["n"] for e in read(tmp_path / "a.jsonl")] == [0, 1, 2, 10, 11]
