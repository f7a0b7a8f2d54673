"""Log lines on standard error, where systemd's journal takes them; the time is the journal's job."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable

LEVELS = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG, logging.DEBUG)
"""By -debug 0 to 5. The start, the stop and all trouble are said at 2, the default; single jobs at 3."""

_PRIORITIES = {logging.CRITICAL: "<2>", logging.ERROR: "<3>", logging.WARNING: "<4>", logging.INFO: "<6>"}
REMIND, AT_MOST_EVERY, SOMETHING_ELSE = 600.0, 60.0, 10.0
"""Seconds until a trouble is said again: one that goes on, one that comes and goes, and one of another kind."""


class Reminder:
    """When to speak of a trouble: at once, and again now and then while it lasts or comes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said_at = -REMIND
        self._about = ""
        self._is_open = False

    def is_due(self, about: str = "") -> bool:
        """Whether to speak of it now; if so, that is noted. Something else than the last time is said soon."""
        now = self._clock()
        wait = REMIND if self._is_open else AT_MOST_EVERY
        if now - self._said_at < (wait if about == self._about else min(wait, SOMETHING_ELSE)):
            return False
        self._said_at, self._about, self._is_open = now, about, True
        return True

    def forget(self) -> None:
        """The next trouble is said at once, whatever was said before."""
        self._said_at = -REMIND

    def over(self) -> bool:
        """The trouble has ended. Whether that is worth saying: whoever heard of the one is to hear of the other."""
        was_open, self._is_open = self._is_open, False
        return was_open


class _OneLine(logging.Formatter):
    """One line a record, but for tracebacks; with a priority for the journal, and with the time elsewhere."""

    def __init__(self, *, for_journal: bool) -> None:
        super().__init__("%(levelname)s %(message)s" if for_journal else "%(asctime)s %(levelname)s %(message)s")
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        record.msg, record.args = record.getMessage().replace("\n", "\\n"), ()
        text = super().format(record)
        return _PRIORITIES.get(record.levelno, "<7>") + text if self._for_journal else text


def set_up(debug: int) -> None:
    """Log to standard error at one of the six levels."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(for_journal="JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[debug])


def moment_text(when: float) -> str:
    """A Unix time for people, in this host's time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(when))


def warn(text: str) -> None:
    """A warning that belongs to no module, such as those about the configuration."""
    logging.getLogger("cc_slurm_adapter").warning("%s", text)
