"""Moments as HTTP writes them: Sun, 06 Nov 1994 08:49:37 GMT (RFC 9110, 5.6.7)."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE = re.compile(rf"(?:{'|'.join(_DAYS)}), (\d\d) ({'|'.join(_MONTHS)}) (\d{{4}}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII)


def parse_http_date(text: str) -> float | None:
    """Return the Unix time of an HTTP date; None if it is none. The two obsolete forms are none."""
    found = _DATE.fullmatch(text.strip())
    if not found:
        return None
    day, month, year, *clock = found.groups()
    hour, minute, second = map(int, clock)
    try:
        # A leap second is the end of its minute.
        moment = datetime(
            int(year), _MONTHS.index(month) + 1, int(day), hour, minute, min(second, 59), tzinfo=timezone.utc
        )
    except ValueError:
        return None
    return moment.timestamp() + max(second - 59, 0) if second <= 60 else None


def format_http_date(moment: float) -> str:
    """Return the HTTP date of a Unix time."""
    at = time.gmtime(moment)
    clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
    return f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year:04} {clock} GMT"
