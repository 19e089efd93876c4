"""Three kinds of object storage behind one address: s3://, gs:// and az://, each reached by obstore.

In: an address; the environment, which holds endpoints, regions and keys as the tools of that cloud find them.
Out: a store of obstore's; what went wrong, in one line.
"""

from __future__ import annotations

import os
import queue
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from trainables.errors import ConfigError, install
from trainables.storage.secrets import hide_password

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")
ADDRESSES = {
    "s3": re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/[^?#\s]*)?"),
    "gs": re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(/[^?#\s]*)?"),
    "az": re.compile(r"az://([a-z0-9](?:-?[a-z0-9]){2,62})(/[^?#\s]*)?"),
}
VALID = "s3://BUCKET or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX"
ENVIRONMENT = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
"""How the variables begin that a process needs to reach the storage."""
KEYS = {
    "s3": "the endpoint and the credentials are AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID …",
    "gs": "the credentials are GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT_KEY …",
    "az": "the account and its key are AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY …",
}
CONNECT_S, ANSWER_S, WHOLE_S, TRIES = 5, 60, 3600, 3
NO_PLACE = re.compile(r"NoSuchBucket|ContainerNotFound|The specified bucket does not exist")
MACHINES_ROLE = ("169.254.169.254", "metadata.google.internal")  # asked where the environment has no key
PROFILES = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}


class Place(NamedTuple):
    """What an address names: s3, gs or az; a bucket (a container of Azure's); the beginning of the keys in it."""

    kind: str
    bucket: str
    prefix: str


def place_of(address: str) -> Place:
    """What `address` names."""
    kind = address.partition("://")[0]
    match = ADDRESSES[kind].fullmatch(address) if kind in ADDRESSES else None
    if not match:
        raise ConfigError("storage", address, VALID)
    return Place(kind, match[1], (match[2] or "").strip("/"))


def opened(address: str) -> ObjectStore:
    """The store of `address`, whose keys are relative to it. Connects to nothing yet."""
    place = place_of(address)
    try:
        from obstore.store import AzureStore, GCSStore, S3Store
    except ImportError:
        valid = "an address for which obstore is installed"
        raise ConfigError("storage", address, valid, install("obstore")) from None
    how: dict[str, Any] = {
        "prefix": place.prefix or None,
        "client_options": {
            "allow_http": True,  # where the user's endpoint has it: MinIO beside the program
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "read_timeout": timedelta(seconds=ANSWER_S),
            "timeout": timedelta(seconds=WHOLE_S),
        },
        "retry_config": {"max_retries": TRIES - 1, "retry_timeout": timedelta(seconds=TRIES * ANSWER_S)},
    }
    if place.kind == "gs":
        return GCSStore(place.bucket, **how)
    if place.kind == "az":
        return AzureStore(place.bucket, **how)
    return S3Store(place.bucket, **how, **_profile(address))


def _profile(address: str) -> dict[str, Any]:
    """What AWS's own library finds in ~/.aws, where the environment has no keys and such files are there."""
    named = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    files = [Path(os.environ.get(name) or default).expanduser() for name, default in PROFILES.items()]
    if "AWS_ACCESS_KEY_ID" in os.environ or not (named or any(file.is_file() for file in files)):
        return {}
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
    except ImportError:
        valid = "an address whose keys are in the environment, or one for which boto3 is installed: it reads ~/.aws"
        raise ConfigError("storage", address, valid, install("boto3")) from None
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        session = boto3.session.Session()
        if session.get_credentials() is not None:
            return {"credential_provider": Boto3CredentialProvider(session)}
        return {"region": session.region_name} if session.region_name else {}
    except BotoCoreError as error:
        raise ConfigError("storage", address, "an address whose keys can be found", str(error)) from None


def interruptibly(what: Callable[[], T]) -> T:
    """`what()`, which may wait for a minute in compiled code that hears no signal: Ctrl-C ends the waiting at once."""
    if threading.current_thread() is not threading.main_thread():
        return what()
    answer: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put((True, what()))
        except BaseException as error:  # noqa: BLE001  (it is raised where it was asked)
            answer.put((False, error))

    threading.Thread(target=ask, name="storage", daemon=True).start()
    fine, found = answer.get()
    if not fine:
        raise found
    result: T = found
    return result


def in_one_line(error: Exception) -> str:
    """What an error of obstore's says: a code and a message of the storage's, or why there was no answer.

    Its own text is a page of internals, with addresses in it that may hold signatures.
    """
    text, _, inside = str(error).partition("\n\nDebug source:")
    host = re.search(r"https?://[^/\s?]+", text)
    if host and any(where in host[0] for where in MACHINES_ROLE):
        return "no credentials: neither in the environment, nor does this machine have a role"
    if code := re.search(r"<Code>([^<]+)</Code>\s*<Message>([^<\n]*)", text):
        return f"{code[1]}: {code[2]}"
    if "kind: Timeout" in inside:
        return f"{host[0] if host else 'it'} did not answer within {ANSWER_S} s"
    if host and "kind: Connect" in inside:
        whys = re.findall(r'message: "([^"]+)"|"([^"]*lookup[^"]*)"', inside)
        return f"can't connect to {host[0]}{': ' if whys else ''}{''.join(whys[-1]) if whys else ''}"
    if message := re.search(r'"message":\s*"([^"]+)"', text):
        return message[1]
    text = re.sub(r"Error performing \w+ \S+ in .*? - ", "", " ".join(text.split()))
    if "incorrectly configured region" in text:
        return "it lies in another region: set AWS_REGION"
    return hide_password(re.sub(r"\?\S+", "", text))
