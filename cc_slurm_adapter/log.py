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
from typing import TYPE_CHECKING, NamedTuple

from cc_slurm_adapter import lines
from cc_slurm_adapter.system.quantities import counted, duration

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
REMIND, AT_MOST_EVERY, SOMETHING_ELSE = 3600.0, 60.0, 10.0
"""Seconds until a failure is logged again: one that lasts, one that comes and goes (at first), and one for another
reason."""
LASTING = 600.0
"""A failure that has lasted this many seconds is logged, however often it has come and gone before."""
MAX_REASONS, MAX_KINDS = 5, 100
"""The most reasons of one failure that are logged as soon as they are met, and the most kinds that are counted
separately."""


class _Spacing:
    """The time between two lines about the same thing: a minute, then twice as long each time, at most an hour.

    After an hour in which it did not happen it begins anew. Times are on the caller's clock.
    """

    def __init__(self) -> None:
        self.left_out = 0
        """How often it happened since the last line."""
        self.last = float("-inf")
        self.seconds = 0.0
        self._next = float("-inf")

    def is_due(self, now: float, *, in_any_case: bool = False) -> bool:
        """Record that it happened. Return whether to log that."""
        if now - self.last >= REMIND:
            self.forget()
        self.last = now
        if now < self._next and not in_any_case:
            self.left_out += 1
            return False
        self.seconds = min(2 * self.seconds, REMIND) or AT_MOST_EVERY
        self._next = now + self.seconds
        return True

    def forget(self) -> None:
        """Let the next line be due immediately."""
        self.seconds, self._next = 0.0, float("-inf")

    def pop_left_out(self) -> int:
        count, self.left_out = self.left_out, 0
        return count


class Repeated:
    """Decides when to log something that happens again and again, without a moment at which it is over.

    Each kind is logged immediately, then after 1, 2, 4 minutes and so on, at most once an hour.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[str, _Spacing] = {}
        self.note = ""
        """What to append to the line that is due: how many such lines were left out before it."""

    def is_due(self, kind: str = "") -> bool:
        """Record that it happened. Return whether to log that."""
        if kind not in self._kinds and len(self._kinds) >= MAX_KINDS:
            kind = ""
        spacing = self._kinds.setdefault(kind, _Spacing())
        if not spacing.is_due(self._clock()):
            return False
        left_out = spacing.pop_left_out()
        self.note = f" ({left_out} more of this kind since the last such line)" if left_out else ""
        return True

    def forget(self) -> None:
        """Let everything be logged immediately, whatever was logged before."""
        self._kinds.clear()


class Reminder:
    """Decides when to log a failure that begins, lasts and is over.

    It is logged at its beginning, and every hour while it lasts. One that comes and goes is logged less and less often:
    after 1, 2, 4 minutes and so on, at most once an hour unless it lasts, and finally once more with how often it came
    back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, something_else: float = SOMETHING_ELSE) -> None:
        """`something_else` is after how many seconds another reason is logged."""
        self._clock = clock
        self._something_else = something_else
        self._spacing = _Spacing()
        self._reasons: set[str] = set()
        """Why it failed, as far as that was logged."""
        self._began: float | None = None
        """When the failure began that still lasts."""
        self._failures = 0
        self._logged_at = float("-inf")
        self.is_open = False
        """Whether the failure that lasts was logged."""
        self.note = ""
        """What to append to the line that is due: since when the failure lasts, and how often it failed."""

    def is_due(self, about: str = "") -> bool:
        """Record a failure. Return whether to log it now. `about` is its reason: another one is due soon."""
        now = self._clock()
        if self._began is None:
            self._began, self._failures = now, 0
            if now - self._spacing.last >= REMIND:
                self._reasons.clear()
        self._failures += 1
        if not (self._lasting_is_due(now, about) if self.is_open else self._beginning_is_due(now, about)):
            return False
        if len(self._reasons) < MAX_REASONS:
            self._reasons.add(about)
        self._logged_at, self.is_open = now, True
        return True

    def _beginning_is_due(self, now: float, about: str) -> bool:
        lasts = self._began is not None and now - self._began >= LASTING
        if not self._spacing.is_due(now, in_any_case=lasts or self._is_new(now, about)):
            return False
        left_out = self._spacing.pop_left_out()
        self.note = f" (failed {counted(left_out, 'more time')} since the last such line)" if left_out else ""
        return True

    def _lasting_is_due(self, now: float, about: str) -> bool:
        self._spacing.last = now
        self.note = f", for {duration(now - (self._began or 0.0))} now ({counted(self._failures, 'failure')})"
        return now - self._logged_at >= REMIND or self._is_new(now, about)

    def _is_new(self, now: float, about: str) -> bool:
        is_another = about not in self._reasons and len(self._reasons) < MAX_REASONS
        return is_another and now - self._logged_at >= self._something_else

    def forget(self) -> None:
        """Let the next failure be logged immediately, whatever was logged before."""
        self._logged_at = float("-inf")
        self._spacing.forget()

    def end(self) -> None:
        """Record that the failure has ended, although that is not known to anybody who could log it."""
        self.is_open, self._began = False, None

    def over(self) -> bool:
        """Record that it works. Return whether to log that: if a failure was logged that ends now.

        It is due as well when a failure that came and went has not come back for as long as it was not logged.
        """
        now, began = self._clock(), self._began
        was_open = self.is_open
        self.end()
        if was_open and began is not None:
            self.note = f" after {duration(now - began)}"
            return True
        if began is None and self._spacing.left_out and now - self._spacing.last >= self._spacing.seconds:
            self.note = f" (failed {self._spacing.pop_left_out()} more times since the last such line)"
            return True
        return False


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


def log_findings(*findings: Finding) -> None:
    """Log a line for each finding, at its own level."""
    for finding in findings:
        log.log(finding.level, "%s", finding)


PROGRESS_INTERVAL, LONGEST_PROGRESS_INTERVAL = 10.0, 1800.0
"""Seconds until the first line, and the most between two lines: each takes twice as long as the one before."""


class Work(NamedTuple):
    """How far a long piece of work is. `began` is in Unix seconds."""

    what: str
    done: int
    total: int
    began: float


class Progress:
    """Logs how far a long piece of work is, less and less often. Short work is never mentioned.

    As a context it passes on how far the work is, and at its end that it is over.
    """

    def __init__(
        self,
        what: str,
        total: int,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[str, Work | None], None] = lambda what, work: None,
    ) -> None:
        """`tell` is called with the name of the work and how far it is; with None when it is over."""
        self._what = what
        self._total = total
        self._clock = clock
        self._tell = tell
        self._began = time.time()
        self._interval = PROGRESS_INTERVAL
        self._next = clock() + self._interval

    def __enter__(self) -> Progress:
        self._tell(self._what, Work(self._what, 0, self._total, self._began))
        return self

    def __exit__(self, *_: object) -> None:
        self._tell(self._what, None)

    def say(self, done: int) -> None:
        """Pass on how much is done, and log it if it is time."""
        self._tell(self._what, Work(self._what, done, self._total, self._began))
        now = self._clock()
        if now >= self._next:
            self._interval = min(2 * self._interval, LONGEST_PROGRESS_INTERVAL)
            self._next = now + self._interval
            log.log(NOTICE, "%s: %d of %d", self._what, done, self._total)
