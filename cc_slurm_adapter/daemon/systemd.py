"""Tells systemd how the daemon stands (Type=notify) and that it is alive (WatchdogSec=); elsewhere it does nothing.

The messages: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping

from cc_slurm_adapter.lines import printable

SEND_LIMIT = 1.0
"""Seconds that systemd gets to take a message: its queue may be full."""
REST = 10.0
"""Seconds from what keeps from a start to the end of the process; a SIGTERM ends them."""
FEEDS = 4
"""How often the watchdog is fed in the time that it waits."""


def notify(state: str) -> None:
    """Send `READY=1`, `STOPPING=1` or the like to the socket that systemd named, if it did."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SEND_LIMIT)
        sock.sendto(state.encode(errors="replace"), "\0" + address[1:] if address.startswith("@") else address)


def tell_status(text: str) -> None:
    """What the daemon does or waits for, as `systemctl status` shows it: one line."""
    notify(f"STATUS={printable(' '.join(text.split()))}")


def rest_before_the_next_start(why: str, wait: Callable[[float], object]) -> None:
    """What keeps from a start may pass by itself; systemd starts it again a second later, and the log is not to fill.

    `wait` takes seconds. Whoever starts it by hand need not wait.
    """
    if "NOTIFY_SOCKET" in os.environ:
        tell_status(f"cannot start: {why}")
        wait(REST)


class Watchdog:
    """systemd's, which ends the daemon when its main thread is stuck; only that thread may feed it."""

    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._every = _patience(environ) / FEEDS
        self._next = 0.0

    def feed(self) -> None:
        """The main thread gets on; may be called as often as that is so."""
        now = self._clock()
        if self._every and now >= self._next:
            self._next = now + self._every
            notify("WATCHDOG=1")


def _patience(environ: Mapping[str, str]) -> float:
    """Seconds; 0 where there is no watchdog, or where it watches another process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1_000_000 if microseconds.isascii() and microseconds.isdigit() else 0.0
