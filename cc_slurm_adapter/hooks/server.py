"""Receives messages from hooks over the listening sockets, and withstands whatever is sent to them.

Sizes, times and numbers are bounded, so that nobody can fill the memory or keep the daemon busy.
"""

from __future__ import annotations

import ipaddress
import logging
import selectors
import socket
import time
from collections import Counter
from typing import Callable, NamedTuple

from cc_slurm_adapter.config.secrets import reason
from cc_slurm_adapter.hooks.acceptor import Acceptor, OnAccept
from cc_slurm_adapter.hooks.access import AllowedSenders
from cc_slurm_adapter.hooks.listener import Listeners, peer_ids
from cc_slurm_adapter.hooks.message import MAX_MESSAGE, BadMessage, HookMessage, decode
from cc_slurm_adapter.hooks.signature_check import MAX_SIGNED_MESSAGE, SignatureCheck, split_signature
from cc_slurm_adapter.log import Repeated

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
"""Most messages that are received at the same time. Over TCP the oldest connection is closed to accept a new one."""


class Timing(NamedTuple):
    """How long connections have, in seconds."""

    message: float = 2.0
    """Longest time for one message to arrive."""
    pause: float = 0.2
    """Time without accepting connections after the system has run out of file descriptors."""


TIMING = Timing()


class Handlers(NamedTuple):
    """Functions for messages and for refusals. The server calls both in its thread."""

    deliver: Callable[[HookMessage], None]
    refuse: Callable[[str, str], None]
    """Called with the kind ('refused' or 'garbage') and a line for the log."""


class _Incoming:
    """A message that is being received, for at most so many seconds."""

    def __init__(self, connection: socket.socket, sender: str, seconds: float) -> None:
        self.connection = connection
        self.over_tcp = connection.family != socket.AF_UNIX
        self.sender = sender
        self.data = bytearray()
        self.deadline = time.monotonic() + seconds
        self.is_registered = False


class HookServer:
    """Serves the listeners from the loop that owns the selector. The data of a selector key is the function to call.

    Over a unix socket the kernel names the sender before its message is read. So everyone whose message is read is
    trusted, and connections beyond MAX_CONNECTIONS wait in the kernel until there is room. Over TCP anybody may
    connect, so a connection is read as soon as it is accepted. An honest hook sends its message when it connects, and
    mostly needs no place among the connections that wait.
    """

    def __init__(
        self,
        listeners: Listeners,
        allowed_senders: AllowedSenders,
        selector: selectors.BaseSelector,
        handlers: Handlers,
        *,
        timing: Timing = TIMING,
    ) -> None:
        self._allowed_senders = allowed_senders
        self._selector = selector
        self._handlers = handlers
        self._timing = timing
        self._signatures = SignatureCheck(allowed_senders.secret) if allowed_senders.secret else None
        self._incoming: dict[_Incoming, None] = {}
        """The oldest first."""
        self._errors = Repeated()
        on_accept = OnAccept(self._start_receiving, self._on_accept_failed)
        self._acceptor = Acceptor(listeners, selector, on_accept, timing.pause)

    def use_secret(self, secret: bytes) -> None:
        """Accept messages that are signed with this secret from now on. Any thread may call this."""
        self._signatures = SignatureCheck(secret)

    def close(self) -> None:
        """Close all connections and the listening sockets."""
        self.drop_all()
        self._acceptor.close()

    def drop_all(self) -> None:
        """Close every connection, because one of them may have caused an error."""
        for incoming in list(self._incoming):
            self._drop(incoming)

    def next_deadline(self) -> float:
        """Return the time.monotonic() at which `tick` has something to do."""
        deadlines = [incoming.deadline for incoming in self._incoming]
        if self._has_room():
            deadlines.append(self._acceptor.resumes_at)
        return min(deadlines, default=float("inf"))

    def tick(self) -> None:
        """Drop messages that take too long, and accept connections again after a pause."""
        now = time.monotonic()
        for incoming in [incoming for incoming in self._incoming if incoming.deadline <= now]:
            self._give_up(incoming, f"no complete message within {self._timing.message:.0f} s")
        if self._has_room():
            self._acceptor.resume_if_due()

    def _has_room(self) -> bool:
        return len(self._incoming) < MAX_CONNECTIONS

    def _on_accept_failed(self, line: str) -> None:
        self._handlers.refuse("refused", line)
        oldest = next(iter(self._incoming), None)
        if oldest is not None and oldest.over_tcp:
            self._give_up(oldest, "given up to make room for others")

    def _start_receiving(self, connection: socket.socket, address: object) -> None:
        try:
            sender, refusal = self._check_sender(connection, address)
            connection.setblocking(False)
        except OSError:
            connection.close()  # it ended before its sender was known
            return
        if refusal:
            self._handlers.refuse("refused", f"{sender}: {refusal}")
            connection.close()
            return
        incoming = _Incoming(connection, sender, self._timing.message)
        self._incoming[incoming] = None
        self._serve(incoming)
        if len(self._incoming) > MAX_CONNECTIONS:
            self._make_room()
        if incoming in self._incoming:
            self._wait_for_more(incoming)
        if not incoming.over_tcp and not self._has_room():
            self._acceptor.pause()  # `tick` resumes as soon as there is room

    def _wait_for_more(self, incoming: _Incoming) -> None:
        try:
            self._selector.register(incoming.connection, selectors.EVENT_READ, lambda: self._serve(incoming))
        except OSError as error:
            self._give_up(incoming, f"cannot be watched: {reason(error)}")
        else:
            incoming.is_registered = True

    def _make_room(self) -> None:
        """Drop the oldest connection of the sender that has the most, so that one sender cannot keep the others out.

        What has arrived on it is read first, so that no complete message is lost.
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

    def _check_sender(self, connection: socket.socket, address: object) -> tuple[str, str]:
        """Return the sender as the log names it, and why it is refused ('' if it is accepted)."""
        if connection.family == socket.AF_UNIX:
            pid, uid = peer_ids(connection)
            allowed = uid in self._allowed_senders.uids
            return f"process {pid} of uid {uid}", "" if allowed else "only root, SlurmUser and the daemon's user may"
        host = str(address[0]) if isinstance(address, tuple) else ""
        networks = self._allowed_senders.networks
        if networks and not any(ipaddress.ip_address(host.partition("%")[0]) in network for network in networks):
            return host, "its address is not in prepAllow"
        return host, ""

    def _serve(self, incoming: _Incoming) -> None:
        """Read what has arrived on a connection. An error closes only this connection."""
        if incoming not in self._incoming:
            return  # it was dropped earlier in this turn of the loop
        try:
            self._receive(incoming)
        except Exception as error:
            self._drop(incoming)
            if self._errors.is_due(type(error).__name__):
                text = "hook events: a connection of %s is closed after an error%s"
                logger.exception(text, incoming.sender, self._errors.note)

    def _receive(self, incoming: _Incoming) -> None:
        while True:
            try:
                chunk = incoming.connection.recv(MAX_MESSAGE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._handlers.refuse("garbage", f"{incoming.sender}: connection lost: {reason(error)}")
                self._drop(incoming)
                return
            incoming.data += chunk
            if len(incoming.data) > MAX_SIGNED_MESSAGE:
                self._give_up(incoming, f"a message longer than {MAX_MESSAGE} bytes")
                return
            if not chunk:
                self._drop(incoming)
                self._handle(incoming)
                return

    def _handle(self, incoming: _Incoming) -> None:
        """Check the signature of a complete message and deliver it."""
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
        """Close a connection. May be called more than once."""
        if incoming not in self._incoming:
            return
        del self._incoming[incoming]
        if incoming.is_registered:
            self._selector.unregister(incoming.connection)
        incoming.connection.close()
