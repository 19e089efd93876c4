"""What the injector does to connections and to disks: it is done, for a while, and then it is as before."""

from __future__ import annotations

import errno
import os
import random
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.chaos.lives import faults
from tests.chaos.lives.subject import Subject
from tests.chaos.lives.wire import Wire


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while block := self.request.recv(1 << 16):
            self.request.sendall(block)


@pytest.fixture
def wire() -> Iterator[Wire]:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    wire = Wire(server.server_address[1])
    yield wire
    wire.close()
    server.shutdown()
    server.server_close()


def _said(connection: socket.socket, words: bytes) -> bytes:
    """What comes back of `words`, or less where the connection ends."""
    found = b""
    with suppress(OSError):
        connection.sendall(words)
        while len(found) < len(words) and (block := connection.recv(1 << 16)):
            found += block
    return found


def test_a_wire_carries_everything_and_can_be_cut_and_slow(wire: Wire) -> None:
    words = os.urandom(1 << 20)
    with socket.create_connection(("127.0.0.1", wire.port), 5) as open_one:
        assert _said(open_one, words[:100]) == words[:100]
        cutting = threading.Thread(target=wire.cut, args=(0.3,))
        cutting.start()
        time.sleep(0.1)
        assert _said(open_one, b"again") == b""
        with socket.create_connection(("127.0.0.1", wire.port), 5) as refused:
            assert _said(refused, b"new") == b""
        cutting.join()
    with socket.create_connection(("127.0.0.1", wire.port), 5) as later:
        writing = threading.Thread(target=later.sendall, args=(words,))
        writing.start()
        found = b""
        while len(found) < len(words):
            found += later.recv(1 << 16)
        writing.join()
        assert found == words
        slow = threading.Thread(target=wire.slow, args=(0.1, 0.5))
        slow.start()
        time.sleep(0.1)
        began = time.monotonic()
        assert _said(later, b"slowly") == b"slowly"
        assert time.monotonic() - began >= 0.2  # there and back
        slow.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")
@pytest.mark.parametrize(
    ("act", "refused"),
    [(faults._take_inodes, errno.ENOSPC), (faults._make_read_only, errno.EROFS), (faults._fill_disk, errno.ENOSPC)],
)
def test_a_disk_refuses_for_a_while_and_takes_again(
    act: faults.Act, refused: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "FULL_S", (0.4, 0.4))
    with Subject.of_mode("disk", tmp_path / "place", 1) as subject:
        assert subject.disk is not None
        (subject.disk / "there").write_bytes(b"1")
        acting = threading.Thread(target=act, args=(random.Random(1), subject))
        acting.start()
        codes, n = set[int | None](), 0
        while acting.is_alive():
            n += 1
            try:
                (subject.disk / f"new{n}").write_bytes(bytes(1 << 16))
                (subject.disk / f"new{n}").unlink()
            except OSError as error:
                codes.add(error.errno)
                with suppress(OSError):
                    (subject.disk / f"new{n}").unlink()
            time.sleep(0.01)
        acting.join()
        assert codes == {refused}
        (subject.disk / "after").write_bytes(bytes(1 << 16))
        assert (subject.disk / "there").read_bytes() == b"1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")
def test_a_disk_that_is_written_to_does_not_become_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "MOUNT_S", 0.1)
    with Subject.of_mode("disk", tmp_path / "place", 1) as subject:
        assert subject.disk is not None
        with (subject.disk / "written").open("wb"):
            assert faults._make_read_only(random.Random(1), subject) is None
        (subject.disk / "after").write_bytes(b"1")
        assert sorted(path.name for path in subject.disk.iterdir()) == ["after", "written"]
