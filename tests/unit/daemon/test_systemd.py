"""What systemd is told, as it arrives at the socket that it names."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cc_slurm_adapter.daemon.systemd import Timing, Watchdog, notify, reloading, tell_status


class Clock:
    """Seconds that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Its end of the socket."""
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(path)
        end.setblocking(False)
        yield end


def arrived(end: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(end.recv(4096))
        except BlockingIOError:
            return found


def test_a_status_is_one_line(systemd: socket.socket) -> None:
    tell_status("waiting for Slurm:\nREADY=1\n  it is away")
    assert arrived(systemd) == [b"STATUS=waiting for Slurm: READY=1 it is away"]


def test_the_watchdog_is_fed_several_times_in_its_patience_however_often_it_is_called(systemd: socket.socket) -> None:
    clock = Clock()
    watchdog = Watchdog({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": str(os.getpid())}, clock)
    for _ in range(1200):
        watchdog.feed()
        clock.now += 0.1
    assert arrived(systemd) == [b"WATCHDOG=1"] * 4


@pytest.mark.parametrize(
    "environ", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}]
)
def test_without_a_watchdog_of_its_own_nothing_is_fed(systemd: socket.socket, environ: dict[str, str]) -> None:
    Watchdog(environ).feed()
    assert arrived(systemd) == []


def test_without_systemd_nothing_happens(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")
    assert arrived(systemd) == []


def test_a_systemd_that_takes_nothing_holds_nobody(systemd: socket.socket) -> None:
    send_limit = 0.001
    for _ in range(5000):  # more than its queue has room for
        notify("WATCHDOG=1", timing=Timing(send_limit))
        if len(os.listdir("/proc/self/fd")) > 1000:
            pytest.fail("sockets are left open")
        send_limit = 0.0
    assert set(arrived(systemd)) == {b"WATCHDOG=1"}


def test_a_reload_has_a_beginning_with_its_time_and_an_end_whatever_happens(systemd: socket.socket) -> None:
    """As sd_notify(3) says; systemd compares the time with that at which it has sent the signal."""
    before = time.monotonic_ns() // 1000
    with suppress(ZeroDivisionError), reloading():
        beginning = arrived(systemd)
        raise ZeroDivisionError
    (text,) = beginning
    state, microseconds = text.decode().split("\nMONOTONIC_USEC=")
    assert state == "RELOADING=1"
    assert before <= int(microseconds) <= time.monotonic_ns() // 1000
    assert arrived(systemd) == [b"READY=1"]
