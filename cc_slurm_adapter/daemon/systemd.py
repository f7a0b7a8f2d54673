"""Tells systemd the status of the daemon (Type=notify) and that it is alive (WatchdogSec=); elsewhere does nothing.

The messages: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from cc_slurm_adapter.lines import printable

REST = 10.0
"""Seconds that the process waits before it ends, if something prevents its start. A SIGTERM ends the wait."""
FEEDS = 4
"""How often the watchdog is fed within its time limit."""


class Timing(NamedTuple):
    """How long a message to systemd may take, in seconds."""

    send_limit: float = 1.0
    """The most to wait until systemd takes it: its queue may be full."""


TIMING = Timing()


def notify(state: str, *, timing: Timing = TIMING) -> None:
    """Send `READY=1`, `STOPPING=1` or the like to the socket that systemd has named, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timing.send_limit)
        sock.sendto(state.encode(errors="replace"), "\0" + address[1:] if address.startswith("@") else address)


@contextlib.contextmanager
def reloading() -> Iterator[None]:
    """Return a context inside which the unit is shown as reloading.

    With Type=notify-reload systemd waits until it ends, and needs the time; with Type=notify it only shows it.
    """
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    try:
        yield
    finally:
        notify("READY=1")


def tell_status(text: str) -> None:
    """Send the line that `systemctl status` shows: what the daemon does or waits for."""
    notify(f"STATUS={printable(' '.join(text.split()))}")


def rest_before_the_next_start(why: str, wait: Callable[[float], object]) -> None:
    """Wait before the process ends because of what prevents its start, if systemd has started it.

    The reason may pass by itself. systemd starts the daemon again a second later, and the log must not fill up. `wait`
    takes seconds. After a start by hand there is no wait.
    """
    if "NOTIFY_SOCKET" in os.environ:
        tell_status(f"cannot start: {why}")
        wait(REST)


class Watchdog:
    """The watchdog of systemd, which ends the daemon when its main thread is stuck. Only that thread may feed it."""

    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._every = _time_limit(environ) / FEEDS
        self._next = 0.0

    def feed(self) -> None:
        """Tell systemd that the main thread is not stuck. May be called often: it tells only as often as needed."""
        now = self._clock()
        if self._every and now >= self._next:
            self._next = now + self._every
            notify("WATCHDOG=1")


def _time_limit(environ: Mapping[str, str]) -> float:
    """Return how many seconds systemd waits for a sign; 0 without a watchdog, or if it watches another process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1_000_000 if microseconds.isascii() and microseconds.isdigit() else 0.0
