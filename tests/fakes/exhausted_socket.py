"""A listening socket of a process that has no file descriptor left for a while."""

from __future__ import annotations

import errno
import socket


class ExhaustedSocket(socket.socket):
    """Takes the place of a socket, and cannot accept the first connections."""

    def __init__(self, other: socket.socket, failures: int = 2) -> None:
        super().__init__(fileno=other.detach())
        self._failures = failures

    def accept(self) -> tuple[socket.socket, object]:
        if self._failures:
            self._failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()
