"""Chooses the windows of accounting that a catch-up reads. Some are read again, since slurmdbd may get records late.

Each catch-up reads what is new and a little before that. Audits read further back, once an hour and once a day. Each
catch-up reads only some of an audit's windows, so that the load on slurmdbd stays small.
"""

from __future__ import annotations

from typing import NamedTuple

WINDOW = 3600
"""Seconds of accounting in one query."""
OVERLAP = 600
"""Seconds that every catch-up reads again."""
AUDIT_EVERY, AUDIT_SPAN = 3600, 6 * 3600
"""Seconds between two audits, and the span that each reads again: once an hour six hours."""
WIDE_AUDIT_EVERY = 86400
"""Seconds between two audits that read again everything that may be read: once a day."""
AUDITS_AT_MOST = 4
"""The most windows of audits in one catch-up: the hourly audit takes two catch-ups, the daily one over a week 42."""


class Window(NamedTuple):
    """A span of accounting, in Unix seconds."""

    start: int
    until: int
    is_audit: bool
    """Whether it was read before. Such a window does not change the time up to which accounting was read."""


class AccountingWindows:
    """The windows that are still to be read again. `max_span` is how many seconds accounting is read back at most."""

    def __init__(self, max_span: int, now: int) -> None:
        self.max_span = max_span
        self._next_audit = now
        self._next_wide_audit = now + WIDE_AUDIT_EVERY
        self._audit: list[Window] = []

    def next(self, since: int, now: int, first_moment: int = 0, forgotten_until: int = 0) -> list[Window]:
        """Return the windows to read at `now` if all was read until `since`: the new ones, oldest first, then audits.

        No window begins before the first moment, and no audit before `forgotten_until`: runs that ended before that may
        have been reported and forgotten, if `max_span` was shorter then. A time in the future is ignored, since the
        clock was set back.
        """
        longest_ago = max(now - self.max_span, first_moment)
        remembered = forgotten_until if forgotten_until <= now else 0
        self._plan_audits(since, now, max(longest_ago, remembered))
        begin = max(since - OVERLAP, longest_ago)
        self._audit = [
            window for window in self._audit if window.until > longest_ago and remembered <= window.start < begin
        ]
        return [*_windows(begin, now, is_audit=False), *self._audit[:AUDITS_AT_MOST]]

    def was_read(self, window: Window) -> None:
        """Record that all of a window was read. If a window of an audit fails, the next catch-up reads it."""
        if window in self._audit:
            self._audit.remove(window)

    def _plan_audits(self, since: int, now: int, longest_ago: int) -> None:
        if now - since > AUDIT_EVERY:
            # After an outage sacct answers before slurmctld has sent slurmdbd all that it kept.
            self._next_wide_audit = now + AUDIT_EVERY
        # The audits must not be delayed because the clock was set back.
        self._next_audit = min(self._next_audit, now + AUDIT_EVERY)
        self._next_wide_audit = min(self._next_wide_audit, now + WIDE_AUDIT_EVERY)
        if now >= self._next_wide_audit:
            self._next_wide_audit = now + WIDE_AUDIT_EVERY
            self._begin_audit(longest_ago, now)
        if now >= self._next_audit:
            self._next_audit = now + AUDIT_EVERY
            self._begin_audit(max(now - AUDIT_SPAN, longest_ago), now)

    def _begin_audit(self, since: int, now: int) -> None:
        """Plan an audit that begins with the newest window, since most late records are not very late.

        Windows in this span that another audit has not read yet are replaced.
        """
        new = _windows(since, now, is_audit=True)[::-1]
        self._audit = new + [window for window in self._audit if window.start < since]


def _windows(since: int, now: int, *, is_audit: bool) -> list[Window]:
    return [Window(start, min(start + WINDOW, now), is_audit) for start in range(since, now, WINDOW)]
