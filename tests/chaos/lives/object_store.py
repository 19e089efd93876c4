"""An S3 endpoint on this machine that keeps its objects in files, so that what it has taken is there after kill -9.

    python -m tests.chaos.lives.object_store FOLDER PORT

In: a folder, a port of the loopback address. Out: what obstore asks of S3: put (also conditional, and in parts), get,
list, delete; any bucket, any signature. Moto's server (tests/s3_server.py) keeps objects in memory.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
import uuid
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

LOCK = threading.Lock()
KEYS = re.compile(r"<Key>(.*?)</Key>", re.DOTALL)
PARTS = re.compile(r"<PartNumber>(\d+)</PartNumber>")
AT_ONCE = 1000


class Answer(NamedTuple):
    """Status, headers, body."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


class Objects:
    """Objects as files in one folder, a part of an upload as a file beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Of an object `bucket/key`."""
        return self.folder / quote(name, safe="")

    def put(self, name: str, data: bytes, new: bool = False, version: str | None = None) -> str | None:
        """The new object's version; None where a condition is not met."""
        with LOCK:
            there = self.version(name)
            if (new and there is not None) or (version is not None and there != version):
                return None
            draft = self.folder / f".{uuid.uuid4().hex}"
            draft.write_bytes(data)
            os.replace(draft, self.path(name))
        return _version(data)

    def version(self, name: str) -> str | None:
        """Of the object that is there."""
        path = self.path(name)
        return _version(path.read_bytes()) if path.exists() else None

    def names(self, prefix: str) -> list[str]:
        """Of the objects whose name begins so, in order."""
        found = (unquote(one) for one in os.listdir(self.folder) if not one.startswith("."))
        return sorted(name for name in found if name.startswith(prefix))


def _version(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    objects: Objects

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.name = unquote(url.path).lstrip("/")
        self.query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        self.data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = {"GET": self._get, "HEAD": self._get, "PUT": self._put, "POST": self._post, "DELETE": self._delete}[
            self.command
        ]()
        self.send_response(answer.status)
        for key, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def log_message(self, *words: object) -> None:
        """Nothing is logged."""

    def _get(self) -> Answer:
        if "list-type" in self.query:
            return self._list()
        path = self.objects.path(self.name)
        with LOCK:
            if not self.name or not path.exists():
                return _xml(404, "<Error><Code>NoSuchKey</Code></Error>")
            data, when = path.read_bytes(), path.stat().st_mtime
        about = {"ETag": _version(data), "Last-Modified": formatdate(when, usegmt=True)}
        if (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))) is not None:
            first, last = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
            about["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            return Answer(206, about, data[first : last + 1])
        return Answer(200, {**about, "Content-Length": str(len(data))}, data)

    def _list(self) -> Answer:
        bucket, delimiter = self.name.split("/")[0], self.query.get("delimiter", "")
        prefix = f"{bucket}/{self.query.get('prefix', '')}"
        found, folders = [], set[str]()
        for name in self.objects.names(prefix):
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(f"{prefix}{rest.split(delimiter)[0]}{delimiter}")
            elif name > self.query.get("continuation-token", ""):
                found.append(name)
        more, text = found[AT_ONCE:], ""
        for name in found[:AT_ONCE]:
            data, when = self.objects.path(name).read_bytes(), self.objects.path(name).stat().st_mtime
            text += f"<Contents><Key>{escape(name.partition('/')[2])}</Key><LastModified>{_iso(when)}</LastModified>"
            text += f"<ETag>{escape(_version(data))}</ETag><Size>{len(data)}</Size></Contents>"
        parts = "".join(
            f"<CommonPrefixes><Prefix>{escape(one.partition('/')[2])}</Prefix></CommonPrefixes>"
            for one in sorted(folders)
        )
        text += parts + f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>"
        if more:
            text += f"<NextContinuationToken>{escape(found[AT_ONCE - 1])}</NextContinuationToken>"
        return _xml(200, f"<ListBucketResult>{text}</ListBucketResult>")

    def _put(self) -> Answer:
        if "partNumber" in self.query:
            part = self.objects.folder / f".{self.query['uploadId']}-{int(self.query['partNumber']):06}"
            part.write_bytes(self.data)
            return Answer(200, {"ETag": _version(self.data)})
        new, version = self.headers.get("If-None-Match") == "*", self.headers.get("If-Match")
        if (written := self.objects.put(self.name, self.data, new, version)) is None:
            return _xml(412, "<Error><Code>PreconditionFailed</Code></Error>")
        return Answer(200, {"ETag": written})

    def _post(self) -> Answer:
        if "delete" in self.query:
            bucket, keys = self.name.split("/")[0], KEYS.findall(self.data.decode())
            for key in keys:
                self.objects.path(f"{bucket}/{unquote(key)}").unlink(missing_ok=True)
            gone = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
            return _xml(200, f"<DeleteResult>{gone}</DeleteResult>")
        if "uploads" in self.query:
            begun = f"<UploadId>{uuid.uuid4().hex}</UploadId>"
            return _xml(200, f"<InitiateMultipartUploadResult>{begun}</InitiateMultipartUploadResult>")
        parts = [
            self.objects.folder / f".{self.query['uploadId']}-{int(number):06}"
            for number in PARTS.findall(self.data.decode())
        ]
        written = self.objects.put(self.name, b"".join(part.read_bytes() for part in parts))
        for part in parts:
            part.unlink(missing_ok=True)
        return _xml(200, f"<CompleteMultipartUploadResult><ETag>{written}</ETag></CompleteMultipartUploadResult>")

    def _delete(self) -> Answer:
        if "uploadId" not in self.query:
            self.objects.path(self.name).unlink(missing_ok=True)
        return Answer(204, {})


def _iso(when: float) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(when, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _xml(status: int, text: str) -> Answer:
    return Answer(status, {"Content-Type": "application/xml"}, f'<?xml version="1.0"?>{text}'.encode())


if __name__ == "__main__":
    Handler.objects = Objects(Path(sys.argv[1]))
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
