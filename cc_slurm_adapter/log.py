"""Logs to standard error, where systemd's journal reads it; the journal adds the time."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from cc_slurm_adapter import lines

if TYPE_CHECKING:  # a call that only prints need not load it
    from cc_slurm_adapter.model import Finding

log = logging.getLogger(__name__)

NOTICE = 25
"""Good news that an administrator wants to see: started, stopped, answers again. WARNING is for what an
administrator should check, ERROR for what prevents a start or for what an administrator must act on."""
LEVELS = (logging.CRITICAL, logging.ERROR, NOTICE, logging.INFO, logging.DEBUG, logging.DEBUG)
"""The levels of -debug 0 to 5. At 2, the default, start, stop and all failures are logged; single jobs at 3."""

_PRIORITIES = (
    (logging.CRITICAL, lines.CRITICAL),
    (logging.ERROR, lines.ERROR),
    (logging.WARNING, lines.WARNING),
    (NOTICE, lines.NOTICE),
    (logging.INFO, lines.INFO),
)
logging.addLevelName(NOTICE, "NOTICE")
MAX_FRAMES, MAX_CAUSES = 12, 3
"""How many calls that led to an error are named, and how many errors that caused it."""
REMIND, AT_MOST_EVERY, SOMETHING_ELSE = 600.0, 60.0, 10.0
"""Seconds until a failure is logged again: one that lasts, one that comes and goes, and one of another kind."""


class Reminder:
    """Decides when to log a failure: immediately, and again now and then while it lasts or comes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, something_else: float = SOMETHING_ELSE) -> None:
        """`something_else` is after how many seconds a failure of another kind is logged."""
        self._clock = clock
        self._something_else = something_else
        self._logged_at = -REMIND
        self._about = ""
        self._is_open = False

    def is_due(self, about: str = "") -> bool:
        """Return whether to log it now, and if so record that. It is due soon if `about` differs from the last time."""
        now = self._clock()
        wait = REMIND if self._is_open else AT_MOST_EVERY
        if now - self._logged_at < (wait if about == self._about else min(wait, self._something_else)):
            return False
        self._logged_at, self._about, self._is_open = now, about, True
        return True

    def forget(self) -> None:
        """Let the next failure be logged immediately, whatever was logged before."""
        self._logged_at = -REMIND

    def over(self) -> bool:
        """Record that the failure has ended. Return whether to log that: if the failure was logged."""
        was_open, self._is_open = self._is_open, False
        return was_open


class _Lines(logging.Handler):
    """Writes one line for each record, also if it has an error. It adds the time if the journal does not."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record. If it cannot be formatted, the work that it is about still goes on."""
        try:
            text = self.format(record)
        except Exception as error:  # noqa: BLE001 - as logging's own handlers do it
            text = f"{record.levelname} {record.msg!r} with {record.args!r}: {type(error).__name__}"
        lines.log_line(text, _priority(record.levelno))

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        text = f"{record.levelname} {record.getMessage()}"
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {describe_error(record.exc_info[1])}"
        return text if lines.goes_to_journal() else f"{_time_text(record)} {text}"


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), lines.DEBUG)


def _time_text(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(record.created))},{int(record.msecs):03}"


def describe_error(error: BaseException) -> str:
    """Describe an error of this program in one line: what it is, which calls raised it, and which errors caused it."""
    texts: list[str] = []
    found: BaseException | None = error
    while found is not None and len(texts) <= MAX_CAUSES:
        texts.append(f"{type(found).__name__}: {found} (traceback: {_calls(found.__traceback__)})")
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return ", because of ".join(texts)


def _calls(trace: TracebackType | None) -> str:
    """Return the calls that led to an error, the innermost first."""
    frames = traceback.extract_tb(trace)[: -MAX_FRAMES - 1 : -1]
    return " < ".join(f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames)


def set_up(debug: int) -> None:
    """Set up the log to standard error at one of the six levels. Errors that would end a thread are logged, too."""
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers[:] = [_Lines()]
    root.setLevel(LEVELS[debug])
    threading.excepthook = lambda args: _log_uncaught(
        args.exc_value, f"in the thread {args.thread and args.thread.name}"
    )
    sys.unraisablehook = lambda args: _log_uncaught(args.exc_value, f"in {args.object!r}")


def _log_uncaught(error: BaseException | None, where: str) -> None:
    if error is not None:
        logging.getLogger("cc_slurm_adapter").critical("an error of this program %s", where, exc_info=error)


def moment_text(when: float) -> str:
    """Return a Unix time for people, in this host's time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(when))


def log_findings(*findings: Finding) -> None:
    """Log a line for each finding, at its own level."""
    for finding in findings:
        log.log(finding.level, "%s", finding)


PROGRESS_INTERVAL = 10.0
"""Seconds between two lines."""


class Progress:
    """Logs how far a long piece of work is. Short work is never mentioned."""

    def __init__(self, what: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._total = total
        self._clock = clock
        self._last = clock()

    def say(self, done: int) -> None:
        """Log how much is done, if it is time."""
        if self._clock() - self._last >= PROGRESS_INTERVAL:
            self._last = self._clock()
            log.log(NOTICE, "%s: %d of %d", self._what, done, self._total)
