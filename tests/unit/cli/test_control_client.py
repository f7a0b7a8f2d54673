"""The client of the control socket: against the daemon's own server, and against others that answer badly."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cc_slurm_adapter.cli import control_client
from cc_slurm_adapter.cli.control_client import get, parse_answer, post
from cc_slurm_adapter.config.address import UnixAddress
from cc_slurm_adapter.daemon.control import CONTROL
from cc_slurm_adapter.daemon.http_message import Request, Response
from cc_slurm_adapter.daemon.http_server import HttpServer
from cc_slurm_adapter.errors import NotRunning, StateError, UsageError
from cc_slurm_adapter.hooks.access import AllowedSenders
from cc_slurm_adapter.hooks.listener import open_listeners

PATIENT = 60.0


@contextmanager
def in_a_thread(work: Callable[[], None], over: threading.Event) -> Iterator[None]:
    """Works beside the test, until `over` is set at its end."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(PATIENT)


@contextmanager
def daemon(path: str, handler: Callable[[Request], Response]) -> Iterator[None]:
    """The daemon's server in a thread."""
    listeners = open_listeners(UnixAddress(path), AllowedSenders(frozenset()), CONTROL)
    over = threading.Event()

    def serve() -> None:
        with selectors.DefaultSelector() as selector:
            server = HttpServer(listeners, handler, selector)
            while not over.is_set():
                for key, _ in selector.select(0.02):
                    key.data()
                server.tick()
            server.close()

    with in_a_thread(serve, over):
        yield


@contextmanager
def stranger(path: str, *pieces: bytes, stays: bool = False) -> Iterator[None]:
    """Something else that listens: it sends these pieces to the first client, whatever that asks."""
    over = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(PATIENT)

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(PATIENT)
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)
                if stays:
                    over.wait(PATIENT)

        with in_a_thread(answer, over):
            yield


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "c.sock")


def test_get_and_post(path: str) -> None:
    def answer(request: Request) -> Response:
        return Response(
            200 if request.method == "GET" else 403, repr((request.path, request.query, request.body)).encode()
        )

    with daemon(path, answer):
        assert get("/queue?state=parked", path, seconds=PATIENT) == (200, b"('/queue', {'state': 'parked'}, b'')")
        assert post("/queue/drop", {"job": 1}, path, seconds=PATIENT) == (
            403,
            b"""('/queue/drop', {}, b'{"job": 1}')""",
        )


def test_a_large_answer(path: str) -> None:
    body = os.urandom(5_000_000)
    with daemon(path, lambda request: Response(200, body)):
        assert get("/", path, seconds=PATIENT) == (200, body)
        assert get("/", path, seconds=PATIENT, limit=5_000_000) == (200, body)
        with pytest.raises(StateError, match="longer than 4999999 bytes"):
            get("/", path, seconds=PATIENT, limit=4_999_999)


def test_a_request_that_is_refused_before_it_is_read(path: str) -> None:
    """The client sends on while the daemon has answered already."""
    with daemon(path, lambda request: Response(200, b"")):
        status, body = post("/", {"x": "y" * 10_000_000}, path, seconds=PATIENT)
    assert status == 413
    with pytest.raises(StateError, match="at most 65536 bytes"):
        parse_answer(status, body)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",), (200, b"ab")),
        ((b"HTTP/1.1 200 OK\r\ncontent-length:2\r\n\r\nabcd",), (200, b"ab")),
        ((b"HTTP/1.1 503 No\r\n\r\nab", b"cd"), (503, b"abcd")),
        ((b"HTTP/1.0 200 OK\r\n", b"\r", b"\n", b""), (200, b"")),
    ],
)
def test_bodies_with_a_length_and_until_the_end(path: str, pieces: tuple[bytes, ...], expected: object) -> None:
    with stranger(path, *pieces):
        assert get("/", path, seconds=PATIENT) == expected


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ((b"",), "broke off its answer, as if it had ended: see whether it runs"),
        ((b"220 mail.example.org ESMTP\r\n\r\n",), "is no daemon"),
        ((b"HTTP/1.1 abc\r\n\r\n",), "is no daemon"),
        ((b"HTTP/1.1 \xb2\xb2\xb2\r\n\r\n",), "is no daemon"),
        ((b"HTTP/1.1 200 OK\r\n",), "broke off its answer"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",), "broke off its answer"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",), "is longer than"),
        ((b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000,), "broke off its answer"),
        ((b"\0" * 100_000,), "is no daemon"),
    ],
)
def test_answers_that_are_none(path: str, pieces: tuple[bytes, ...], expected: str) -> None:
    with stranger(path, *pieces), pytest.raises(StateError, match=expected) as caught:
        get("/", path, seconds=PATIENT)
    assert not isinstance(caught.value, NotRunning)


@pytest.mark.parametrize(
    "pieces", [(), (b"HTTP/1.1 200 OK\r\n",), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab",)]
)
def test_an_answer_that_does_not_come_in_time(path: str, pieces: tuple[bytes, ...]) -> None:
    with stranger(path, *pieces, stays=True), pytest.raises(StateError, match=r"does not answer within 0\.3 s"):
        get("/", path, seconds=0.3)


def test_of_a_change_that_was_not_answered_in_time_nobody_knows_whether_it_was_done(path: str) -> None:
    expected = "it is not known whether this was done: see -status and -queue list"
    with stranger(path, stays=True), pytest.raises(StateError, match=expected):
        post("/queue/drop", {"all": True}, path, seconds=0.3)


def test_no_daemon(path: str) -> None:
    with pytest.raises(NotRunning, match=f"no daemon answers on {path}: start it"):
        get("/", path)
    with pytest.raises(NotRunning):
        get("/", f"{path}/below")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(NotRunning):
        get("/", path)


def test_a_path_that_no_socket_can_have() -> None:
    with pytest.raises(StateError, match="cannot be asked on /xxx"):
        get("/", "/" + "x" * 200)


def test_a_daemon_that_others_keep_busy(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        waiting = []
        try:
            while True:
                connection = socket.socket(socket.AF_UNIX)
                waiting.append(connection)
                connection.setblocking(False)
                connection.connect(path)
        except BlockingIOError:
            pass
        with pytest.raises(StateError, match="too many others ask"):
            get("/", path)
        for connection in waiting:
            connection.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_user_who_may_not_ask_learns_who_may(path: str) -> None:
    with daemon(path, lambda request: Response(200, b"")):
        code = (
            "import os, sys; from cc_slurm_adapter.cli.control_client import get\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "try: get('/', sys.argv[1])\n"
            "except Exception as error: print(type(error).__name__, error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, path], cwd=root(), capture_output=True, text=True, timeout=PATIENT, check=True
        )
    assert done.stdout.startswith("NotAllowed only root, ")
    assert done.stdout.endswith(": run this as root\n")
    assert "the daemon's user and members of SlurmUser's group may ask" in done.stdout


def root() -> Path:
    """The folder of the package."""
    return Path(control_client.__file__).parents[2]


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (400, b'{"version": 1, "error": "state: expected one of"}', UsageError, "state: expected one of"),
        (403, b'{"version": 1, "error": "changes are up to root"}', StateError, "changes are up to root"),
        (503, b'{"version": 1, "error": "busy"}', StateError, "busy"),
        (500, b"{}", StateError, "the daemon answered 500"),
        (404, b"not here", StateError, "without a JSON object"),
        (200, b"[]", StateError, "without a JSON object"),
        (200, b"\xff", StateError, "without a JSON object"),
        (200, b"[" * 100_000, StateError, "without a JSON object"),
    ],
)
def test_errors_of_the_daemon(status: int, body: bytes, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        parse_answer(status, body)


def test_a_good_answer() -> None:
    assert parse_answer(200, b'{"version": 1, "messages": 2}') == {"version": 1, "messages": 2}


def test_it_loads_nothing_that_is_slow() -> None:
    code = "import sys; import cc_slurm_adapter.cli.control_client; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-B", "-S", "-c", code],
        env={"PYTHONPATH": str(root())},
        capture_output=True,
        text=True,
        timeout=PATIENT,
        check=True,
    )
    loaded = set(done.stdout.split())
    slow = {
        "http.client",
        "ssl",
        "email",
        "urllib",
        "sqlite3",
        "subprocess",
        "dataclasses",
        "typing",
        "logging",
        "ipaddress",
    }
    assert slow & loaded == set()
    assert {name for name in loaded if name.startswith("cc_slurm_adapter.")} == {
        f"cc_slurm_adapter.{name}" for name in ("cli", "cli.control_client", "config", "config.secrets", "errors")
    }
