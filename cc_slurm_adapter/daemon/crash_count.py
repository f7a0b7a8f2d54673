"""Counts in a file how often in a row the daemon has ended right after its start, which decides how long a start waits.

systemd starts it again after a second, so that little is missed. But a daemon that cannot keep running must not read
its state and ask Slurm and cc-backend every second. (systemd itself waits longer each time only since version 254:
RestartSteps=.)
"""

from __future__ import annotations

import contextlib
import logging
import os
import re

log = logging.getLogger(__name__)

FREE = 5
"""From this many quick ends in a row on, a start waits."""
LONGEST = 300.0
"""The most seconds that a start waits."""
GOOD_LIFE = 30.0
"""After this many seconds of work, the next end counts as the first one again."""
_DIGITS = 6


class CrashCount:
    """The count, in a file beside the state file. A file that cannot be read or written counts as missing."""

    def __init__(self, state_path: str) -> None:
        self._path = f"{state_path}.crashes"
        self.before = 0
        """Quick ends before this start."""
        self._is_clear = True

    def begin(self) -> None:
        """Count this start as one that ends soon, until `clear` is called."""
        self.before = self._read()
        self._is_clear = False
        self._write(self.before + 1)

    @property
    def wait(self) -> float:
        """Seconds until this start may begin its work: 0, then 1, 2, 4 and so on."""
        return 0.0 if self.before < FREE else min(2.0 ** min(self.before - FREE, 30), LONGEST)

    def clear(self) -> None:
        """Count from 0 again: the daemon was stopped, or has worked for GOOD_LIFE seconds. May be called often."""
        if not self._is_clear:
            self._is_clear = True
            self._write(0)

    def _content(self) -> bytes:
        """Read the beginning of the file. Raises OSError."""
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        with open(fd, "rb") as file:
            return file.read(_DIGITS + 2)

    def _read(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return max(int(self._content()[:_DIGITS]), 0)
        return 0

    def _is_ours(self) -> bool:
        """Return whether the file holds a number, or what a power cut leaves of one. Any other file is not ours."""
        try:
            return re.fullmatch(rb"[0-9\0]*\s*", self._content()) is not None
        except FileNotFoundError:
            return True
        except OSError:
            return False

    def _write(self, count: int) -> None:
        if not self._is_ours():
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        try:
            with open(os.open(self._path, flags, 0o600), "wb") as file:
                file.write(f"{min(count, 10**_DIGITS - 1)}\n".encode())
        except OSError as error:
            log.debug("%s cannot be written: %s", self._path, error.strerror)
