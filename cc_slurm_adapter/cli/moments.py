"""Moments as people write them: `2h` ago, a date, a date with a time, or Unix seconds."""

from __future__ import annotations

import re
import time

from cc_slurm_adapter.errors import UsageError

UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
"""Seconds of the units of a span before now."""
FORMS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d")
"""In this host's time zone."""
HOW = "give a span before now (90min, 2h, 7d), a date (2026-01-31, 2026-01-31T14:00) or Unix seconds"
LONGEST_AGO = 20 * 366 * 86400
"""Seconds: accounting is read an hour at a time, and nobody's is older."""
_SPAN = re.compile(r"([0-9]{1,9})(s|min|h|d|w)", re.ASCII)
_SECONDS = re.compile(r"[0-9]{9,10}", re.ASCII)


def parse_moment(flag: str, text: str, now: float) -> int:
    """Return the moment in Unix seconds. Raises UsageError if it is none, later than now, or before all accounting."""
    when = _moment(text, now)
    if when is None:
        raise UsageError(f"-{flag} {text[:40]!r} is no moment: {HOW}")
    if when > now:
        raise UsageError(f"-{flag} {text[:40]!r} is in the future: {HOW}")
    if when < now - LONGEST_AGO:
        raise UsageError(f"-{flag} {text[:40]!r} is more than 20 years ago: {HOW}")
    return when


def _moment(text: str, now: float) -> int | None:
    span = _SPAN.fullmatch(text)
    if span:
        return int(now) - int(span[1]) * UNITS[span[2]]
    return int(text) if _SECONDS.fullmatch(text) else _calendar(text)


def parse_span(flag: str, text: str) -> int:
    """Return a span of time in seconds. Raises UsageError if it is none, or nothing."""
    found = _SPAN.fullmatch(text)
    if found is None or not int(found[1]):
        raise UsageError(f"-{flag} {text[:40]!r} is no span of time: give one as 90s, 10min, 2h or 7d")
    return int(found[1]) * UNITS[found[2]]


def _calendar(text: str) -> int | None:
    for form in FORMS:
        try:
            when = int(time.mktime(time.strptime(text, form)))
        except (ValueError, OverflowError):
            continue
        return when
    return None
