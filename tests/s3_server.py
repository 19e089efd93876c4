"""An S3 endpoint on this machine (moto's server) in a process of its own, which can be killed and started again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.ray_nodes import free_port

BUCKET = "research"
PROGRAM = """
import sys
from werkzeug.serving import make_server
from moto.server import DomainDispatcherApplication, create_backend_app
app = DomainDispatcherApplication(create_backend_app)
make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True).serve_forever()
"""


class S3Server:
    """Holds its objects in memory. `environment` is what a program needs to reach it."""

    address = f"s3://{BUCKET}"

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": "7"},  # so that a listing of ten has two pages
        )
        self._wait()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret-key",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def make_bucket(self) -> None:
        import boto3

        boto3.client("s3").create_bucket(Bucket=BUCKET)

    def put(self, key: str, data: bytes) -> None:
        """An object as others may write it, under a key that we never would."""
        import boto3

        boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=data)

    def empty(self) -> None:
        request = urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")
        urllib.request.urlopen(request, timeout=10).read()
        self.make_bucket()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/", timeout=2).read()
                return
            except OSError:
                assert self._process.poll() is None, "moto's server did not start"
                time.sleep(0.1)
        raise AssertionError("moto's server did not answer within 60 s")


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server with the bucket, and this process's environment set to reach it."""
    server = S3Server()
    before = {name: os.environ.get(name) for name in server.environment}
    os.environ.update(server.environment)
    try:
        server.make_bucket()
        yield server
    finally:
        server.stop()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
