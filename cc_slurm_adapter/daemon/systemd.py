"""Tells systemd the status of the daemon (Type=notify) and that it is alive (WatchdogSec=); elsewhere does nothing.

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
    """Send the line that `systemctl status` shows: what the daemon does or waits for."""
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
        self._every = _time_limit(environ) / FEEDS
        self._next = 0.0

    def feed(self) -> None:
        """Tell systemd that the main thread gets on: as often as it needs that, however often this is called."""
        now = self._clock()
        if self._every and now >= self._next:
            self._next = now + self._every
            notify("WATCHDOG=1")


def _time_limit(environ: Mapping[str, str]) -> float:
    """Return the seconds that systemd waits for a sign; 0 without a watchdog, or where it watches another process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1_000_000 if microseconds.isascii() and microseconds.isdigit() else 0.0
