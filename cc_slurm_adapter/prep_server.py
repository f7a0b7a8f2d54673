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
MESSAGE_SECONDS = 2.0
"""Longest time for one message to arrive."""
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
        self.deadline = time.monotonic() + MESSAGE_SECONDS


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
        self._incoming: set[_Incoming] = set()
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
        if self._paused and len(self._incoming) < MAX_CONNECTIONS:
            deadlines.append(self._pause_until)
        return min(deadlines, default=float("inf"))

    def tick(self) -> None:
        """Give up messages that take too long; take connections again."""
        now = time.monotonic()
        for incoming in [incoming for incoming in self._incoming if incoming.deadline <= now]:
            self._handlers.refuse("refused", f"{incoming.sender}: no whole message within {MESSAGE_SECONDS:.0f} s")
            self._drop(incoming)
        if self._paused and len(self._incoming) < MAX_CONNECTIONS and self._pause_until <= now:
            self._resume()

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
            self._pause(0.0)

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
        self._incoming.add(incoming)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._receive(incoming))

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
        self._incoming.discard(incoming)
        self._selector.unregister(incoming.connection)
        incoming.connection.close()
