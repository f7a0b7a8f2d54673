"""Says how the daemon is without being asked: to systemd, and in the log.

systemd shows the first line of -status (STATUS=), told at every change and at least once a minute. The log has that
line at NOTICE once an hour and after a fault has ended, and at INFO after a poll if it has changed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.history import History, Points
from cc_slurm_adapter.daemon.report import StatusReport
from cc_slurm_adapter.daemon.status_text import first_line
from cc_slurm_adapter.daemon.systemd import tell_status
from cc_slurm_adapter.log import NOTICE

log = logging.getLogger(__name__)


class Timing(NamedTuple):
    """How often something is said, in seconds."""

    collect: float = 5.0
    """Between two looks at how the daemon is."""
    tell_again: float = 60.0
    """From one line to systemd to the next, although nothing has changed."""
    notice_every: float = 3600.0
    """Between two lines at NOTICE, which -debug 2 shows: they show that the daemon works."""
    notice_after_faults: float = 60.0
    """The least between such a line and one after a fault has ended: faults may come and go."""


TIMING = Timing()


class Board(Protocol):
    """What collects the report."""

    phase: str
    events_a_minute: int

    def collect(self) -> StatusReport:
        """Return how the daemon is."""


class Announcer:
    """Used by one thread, which calls `announce_due` about once a second."""

    def __init__(
        self,
        board: Board,
        counters: Counters,
        tell: Callable[[str], None] = tell_status,
        clock: Callable[[], float] = time.monotonic,
        *,
        timing: Timing = TIMING,
    ) -> None:
        """`tell` passes a line to systemd."""
        self._board = board
        self._counters = counters
        self._tell = tell
        self._clock = clock
        self._timing = timing
        self._history = History()
        self._next = 0.0
        self._told = ("", "", 0.0)
        """The phase and the line that systemd was told, and when."""
        self._faults: frozenset[str] = frozenset()
        """What the faults were about when they were last looked at."""
        self._noticed_at = clock()
        self._has_ended = False
        """Whether a fault has ended since the last line at NOTICE."""
        self._logged = (0.0, "")
        """The time of the last poll, and the line that was logged after it."""

    @property
    def points(self) -> Points:
        """The last hour."""
        return self._history.points(self._clock())

    def announce_due(self) -> None:
        """Look at how the daemon is, if it is time or if it has entered another phase, and say it where that is due."""
        now = self._clock()
        if now < self._next and self._board.phase == self._told[0]:
            return
        self._next = now + self._timing.collect
        report = self._board.collect()
        self._history.add(report, now)
        self._board.events_a_minute = self._history.events_a_minute
        line = first_line(report)
        self._tell_systemd(report.program.phase, line, now)
        self._log(report, line, now)

    def _tell_systemd(self, phase: str, line: str, now: float) -> None:
        _, told, at = self._told
        if line != told or now >= at + self._timing.tell_again:
            self._tell(line)
            at = now
        self._told = (phase, line, at)

    def _log(self, report: StatusReport, line: str, now: float) -> None:
        faults = frozenset(each.subject for each in report.faults)
        self._has_ended = self._has_ended or bool(self._faults - faults)
        self._faults = faults
        wait = self._timing.notice_after_faults if self._has_ended else self._timing.notice_every
        polled_at = report.steps["poll"].last_success if "poll" in report.steps else 0.0
        if now >= self._noticed_at + wait:
            self._noticed_at, self._has_ended = now, False
            log.log(NOTICE, "%s; since the start: %s", line, self._counters)
        elif polled_at != self._logged[0] and line != self._logged[1]:
            log.info("%s; since the start: %s", line, self._counters)
            self._logged = (polled_at, line)
