"""Counts in a file how often in a row the daemon has ended right after its start, and how long it waits for that.

systemd starts it again after a second, so that little is missed. A daemon that cannot live must not read its state and
ask Slurm and cc-backend every second. (systemd itself waits longer each time only since version 254: RestartSteps=.)
"""

from __future__ import annotations

import contextlib
import logging
import os
import re

log = logging.getLogger(__name__)

FREE = 5
"""Quick ends in a row after which a start does not wait."""
LONGEST = 300.0
"""Seconds that a start waits at most."""
GOOD_LIFE = 30.0
"""Seconds of work after which the next end is the first one again."""
_DIGITS = 6


class CrashCount:
    """The file beside the state file. One that cannot be read counts as none; one that cannot be written, too."""

    def __init__(self, state_path: str) -> None:
        self._path = f"{state_path}.crashes"
        self.before = 0
        """Quick ends before this start."""
        self._is_clear = True

    def begin(self) -> None:
        """Count this start as one that ends soon, until `clear`."""
        self.before = self._read()
        self._is_clear = False
        self._write(self.before + 1)

    @property
    def wait(self) -> float:
        """Seconds until this start may begin its work: 0, then 1, 2, 4 and so on."""
        return 0.0 if self.before < FREE else min(2.0 ** min(self.before - FREE, 30), LONGEST)

    def clear(self) -> None:
        """Count from 0 again: the daemon was stopped, or has lived for GOOD_LIFE. May be called often."""
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
        """Tell whether the file holds a number, or what a power cut leaves of one; else it is somebody else's."""
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
