"""Takes messages from hooks over the listening sockets, whatever is sent to them.

Sizes, times and numbers are bounded, so that nobody can fill the memory or keep the daemon busy.
"""

from __future__ import annotations

import ipaddress
import selectors
import socket
import time
from typing import Callable, NamedTuple

from cc_slurm_adapter.admission import Admission
from cc_slurm_adapter.config_file import reason
from cc_slurm_adapter.prep import (
    MAX_MESSAGE,
    MAX_SIGNED_MESSAGE,
    BadMessage,
    HookMessage,
    SignatureCheck,
    decode,
    split_signature,
)
from cc_slurm_adapter.prep_socket import Listeners, peer_ids

MAX_CONNECTIONS = 64
MAX_OF_ONE_ADDRESS = 16
"""Connections of one address over TCP."""
MESSAGE_SECONDS = 2.0
"""Longest time for one message to arrive."""
PATIENCE_SECONDS = 0.2
"""A connection over TCP that takes longer gives way to others when there are too many."""
PAUSE_SECONDS = 0.2
"""How long no connection is taken after the system had no file descriptor left."""


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
        began = time.monotonic()
        self.deadline = began + MESSAGE_SECONDS
        self.gives_way_at = began + PATIENCE_SECONDS if self.over_tcp else float("inf")


class PrepServer:
    """Serves the listeners from the loop that owns the selector: data of its keys is a function to call."""

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
        self._paused = True
        self._pause_until = 0.0
        self._resume()

    def close(self) -> None:
        """Drop all connections and close the sockets."""
        for incoming in list(self._incoming):
            self._drop(incoming)
        self._pause(0.0)
        self._listeners.close()

    def next_deadline(self) -> float:
        """time.monotonic() at which `tick` has something to do."""
        deadlines = [incoming.deadline for incoming in self._incoming]
        if self._paused:
            deadlines.append(self._resume_at())
        return min(deadlines, default=float("inf"))

    def tick(self) -> None:
        """Give up messages that take too long; take connections again."""
        now = time.monotonic()
        for incoming in [incoming for incoming in self._incoming if incoming.deadline <= now]:
            self._handlers.refuse("refused", f"{incoming.sender}: no whole message within {MESSAGE_SECONDS:.0f} s")
            self._drop(incoming)
        if self._paused and self._resume_at() <= now:
            self._resume()

    def _resume_at(self) -> float:
        """When the next connection can be taken: there is room, or the oldest one gives way."""
        if len(self._incoming) < MAX_CONNECTIONS:
            return self._pause_until
        return max(self._pause_until, next(iter(self._incoming)).gives_way_at)

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
        if self._paused:
            return
        try:
            connection, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self._handlers.refuse("refused", f"cannot take a connection: {reason(error)}")
            self._pause(PAUSE_SECONDS)
            return
        self._admit(connection, address)
        if len(self._incoming) >= MAX_CONNECTIONS:
            self._pause(0.0)  # `tick` goes on as soon as the oldest one gives way

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
        self._make_room(sender)
        incoming = _Incoming(connection, sender)
        self._incoming[incoming] = None
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._receive(incoming))

    def _make_room(self, sender: str) -> None:
        """One connection that does nothing must not keep others out."""
        now = time.monotonic()
        idle = [incoming for incoming in self._incoming if incoming.gives_way_at <= now]
        of_sender = [incoming for incoming in self._incoming if incoming.sender == sender]
        if len(of_sender) >= MAX_OF_ONE_ADDRESS and of_sender[0] in idle:
            self._give_up(of_sender[0], f"more than {MAX_OF_ONE_ADDRESS} connections of this address")
        elif len(self._incoming) >= MAX_CONNECTIONS:
            self._give_up(idle[0], f"more than {MAX_CONNECTIONS} connections")

    def _give_up(self, incoming: _Incoming, why: str) -> None:
        self._handlers.refuse("refused", f"{incoming.sender}: {why}, the oldest is given up")
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

    def _receive(self, incoming: _Incoming) -> None:
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
            self._handlers.refuse("refused", f"{incoming.sender}: a message longer than {MAX_MESSAGE} bytes")
            self._drop(incoming)
        elif not chunk:
            self._drop(incoming)
            self._take(incoming)

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
        self._incoming.pop(incoming, None)
        self._selector.unregister(incoming.connection)
        incoming.connection.close()
