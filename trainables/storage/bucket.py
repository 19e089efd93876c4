"""Objects below one s3:// address, on S3 or anything that speaks its language; what goes wrong is one line.

In: `s3://bucket/prefix`. The endpoint, the region and the credentials are found as every tool of AWS finds them
    (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, a profile, the machine's role), so none of them is ever in a
    setting.
Out: bytes, files.
An object is complete or absent; a rename does not exist, so a set of objects is committed by a last one, and who may
write is decided by conditional writes (If-None-Match, If-Match).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from trainables.errors import install
from trainables.rsst.config import ConfigError

ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/[^?#\s]*)?")
CONNECT_S, ANSWER_S, TRIES = 5, 60, 3
FILES = "files"  # of a sweep, below its address: what is neither its ledger nor a trial
AT_ONCE = 1000  # keys in one listing or one removal, at most
T = TypeVar("T")


class StorageError(RuntimeError):
    """The storage can't be reached, or refuses. One line."""


class Taken(StorageError):
    """A conditional write came too late: somebody else has written there."""


@dataclass(frozen=True)
class Found:
    """An object: its bytes, its version, and its age in seconds by the storage's own clock."""

    data: bytes
    version: str
    age_s: float


class Bucket:
    """Objects of one bucket below one prefix; keys are relative to it. Holds no connection until it is used."""

    def __init__(self, address: str) -> None:
        """"""
        match = ADDRESS.fullmatch(address)
        if not match:
            raise ConfigError("storage", address, "s3://BUCKET or s3://BUCKET/PREFIX")
        self.address = address.rstrip("/")
        self._name, self._prefix = match[1], (match[2] or "").strip("/")

    def below(self, name: str) -> Bucket:
        """The part whose keys begin with `name`/."""
        return Bucket(f"{self.address}/{name}")

    @cached_property
    def _client(self) -> Any:
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise ConfigError(
                "storage", self.address, "an address for which boto3 is installed", install("boto3")
            ) from None
        retries = {"mode": "standard", "max_attempts": TRIES}
        return boto3.session.Session().client(
            "s3", config=Config(connect_timeout=CONNECT_S, read_timeout=ANSWER_S, retries=retries)
        )

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _ask(self, what: Callable[[Any], T]) -> T:
        """`what(client)`; errors in the project's own words.

        Raises:
            Taken: a condition was not met. StorageError: anything else.
        """
        client = self._client
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return what(client)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
                raise Taken(f"storage = {self.address}: another process has written there") from None
            raise StorageError(f"storage = {self.address}: {' '.join(str(error).split())[:200]}") from error
        except (BotoCoreError, Boto3Error) as error:
            raise StorageError(f"storage = {self.address}: {' '.join(str(error).split())[:200]}") from error

    def _or_none(self, what: Callable[[Any], T]) -> T | None:
        try:
            return self._ask(what)
        except StorageError as error:
            code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
            if code in ("NoSuchKey", "404"):
                return None
            raise

    def find(self, key: str, most: int | None = None) -> Found | None:
        """The object, or None. One of more than `most` bytes is refused."""

        def get(client: Any) -> Found:
            answer = client.get_object(Bucket=self._name, Key=self._key(key))
            if most is not None and answer["ContentLength"] > most:
                raise StorageError(f"storage = {self.address}: {key} has {answer['ContentLength']:,} bytes")
            now = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
            age_s = (parsedate_to_datetime(now) - answer["LastModified"]).total_seconds() if now else 0.0
            return Found(answer["Body"].read(), answer["ETag"], age_s)

        return self._or_none(get)

    def read(self, key: str, most: int | None = None) -> bytes | None:
        """The object's bytes, or None; `most` as in `find`."""
        found = self.find(key, most)
        return found.data if found else None

    def write(self, key: str, data: bytes, *, new: bool = False, version: str | None = None) -> str:
        """Write an object; returns its version. `new`: only where there is none; `version`: only where that one is.

        Raises:
            Taken: the condition is not met.
        """
        only = ({"IfNoneMatch": "*"} if new else {}) | ({"IfMatch": version} if version else {})
        put = lambda client: client.put_object(Bucket=self._name, Key=self._key(key), Body=data, **only)  # noqa: E731
        return str(self._ask(put)["ETag"])

    def upload(self, path: Path, key: str) -> None:
        """A file, in parts where it is large."""
        self._ask(lambda client: client.upload_file(str(path), self._name, self._key(key)))

    def download(self, key: str, path: Path) -> None:
        """An object into a file."""
        self._ask(lambda client: client.download_file(self._name, self._key(key), str(path)))

    def keys(self, below: str = "") -> list[str]:
        """All keys that begin with `below`, in order."""
        start, cut = self._key(below), len(self._key(""))

        def pages(client: Any) -> list[str]:
            every = client.get_paginator("list_objects_v2")
            listing = every.paginate(Bucket=self._name, Prefix=start, PaginationConfig={"PageSize": AT_ONCE})
            return [item["Key"][cut:] for page in listing for item in page.get("Contents", ())]

        return sorted(self._ask(pages))

    def folders(self) -> list[str]:
        """Names right below the address that have something below them."""
        start = self._key("")

        def pages(client: Any) -> list[str]:
            listing = client.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=start, Delimiter="/")
            return [item["Prefix"][len(start) : -1] for page in listing for item in page.get("CommonPrefixes", ())]

        return sorted(self._ask(pages))

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no error."""
        doomed = [{"Key": self._key(key)} for key in keys]
        for i in range(0, len(doomed), AT_ONCE):
            some = {"Objects": doomed[i : i + AT_ONCE], "Quiet": True}
            self._ask(partial(_delete, self._name, some))

    def check(self) -> None:
        """Write, read and remove a small object.

        Raises:
            StorageError: one of them can't be done.
        """
        import uuid

        key = f".writable-{uuid.uuid4().hex}"
        self.write(key, b"tune-rsst")
        if self.read(key) != b"tune-rsst":
            raise StorageError(f"storage = {self.address}: what was written can't be read back")
        self.delete([key])


def _delete(bucket: str, objects: dict[str, Any], client: Any) -> None:
    client.delete_objects(Bucket=bucket, Delete=objects)
