"""The network side of the stand-in cc-backend: HTTP/1.1 with keep-alive, a thread for each connection."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Iterator
from http.client import responses
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from examples.practice.cc_backend.api import Request
from examples.practice.cc_backend.faults import Answer, Delivery
from examples.practice.cc_backend.state import CcBackend, LoggedRequest

STOP_SECONDS = 5.0
_POLL_SECONDS = 0.02
"""How soon the accepting thread notices that it should end."""


class _Connection(BaseHTTPRequestHandler):
    """One client, for as long as it keeps the connection."""

    server: _Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        # The client went away or the server stops: nobody is left to be told.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def _serve(self) -> None:
        body = self._read_body()
        if body is None:
            return
        began, came = time.perf_counter(), self.server.backend.clock.now()
        path, _, query = self.path.partition("?")
        request = Request(self.command, path, query, self._token(), body)
        answer, delivery = self._answer(request)
        status = answer.status if delivery is Delivery.WHOLE else None
        seconds = time.perf_counter() - began
        # Before the answer goes out, so that whoever has the answer finds it in the log.
        self.server.backend.record(LoggedRequest(came, self.command, path, request.job, status, seconds))
        self._deliver(answer, delivery)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 (http.server looks for these names)

    def _read_body(self) -> bytes | None:
        """The whole body; None if the client did not send all of it or in a way that is not served here."""
        if "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self.send_error(411)
            return None
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return None
        return body

    def _token(self) -> str:
        token: str = self.headers.get("X-AUTH-TOKEN") or self.headers.get("Authorization") or ""
        return token[len("Bearer ") :] if token.startswith("Bearer ") else token

    def _answer(self, request: Request) -> tuple[Answer, Delivery]:
        """The answer, and how much of it to send, as the faults will have it."""
        backend, answer, delivery = self.server.backend, None, Delivery.WHOLE
        for fault in backend.faults_for(request):
            if fault.waiting_time():
                backend.sit_out(fault, self.server.is_closing)
            answer = answer or fault.own_answer()
            if delivery is Delivery.WHOLE:
                delivery = fault.delivery
        if self.server.is_closing():
            return Answer(0), Delivery.LOST
        return answer or backend.answer(request), delivery

    def _deliver(self, answer: Answer, delivery: Delivery) -> None:
        head = self._head(answer)
        if delivery is Delivery.WHOLE:
            self.wfile.write(head + answer.body)
            return
        self.close_connection = True
        if delivery is Delivery.BARE:
            self.wfile.write(answer.body)
        elif delivery is Delivery.CUT:
            half = len(answer.body) // 2
            self.wfile.write(head + answer.body[:half] if half else head[: len(head) // 2])

    def _head(self, answer: Answer) -> bytes:
        lines = [f"HTTP/1.1 {answer.status} {responses.get(answer.status, 'Unknown')}"]
        if answer.content_type:
            lines.append(f"Content-Type: {answer.content_type}")
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        lines += [
            f"Date: {self.date_time_string(self.server.backend.clock.now())}",
            f"Content-Length: {len(answer.body)}",
        ]
        if self.close_connection:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep quiet: `CcBackend.log` has what happened."""


class _Listener(ThreadingTCPServer):
    """Accepts connections and knows them all, so that it can close them."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, backend: CcBackend, address: tuple[str, int]) -> None:
        self.backend = backend
        self._connections: set[socket.socket] = set()
        self._fewer = threading.Condition()
        self._closing = False
        # Bound, but not listening yet: the port is ours and connections are refused.
        super().__init__(address, _Connection, bind_and_activate=False)
        try:
            self.server_bind()
        except BaseException:
            self.server_close()
            raise

    def is_closing(self) -> bool:
        """Whether no request is to be answered any more."""
        return self._closing

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._fewer:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._fewer:
            self._connections.discard(request)
            self._fewer.notify_all()

    def close_connections(self) -> None:
        """Close them all and wait for their threads to see it."""
        self._closing = True
        self.backend.wake()
        with self._fewer:
            for connection in self._connections:
                # The client may have closed it already.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._fewer.wait_for(lambda: not self._connections, STOP_SECONDS)


class CcBackendServer:
    """Serves a stand-in on one port, from `start` to `stop`, as often as wanted.

    In between the port stays reserved and connections are refused: cc-backend is away. Port 0 chooses
    a free one. Raises OSError if the address cannot be had.
    """

    def __init__(self, backend: CcBackend, host: str = "127.0.0.1", port: int = 0) -> None:
        self._backend = backend
        self._reservation = _reserve(host, port)
        self._address: tuple[str, int] = self._reservation.getsockname()
        self._thread: threading.Thread | None = None
        self._listener = self._listen()

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._address[1]

    @property
    def url(self) -> str:
        """Where to send requests, without a slash at the end."""
        return f"http://{self._address[0]}:{self.port}"

    def start(self) -> None:
        """Accept connections from now on."""
        self._listener.server_activate()
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(_POLL_SECONDS,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the listener and every connection; requests under way are dropped. Can be started again."""
        self._end_listener()
        self._listener = self._listen()

    def close(self) -> None:
        """Stop for good and give the port back."""
        self._end_listener()
        self._reservation.close()

    def _listen(self) -> _Listener:
        """A process that another thread starts holds the closed listener open until it has become its program."""
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            try:
                return _Listener(self._backend, self._address)
            except BaseException as error:
                if not isinstance(error, OSError) or error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    self._reservation.close()
                    raise
            time.sleep(_POLL_SECONDS)

    def _end_listener(self) -> None:
        if self._thread:
            self._listener.shutdown()
            self._thread.join()
            self._thread = None
        self._listener.server_close()
        self._listener.close_connections()


def _reserve(host: str, port: int) -> socket.socket:
    """A socket that only keeps the port: without it a connection of anybody may take it while nobody listens there."""
    reservation = socket.socket()
    try:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind((host, port))
    except BaseException:
        reservation.close()
        raise
    return reservation


@contextlib.contextmanager
def serving(backend: CcBackend, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve a stand-in for the length of a block, which gets the URL without a slash at the end."""
    server = CcBackendServer(backend, host, port)
    try:
        server.start()
        yield server.url
    finally:
        server.close()
