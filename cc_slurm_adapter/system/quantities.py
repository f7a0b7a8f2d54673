"""Durations, moments, sizes and numbers in the words of people. Nothing is imported here but time."""

from __future__ import annotations

import time
from collections.abc import Iterable

_UNITS = ((60.0, 1.0, "s"), (3600.0, 60.0, "min"), (2 * 86400.0, 3600.0, "h"))
"""Up to which number of seconds a unit is used, how many seconds it has, and its name. Beyond them are days."""
DAY = 86400.0
TENTHS_UNTIL = 10.0
"""Seconds below which tenths are shown."""
MOST_RANGES = 8
"""The most numbers and ranges that a line lists."""
_SIZES = ((2**30, "GB"), (2**20, "MB"), (2**10, "kB"))


def duration(seconds: float) -> str:
    """Return a duration with one unit: `0.4 s`, `12 min`, `5 h`, `3 d`. A negative one counts as 0."""
    seconds = max(seconds, 0.0)
    if seconds < TENTHS_UNTIL:
        return f"{int(seconds * 10) / 10:g} s"
    for limit, length, unit in _UNITS:
        if seconds < limit:
            return f"{int(seconds / length)} {unit}"
    return f"{int(seconds / DAY)} d"


def ago(when: float, now: float) -> str:
    """Return how long ago a Unix time is: `12 min ago`; `never` for 0."""
    return f"{duration(now - when)} ago" if when else "never"


def moment(when: float, now: float) -> str:
    """Return a Unix time in this host's time zone: `14:02`, or with its date if that is not today's."""
    try:
        local = time.localtime(when)
        return time.strftime("%H:%M" if local[:3] == time.localtime(now)[:3] else "%Y-%m-%d %H:%M", local)
    except (ValueError, OverflowError, OSError):  # no time that a calendar has
        return f"{when:.0f}"


def full_moment(when: float) -> str:
    """Return a Unix time in full, in this host's time zone: a line of the log may be read at any time."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(when))


def at(when: float, now: float) -> str:
    """Return a Unix time and how far away it is: `14:02 (12 min ago)`, `14:02 (in 12 min)`."""
    away = f"{duration(int(now - when))} ago" if when <= now else f"in {duration(int(when - now))}"
    return f"{moment(when, now)} ({away})"


def size(number: int) -> str:
    """Return a number of bytes: `12.5 MB`, where a MB is 1024 kB as in the configuration."""
    for factor, unit in _SIZES:
        if number >= factor:
            return f"{number / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{number} bytes"


def counted(number: int, what: str, more: str = "") -> str:
    """Return a number of things: `1 message`, `2,000 messages`. `more` is the plural if it has not just an s."""
    return f"{number:,} {what if number == 1 else more or what + 's'}"


def ranges(numbers: Iterable[int]) -> str:
    """Return whole numbers in order, and those that follow each other as one range: `0-3, 7`.

    What does not fit into MOST_RANGES is counted: `0, 2, 4, 6, 8, 10, 12, 14 and 3 more`.
    """
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    listed = ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in found[:MOST_RANGES])
    rest = sum(last - first + 1 for first, last in found[MOST_RANGES:])
    return f"{listed} and {rest:,} more" if rest else listed
