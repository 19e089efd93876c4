"""Objects on real endpoints, S3 and Azure: conditions, listings, and errors in one line."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.azure_server import AzureServer
from tests.ray_nodes import free_port
from tests.s3_server import BUCKET, S3Server
from trainables.rsst.config import ConfigError
from trainables.storage import bucket as buckets
from trainables.storage import clouds
from trainables.storage.bucket import FORKED, Bucket, Found, Missing, StorageError, Taken


@pytest.fixture
def bucket(cloud: S3Server | AzureServer) -> Bucket:
    cloud.empty()
    return Bucket(f"{cloud.address}/group/one")


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
    assert found is not None and (found.data, found.version) == (b"second", new)


def test_an_object_is_as_old_as_the_storages_clock_says(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.write("lock", b"")
    found, real = bucket.find("lock"), time.time
    assert found is not None and 0 <= bucket.age_s(found) < 30
    monkeypatch.setattr(time, "time", lambda: real() - 7200)
    slow = Bucket(bucket.address)
    assert 0 <= slow.age_s(found) < 30, "whatever this machine's clock says"
    assert bucket.keys() == ["lock"], "asking leaves nothing there"


def test_who_may_only_read_takes_this_machines_clock(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.write("lock", b"")
    found = bucket.find("lock")

    def refuse(*_: object, **__: object) -> str:
        raise StorageError("AccessDenied")

    monkeypatch.setattr(Bucket, "write", refuse)
    assert isinstance(found, Found) and 0 <= Bucket(bucket.address).age_s(found) < 30


def test_keys_and_folders_are_those_below_the_address(bucket: Bucket) -> None:
    for key in ("x/1", "x/2", "y/3", "z"):
        bucket.write(key, b"")
    Bucket(f"{bucket.address}-more").write("x/4", b"")
    assert bucket.keys() == ["x/1", "x/2", "y/3", "z"] and bucket.keys("x/") == ["x/1", "x/2"]
    assert bucket.folders() == ["x", "y"] and bucket.below("x").keys() == ["1", "2"]


def test_a_listing_has_no_limit(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "AT_ONCE", 3)
    for n in range(10):  # moto's pages have 7
        bucket.write(f"many/{n:04d}", b"")
    assert len(bucket.keys("many/")) == 10
    bucket.delete(["many/none", *bucket.keys("many/"), "many/0001"])
    assert bucket.keys() == [], "what is gone already is no error"


def test_files_go_there_and_back(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 40_000)  # over the size from which it is sent in parts
    bucket.upload(tmp_path / "a", "big")
    bucket.download("big", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_that_is_gone_and_an_object_that_is_gone_are_told_apart(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bucket.upload(tmp_path / "none", "x")
    with pytest.raises(Missing, match=r"^storage = \w\w://research/group/one: \w+: "):
        bucket.download("x", tmp_path / "x")
    (tmp_path / "a").write_bytes(b"text")
    nowhere = Bucket(bucket.address.replace("research", "nowhere"))
    for ask in (lambda: nowhere.upload(tmp_path / "a", "x"), lambda: nowhere.read("x"), nowhere.keys):
        with pytest.raises(StorageError, match=r"NoSuchBucket|ContainerNotFound") as error:
            ask()
        assert not isinstance(error.value, Missing)


def test_an_object_for_a_folder_is_none_of_ours(s3: S3Server) -> None:
    s3.empty()
    for key in ("x/one/", "x/one/a", "x/two/b/", "x/two/b/c"):
        s3.put(key, b"")
    assert Bucket(f"{s3.address}/x").keys() == ["one/a", "two/b/c"]


@pytest.mark.parametrize("key", ["../up", "a/../../up", "a//b", "./a"])
def test_a_key_that_leads_elsewhere_spoils_the_listing_and_is_named(s3: S3Server, key: str) -> None:
    s3.empty()
    s3.put(f"x/{key}", b"theirs")
    with pytest.raises(StorageError, match=f"^storage = s3://research/x: refused: {re.escape(key)}$"):
        Bucket("s3://research/x").keys()


def test_check_leaves_nothing(bucket: Bucket) -> None:
    bucket.check()
    assert bucket.keys() == []


def test_a_bucket_that_is_not_there_is_one_line(s3: S3Server) -> None:
    with pytest.raises(StorageError, match=r"^storage = s3://nobody/x: .*NoSuchBucket") as error:
        Bucket("s3://nobody/x").check()
    assert "\n" not in str(error.value)


GOOGLES = (
    '{"gcs_base_url": "ENDPOINT", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}'
)


@pytest.mark.parametrize(
    ("address", "variables"),
    [
        ("s3://anywhere", {"AWS_ENDPOINT_URL": "ENDPOINT", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}),
        ("gs://anywhere", {"GOOGLE_SERVICE_ACCOUNT_KEY": GOOGLES}),
        (
            "az://anywhere",
            {
                "AZURE_STORAGE_ENDPOINT": "ENDPOINT",
                "AZURE_STORAGE_ACCOUNT_NAME": "a",
                "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0",
            },
        ),
    ],
)
def test_an_endpoint_that_is_not_there_is_one_line(
    address: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("ENDPOINT", endpoint))
    with pytest.raises(StorageError) as error:
        Bucket(f"{address}/x").read("x")
    assert str(error.value) == f"storage = {address}/x: can't connect to {endpoint}: Connection refused"


@pytest.mark.parametrize(
    "address",
    [
        *["", "s3:/x", "s3://", "s3://Upper", "s3://b?x=1", "/a/folder", "s3://u:p@b/x", "gs://b", "gs://u:p@bb/x"],
        *["az://a_b", "az://account.blob.core.windows.net/x", "abfs://container/x", "http://minio/bucket"],
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"s3://BUCKET or s3://BUCKET/PREFIX, gs://BUCKET.*, az://CONTAINER"):
        Bucket(address)


def test_keys_come_from_a_profile_where_the_environment_has_none(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.empty()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    (tmp_path / "keys").write_text("[lab]\naws_access_key_id = AKIALAB\naws_secret_access_key = x\n")
    (tmp_path / "config").write_text("[profile lab]\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    Bucket(f"s3://{BUCKET}/x").check()
    monkeypatch.setenv("AWS_PROFILE", "another")
    with pytest.raises(ConfigError, match=r"^storage = s3://research/x: valid is an address whose keys.*another"):
        Bucket(f"s3://{BUCKET}/x").check()


def test_ctrl_c_does_not_wait_for_a_storage_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    began, silent = time.monotonic(), threading.Event()
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        clouds.interruptibly(lambda: silent.wait(20))
    silent.set()
    assert time.monotonic() - began < 15


def test_a_fork_of_a_process_that_has_used_a_bucket_says_so_and_does_not_hang(s3: S3Server) -> None:
    """Found by `make chaos --seed 72`: obstore's threads stay behind, and its questions wait for ever."""
    s3.empty()
    bucket = Bucket(f"s3://{BUCKET}/x")
    assert bucket.keys() == []
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()

    def ask() -> None:
        try:
            said.put(str(bucket.keys()))
        except StorageError as error:
            said.put(str(error))

    child = context.Process(target=ask)
    child.start()
    child.join(20)
    hangs = child.is_alive()
    child.kill()
    assert not hangs and said.get() == f"storage = s3://{BUCKET}/x: {FORKED}"
    assert bucket.keys() == []
