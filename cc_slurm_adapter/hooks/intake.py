"""Receives hook events in one thread: from the events folders and from the socket.

`Intake` is the thread. It serves the socket with a `HookServer` and scans the folders by `_Folders`; both hand what
they receive to `_Filter`, which passes on the events of our own cluster.
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
from functools import partial
from typing import Any, NamedTuple

from cc_slurm_adapter.config.address import TcpAddress, UnixAddress
from cc_slurm_adapter.config.values import Network
from cc_slurm_adapter.hooks.access import AllowedSenders, find_allowed_senders, no_account
from cc_slurm_adapter.hooks.folder_check import Place
from cc_slurm_adapter.hooks.listener import Listeners, open_listeners
from cc_slurm_adapter.hooks.message import HookMessage
from cc_slurm_adapter.hooks.server import Handlers, HookServer
from cc_slurm_adapter.hooks.server import Timing as ServerTiming
from cc_slurm_adapter.hooks.spool import EventsFolder
from cc_slurm_adapter.hooks.spool import Timing as FolderTiming
from cc_slurm_adapter.log import Repeated
from cc_slurm_adapter.model import HookEvent
from cc_slurm_adapter.system.threads import WAIT, Worker

logger = logging.getLogger(__name__)

STOP_SECONDS = 0.5
MAX_AGE = 60.0
"""The most seconds that an event file can be older than its arrival. The clock of its file system may be wrong."""
STUCK_AFTER = 300.0
"""Seconds. A turn takes milliseconds, unless a file system hangs."""

RECEIVED = "hook_events"
"""The counter of events of our cluster, with the label `way`: `socket` or `file`."""
REFUSED, GARBAGE, FOREIGN = "hook_events_refused", "hook_events_garbage", "hook_events_of_other_clusters"
"""Counters. Refused are senders without permission, and messages that are too long, too slow or wrongly signed."""
_COUNTERS = {"refused": REFUSED, "garbage": GARBAGE}


class Timing(NamedTuple):
    """How long the thread and its parts wait, in seconds."""

    open: float = 1.0
    """How long the start waits for the first scan of a folder: its file system may be stuck."""
    longest_pause: float = 5.0
    """After an unexpected error, at most: hooks wait for the thread to go on."""
    server: ServerTiming = ServerTiming()
    """Of the socket."""
    folders: FolderTiming = FolderTiming()
    """Of the events folders."""


TIMING = Timing()


class _Filter:
    """Passes on events of jobs of our own cluster.

    Bad input is counted. Each kind is logged less and less often, finally once an hour. `cluster` is known once Slurm
    has answered; with '' events of every cluster are passed on.
    """

    def __init__(
        self,
        deliver: Callable[[HookEvent], None],
        count: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cluster = ""
        self._deliver = deliver
        self._count = count
        self._lines = Repeated(clock)

    def is_ours(self, cluster: str) -> bool:
        """Return whether an event of this cluster is to be passed on; one without a cluster is."""
        return not cluster or not self.cluster or cluster.lower() == self.cluster.lower()

    def accept(self, message: HookMessage) -> None:
        """Pass on an event that came over the socket, if it is of our cluster."""
        if not self.is_ours(message.cluster):
            self._count(FOREIGN)
            self._warn("foreign", f"job {message.job_id} is of the cluster {message.cluster!r}, not of this one")
            return
        self._pass_on(message, "socket")

    def accept_file(self, message: HookMessage) -> None:
        """Pass on an event that was in a folder, which has checked that it is of our cluster."""
        self._pass_on(message, "file")

    def _pass_on(self, message: HookMessage, way: str) -> None:
        self._count(RECEIVED, way=way)
        age = min(max(message.age, 0.0), MAX_AGE)
        self._deliver(HookEvent(message.job_id, message.context, time.monotonic() - age))

    def refuse(self, kind: str, line: str) -> None:
        """Count and log what is not an event, or comes from somebody who may not send any."""
        if kind in _COUNTERS:
            self._count(_COUNTERS[kind])
        self._warn(kind, line)

    def _warn(self, kind: str, line: str) -> None:
        if self._lines.is_due(kind):
            logger.warning("hook events: %s%s", line, self._lines.note)


class _Folders:
    """Scans the events folders when they are due, and when inotify reports new files to the selector."""

    def __init__(
        self,
        folders: Sequence[EventsFolder],
        selector: selectors.BaseSelector,
        allowed_senders: AllowedSenders,
        pass_on: Callable[[HookMessage], None],
    ) -> None:
        """`pass_on` is called with each event; a folder has checked already that it is of our cluster."""
        self._folders = folders
        self._selector = selector
        self._allowed_senders = allowed_senders
        self._pass_on = pass_on
        self._errors = Repeated()
        self.scanned = threading.Event()
        """Set once a folder has been scanned."""

    @property
    def paths(self) -> list[str]:
        """Return the folders' paths, that of this version first."""
        return [folder.path for folder in self._folders]

    @property
    def next_scan(self) -> float:
        """Return the time.monotonic() at which a folder is to be scanned."""
        return min(folder.next_scan for folder in self._folders)

    def scan_due(self) -> None:
        """Scan the folders that are due."""
        for folder in self._folders:
            if folder.next_scan <= time.monotonic():
                self._scan_safely(folder)

    def close(self) -> None:
        """Close all folders; the selector is closed as well."""
        for folder in self._folders:
            folder.close()

    def _scan_safely(self, folder: EventsFolder) -> None:
        """Scan a folder; an error closes it for a minute, but neither the socket nor the other folder."""
        try:
            self._scan(folder)
            self.scanned.set()
        except Exception as error:
            if self._errors.is_due(type(error).__name__):
                text = "prepEventsPath: an error of this program; it is tried again in a minute%s"
                logger.exception(text, self._errors.note)
            self._close(folder)
            folder.postpone()

    def _scan(self, folder: EventsFolder) -> None:
        if not folder.usable:
            self._open(folder)
            return
        for message in folder.pop_events():
            self._pass_on(message)
        if not folder.usable:
            self._close(folder)

    def _open(self, folder: EventsFolder) -> None:
        self._close(folder)
        folder.open(self._allowed_senders)
        if folder.watch is not None:
            self._selector.register(folder.watch, selectors.EVENT_READ, partial(self._on_watch, folder))

    def _close(self, folder: EventsFolder) -> None:
        if folder.watch is not None:
            self._selector.unregister(folder.watch)
        folder.close()

    def _on_watch(self, folder: EventsFolder) -> None:
        """Note the new files that inotify names; a folder that was replaced is opened again."""
        if not folder.read_watch():
            self._open(folder)


class Intake:
    """The thread that turns what hooks report into `HookEvent`s.

    `folders` are where hooks leave event files, the first of them those of this version. `deliver` and `count` are
    called in the intake's thread and must neither block nor raise; `count` gets the name of a counter and its labels.
    `secret` and `allow` protect a TCP address.
    """

    def __init__(  # noqa: PLR0913 - where events come from, and what is called with them
        self,
        *,
        address: UnixAddress | TcpAddress,
        folders: Sequence[Place],
        deliver: Callable[[HookEvent], None],
        count: Callable[..., None] = lambda name, **labels: None,
        secret: bytes | None = None,
        allow: tuple[Network, ...] = (),
        timing: Timing = TIMING,
    ) -> None:
        self._address = address
        self._secret = secret
        self._allow = allow
        self._timing = timing
        self._places = folders
        self._filter = _Filter(deliver, count)
        self._listeners: Listeners | None = None
        self._worker = Worker(
            "intake", self._turn, self._end, longest_pause=timing.longest_pause, stuck_after=STUCK_AFTER
        )

    @property
    def workers(self) -> list[Worker]:
        """The thread, for the supervisor."""
        return [self._worker]

    @property
    def addresses(self) -> list[Any]:
        """Return what it listens on, as `getsockname` does, from `open` to `stop`."""
        return [listener.getsockname() for listener in self._listeners.sockets] if self._listeners else []

    def open(self) -> None:
        """Open the socket. Hooks that connect from now on wait until SlurmUser and the cluster are known.

        Raises StateError if the socket cannot be opened.
        """
        own = AllowedSenders(frozenset({0, os.geteuid()}), None, self._allow, self._secret)
        self._listeners = open_listeners(self._address, own)

    def start(self, cluster: str, slurm_user: str) -> None:
        """Start the thread, which opens the events folders. A folder that cannot be used is logged as a warning.

        `cluster` is Slurm's own name of the cluster; with '' events of every cluster are accepted. `slurm_user` is the
        name of the user that Slurm's hooks run as.
        """
        assert self._listeners is not None  # noqa: S101 - it was opened before
        self._filter.cluster = cluster
        allowed_senders = find_allowed_senders(slurm_user, self._secret, self._allow)
        if allowed_senders.group is None:
            logger.warning("%s", no_account(slurm_user))
        self._listeners.grant_access(allowed_senders)
        self._wake = socket.socketpair()
        """What is sent on the second wakes the thread, which waits for the first."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake[0], selectors.EVENT_READ, lambda: None)
        handlers = Handlers(self._filter.accept, self._filter.refuse)
        timing = self._timing
        self._server = HookServer(self._listeners, allowed_senders, self._selector, handlers, timing=timing.server)
        folders = [
            EventsFolder(place, cluster, self._filter.is_ours, self._filter.refuse, timing=timing.folders)
            for place in self._places
        ]
        self._folders = _Folders(folders, self._selector, allowed_senders, self._filter.accept_file)
        self._worker.start()
        if not self._folders.scanned.wait(timing.open):
            logger.warning("prepEventsPath: %s does not answer yet: is its file system stuck?", self._folders.paths[0])

    def use_secret(self, secret: bytes | None) -> None:
        """Accept events over TCP that are signed with this secret from now on, in place of another one.

        The same secret changes nothing, so that no message can be sent twice. Called after `start`.
        """
        if secret is not None and secret != self._secret:
            self._secret = secret
            self._server.use_secret(secret)

    def stop(self) -> None:
        """End the thread within half a second; it closes everything and removes the unix socket.

        It does nothing when the intake was not started or is stopped already.
        """
        listeners, self._listeners = self._listeners, None
        if listeners is None:
            return
        if self._worker.never_ran:
            listeners.close()
            return
        self._worker.stop()
        with suppress(OSError):
            self._wake[1].send(b"x")
        self._worker.join(STOP_SECONDS)
        if self._worker.is_alive:
            logger.warning(
                "the intake of hook events does not end: is the file system of %s stuck?",
                " or ".join(self._folders.paths),
            )
            return
        for end in self._wake:
            end.close()

    def _end(self) -> None:
        self._server.close()
        self._folders.close()
        self._selector.close()

    def _turn(self) -> None:
        try:
            self._serve()
        except Exception:
            self._server.drop_all()  # what went wrong may be due to one of them
            raise

    def _serve(self) -> None:
        deadline = min(self._server.next_deadline(), self._folders.next_scan)
        for key, _ in self._selector.select(min(max(0.0, deadline - time.monotonic()), WAIT)):
            key.data()
        self._server.tick()
        self._folders.scan_due()
