"""Which windows of accounting a catch-up reads: slurmdbd may get its records late, so some are read again."""

from __future__ import annotations

WINDOW = 3600
"""Seconds of accounting in one question."""
OVERLAP = 600
"""Seconds that every catch-up reads again."""
AUDIT_EVERY, AUDIT_OVERLAP = 3600, 6 * 3600
"""Once an hour a catch-up reads six hours again."""
WIDE_AUDIT_EVERY = 86400
"""Once a day a catch-up reads everything again that it may read at all."""


class AccountingWindows:
    """Remembers what was read again when. `max_span` is the seconds that accounting is read back at most."""

    def __init__(self, max_span: int, now: int) -> None:
        self._max_span = max_span
        self._next_audit = 0
        self._next_wide_audit = now + WIDE_AUDIT_EVERY

    def next(self, since: int, now: int) -> list[tuple[int, int]]:
        """What is to be read at `now` if all until `since` has been read: windows from the oldest on. Unix seconds."""
        if now - since > AUDIT_EVERY:
            # After an outage sacct answers before slurmctld has sent slurmdbd all that it kept.
            self._next_wide_audit = now + AUDIT_EVERY
        begin = max(since - self._overlap(now), now - self._max_span)
        return [(start, min(start + WINDOW, now)) for start in range(begin, now, WINDOW)]

    def _overlap(self, now: int) -> int:
        if now >= self._next_wide_audit:
            self._next_wide_audit = now + WIDE_AUDIT_EVERY
            return self._max_span
        if now >= self._next_audit:
            self._next_audit = now + AUDIT_EVERY
            return AUDIT_OVERLAP
        return OVERLAP
