"""Takes hook events: from the events folders and from the socket, in one thread.

Whatever arrives is judged here; only events of jobs of our own cluster go on. Bad input is counted,
and told in the log at most once a minute for each kind.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from cc_slurm_adapter.config.address import TcpAddress, UnixAddress
from cc_slurm_adapter.config.values import Network
from cc_slurm_adapter.hooks.access import Admission, admit
from cc_slurm_adapter.hooks.listener import Listeners, open_listeners
from cc_slurm_adapter.hooks.message import HookMessage
from cc_slurm_adapter.hooks.server import Handlers, HookServer
from cc_slurm_adapter.hooks.spool import EventsFolder, Place
from cc_slurm_adapter.log import Reminder
from cc_slurm_adapter.model import HookEvent
from cc_slurm_adapter.system.threads import WAIT, Worker

logger = logging.getLogger(__name__)

QUIET_SECONDS = 60.0
"""A kind of trouble is told this often at most."""
STOP_SECONDS = 0.5
OPEN_SECONDS = 1.0
"""How long the start waits for the folder: its file system may be stuck."""
LONGEST_PAUSE = 5.0
"""Seconds after an error that nobody thought of: hooks wait for it."""
STUCK_AFTER = 300.0
"""Seconds. A turn takes milliseconds, unless a file system hangs."""


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

    `folders` are where event files are left, the first of them by the hooks of this version. `deliver` is called in the
    intake's thread and must neither block nor raise. `secret` and `allow` protect a TCP address.
    """

    def __init__(
        self,
        *,
        address: UnixAddress | TcpAddress,
        folders: Sequence[Place],
        deliver: Callable[[HookEvent], None],
        secret: bytes | None = None,
        allow: tuple[Network, ...] = (),
    ) -> None:
        self.counters = IntakeCounters()
        self._address = address
        self._cluster = ""
        self._secret = secret
        self._allow = allow
        self._deliver = deliver
        self._quiet = _Quiet()
        self._places = folders
        self._folders: list[EventsFolder] = []
        self._folder_errors = Reminder()
        self._looked = threading.Event()
        self._listeners: Listeners | None = None
        self._worker = Worker("intake", self._turn, self._end, longest_pause=LONGEST_PAUSE, stuck_after=STUCK_AFTER)

    @property
    def workers(self) -> list[Worker]:
        """Its thread."""
        return [self._worker]

    def open(self) -> None:
        """Open the socket. Hooks that connect from now on wait until it is known whose they are.

        Raises StateError when the socket cannot be had.
        """
        own = Admission(frozenset({0, os.geteuid()}), None, self._allow, self._secret)
        self._listeners = open_listeners(self._address, own)
        self.addresses = [listener.getsockname() for listener in self._listeners.sockets]

    def start(self, cluster: str, slurm_user: str) -> None:
        """Start the thread, which opens the events folder. A folder that cannot be used is a warning.

        `cluster` is Slurm's own name of the cluster; with '' every cluster's events are taken. `slurm_user` is the
        name of the user that Slurm's hooks run as.
        """
        assert self._listeners is not None  # noqa: S101 - it was opened before
        self._cluster = cluster
        self._admission = admit(slurm_user, self._secret, self._allow)
        self._listeners.let_in(self._admission)
        self._wake_read, self._wake_write = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_read, selectors.EVENT_READ, lambda: None)
        handlers = Handlers(self._take, self._refuse)
        self._server = HookServer(self._listeners, self._admission, self._selector, handlers)
        self._folders = [EventsFolder(place, cluster, self._is_ours, self._refuse) for place in self._places]
        self._worker.start()
        if not self._looked.wait(OPEN_SECONDS):
            logger.warning("prepEventsPath: %s does not answer yet: is its file system stuck?", self._folders[0].path)

    def stop(self) -> None:
        """End the thread within half a second; it closes everything and removes the unix socket.

        Does no harm when the intake was not started or is stopped already.
        """
        listeners, self._listeners = self._listeners, None
        if listeners is None:
            return
        if self._worker.never_ran:
            listeners.close()
            return
        self._worker.stop()
        with suppress(OSError):
            self._wake_write.send(b"x")
        self._worker.join(STOP_SECONDS)
        if self._worker.is_alive:
            logger.warning(
                "the intake of hook events does not end: is the file system of %s stuck?",
                " or ".join(folder.path for folder in self._folders),
            )
            return
        self._wake_read.close()
        self._wake_write.close()

    def _end(self) -> None:
        self._server.close()
        for folder in self._folders:
            folder.close()
        self._selector.close()

    def _turn(self) -> None:
        try:
            self._serve()
        except Exception:
            self._server.drop_all()  # what went wrong may be due to one of them
            raise

    def _serve(self) -> None:
        deadline = min(self._server.next_deadline(), *(folder.next_look for folder in self._folders))
        for key, _ in self._selector.select(min(max(0.0, deadline - time.monotonic()), WAIT)):
            key.data()
        self._server.tick()
        for folder in self._folders:
            if folder.next_look <= time.monotonic():
                self._look_in_spite_of_errors(folder)

    def _look_in_spite_of_errors(self, folder: EventsFolder) -> None:
        """The socket and the other folder are served whatever happens in this one."""
        try:
            self._look(folder)
            self._looked.set()
        except Exception as error:
            if self._folder_errors.is_due(type(error).__name__):
                logger.exception("prepEventsPath: an error of this program; it is tried again in a minute")
            self._close(folder)
            folder.rest()

    def _open(self, folder: EventsFolder) -> None:
        self._close(folder)
        folder.open(self._admission)
        if folder.watch is not None:
            self._selector.register(folder.watch, selectors.EVENT_READ, partial(self._on_watch, folder))

    def _close(self, folder: EventsFolder) -> None:
        if folder.watch is not None:
            self._selector.unregister(folder.watch)
        folder.close()

    def _on_watch(self, folder: EventsFolder) -> None:
        if not folder.notice():
            self._open(folder)

    def _look(self, folder: EventsFolder) -> None:
        if not folder.usable:
            self._open(folder)
            return
        for message in folder.take():
            self._take(message)
        if not folder.usable:
            self._close(folder)

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
