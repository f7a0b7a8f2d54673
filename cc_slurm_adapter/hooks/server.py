"""Takes messages from hooks over the listening sockets, whatever is sent to them.

Sizes, times and numbers are bounded, so that nobody can fill the memory or keep the daemon busy.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import selectors
import socket
import time
from collections import Counter
from typing import Callable, NamedTuple

from cc_slurm_adapter.config.secrets import reason
from cc_slurm_adapter.hooks.access import Admission
from cc_slurm_adapter.hooks.listener import Listeners, peer_ids
from cc_slurm_adapter.hooks.message import MAX_MESSAGE, BadMessage, HookMessage, decode
from cc_slurm_adapter.hooks.signature import MAX_SIGNED_MESSAGE, SignatureCheck, split_signature
from cc_slurm_adapter.log import Reminder

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
"""Messages that are received at the same time. Over TCP the oldest connection gives way to a new one."""
MESSAGE_SECONDS = 2.0
"""Longest time for one message to arrive."""
PAUSE_SECONDS = 0.2
"""How long no connection is taken after the system had no file descriptor left."""
AT_ONCE = 64
"""Connections that are taken before others are served again."""
GONE = (errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR)
"""What accept(2) says of a connection that ended, or that a firewall forbade, before it was taken."""


class Handlers(NamedTuple):
    """What the server does with what it gets; both are called in its thread."""

    deliver: Callable[[HookMessage], None]
    refuse: Callable[[str, str], None]
    """Takes the kind ('refused' or 'garbage') and a line for the log."""


class _Incoming:
    """A message that is being received."""

    def __init__(self, connection: socket.socket, sender: str) -> None:
        self.connection = connection
        self.over_tcp = connection.family != socket.AF_UNIX
        self.sender = sender
        self.data = bytearray()
        self.deadline = time.monotonic() + MESSAGE_SECONDS
        self.is_registered = False


class HookServer:
    """Serves the listeners from the loop that owns the selector: data of its keys is a function to call.

    Over a unix socket the kernel names the sender before it is served, so all whom it serves are trusted, and more
    than fit wait until there is room. Over TCP anybody may connect: what has come on a connection is read at once, so
    that an honest hook, which sends its message as it connects, mostly takes no place at all.
    """

    def __init__(
        self, listeners: Listeners, admission: Admission, selector: selectors.BaseSelector, handlers: Handlers
    ) -> None:
        self._listeners = listeners
        self._admission = admission
        self._selector = selector
        self._handlers = handlers
        self._signatures = SignatureCheck(admission.secret) if admission.secret else None
        self._incoming: dict[_Incoming, None] = {}
        """The oldest first."""
        self._errors = Reminder()
        self._paused = True
        self._pause_until = 0.0
        self._resume()

    def close(self) -> None:
        """Drop all connections and close the sockets."""
        self.drop_all()
        self._pause(0.0)
        self._listeners.close()

    def drop_all(self) -> None:
        """Close every connection: whatever went wrong may be due to one of them."""
        for incoming in list(self._incoming):
            self._drop(incoming)

    def next_deadline(self) -> float:
        """time.monotonic() at which `tick` has something to do."""
        deadlines = [incoming.deadline for incoming in self._incoming]
        if self._paused and self._has_room():
            deadlines.append(self._pause_until)
        return min(deadlines, default=float("inf"))

    def tick(self) -> None:
        """Give up messages that take too long; take connections again."""
        now = time.monotonic()
        for incoming in [incoming for incoming in self._incoming if incoming.deadline <= now]:
            self._give_up(incoming, f"no whole message within {MESSAGE_SECONDS:.0f} s")
        if self._paused and self._has_room() and self._pause_until <= now:
            self._resume()

    def _has_room(self) -> bool:
        return len(self._incoming) < MAX_CONNECTIONS

    def _pause(self, seconds: float) -> None:
        self._pause_until = time.monotonic() + seconds
        if not self._paused:
            for listener in self._listeners.sockets:
                self._selector.unregister(listener)
        self._paused = True

    def _resume(self) -> None:
        self._paused = False
        for listener in self._listeners.sockets:
            self._selector.register(listener, selectors.EVENT_READ, lambda on=listener: self._accept(on))

    def _accept(self, listener: socket.socket) -> None:
        """Take those that wait, some at a time."""
        for _ in range(AT_ONCE):
            if self._paused:
                return
            try:
                connection, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in GONE:
                    self._rest(error)
                continue
            self._admit(connection, address)

    def _rest(self, error: OSError) -> None:
        """Without file descriptors the listener would be ready again and again."""
        self._handlers.refuse("refused", f"cannot take a connection: {reason(error)}")
        self._pause(PAUSE_SECONDS)
        oldest = next(iter(self._incoming), None)
        if oldest is not None and oldest.over_tcp:
            self._give_up(oldest, "given up, as there is no room for others")

    def _admit(self, connection: socket.socket, address: object) -> None:
        try:
            sender, refusal = self._judge(connection, address)
            connection.setblocking(False)
        except OSError:
            connection.close()  # it went away before it could be judged
            return
        if refusal:
            self._handlers.refuse("refused", f"{sender}: {refusal}")
            connection.close()
            return
        incoming = _Incoming(connection, sender)
        self._incoming[incoming] = None
        self._serve(incoming)
        if len(self._incoming) > MAX_CONNECTIONS:
            self._make_room()
        if incoming in self._incoming:
            self._wait_for_more(incoming)
        if not incoming.over_tcp and not self._has_room():
            self._pause(0.0)  # `tick` goes on as soon as there is room

    def _wait_for_more(self, incoming: _Incoming) -> None:
        try:
            self._selector.register(incoming.connection, selectors.EVENT_READ, lambda: self._serve(incoming))
        except OSError as error:
            self._give_up(incoming, f"cannot be waited for: {reason(error)}")
        else:
            incoming.is_registered = True

    def _make_room(self) -> None:
        """The address with the most connections loses its oldest, so that one that opens many keeps no other out.

        What has come on it counts, so that no whole message is lost.
        """
        counts = Counter(incoming.sender for incoming in self._incoming)
        most = max(counts.values())
        oldest = next(incoming for incoming in self._incoming if counts[incoming.sender] == most)
        self._serve(oldest)
        if oldest in self._incoming:
            self._give_up(oldest, f"more than {MAX_CONNECTIONS} connections, the oldest is given up")

    def _give_up(self, incoming: _Incoming, why: str) -> None:
        self._handlers.refuse("refused", f"{incoming.sender}: {why}")
        self._drop(incoming)

    def _judge(self, connection: socket.socket, address: object) -> tuple[str, str]:
        """(words for the sender, why it is refused or '')."""
        if connection.family == socket.AF_UNIX:
            pid, uid = peer_ids(connection)
            allowed = uid in self._admission.uids
            return f"process {pid} of uid {uid}", "" if allowed else "only root, SlurmUser and the daemon's user may"
        host = str(address[0]) if isinstance(address, tuple) else ""
        networks = self._admission.networks
        if networks and not any(ipaddress.ip_address(host.partition("%")[0]) in network for network in networks):
            return host, "its address is not in prepAllow"
        return host, ""

    def _serve(self, incoming: _Incoming) -> None:
        """Read what has come on a connection; anything unexpected costs that one alone."""
        if incoming not in self._incoming:
            return  # it was given up in this turn of the loop
        try:
            self._receive(incoming)
        except Exception as error:
            self._drop(incoming)
            if self._errors.is_due(type(error).__name__):
                logger.exception("hook events: a connection of %s is closed after an error", incoming.sender)

    def _receive(self, incoming: _Incoming) -> None:
        while True:
            try:
                chunk = incoming.connection.recv(MAX_MESSAGE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._handlers.refuse("garbage", f"{incoming.sender}: broke off: {reason(error)}")
                self._drop(incoming)
                return
            incoming.data += chunk
            if len(incoming.data) > MAX_SIGNED_MESSAGE:
                self._give_up(incoming, f"a message longer than {MAX_MESSAGE} bytes")
                return
            if not chunk:
                self._drop(incoming)
                self._take(incoming)
                return

    def _take(self, incoming: _Incoming) -> None:
        message = bytes(incoming.data)
        try:
            if self._signatures is not None and incoming.over_tcp:
                body = self._signatures.open(message)
            else:
                _, body = split_signature(message)
        except BadMessage as error:
            self._handlers.refuse("refused", f"{incoming.sender}: {error}")
            return
        try:
            self._handlers.deliver(decode(body))
        except BadMessage as error:
            self._handlers.refuse("garbage", f"{incoming.sender}: {error}")

    def _drop(self, incoming: _Incoming) -> None:
        """Close a connection; may be called again."""
        if incoming not in self._incoming:
            return
        del self._incoming[incoming]
        if incoming.is_registered:
            self._selector.unregister(incoming.connection)
        incoming.connection.close()
