"""`--before FILE`: the figures of an earlier run beside those of this one, and what got slower by more than the noise.

Figures in which the speed of the machine shows are compared as ratios to what was measured in their own run. Those
without such a ratio are shown and not judged; nor are figures of less than a few ticks of the kernel's clock.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.processes import BenchError
from tests.bench.report import FORMAT, TIMES, Report, Row, in_words

LEAST, USUAL, OF_MEMORY = 0.1, 0.3, 0.1
"""By which share a figure may always differ; a ratio whose noise was not measured; and memory."""
LEAST_QUICK, USUAL_QUICK = 0.25, 0.6
"""The first two in quick runs, where a figure is that of few events."""
TIMES_THE_NOISE = 3.0
SAME = ("machine", "python version")
"""Notes that should be alike."""
HEAD = ("", "what", "compared with", "before", "now", "change", "")

Key = tuple[str, str, str]
"""Measurement, what, and with what it is compared."""


class Earlier(NamedTuple):
    """What a file holds: rows as JSON, and the notes."""

    path: Path
    rows: Mapping[Key, Mapping[str, Any]]
    notes: Mapping[str, Any]


class Change(NamedTuple):
    """A row then and now. The figures are ratios where there are any."""

    row: Row
    before: float
    now: float
    allowed: float | None
    """By which share it may be worse; None when that cannot be told."""

    @property
    def factor(self) -> float:
        """How many times as much it costs now: above 1 is worse."""
        of, by = (self.before, self.now) if self.row.more_is_better else (self.now, self.before)
        return of / by if by > 0 else math.inf

    @property
    def verdict(self) -> str:
        """SLOWER, or larger for memory; better; or nothing."""
        if self.allowed is None or self.before <= 0 or self.now <= 0:
            return ""
        if self.factor > 1 + self.allowed:
            return "LARGER" if self.row.unit not in TIMES else "SLOWER"
        return "better" if self.factor < 1 / (1 + self.allowed) else "same"

    @property
    def is_worse(self) -> bool:
        """Whether it got worse by more than the noise."""
        return self.verdict in ("LARGER", "SLOWER")


def read_earlier(path: Path, notes: Mapping[str, Any]) -> Earlier:
    """The file of an earlier run that can be compared with one of these notes. BenchError when there is none."""
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise BenchError(f"--before {path}: cannot be read as figures: {problem}") from problem
    if not isinstance(written, dict) or not isinstance(written.get("rows"), list):
        raise BenchError(f"--before {path}: has no figures of build.py bench")
    if written.get("format") != FORMAT:
        raise BenchError(f"--before {path}: was written by another version of build.py bench: measure that state again")
    for name in ("quick", "slurm"):
        if bool(written.get(name)) != bool(notes.get(name)):
            without = "with" if written.get(name) else "without"
            raise BenchError(f"--before {path}: was measured {without} --{name}, which cannot be compared")
    rows = {_key(row["measurement"], row["what"], (row["other"] or {}).get("name")): row for row in written["rows"]}
    return Earlier(path, rows, written)


def changes(earlier: Earlier, report: Report) -> list[Change]:
    """The rows that both runs have."""
    found = []
    for row in report.rows:
        before = earlier.rows.get(_key_of(row))
        if before is not None:
            old, now = (before["figure"], row.figure) if row.ratio is None else (before["ratio"], row.ratio)
            if old is not None:
                found.append(Change(row, old, now, _allowed(before, row, quick=bool(earlier.notes.get("quick")))))
    return found


def differences(earlier: Earlier, report: Report) -> list[str]:
    """What else a reader must know: another machine, figures that only one of them has."""
    lines = [
        f"NOTE: {name} was {earlier.notes.get(name)!r}, and is {report.notes.get(name)!r}"
        for name in SAME
        if earlier.notes.get(name) != report.notes.get(name)
    ]
    keys, measured = {_key_of(row) for row in report.rows}, {row.measurement for row in report.rows}
    gone = [key for key in earlier.rows if key not in keys and key[0] in measured]
    new = [key for key in keys if key not in earlier.rows]
    lines += [f"only before: {' '.join(filter(None, key))}" for key in gone]
    return lines + [f"only now: {' '.join(filter(None, key))}" for key in sorted(new)]


def table(found: list[Change]) -> str:
    """All changes in columns."""
    lines = [HEAD, *map(_cells, found)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def _allowed(before: Mapping[str, Any], row: Row, *, quick: bool) -> float | None:
    if row.unit not in TIMES:
        return OF_MEMORY if row.unit == "MB" and row.ratio is None else None
    if row.ratio is None:
        return None
    if row.noise is None or before.get("noise") is None:
        return USUAL_QUICK if quick else USUAL
    return max(LEAST_QUICK if quick else LEAST, TIMES_THE_NOISE * math.hypot(row.noise, before["noise"]))


def _cells(change: Change) -> tuple[str, ...]:
    row, is_ratio = change.row, change.row.ratio is not None
    before, now = (f"{each:.3g} x" if is_ratio else in_words(each, row.unit) for each in (change.before, change.now))
    share = f"{100 * (change.now / change.before - 1):+.0f} %" if change.before else ""
    if change.allowed is not None:
        share += f" (noise: {100 * change.allowed:.0f} %)"
    return row.measurement, row.what, row.other.name if row.other else "", before, now, share, change.verdict


def _key_of(row: Row) -> Key:
    return _key(row.measurement, row.what, row.other.name if row.other else None)


def _key(measurement: str, what: str, other: str | None) -> Key:
    return measurement, what, other or ""
