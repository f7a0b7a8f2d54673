"""Answers HTTP requests on listening sockets in one selector loop, and withstands whatever is sent to it.

Sizes, times and numbers are bounded. Each connection has one request and is then closed.
"""

from __future__ import annotations

import contextlib
import enum
import ipaddress
import logging
import select
import selectors
import socket
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from cc_slurm_adapter.daemon.http_message import (
    BadRequest,
    Head,
    Request,
    RequestReader,
    Response,
    error_response,
    head_bytes,
)
from cc_slurm_adapter.hooks.acceptor import Acceptor, OnAccept
from cc_slurm_adapter.hooks.listener import Listeners, peer_ids
from cc_slurm_adapter.log import Repeated

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Response]
"""Called in the loop's thread. An exception of it becomes a response with the status 500."""

MAX_CONNECTIONS = 32
MAX_UNSENT = 64 * 2**20
"""Most bytes of all responses that are being sent. One response may be larger, if it is the only one."""
MAX_DISCARDED = 2 * 2**20
"""Most bytes that are read after a response, so that a client that still sends gets to read it."""
RECEIVE_BYTES = 64 * 1024


class Timing(NamedTuple):
    """How long connections have, in seconds."""

    request: float = 2.0
    """From its acceptance until the request is whole."""
    response: float = 5.0
    """Until the response is sent."""
    close: float = 1.0
    """Until the client has closed its end, after that."""
    pause: float = 0.2
    """Time without accepting connections after the system has run out of file descriptors."""


TIMING = Timing()


class _Phase(enum.Enum):
    RECEIVING = "receiving"
    SENDING = "sending"
    CLOSING = "closing"
    """The response is sent. What still arrives is discarded: closing with something unread would reset the connection,
    and the client might lose the response."""


class _Connection:
    """A connection that was accepted."""

    def __init__(self, own_end: socket.socket, reader: RequestReader, seconds: float) -> None:
        self.socket = own_end
        self.reader = reader
        self.phase = _Phase.RECEIVING
        self.deadline = time.monotonic() + seconds
        self.events = 0
        """What the selector waits for; 0 if it does not know this connection."""
        self.unsent: list[memoryview] = []
        self.size = 0
        """Bytes of the response while it is being sent."""
        self.discarded = 0

    def enter(self, phase: _Phase, seconds: float) -> None:
        self.phase = phase
        self.deadline = time.monotonic() + seconds

    def mark_sent(self, count: int) -> None:
        while self.unsent and count >= len(self.unsent[0]):
            count -= len(self.unsent.pop(0))
        if self.unsent:
            self.unsent[0] = self.unsent[0][count:]
        else:
            self.size = 0


class HttpServer:
    """Serves the listeners from the loop that owns the selector. The data of a selector key is the function to call.

    Beyond MAX_CONNECTIONS the oldest connection without a response under way is closed to accept a new one, so that
    idle connections keep nobody out: an honest client sends its request when it connects. While all of them are being
    sent a response, others wait in the kernel.
    """

    def __init__(
        self,
        listeners: Listeners,
        handler: Handler,
        selector: selectors.BaseSelector,
        *,
        names: Collection[str] = frozenset(),
        timing: Timing = TIMING,
    ) -> None:
        """`names` are those that a client over TCP may call this host by, see `own_names`. More may be added later."""
        self._setting = listeners.use.setting
        self._handler = handler
        self._selector = selector
        self._names = names
        self._timing = timing
        self._connections: dict[_Connection, None] = {}
        """The oldest first."""
        self._errors = Repeated()
        self._acceptor = Acceptor(listeners, selector, OnAccept(self._on_accept, self._on_accept_failed), timing.pause)

    def close(self) -> None:
        """Close all connections and the listening sockets."""
        self.drop_all()
        self._acceptor.close()

    def drop_all(self) -> None:
        """Close every connection, because one of them may have caused an error."""
        for connection in list(self._connections):
            self._drop(connection)

    def next_deadline(self) -> float:
        """Return the time.monotonic() at which `tick` has something to do."""
        deadlines = [connection.deadline for connection in self._connections]
        if self._has_room():
            deadlines.append(self._acceptor.resumes_at)
        return min(deadlines, default=float("inf"))

    def tick(self) -> None:
        """Close connections that take too long, and accept connections again after a pause."""
        now = time.monotonic()
        for connection in [each for each in self._connections if each.deadline <= now]:
            if connection.phase is _Phase.RECEIVING and not connection.reader.is_empty:
                text = f"expected a whole request within {self._timing.request:.0f} s"
                _send_once(connection.socket, error_response(408, text))
            self._drop(connection)
        if self._has_room():
            self._acceptor.resume_if_due()

    def _has_room(self) -> bool:
        return len(self._connections) < MAX_CONNECTIONS or self._least_needed() is not None

    def _least_needed(self) -> _Connection | None:
        return next((each for each in self._connections if each.phase is not _Phase.SENDING), None)

    def _on_accept(self, own_end: socket.socket, address: object) -> None:
        is_local = own_end.family == socket.AF_UNIX
        try:
            uid = peer_ids(own_end)[1] if is_local else None
            own_end.setblocking(False)
        except OSError:
            own_end.close()  # it ended before its user was known
            return
        reader = RequestReader(_accept_any if is_local else self._check_over_tcp, uid)
        connection = _Connection(own_end, reader, self._timing.request)
        self._connections[connection] = None
        self._serve(connection)
        while len(self._connections) > MAX_CONNECTIONS and self._least_needed() is not None:
            self._make_room()
        if not self._has_room():
            self._acceptor.pause()  # `tick` resumes as soon as there is room

    def _make_room(self) -> None:
        """Close the oldest connection without a response under way, unless its request has arrived meanwhile."""
        oldest = self._least_needed()
        if oldest is None:
            return
        if oldest.phase is _Phase.RECEIVING:
            self._serve(oldest)
        if oldest.phase is not _Phase.SENDING:
            self._drop(oldest)

    def _on_accept_failed(self, line: str) -> None:
        if self._errors.is_due("accept"):
            logger.warning("%s: %s%s", self._setting, line, self._errors.note)
        self._make_room()

    def _check_over_tcp(self, head: Head) -> None:
        """Refuse changes, and names of hosts that are not this one. Raises BadRequest.

        A web page may give its own host name this host's address (DNS rebinding). Then a browser here takes what this
        server answers for an answer of that page, which could read it. But the browser sends the page's name as Host.
        """
        if head.method == "POST":
            raise BadRequest(403, "over TCP everything is read only: changes go over the unix socket controlSockPath")
        if head.host is not None and not _is_address(head.host) and not self._is_own_name(_name_of(head.host)):
            raise BadRequest(403, "the header Host names another host: use this host's own name or its address")

    def _is_own_name(self, name: str) -> bool:
        return any(name == own.lower().rstrip(".") for own in tuple(self._names))

    def _serve(self, connection: _Connection) -> None:
        """Go on with a connection. An error closes only this connection."""
        if connection not in self._connections:
            return  # it was closed earlier in this turn of the loop
        try:
            if connection.phase is _Phase.RECEIVING:
                self._receive(connection)
            elif connection.phase is _Phase.SENDING:
                self._send(connection)
            else:
                self._discard(connection)
            if connection in self._connections:
                self._wait_for(connection)
        except OSError:
            self._drop(connection)  # the client is gone
        except Exception as error:
            self._drop(connection)
            if self._errors.is_due(type(error).__name__):
                logger.exception("%s: a connection is closed after an error%s", self._setting, self._errors.note)

    def _wait_for(self, connection: _Connection) -> None:
        events = selectors.EVENT_WRITE if connection.unsent else selectors.EVENT_READ
        if connection.events == events:
            return
        change = self._selector.modify if connection.events else self._selector.register
        change(connection.socket, events, lambda: self._serve(connection))
        connection.events = events

    def _receive(self, connection: _Connection) -> None:
        piece = _read(connection.socket)
        if piece is None:
            return
        if not piece:
            self._drop(connection)
            return
        try:
            request = connection.reader.feed(piece)
        except BadRequest as error:
            if error.is_http:
                self._respond(connection, error.response)
            else:
                _send_once(connection.socket, error.response)
                self._drop(connection)
            return
        if request is not None and request.method == "POST" and _is_given_up(connection.socket):
            self._drop(connection)  # its client has said that it is not known whether it was done
        elif request is not None:
            self._respond(connection, self._answer(request))
        elif connection.reader.awaits_body:
            connection.socket.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self, request: Request) -> Response:
        try:
            return self._handler(request)
        except Exception as error:
            kind = type(error).__name__
            if self._errors.is_due(kind):
                text = "%s: a request for %.100s ended in an error%s"
                logger.exception(text, self._setting, request.path, self._errors.note)
            return error_response(500, f"an error of this program: {kind}; see its log")

    def _respond(self, connection: _Connection, response: Response) -> None:
        unsent = sum(each.size for each in self._connections)
        if unsent and unsent + len(response.body) > MAX_UNSENT:
            response = error_response(503, "too many large responses are being sent: try again in a few seconds")
        head = connection.reader.head
        pieces = [head_bytes(response)]
        if response.body and (head is None or head.method != "HEAD"):
            pieces.append(response.body)
        connection.unsent = [memoryview(piece) for piece in pieces]
        connection.size = sum(map(len, pieces))
        connection.enter(_Phase.SENDING, self._timing.response)
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        try:
            sent = connection.socket.sendmsg(connection.unsent)
        except (BlockingIOError, InterruptedError):
            return
        connection.mark_sent(sent)
        if not connection.unsent:
            connection.socket.shutdown(socket.SHUT_WR)
            connection.enter(_Phase.CLOSING, self._timing.close)
            self._discard(connection)

    def _discard(self, connection: _Connection) -> None:
        piece = _read(connection.socket)
        if piece is None:
            return
        connection.discarded += len(piece)
        if not piece or connection.discarded > MAX_DISCARDED:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        """Close a connection. May be called more than once."""
        if connection not in self._connections:
            return
        del self._connections[connection]
        if connection.events:
            self._selector.unregister(connection.socket)
        connection.socket.close()


def _read(own_end: socket.socket) -> bytes | None:
    """Return what has arrived, b"" at the end, and None if nothing has arrived yet. Raises OSError."""
    try:
        return own_end.recv(RECEIVE_BYTES)
    except (BlockingIOError, InterruptedError):
        return None


def _is_given_up(own_end: socket.socket) -> bool:
    """Return whether the client has closed its connection, and not only its side of it: nobody waits for the answer."""
    poll = select.poll()
    poll.register(own_end, 0)  # POLLHUP is always reported
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def _send_once(own_end: socket.socket, response: Response) -> None:
    """Send a short response, which may get lost: the connection is closed right after it."""
    with contextlib.suppress(OSError):
        own_end.send(head_bytes(response) + response.body)


def _accept_any(head: Head) -> None:
    """Accept every head: the mode of a unix socket says who may connect, and no web page can."""


def own_names() -> frozenset[str]:
    """Return the names that this host may be called by. It may ask the resolver, and wait for it."""
    return frozenset({"localhost", socket.gethostname(), socket.getfqdn()} - {""})


def _name_of(host: str) -> str:
    """Return the name in a Host header, without the port."""
    return host.partition(":")[0].lower().rstrip(".")


def _is_address(host: str) -> bool:
    """Return whether a Host header has an IP address. A name that a page owns is none."""
    address = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
