"""Accepts connections on listening sockets in a selector loop, and pauses while there is no room for them."""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from cc_slurm_adapter.config.secrets import reason
from cc_slurm_adapter.hooks.listener import Listeners

ACCEPT_BATCH = 64
"""Most connections that are accepted in a row before others are served again."""
GONE = (errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR)
"""Errors of accept(2) for a connection that ended, or that a firewall forbade, before it was accepted."""


class OnAccept(NamedTuple):
    """What the acceptor calls, in the loop's thread."""

    accepted: Callable[[socket.socket, object], None]
    """Called with each connection and its address."""
    failed: Callable[[str], None]
    """Called with a line for the log when the system has run out of file descriptors, for example."""


class Acceptor:
    """Registers the listeners with the selector. The data of a selector key is the function to call."""

    def __init__(
        self, listeners: Listeners, selector: selectors.BaseSelector, on_accept: OnAccept, pause_seconds: float
    ) -> None:
        """`pause_seconds` is for how long nothing is accepted after the system has run out of file descriptors."""
        self._listeners = listeners
        self._selector = selector
        self._on_accept = on_accept
        self._pause_seconds = pause_seconds
        self._paused = True
        self._pause_until = 0.0
        self._resume()

    def close(self) -> None:
        """Close the listening sockets."""
        self.pause()
        self._listeners.close()

    @property
    def resumes_at(self) -> float:
        """Return the time.monotonic() at which it may accept again; infinite unless it is paused."""
        return self._pause_until if self._paused else float("inf")

    def pause(self, seconds: float = 0.0) -> None:
        """Stop accepting until `resume_if_due` is called, at the earliest in so many seconds."""
        self._pause_until = time.monotonic() + seconds
        if not self._paused:
            for listener in self._listeners.sockets:
                self._selector.unregister(listener)
        self._paused = True

    def resume_if_due(self) -> None:
        """Accept connections again after a pause."""
        if self._paused and self._pause_until <= time.monotonic():
            self._resume()

    def _resume(self) -> None:
        self._paused = False
        for listener in self._listeners.sockets:
            self._selector.register(listener, selectors.EVENT_READ, lambda on=listener: self.accept(on))

    def accept(self, listener: socket.socket) -> None:
        """Accept up to ACCEPT_BATCH of the connections that wait."""
        for _ in range(ACCEPT_BATCH):
            if self._paused:
                return
            try:
                connection, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in GONE:
                    # Without file descriptors the listener would be ready again and again.
                    self.pause(self._pause_seconds)
                    self._on_accept.failed(f"cannot accept a connection: {reason(error)}")
                continue
            self._on_accept.accepted(connection, address)
