"""Times as Slurm prints and reads them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

RELATIVE = re.compile(r"now(?:([+-])(\d+)([a-z]*))?\Z")
UNITS = {"": 1, "second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
FORMATS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
FIRST_UTS = 1_000_000
"""Slurm takes no smaller number after uts."""


class InvalidTime(ValueError):
    """Not a time that Slurm would read."""


def format_time(seconds: float, environ: Mapping[str, str]) -> str:
    """A time in local time, or as SLURM_TIME_FORMAT wants it."""
    wanted = environ.get("SLURM_TIME_FORMAT", "standard")
    if wanted == "%s":
        return str(int(seconds))
    return time.strftime(FORMATS[0] if wanted == "standard" else wanted, time.localtime(seconds))


def format_duration(seconds: float, *, short: bool = False) -> str:
    """[days-]hours:minutes:seconds; squeue leaves out leading zeros (`short`)."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}-{hour:02}:{minute:02}:{second:02}"
    if short:
        return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
    return f"{hour:02}:{minute:02}:{second:02}"


def parse_time(text: str, now: float) -> float:
    """The Unix time of utsN, now, now-2hours, 2026-11-22 or 2026-11-22T10:00:00 in local time."""
    if text.startswith("uts") and text[3:].isdigit() and int(text[3:]) > FIRST_UTS:
        return float(text[3:])
    relative = RELATIVE.match(text)
    if relative:
        return now + _parse_offset(text, relative)
    for form in FORMATS:
        try:
            return time.mktime(time.strptime(text, form))
        except ValueError:
            continue
    raise InvalidTime(text)


def _parse_offset(text: str, relative: re.Match[str]) -> float:
    sign, number, unit = relative.groups(default="")
    seconds = UNITS.get(unit if unit in UNITS else unit.rstrip("s"))
    if seconds is None:
        raise InvalidTime(text)
    return int(f"{sign}{number or 0}") * seconds
