"""Takes hook events: from the events folder and from the socket, in one thread.

Whatever arrives is judged here; only events of jobs of our own cluster go on. Bad input is counted,
and told in the log at most once a minute for each kind.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from dataclasses import dataclass
from typing import Callable

from cc_slurm_adapter.admission import admit
from cc_slurm_adapter.config_values import Network
from cc_slurm_adapter.events_folder import EventsFolder
from cc_slurm_adapter.job import HookEvent
from cc_slurm_adapter.prep import HookMessage, TcpAddress, UnixAddress
from cc_slurm_adapter.prep_server import Handlers, PrepServer
from cc_slurm_adapter.prep_socket import open_listeners

logger = logging.getLogger(__name__)

QUIET_SECONDS = 60.0
"""A kind of trouble is told this often at most."""
LOOK_SECONDS = 0.2
"""How often the folder is looked into where it cannot be watched ..."""
WATCHED_LOOK_SECONDS = 10.0
"""... and where it is watched: files that another host leaves on a shared file system are not reported."""
REOPEN_SECONDS = 60.0
"""How often an unusable folder is tried again."""
STOP_SECONDS = 0.5


@dataclass
class IntakeCounters:
    """What has arrived since the start."""

    received: int = 0
    refused: int = 0
    """Senders without permission, messages that are too long, too slow or wrongly signed."""
    garbage: int = 0
    foreign: int = 0
    """Messages about jobs of other clusters."""


class _Quiet:
    """Logs each kind of trouble at most once a minute and says how often it was left out."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[float, int]] = {}

    def warn(self, kind: str, line: str) -> None:
        last, left_out = self._kinds.get(kind, (float("-inf"), 0))
        now = time.monotonic()
        if now - last < QUIET_SECONDS:
            self._kinds[kind] = (last, left_out + 1)
            return
        self._kinds[kind] = (now, 0)
        more = f" ({left_out} more of this kind since the last such line)" if left_out else ""
        logger.warning("hook events: %s%s", line, more)


class Intake:
    """The thread that turns what hooks report into `HookEvent`s.

    `cluster` is Slurm's own name of the cluster; with '' every cluster's events are taken. `deliver`
    is called in the intake's thread and must neither block nor raise. `slurm_user` is the name of the
    user that Slurm's hooks run as; `secret` and `allow` protect a TCP address.
    """

    def __init__(  # noqa: PLR0913 - the daemon's wiring: all by name, once
        self,
        *,
        address: UnixAddress | TcpAddress,
        events_path: str,
        cluster: str,
        deliver: Callable[[HookEvent], None],
        slurm_user: str,
        secret: bytes | None = None,
        allow: tuple[Network, ...] = (),
    ) -> None:
        self.counters = IntakeCounters()
        self._address = address
        self._cluster = cluster
        self._admission = admit(slurm_user, secret, allow)
        self._deliver = deliver
        self._quiet = _Quiet()
        self._folder = EventsFolder(events_path, self._is_ours, self._refuse)
        self._next_look = 0.0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Open socket and folder and start the thread.

        Raises StateError when the socket cannot be had. A folder that cannot be used is a warning.
        """
        listeners = open_listeners(self._address, self._admission)
        self.addresses = [listener.getsockname() for listener in listeners.sockets]
        self._wake_read, self._wake_write = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_read, selectors.EVENT_READ, lambda: None)
        handlers = Handlers(self._take, self._refuse)
        self._server = PrepServer(listeners, self._admission, self._selector, handlers)
        self._open_folder()
        self._thread.start()

    def stop(self) -> None:
        """End the thread within half a second; it closes everything and removes the unix socket.

        Does no harm when the intake was not started or is stopped already.
        """
        if self._thread.ident is None:
            return
        self._stopping = True
        if self._thread.is_alive():
            self._wake_write.send(b"x")
            self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            logger.warning("the intake of hook events does not end: is the file system of %s stuck?", self._folder.path)
            return
        self._wake_read.close()
        self._wake_write.close()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        finally:
            self._server.close()
            self._folder.close()
            self._selector.close()

    def _turn(self) -> None:
        deadline = min(self._next_look, self._server.next_deadline())
        for key, _ in self._selector.select(max(0.0, deadline - time.monotonic())):
            key.data()
        self._server.tick()
        if self._next_look <= time.monotonic():
            self._look()

    def _close_folder(self) -> None:
        if self._folder.watch is not None:
            self._selector.unregister(self._folder.watch)
        self._folder.close()

    def _open_folder(self) -> None:
        self._close_folder()
        self._folder.open(self._admission)
        if self._folder.watch is not None:
            self._selector.register(self._folder.watch, selectors.EVENT_READ, self._on_watch)
        self._next_look = time.monotonic() + (0.0 if self._folder.usable else REOPEN_SECONDS)

    def _on_watch(self) -> None:
        self._next_look = 0.0
        if self._folder.watch is not None and not self._folder.watch.drain():
            self._open_folder()

    def _look(self) -> None:
        if not self._folder.usable:
            self._open_folder()
            return
        messages = self._folder.take()
        for message in messages:
            self._take(message)
        self._next_look = time.monotonic() + self._pause()

    def _pause(self) -> float:
        """Seconds until the next look."""
        if not self._folder.usable:
            self._close_folder()
            return 0.0 if self._folder.is_gone else REOPEN_SECONDS
        if self._folder.has_more:
            return 0.0
        return WATCHED_LOOK_SECONDS if self._folder.watch is not None else LOOK_SECONDS

    def _is_ours(self, cluster: str) -> bool:
        return not cluster or not self._cluster or cluster.lower() == self._cluster.lower()

    def _take(self, message: HookMessage) -> None:
        if not self._is_ours(message.cluster):
            self.counters.foreign += 1
            self._quiet.warn("foreign", f"job {message.job_id} is of the cluster {message.cluster!r}, not of ours")
            return
        self.counters.received += 1
        self._deliver(HookEvent(message.job_id, message.context, time.monotonic()))

    def _refuse(self, kind: str, line: str) -> None:
        if kind == "refused":
            self.counters.refused += 1
        elif kind == "garbage":
            self.counters.garbage += 1
        self._quiet.warn(kind, line)
