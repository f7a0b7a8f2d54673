"""The server in its loop, which the tests turn by hand: what is answered, and what it withstands."""

from __future__ import annotations

import http.client
import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cc_slurm_adapter.config.address import TcpAddress, UnixAddress
from cc_slurm_adapter.daemon import http_server
from cc_slurm_adapter.daemon.control import CONTROL, METRICS
from cc_slurm_adapter.daemon.http_message import Request, Response
from cc_slurm_adapter.daemon.http_server import TIMING, Handler, HttpServer, Timing, own_names
from cc_slurm_adapter.hooks.access import AllowedSenders
from cc_slurm_adapter.hooks.listener import open_listeners
from tests.fakes.exhausted_socket import ExhaustedSocket

DEADLINE = 60.0
LONG = Timing(request=600.0, response=600.0, close=600.0)
LOOPBACK = TcpAddress("127.0.0.1", 0)
GET = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"
ANYBODY = AllowedSenders(frozenset())


class Served:
    """A server whose loop the test turns by hand."""

    def __init__(self, server: HttpServer, selector: selectors.BaseSelector, address: object) -> None:
        self.server = server
        self.address = address
        self._selector = selector

    def turn(self, seconds: float = 0.01) -> None:
        for key, _ in self._selector.select(seconds):
            key.data()
        self.server.tick()

    def turn_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, "did not happen in time"
            self.turn()

    @property
    def open_connections(self) -> int:
        return len(self.server._connections)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET)
        connection.connect(self.address)  # type: ignore[arg-type]
        connection.setblocking(False)
        return connection

    def read_all(self, connection: socket.socket) -> bytes:
        """What is answered on a connection, until the server has closed its end."""
        data = bytearray()
        deadline = time.monotonic() + DEADLINE
        while True:
            assert time.monotonic() < deadline, "no end in time"
            try:
                piece = connection.recv(1 << 20)
            except BlockingIOError:
                self.turn()
                continue
            except ConnectionResetError:
                return bytes(data)
            if not piece:
                return bytes(data)
            data += piece

    def ask(self, data: bytes) -> bytes:
        with self.connect() as connection:
            connection.sendall(data)
            return self.read_all(connection)


def hello(request: Request) -> Response:
    return Response(200, b"hello " + request.path.encode() + request.body, "text/plain")


@contextmanager
def serving(
    address: UnixAddress | TcpAddress,
    handler: Handler = hello,
    *,
    timing: Timing = TIMING,
    names: frozenset[str] = frozenset(),
) -> Iterator[Served]:
    use = CONTROL if isinstance(address, UnixAddress) else METRICS
    listeners = open_listeners(address, ANYBODY, use)
    where = listeners.sockets[0].getsockname()
    with selectors.DefaultSelector() as selector:
        server = HttpServer(listeners, handler, selector, timing=timing, names=names)
        try:
            yield Served(server, selector, where)
        finally:
            server.close()
            assert not selector.get_map()


@pytest.fixture
def unix(tmp_path: Path) -> UnixAddress:
    return UnixAddress(str(tmp_path / "c.sock"))


def status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer[9:12])


def error(answer: bytes) -> str:
    found = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert found["version"] == 1
    return str(found["error"])


# --- what is answered


@pytest.mark.parametrize("over_tcp", [False, True])
def test_a_request_is_answered_and_its_connection_closed(unix: UnixAddress, *, over_tcp: bool) -> None:
    with serving(LOOPBACK if over_tcp else unix, names=own_names()) as served:
        answer = served.ask(GET)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nContent-Length: 13\r\n" in head
        assert head.endswith(b"\r\nConnection: close")
        assert body == b"hello /status"
        served.turn_until(lambda: served.open_connections == 0)


def test_the_kernel_says_who_asks(unix: UnixAddress) -> None:
    asked: list[Request] = []

    def keep(request: Request) -> Response:
        asked.append(request)
        return Response(200, b"")

    with serving(unix, keep) as served:
        served.ask(GET)
        served.ask(b"POST /queue/drop HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    with serving(LOOPBACK, keep) as served:
        served.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert asked == [
        Request("GET", "/status", {}, b"", os.geteuid()),
        Request("POST", "/queue/drop", {}, b"{}", os.geteuid()),
        Request("GET", "/", {}, b"", None),
    ]


def test_head_has_the_length_and_no_body(unix: UnixAddress) -> None:
    with serving(unix) as served:
        answer = served.ask(b"HEAD /status HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"\r\nContent-Length: 13\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_a_request_in_single_bytes(unix: UnixAddress) -> None:
    with serving(unix) as served, served.connect() as connection:
        for byte in GET:
            connection.send(bytes([byte]))
            served.turn()
        assert status(served.read_all(connection)) == 200


def test_what_follows_a_request_is_ignored(unix: UnixAddress) -> None:
    with serving(unix) as served:
        answer = served.ask(GET + GET + b"\0garbage" * 1000)
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.endswith(b"hello /status")


def test_a_client_that_ends_its_side_is_answered(unix: UnixAddress) -> None:
    with serving(unix) as served, served.connect() as connection:
        connection.sendall(GET)
        connection.shutdown(socket.SHUT_WR)
        assert status(served.read_all(connection)) == 200


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(unix: UnixAddress) -> None:
    with serving(unix) as served, served.connect() as connection:
        connection.sendall(b"POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        served.turn_until(lambda: served.open_connections == 1)
        served.turn()
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"xyz")
        assert served.read_all(connection).endswith(b"hello /axyz")


def test_a_response_of_some_megabytes_arrives_whole(unix: UnixAddress) -> None:
    body = os.urandom(5_000_000)
    for address in (unix, LOOPBACK):
        with serving(address, lambda request: Response(200, body)) as served:
            answer = served.ask(b"GET / HTTP/1.0\r\n\r\n")
        assert answer.partition(b"\r\n\r\n")[2] == body


def test_a_client_that_is_not_ours_understands_it(unix: UnixAddress) -> None:
    """Python's own, which is written by others, in a thread while the loop turns here."""

    class OverUnix(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(DEADLINE)
            self.sock.connect(unix.path)

    found: list[tuple[int, str | None, bytes]] = []

    def ask(method: str, path: str, body: bytes | None) -> None:
        client = OverUnix("localhost")
        client.request(method, path, body)
        response = client.getresponse()
        found.append((response.status, response.getheader("Content-Length"), response.read()))
        client.close()

    with serving(unix) as served:
        for method, path, body in (("GET", "/a%20b", None), ("HEAD", "/a", None), ("POST", "/c", b"{}")):
            thread = threading.Thread(target=ask, args=(method, path, body))
            thread.start()
            served.turn_until(lambda thread=thread: not thread.is_alive())  # type: ignore[misc]
            thread.join(DEADLINE)
    assert found == [(200, "10", b"hello /a b"), (200, "8", b""), (200, "10", b"hello /c{}")]


# --- what is refused


def test_a_megabyte_of_headers_is_refused_and_the_client_learns_why(unix: UnixAddress) -> None:
    data = b"GET / HTTP/1.1\r\nX: " + b"a" * 1_000_000
    for address in (unix, LOOPBACK):
        with serving(address) as served, served.connect() as connection:
            sent = 0
            while sent < len(data):
                try:
                    sent += connection.send(data[sent:])
                except BlockingIOError:
                    served.turn()
            answer = served.read_all(connection)
        assert status(answer) == 431
        assert "8192 bytes" in error(answer)


def test_a_body_that_is_too_long_is_not_read(unix: UnixAddress) -> None:
    with serving(unix) as served:
        answer = served.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n")
    assert status(answer) == 413


@pytest.mark.parametrize("garbage", [b"\0", b"\x16\x03\x01\x02", b"hello\r\n", b"{}", b"A" * 17])
def test_garbage_is_refused_with_its_first_bytes(unix: UnixAddress, garbage: bytes) -> None:
    with serving(unix, timing=LONG) as served:
        answer = served.ask(garbage)
        assert status(answer) == 400
        assert served.open_connections == 0


def test_over_tcp_nothing_is_changed() -> None:
    called: list[Request] = []

    def keep(request: Request) -> Response:
        called.append(request)
        return Response(200, b"")

    with serving(LOOPBACK, keep) as served:
        answer = served.ask(b"POST /queue/drop HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
    assert status(answer) == 403
    assert "read only" in error(answer)
    assert called == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"localhost", 200),
        (b"LOCALHOST:9517", 200),
        (b"127.0.0.1:9517", 200),
        (b"192.0.2.7", 200),
        (b"[::1]:9517", 200),
        (b"ctl1.example.org:9517", 200),
        (b"CTL1.example.org.", 200),
        (b"evil.example.com", 403),
        (b"evil.example.com:9517", 403),
        (b"localhost.evil.example.com", 403),
        (b"127.0.0.1.evil.example.com", 403),
        (b"[evil.example.com]", 403),
        (b"", 403),
        (b"a@localhost", 403),
    ],
)
def test_over_tcp_only_names_of_this_host_are_accepted(host: bytes, expected: int) -> None:
    names = frozenset({"localhost", "ctl1.example.org"})
    with serving(LOOPBACK, names=names) as served:
        answer = served.ask(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert status(answer) == expected
    if expected == 403:
        assert "Host" in error(answer)


def test_own_names_are_those_of_this_host() -> None:
    assert {"localhost", socket.gethostname()} <= own_names()
    assert "" not in own_names()


# --- limits


def test_a_request_that_takes_too_long_is_told_so(unix: UnixAddress) -> None:
    with serving(unix, timing=Timing(request=0.0)) as served:
        answer = served.ask(GET[:20])
        assert status(answer) == 408
        served.turn_until(lambda: served.open_connections == 0)


def test_a_byte_now_and_then_gives_no_more_time(unix: UnixAddress) -> None:
    with serving(unix, timing=LONG) as served, served.connect() as connection:
        served.turn_until(lambda: served.open_connections == 1)
        deadline = served.server.next_deadline()
        for byte in GET[:-1]:
            connection.send(bytes([byte]))
            served.turn()
        assert served.server.next_deadline() == deadline


def test_an_idle_connection_is_closed_without_a_word(unix: UnixAddress) -> None:
    with serving(unix, timing=Timing(request=0.0)) as served:
        assert served.ask(b"") == b""


@pytest.mark.parametrize("over_tcp", [False, True])
def test_idle_connections_keep_nobody_out(unix: UnixAddress, *, over_tcp: bool) -> None:
    with serving(LOOPBACK if over_tcp else unix, timing=LONG, names=own_names()) as served, ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(served.connect())
        served.turn_until(lambda: served.open_connections == 32)
        assert status(served.ask(GET)) == 200
        assert served.open_connections <= 32


def test_a_request_that_has_arrived_is_answered_even_if_its_connection_must_give_way(unix: UnixAddress) -> None:
    with serving(unix, timing=LONG) as served, ExitStack() as stack:
        honest = stack.enter_context(served.connect())
        served.turn_until(lambda: served.open_connections == 1)
        for _ in range(31):
            stack.enter_context(served.connect())
        served.turn_until(lambda: served.open_connections == 32)
        honest.sendall(GET)
        stack.enter_context(served.connect())
        served.server._acceptor.accept(served.server._acceptor._listeners.sockets[0])  # before anybody reads on it
        assert status(served.read_all(honest)) == 200


def test_clients_that_never_read_are_closed_and_others_wait_for_that_long(unix: UnixAddress) -> None:
    body = b"x" * 1_000_000

    def large_or_small(request: Request) -> Response:
        return Response(200, body if request.path == "/large" else b"small")

    with serving(unix, large_or_small, timing=LONG) as served, ExitStack() as stack:
        for _ in range(32):
            stack.enter_context(served.connect()).sendall(b"GET /large HTTP/1.0\r\n\r\n")
        served.turn_until(lambda: served.open_connections == 32)
        waiting = stack.enter_context(served.connect())
        waiting.sendall(b"GET /small HTTP/1.0\r\n\r\n")
        served.turn()
        assert served.open_connections == 32
        for each in served.server._connections:
            each.deadline = 0.0  # their five seconds are over
        assert served.read_all(waiting).endswith(b"small")
        waiting.close()
        served.turn_until(lambda: served.open_connections == 0)


def test_the_loop_is_not_ready_again_and_again_while_a_client_does_not_read(unix: UnixAddress) -> None:
    calls = 0
    with serving(unix, lambda request: Response(200, b"x" * 1_000_000), timing=LONG) as served:
        with served.connect() as connection:
            connection.sendall(GET)
            served.turn_until(lambda: any(each.unsent for each in served.server._connections))
            calls = len(served._selector.select(0.0))
        served.turn_until(lambda: served.open_connections == 0)  # the client is gone
    assert calls == 0


def test_responses_that_wait_are_bounded(unix: UnixAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "MAX_UNSENT", 3_000_000)
    body = b"x" * 2_000_000
    with serving(unix, lambda request: Response(200, body), timing=LONG) as served, served.connect() as first:
        first.sendall(GET)
        served.turn_until(lambda: any(each.unsent for each in served.server._connections))
        answer = served.ask(GET)
        assert status(answer) == 503
        assert "try again" in error(answer)
        assert served.read_all(first).endswith(body)
        assert status(served.ask(GET)) == 200


def test_a_client_that_sends_for_ever_is_closed(unix: UnixAddress) -> None:
    with serving(unix, timing=LONG) as served, served.connect() as connection:
        connection.sendall(GET)
        sent = 0
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            try:
                sent += connection.send(b"x" * 65536)
            except BlockingIOError:
                served.turn()
            except OSError:
                break
        assert served.open_connections == 0
        assert sent < 10_000_000


def test_of_endless_garbage_only_the_beginning_is_taken(unix: UnixAddress) -> None:
    block = b"\0" * 65536
    with serving(unix) as served:
        for _ in range(100):
            with served.connect() as connection, pytest.raises(OSError):
                sent = 0
                while sent < 2_000_000:
                    try:
                        sent += connection.send(block)
                    except BlockingIOError:
                        served.turn()
        assert status(served.ask(GET)) == 200


def test_no_file_descriptor_left(unix: UnixAddress, caplog: pytest.LogCaptureFixture) -> None:
    listeners = open_listeners(unix, ANYBODY, CONTROL)
    listeners.sockets[0] = ExhaustedSocket(listeners.sockets[0])
    with selectors.DefaultSelector() as selector:
        server = HttpServer(listeners, hello, selector)
        served = Served(server, selector, unix.path)
        assert status(served.ask(GET)) == 200
        server.close()
    assert [line for line in caplog.messages if "Too many open files" in line] == [
        "controlSockPath: cannot accept a connection: Too many open files"
    ]


# --- errors


def test_an_error_of_the_handler_names_its_kind_only_and_is_logged_once(
    unix: UnixAddress, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: Request) -> Response:
        raise ZeroDivisionError("a secret")

    with serving(unix, fail) as served:
        answers = [served.ask(GET) for _ in range(3)]
    for answer in answers:
        assert status(answer) == 500
        assert "ZeroDivisionError" in error(answer)
        assert b"a secret" not in answer
    assert caplog.messages == ["controlSockPath: a request for /status ended in an error"]


def test_an_error_that_nobody_thought_of_costs_one_connection(
    unix: UnixAddress, caplog: pytest.LogCaptureFixture
) -> None:
    """Here a response that cannot be written."""

    def answer(request: Request) -> Response:
        return Response(999 if request.path == "/bad" else 200, b"fine")

    with serving(unix, answer) as served:
        assert served.ask(b"GET /bad HTTP/1.0\r\n\r\n") == b""
        assert served.ask(b"GET /good HTTP/1.0\r\n\r\n").endswith(b"fine")
        served.turn_until(lambda: served.open_connections == 0)
    assert caplog.messages == ["controlSockPath: a connection is closed after an error"]


def test_a_client_that_breaks_off_costs_nothing(unix: UnixAddress) -> None:
    with serving(unix, lambda request: Response(200, b"x" * 1_000_000), timing=LONG) as served:
        for data in (b"", b"GET", GET):
            with served.connect() as connection:
                connection.sendall(data)
                served.turn_until(lambda: served.open_connections == 1)
            served.turn_until(lambda: served.open_connections == 0)


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_change_whose_client_has_given_up_is_not_done(unix: UnixAddress, method: str) -> None:
    """As after a time in which the daemon was stopped: the client has said that the change is not known to be done."""
    done = []

    def handler(request: Request) -> Response:
        done.append(request.method)
        return hello(request)

    with serving(unix, handler) as served:
        with served.connect() as client:
            client.sendall(f"{method} /queue/drop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
        served.turn()
        served.turn_until(lambda: not served.open_connections)
        assert done == ([] if method == "POST" else ["GET"])


def test_a_change_whose_client_only_sends_no_more_is_done(unix: UnixAddress) -> None:
    with serving(unix) as served, served.connect() as client:
        client.sendall(b"POST /drop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        client.shutdown(socket.SHUT_WR)
        assert status(served.read_all(client)) == 200


def test_the_socket_is_its_owners_and_removed_at_the_end(unix: UnixAddress) -> None:
    with serving(unix):
        assert os.stat(unix.path).st_mode & 0o777 == 0o600
    assert not os.path.exists(unix.path)


PIECES = st.lists(
    st.one_of(
        st.binary(max_size=50), st.sampled_from([GET, GET[:10], b"POST / HTTP/1.1\r\n", b"\r\n\r\n", b"Host: a\r\n"])
    ),
    max_size=6,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(clients=st.lists(PIECES, min_size=1, max_size=4))
def test_whatever_is_sent_nothing_is_raised_and_everything_is_closed(
    clients: list[list[bytes]], unix: UnixAddress
) -> None:
    def close_soon() -> None:
        for each in served.server._connections:
            each.deadline = 0.0

    with serving(unix, timing=LONG) as served, ExitStack() as stack:
        connections = [stack.enter_context(served.connect()) for _ in clients]
        for connection, pieces in zip(connections, clients):
            for piece in pieces:
                try:
                    connection.sendall(piece)
                except OSError:
                    break
                served.turn(0.0)
        served.turn(0.0)
        close_soon()
        served.turn_until(lambda: served.open_connections == 0)
        for connection in connections:
            answer = served.read_all(connection)
            assert not answer or 200 <= status(answer) <= 501


def test_connections_stay_few_while_requests_arrive_on_idle_ones(unix: UnixAddress) -> None:
    """Each that must give way has sent its request meanwhile, and its client does not read the response."""
    body = b"x" * 1_000_000
    with serving(unix, lambda request: Response(200, body), timing=LONG) as served, ExitStack() as stack:
        idle = [stack.enter_context(served.connect()) for _ in range(32)]
        served.turn_until(lambda: served.open_connections == 32)
        for connection in idle:
            connection.sendall(GET)
        for _ in range(40):
            stack.enter_context(served.connect())
        acceptor = served.server._acceptor
        acceptor.accept(acceptor._listeners.sockets[0])  # before anybody reads on the idle ones
        assert served.open_connections <= 32
        assert sum(bool(each.unsent) for each in served.server._connections) >= 31
