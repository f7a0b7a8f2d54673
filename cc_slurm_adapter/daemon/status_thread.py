"""The thread that answers on the control socket and on metricsListen, and says how the daemon is without being asked.

Nothing else depends on it: whatever fails here is logged, and the daemon goes on reporting. It opens its sockets
itself, because a name server or a file system may hang.
"""

from __future__ import annotations

import logging
import os
import pwd
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from cc_slurm_adapter.config.address import TcpAddress, UnixAddress
from cc_slurm_adapter.daemon import http_server
from cc_slurm_adapter.daemon.http_server import Handler, HttpServer, own_names
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.hooks.access import AllowedSenders
from cc_slurm_adapter.hooks.listener import Listeners, Use, open_listeners
from cc_slurm_adapter.log import NOTICE, Reminder
from cc_slurm_adapter.system.threads import Worker, run_beside

log = logging.getLogger(__name__)

STOP_SECONDS = 0.5
NOBODY = AllowedSenders(frozenset({0}))
"""Before SlurmUser is known, root and the daemon's own user alone can use the socket."""


class Timing(NamedTuple):
    """How long the thread waits, in seconds."""

    tick: float = 1.0
    """The most between two looks at what the daemon does."""
    open_again: float = 60.0
    """Until a socket is tried again that could not be opened."""
    server: http_server.Timing = http_server.TIMING


TIMING = Timing()


class Announces(Protocol):
    """What says how the daemon is."""

    def announce_due(self) -> None:
        """Say it where that is due. Called about once a second."""


class Place(NamedTuple):
    """An address, what it is for, and what answers there."""

    address: UnixAddress | TcpAddress
    use: Use
    handler: Handler


class _Door:
    """One place: opened as soon as that can be done, and then served."""

    def __init__(self, place: Place, selector: selectors.BaseSelector, timing: Timing) -> None:
        self._place = place
        self._selector = selector
        self._timing = timing
        self._open_at = 0.0
        self._reminder = Reminder()
        self._listeners: Listeners | None = None
        self._server: HttpServer | None = None

    def tick(self, senders: AllowedSenders) -> None:
        """Open it if it is not open, and do what is due."""
        if self._server is not None:
            self._server.tick()
        elif time.monotonic() >= self._open_at:
            self._open(senders)

    def next_deadline(self) -> float:
        """Return the time.monotonic() at which `tick` has something to do."""
        return self._server.next_deadline() if self._server is not None else self._open_at

    def grant_access(self, senders: AllowedSenders) -> None:
        """Let SlurmUser's group use a unix socket."""
        if self._listeners is not None:
            self._listeners.grant_access(senders)

    def drop_all(self) -> None:
        """Close every connection, because one of them may have caused an error."""
        if self._server is not None:
            self._server.drop_all()

    def close(self) -> None:
        """Close it, and remove a unix socket."""
        if self._server is not None:
            self._server.close()

    def _open(self, senders: AllowedSenders) -> None:
        address, use, handler = self._place
        self._open_at = time.monotonic() + self._timing.open_again
        names: set[str] = set()
        if isinstance(address, TcpAddress):
            names |= {"localhost", address.host, socket.gethostname()} - {""}
            run_beside("own names", lambda: names.update(own_names()))  # a name server may not answer
        try:
            self._listeners = open_listeners(address, senders, use)
        except StateError as error:
            if self._reminder.is_due(str(error)):
                text = "%s. All else goes on; it is tried again every %.0f s%s"
                log.warning(text, error, self._timing.open_again, self._reminder.note)
            return
        self._server = HttpServer(self._listeners, handler, self._selector, names=names, timing=self._timing.server)
        if self._reminder.over():
            log.log(NOTICE, "%s: %s can be used now%s", use.setting, address, self._reminder.note)


class StatusThread:
    """The thread. The main thread starts and stops it."""

    def __init__(
        self,
        places: Sequence[Place],
        announcer: Announces,
        slurm_user: Callable[[], str] = lambda: "",
        *,
        timing: Timing = TIMING,
    ) -> None:
        """`slurm_user` returns the name of SlurmUser, whose group may use the unix sockets; '' until it is known."""
        self._announcer = announcer
        self._find_slurm_user = slurm_user
        self._timing = timing
        self._selector = selectors.DefaultSelector()
        self._doors = [_Door(place, self._selector, timing) for place in places]
        self._wake = socket.socketpair()
        """What is sent on the second wakes the thread, which waits for the first."""
        self._selector.register(self._wake[0], selectors.EVENT_READ, lambda: None)
        self._slurm_user = ""
        self._senders = NOBODY
        self._worker = Worker("status", self._turn, self._end)

    def start(self) -> None:
        """Start the thread."""
        self._worker.start()

    def stop(self) -> None:
        """End the thread within half a second. It closes its sockets."""
        self._worker.stop()
        with suppress(OSError):
            self._wake[1].send(b"x")
        self._worker.join(STOP_SECONDS)
        if not self._worker.is_alive:
            for end in self._wake:
                end.close()

    def _end(self) -> None:
        for door in self._doors:
            door.close()
        self._selector.close()

    def _turn(self) -> None:
        try:
            self._serve()
        except Exception:
            for door in self._doors:
                door.drop_all()  # what went wrong may be due to a connection
            raise

    def _serve(self) -> None:
        self._admit_slurm_user()
        for door in self._doors:
            door.tick(self._senders)
        self._announcer.announce_due()
        deadline = min((door.next_deadline() for door in self._doors), default=float("inf"))
        wait = min(max(deadline - time.monotonic(), 0.0), self._timing.tick)
        for key, _ in self._selector.select(wait):
            key.data()

    def _admit_slurm_user(self) -> None:
        user = self._find_slurm_user()
        if user == self._slurm_user:
            return
        self._slurm_user = user
        try:
            group = pwd.getpwnam(user).pw_gid
        except KeyError:
            return  # the intake of hook events logs that
        self._senders = AllowedSenders(frozenset({0, os.geteuid()}), group)
        for door in self._doors:
            door.grant_access(self._senders)
