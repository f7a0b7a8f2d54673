"""Outages of what the program talks to: a line when one begins, whichever parts notice it, and one when it is over."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

from cc_slurm_adapter.log import MAX_REASONS, REMIND, SOMETHING_ELSE, Reminder

STALE = 1800.0
"""Seconds after which a part that is not tried any more no longer counts as failing. The least frequent part is tried
every ten minutes."""
_STATUS = re.compile(r"\bHTTP \d{3}\b.*", re.DOTALL)


def kind_of(reason: str) -> str:
    """Return a reason without what differs from job to job: quoted parts, numbers, and names with numbers in them.

    The HTTP status stays.
    """
    unquoted = re.sub(r"""'[^']*'|"[^"]*"|`[^`]*`""", "#", reason)
    return re.sub(r"\b(HTTP \d+)\b|[\w.-]*\d[\w.-]*", lambda found: found[1] or "#", unquoted)[:500]


def cause_of(reason: str) -> str:
    """Return what a reason has in common with those of other parts that ask the same.

    That is its end, without the command or the address that met it. An HTTP status and what follows it stay.
    """
    status = _STATUS.search(reason)
    return kind_of(status[0] if status else reason.rpartition(":")[2].strip() or reason)


class _Cause:
    """One cause, and the parts of the program that fail because of it."""

    def __init__(self, reminder: Reminder) -> None:
        self.reminder = reminder
        self.failing: dict[str, float] = {}
        """Those whose last attempt failed because of it, each with the time of that."""
        self.parts: set[str] = set()
        """All that have ever failed because of it."""
        self.last = float("-inf")

    def failed(self, part: str, now: float) -> None:
        """Record that a part has failed. If nobody has failed for long, this is another failure than the last one."""
        if now - self.last >= STALE:
            self.failing.clear()
            self.reminder.end()
        self.failing[part] = self.last = now
        self.parts.add(part)

    def is_failing(self, since: float) -> bool:
        """Return whether a part has failed since this time and not worked after that."""
        return any(failed > since for failed in self.failing.values())


class Outages:
    """The failures of one counterpart: Slurm, or a destination. Several parts of the program notice them.

    A failure is logged once for each cause, by the part that notices it first, see `Reminder` for how often. It is over
    when all parts that failed because of it work again, or have not been tried for STALE seconds, or when a part works
    that proves it. The part that finds this out logs it. Any thread may use it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, something_else: float = SOMETHING_ELSE) -> None:
        """`something_else` is after how many seconds another cause than the last one is logged."""
        self._clock = clock
        self._something_else = something_else
        self._lock = threading.Lock()
        self._causes: dict[str, _Cause] = {}
        self._logged_at = float("-inf")

    def failed(self, part: str, reason: str, cause: str = "") -> str | None:
        """Record that a part has failed. Return what to append to its line, or None if there is nothing to log.

        `cause` is what the reason has in common with those of other parts; '' for the end of the reason.
        """
        with self._lock:
            found = self._find(cause or cause_of(reason))
            for each in self._causes.values():
                each.failing.pop(part, None)
            found.failed(part, self._clock())
            if not found.reminder.is_open and self._is_too_soon():
                return None
            if not found.reminder.is_due():
                return None
            self._logged_at = self._clock()
            return found.reminder.note

    def _find(self, cause: str) -> _Cause:
        if cause not in self._causes and len(self._causes) >= MAX_REASONS:
            self._forget_calm()
        if cause not in self._causes and len(self._causes) >= MAX_REASONS:
            return self._causes.setdefault("", _Cause(Reminder(self._clock)))
        return self._causes.setdefault(cause, _Cause(Reminder(self._clock)))

    def _forget_calm(self) -> None:
        oldest = self._clock() - REMIND
        self._causes = {name: each for name, each in self._causes.items() if each.last > oldest}

    def _is_too_soon(self) -> bool:
        """Return whether another cause was just logged: after a request that broke off, the next ones are refused."""
        is_failing = any(each.reminder.is_open for each in self._causes.values())
        return is_failing and self._clock() - self._logged_at < self._something_else

    def works(self, part: str, *, proves: bool = False) -> str | None:
        """Record that a part works. Return what to append to the line that says so, or None if there is none.

        `proves` says that the part always asks the counterpart. Others may work because they had nothing to ask.
        """
        if not self._causes:  # nothing has ever failed
            return None
        with self._lock:
            concerned = [each for each in self._causes.values() if part in each.parts]
            over = [each for each in concerned if self._is_over(each, part, proves=proves)]
            notes = [each.reminder.note for each in over if each.reminder.over()]
        return notes[0] if notes else None

    def _is_over(self, cause: _Cause, part: str, *, proves: bool) -> bool:
        was_failing = cause.failing.pop(part, None) is not None
        if proves and was_failing:
            cause.failing.clear()
        return not cause.is_failing(self._clock() - STALE)
