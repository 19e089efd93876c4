"""Objects on a real S3 endpoint: conditions, listings, and errors in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ray_nodes import free_port
from tests.s3_server import BUCKET, S3Server
from trainables.rsst.config import ConfigError
from trainables.storage import bucket as buckets
from trainables.storage.bucket import Bucket, StorageError, Taken


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    s3.empty()
    return Bucket(f"s3://{BUCKET}/group/one")


def test_what_is_written_is_read_and_nothing_else(bucket: Bucket) -> None:
    bucket.write("a/b", b"text")
    assert bucket.read("a/b") == b"text" and bucket.read("a") is None and bucket.read("a/c") is None


def test_a_new_object_is_written_once(bucket: Bucket) -> None:
    bucket.write("lock", b"first", new=True)
    with pytest.raises(Taken, match="another process has written there"):
        bucket.write("lock", b"second", new=True)
    assert bucket.read("lock") == b"first"


def test_a_version_is_replaced_only_where_it_still_is(bucket: Bucket) -> None:
    old = bucket.write("lock", b"first")
    new = bucket.write("lock", b"second", version=old)
    with pytest.raises(Taken):
        bucket.write("lock", b"third", version=old)
    found = bucket.find("lock")
    assert found is not None and (found.data, found.version) == (b"second", new) and 0 <= found.age_s < 30


def test_keys_and_folders_are_those_below_the_address(bucket: Bucket) -> None:
    for key in ("x/1", "x/2", "y/3", "z"):
        bucket.write(key, b"")
    Bucket(f"s3://{BUCKET}/group/one-more").write("x/4", b"")
    assert bucket.keys() == ["x/1", "x/2", "y/3", "z"] and bucket.keys("x/") == ["x/1", "x/2"]
    assert bucket.folders() == ["x", "y"] and bucket.below("x").keys() == ["1", "2"]


def test_a_listing_has_no_limit(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "AT_ONCE", 3)
    for n in range(10):
        bucket.write(f"many/{n:04d}", b"")
    assert len(bucket.keys("many/")) == 10
    bucket.delete(bucket.keys("many/"))
    assert bucket.keys() == []


def test_files_go_there_and_back(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 40_000)  # over the size from which it is sent in parts
    bucket.upload(tmp_path / "a", "big")
    bucket.download("big", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_check_leaves_nothing(bucket: Bucket) -> None:
    bucket.check()
    assert bucket.keys() == []


def test_a_bucket_that_is_not_there_is_one_line(s3: S3Server) -> None:
    with pytest.raises(StorageError, match=r"^storage = s3://nobody/x: .*NoSuchBucket") as error:
        Bucket("s3://nobody/x").check()
    assert "\n" not in str(error.value)


def test_an_endpoint_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StorageError, match=r"^storage = s3://anywhere: .*connect"):
        Bucket("s3://anywhere").read("x")


@pytest.mark.parametrize(
    "address", ["", "s3:/x", "s3://", "gs://bucket", "s3://Upper", "s3://b?x=1", "/a/folder", "s3://u:p@b/x"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="s3://BUCKET or s3://BUCKET/PREFIX"):
        Bucket(address)
