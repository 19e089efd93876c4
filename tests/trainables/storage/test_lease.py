"""One driver a sweep, also where no lock reaches: refused, waited for, taken over, lost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.azure_server import AzureServer
from tests.s3_server import S3Server
from trainables.storage import lease as leases
from trainables.storage.bucket import Bucket, Found, StorageError
from trainables.storage.lease import LEASE_KEY, Lease, LeaseHeld, driven_elsewhere

SHORT_S = 2.0


@pytest.fixture
def bucket(cloud: S3Server | AzureServer) -> Bucket:
    cloud.empty()
    return Bucket(f"{cloud.address}/group/sweep")


def lease(bucket: Bucket, folder: str, taken_over: Callable[[str], None] = print) -> Lease:
    return Lease(bucket, Path(folder), taken_over, SHORT_S)


def test_a_second_driver_is_refused_with_the_first_ones_host(bucket: Bucket) -> None:
    first, said = lease(bucket, "/a/sweep"), []
    first.acquire(said.append)
    with pytest.raises(LeaseHeld, match=r"^a driver on .* \(process \d+\) is driving this sweep in \w\w://"):
        lease(bucket, "/b/sweep").acquire(said.append)
    first.release()
    assert len(said) == 1 and "drove this sweep" in said[0]
    assert bucket.keys() == []


def test_a_lease_that_was_given_back_is_free_at_once(bucket: Bucket) -> None:
    first = lease(bucket, "/a/sweep")
    first.acquire(print)
    first.release()
    second, said = lease(bucket, "/b/sweep"), []
    second.acquire(said.append)
    second.release()
    assert said == []


def killed(bucket: Bucket, folder: str) -> None:
    """Take it as a driver that is killed right then: nothing renews it."""
    dead = lease(bucket, folder)
    dead._take(print)


@pytest.mark.medium
def test_a_driver_that_was_killed_is_waited_for_and_replaced(bucket: Bucket) -> None:
    killed(bucket, "/a/sweep")
    second, said, began = lease(bucket, "/b/sweep"), [], time.monotonic()
    second.acquire(said.append)
    second.release()
    assert len(said) == 1 and "waiting up to" in said[0] and time.monotonic() - began > 0.5


def test_in_the_same_folder_of_the_same_machine_it_is_replaced_at_once(bucket: Bucket) -> None:
    """Whoever asks there holds the folder's lock, so the former driver is gone."""
    killed(bucket, "/a/sweep")
    second, said = lease(bucket, "/a/sweep"), []
    second.acquire(said.append)
    second.release()
    assert said == []


@pytest.mark.medium
def test_who_only_looks_knows_whether_somebody_drives_it(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path("/a/sweep")
    assert not driven_elsewhere(bucket, here)
    lease(bucket, "/a/sweep").acquire(print)
    assert not driven_elsewhere(bucket, here), "a driver in this folder would hold its lock: it was killed"
    bucket.delete([LEASE_KEY])
    elsewhere = lease(bucket, "/b/sweep")
    elsewhere.acquire(print)
    assert driven_elsewhere(bucket, here)
    monkeypatch.setattr(leases, "LEASE_S", 0.0)
    assert not driven_elsewhere(bucket, here), "it has run out"
    monkeypatch.undo()
    elsewhere.release()
    assert not driven_elsewhere(bucket, here)


def test_of_two_that_wait_one_gets_it(bucket: Bucket) -> None:
    killed(bucket, "/a/sweep")
    two, outcome = [lease(bucket, "/b/sweep"), lease(bucket, "/c/sweep")], []

    def take(one: Lease) -> None:
        try:
            one.acquire(lambda line: None)
            outcome.append("has it")
        except LeaseHeld:
            outcome.append("refused")

    threads = [threading.Thread(target=take, args=(one,)) for one in two]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for one in two:
        one.release()
    assert sorted(outcome) == ["has it", "refused"]


def test_whoever_loses_it_hears_so(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.2)
    told: list[str] = []
    first = lease(bucket, "/a/sweep", told.append)
    first.acquire(print)
    other = {"id": "abcd", "renewed": 1.0, "machine": "m", "host": "other", "folder": "/f", "pid": 7}
    bucket.write(LEASE_KEY, json.dumps(other).encode())
    deadline = time.monotonic() + 20
    while not told and time.monotonic() < deadline:
        time.sleep(0.05)
    assert told == ["a driver on other (process 7) has taken this sweep over"]
    first.release()
    assert bucket.read(LEASE_KEY) is not None, "it is the other's now"


def test_it_is_looked_at_again_where_the_storage_was_away_just_after_another_had_written(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.2)
    told: list[str] = []
    first = lease(bucket, "/a/sweep", told.append)
    first.acquire(print)
    away, real = [2], Bucket.find

    def find(self: Bucket, key: str) -> Found | None:
        if away[0] > 0:
            away[0] -= 1
            raise StorageError("storage = s3://research: gone")
        return real(self, key)

    monkeypatch.setattr(Bucket, "find", find)
    other = {"id": "abcd", "renewed": 1.0, "machine": "m", "host": "other", "folder": "/f", "pid": 7}
    bucket.write(LEASE_KEY, json.dumps(other).encode())
    deadline = time.monotonic() + 20
    while not told and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    assert told == ["a driver on other (process 7) has taken this sweep over"], "and said once"
    first.release()


def test_damaged_it_is_waited_for_like_any_other(bucket: Bucket) -> None:
    bucket.write(LEASE_KEY, b"\x00 not json")
    one, said = lease(bucket, "/a/sweep"), []
    one.acquire(said.append)
    one.release()
    assert "an unknown host" in said[0]
