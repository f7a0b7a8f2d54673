"""The server's limits: who may connect, and how many at once. The tests turn its loop by hand."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cc_slurm_adapter.config.address import TcpAddress, UnixAddress
from cc_slurm_adapter.hooks import server as server_module
from cc_slurm_adapter.hooks.access import AllowedSenders
from cc_slurm_adapter.hooks.listener import open_listeners
from cc_slurm_adapter.hooks.message import HookMessage, decode, encode
from cc_slurm_adapter.hooks.server import TIMING, Handlers, HookServer, Timing
from tests.fakes.exhausted_socket import ExhaustedSocket

OWN = frozenset({os.geteuid()})
DEADLINE = 30.0


@contextmanager
def serving(
    address: UnixAddress | TcpAddress, allowed_senders: AllowedSenders, *, timing: Timing = TIMING
) -> Iterator[tuple[HookServer, list[HookMessage], list[tuple[str, str]], Callable[[], None]]]:
    """A server whose loop the test turns by hand."""
    delivered: list[HookMessage] = []
    refused: list[tuple[str, str]] = []
    listeners = open_listeners(address, allowed_senders)
    with selectors.DefaultSelector() as selector:
        handlers = Handlers(delivered.append, lambda kind, line: refused.append((kind, line)))
        server = HookServer(listeners, allowed_senders, selector, handlers, timing=timing)

        def turn() -> None:
            for key, _ in selector.select(0.05):
                key.data()
            server.tick()

        try:
            yield server, delivered, refused, turn
        finally:
            server.close()


def turn_until(turn: Callable[[], None], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        turn()


def test_more_connections_than_allowed_wait(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "d.sock"))
    with serving(address, AllowedSenders(OWN)) as (server, delivered, _, turn), ExitStack() as stack:
        idle = []
        for _ in range(70):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(address.path)
            idle.append(connection)
        turn_until(turn, lambda: len(server._incoming) == 64)
        turn()
        assert len(server._incoming) == 64
        for connection in idle:
            connection.sendall(encode({"SLURM_JOB_ID": "3"}))
            connection.close()
        turn_until(turn, lambda: len(delivered) == 70)
        assert len(server._incoming) == 0


@contextmanager
def idle_connections(port: int, source: str, number: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), source_address=(source, 0)))
            for _ in range(number)
        ]


def test_idle_tcp_connections_do_not_keep_others_out() -> None:
    timing = Timing(message=60.0)
    with (
        serving(TcpAddress("127.0.0.1", 0), AllowedSenders(OWN), timing=timing) as (server, delivered, refused, turn),
        ExitStack() as stack,
    ):
        port = server._acceptor._listeners.sockets[0].getsockname()[1]
        for source in ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"):
            stack.enter_context(idle_connections(port, source, 16))
        turn_until(turn, lambda: len(server._incoming) == 64)
        (honest,) = stack.enter_context(idle_connections(port, "127.0.0.1", 1))
        honest.sendall(encode({"SLURM_JOB_ID": "3"}))
        honest.shutdown(socket.SHUT_WR)
        turn_until(turn, lambda: bool(delivered))
        assert len(server._incoming) <= 64
        assert all(kind == "refused" for kind, _ in refused)
        assert {line for _, line in refused} <= {"127.0.0.2: more than 64 connections, the oldest is given up"}


def test_the_address_with_the_most_connections_gives_way() -> None:
    timing = Timing(message=60.0)
    with serving(TcpAddress("127.0.0.1", 0), AllowedSenders(OWN), timing=timing) as (server, delivered, refused, turn):
        port = server._acceptor._listeners.sockets[0].getsockname()[1]
        with idle_connections(port, "127.0.0.3", 2) as honest, idle_connections(port, "127.0.0.2", 1000):
            turn_until(turn, lambda: len(refused) == 1002 - 64)
            assert len(server._incoming) == 64
            assert {line for _, line in refused} == {"127.0.0.2: more than 64 connections, the oldest is given up"}
            for connection in honest:
                connection.sendall(encode({"SLURM_JOB_ID": "3"}))
                connection.shutdown(socket.SHUT_WR)
            turn_until(turn, lambda: len(delivered) == 2)


def test_a_whole_message_is_taken_even_when_its_connection_must_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 1)
    with (
        serving(TcpAddress("127.0.0.1", 0), AllowedSenders(OWN)) as (server, delivered, refused, turn),
        ExitStack() as stack,
    ):
        port = server._acceptor._listeners.sockets[0].getsockname()[1]
        (honest,) = stack.enter_context(idle_connections(port, "127.0.0.1", 1))
        turn_until(turn, lambda: len(server._incoming) == 1)
        honest.sendall(encode({"SLURM_JOB_ID": "3"}))
        honest.shutdown(socket.SHUT_WR)
        stack.enter_context(idle_connections(port, "127.0.0.1", 1))
        server._acceptor.accept(server._acceptor._listeners.sockets[0])  # before anybody looks at the older one
        assert [message.job_id for message in delivered] == [3]
        assert refused == []


def test_a_connection_that_is_given_up_and_speaks_in_the_same_turn_ends_nothing() -> None:
    """A stranger needs no secret for that: idle connections, then a new one and a word on each old one."""
    with (
        serving(TcpAddress("127.0.0.1", 0), AllowedSenders(OWN, secret=b"0123456789abcdef")) as (
            server,
            _,
            refused,
            turn,
        ),
        ExitStack() as stack,
    ):
        port = server._acceptor._listeners.sockets[0].getsockname()[1]
        idle = stack.enter_context(idle_connections(port, "127.0.0.2", 64))
        turn_until(turn, lambda: len(server._incoming) == 64)
        stack.enter_context(idle_connections(port, "127.0.0.2", 64))
        for connection in idle:
            connection.send(b"x")
        turn_until(turn, lambda: len(refused) == 64)
        assert len(server._incoming) == 64


def test_an_error_that_nobody_thought_of_costs_one_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[Exception] = [MemoryError(), ValueError("nobody thought of that")]

    def fails_first(message: bytes) -> HookMessage:
        if errors:
            raise errors.pop()
        return decode(message)

    monkeypatch.setattr(server_module, "decode", fails_first)
    with serving(TcpAddress("127.0.0.1", 0), AllowedSenders(OWN)) as (server, delivered, _, turn):
        port = server._acceptor._listeners.sockets[0].getsockname()[1]
        with idle_connections(port, "127.0.0.1", 4) as connections:
            for connection in connections:
                connection.sendall(encode({"SLURM_JOB_ID": "3"}))
                connection.shutdown(socket.SHUT_WR)
            turn_until(turn, lambda: len(delivered) == 2)
        assert len(server._incoming) == 0
    assert "a connection of 127.0.0.1 is closed after an error" in caplog.text


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM])
def test_a_connection_that_ended_before_it_was_taken_costs_no_time(code: int) -> None:
    class Aborting(socket.socket):
        failures = 3

        def accept(self) -> tuple[socket.socket, object]:
            if self.failures:
                Aborting.failures -= 1
                raise OSError(code, os.strerror(code))
            return super().accept()

    with serving(TcpAddress("127.0.0.1", 0), AllowedSenders(OWN)) as (server, delivered, refused, turn):
        listener = Aborting(fileno=server._acceptor._listeners.sockets[0].detach())
        server._acceptor._listeners.sockets[0] = listener
        with idle_connections(listener.getsockname()[1], "127.0.0.1", 1) as (honest,):
            honest.sendall(encode({"SLURM_JOB_ID": "3"}))
            honest.shutdown(socket.SHUT_WR)
            turn_until(turn, lambda: server._acceptor.accept(listener) or bool(delivered))  # type: ignore[func-returns-value]
    assert refused == []


def test_without_file_descriptors_the_oldest_gives_way() -> None:
    timing = Timing(pause=0.0)
    with serving(TcpAddress("127.0.0.1", 0), AllowedSenders(OWN), timing=timing) as (server, delivered, refused, turn):
        port = server._acceptor._listeners.sockets[0].getsockname()[1]
        with idle_connections(port, "127.0.0.2", 2):
            turn_until(turn, lambda: len(server._incoming) == 2)
            server._on_accept_failed("cannot accept a connection: Too many open files")
            assert len(server._incoming) == 1
            assert "Too many open files" in refused[0][1]
            with idle_connections(port, "127.0.0.1", 1) as (honest,):
                honest.sendall(encode({"SLURM_JOB_ID": "3"}))
                honest.shutdown(socket.SHUT_WR)
                turn_until(turn, lambda: bool(delivered))


def test_no_file_descriptor_left(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "d.sock"))
    listeners = open_listeners(address, AllowedSenders(OWN))
    listeners.sockets[0] = ExhaustedSocket(listeners.sockets[0])
    delivered: list[HookMessage] = []
    refused: list[str] = []
    with selectors.DefaultSelector() as selector, socket.socket(socket.AF_UNIX) as connection:
        handlers = Handlers(delivered.append, lambda _, line: refused.append(line))
        server = HookServer(listeners, AllowedSenders(OWN), selector, handlers)
        connection.connect(address.path)
        connection.sendall(encode({"SLURM_JOB_ID": "3"}))
        connection.shutdown(socket.SHUT_WR)
        turns = 0
        deadline = time.monotonic() + DEADLINE
        while not delivered:
            assert time.monotonic() < deadline
            for key, _ in selector.select(min(0.5, max(0.0, server.next_deadline() - time.monotonic()))):
                key.data()
            server.tick()
            turns += 1
        server.close()
    assert len(refused) == 2
    assert "Too many open files" in refused[0]
    assert turns < 20


def test_other_users_are_refused(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "d.sock"))
    strangers = serving(address, AllowedSenders(frozenset({12345})))
    with strangers as (_, delivered, refused, turn), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address.path)
        turn_until(turn, lambda: bool(refused))
        connection.settimeout(DEADLINE)
        assert connection.recv(1) == b""
    assert delivered == []
    assert refused[0][0] == "refused"
    assert f"uid {os.geteuid()}" in refused[0][1]
    assert f"process {os.getpid()}" in refused[0][1]
