"""What lies between a sweep and one of its services: connections that can be cut, or made slow, for a while.

In: the service's port on this machine. Out: another port, behind which everything goes to it and comes back.
"""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from contextlib import suppress

BLOCK = 1 << 16


class Wire:
    """Forwards connections to `port`; `port` of the wire itself is what programs are given."""

    def __init__(self, port: int) -> None:
        self._to, self._cut, self._slow_s = port, False, 0.0
        self._sockets: set[socket.socket] = set()
        wire = self

        class Connection(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                wire._connected(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads, allow_reuse_address, request_queue_size = True, True, 64

        self._server = Server(("127.0.0.1", 0), Connection)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def cut(self, for_s: float) -> None:
        """End every connection, in the middle of what it carries, and take no new one."""
        self._cut = True
        for one in list(self._sockets):
            _end(one)
        time.sleep(for_s)
        self._cut = False

    def slow(self, each_s: float, for_s: float) -> None:
        """Hold back each block by `each_s` seconds, in both directions."""
        self._slow_s = each_s
        time.sleep(for_s)
        self._slow_s = 0.0

    def close(self) -> None:
        """Forward nothing more."""
        self._server.shutdown()
        self._server.server_close()
        for one in list(self._sockets):
            _end(one)

    def _connected(self, here: socket.socket) -> None:
        if self._cut:
            return
        try:
            there = socket.create_connection(("127.0.0.1", self._to), 5)
        except OSError:
            return  # the service is away: its client sees a connection that ends
        there.settimeout(None)
        both = {here, there}
        self._sockets |= both
        back = threading.Thread(target=self._carry, args=(there, here), daemon=True)
        back.start()
        self._carry(here, there)
        back.join()
        self._sockets -= both
        there.close()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(BLOCK):
                if self._slow_s:
                    time.sleep(self._slow_s)
                target.sendall(block)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
