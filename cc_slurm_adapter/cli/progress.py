"""How far long work is: a bar on a terminal, and elsewhere lines that become less and less frequent.

Where it is not known how far something is, `Waiting` says what is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from cc_slurm_adapter import lines
from cc_slurm_adapter.log import LONGEST_PROGRESS_INTERVAL, PROGRESS_INTERVAL
from cc_slurm_adapter.system.quantities import duration

COLUMNS = 79
"""The most columns of a bar: a terminal has 80 at least, and some move to the next line after the last one."""
REDRAW = 0.25
"""The least seconds between two bars."""
LEAST_SECONDS = 2.0
"""Before that it is not known how fast the work is."""
BLOCKS = 20


QUIET = 5.0
"""Seconds without an answer after which it is said what is waited for, and again after twice as long."""


class Waiting:
    """Says on standard error what has not answered for a while."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`name` is the command that waits."""
        self._name, self._clock = name, clock
        self._what = ""
        self._since, self._quiet = clock(), QUIET

    def begin(self, what: str) -> None:
        """Wait for something else from now on."""
        self._what = what
        self.answered()

    def answered(self) -> None:
        """Record that there was an answer, and that the next one is waited for."""
        self._since, self._quiet = self._clock(), QUIET

    def still_waits(self) -> None:
        """Say what takes long, if that was not said just now. It is called about once a second."""
        waited = self._clock() - self._since
        if waited >= self._quiet:
            self._quiet *= 2
            text = f"cc-slurm-adapter: {self._name}: {self._what}: waiting for {waited:.0f} s"
            lines.log_line(text, lines.NOTICE)


class Shown(NamedTuple):
    """How far something is."""

    what: str
    share: float
    """From 0 to 1. How much time is left follows from it."""
    number: int
    """How many of `unit` are done: the rate follows from it."""
    unit: str
    note: str = ""
    """Why it does not go on just now. It is a line of its own, once."""


class Bar:
    """Shows how far work is. Another `what` is the beginning of other work."""

    def __init__(
        self,
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        is_drawn: bool | None = None,
        draw: Callable[[str], None] = lines.draw_bar,
        say: Callable[[str, int], None] = lines.log_line,
    ) -> None:
        """`name` begins each line where no bar is drawn; by default it is drawn if standard error is a terminal."""
        self._name = name
        self._clock = clock
        self.is_drawn = lines.draws_bars() if is_drawn is None else is_drawn
        self._draw = draw
        self._say = say
        self._first: Shown | None = None
        self._began = 0.0
        self._next = 0.0
        self._interval = 0.0
        self._said = ""
        """The last note."""

    def show(self, shown: Shown) -> None:
        """Show how far the work is, if it is time."""
        now = self._clock()
        if self._first is None or self._first.what != shown.what:
            self._begin(shown, now)
        if shown.note and shown.note != self._said:
            self._said = shown.note
            self._say(f"cc-slurm-adapter: {self._name}: {shown.note}", lines.WARNING)
        if now < self._next:
            return
        if self.is_drawn:
            self._next = now + REDRAW
            self._draw(self._bar_text(shown, now))
        else:
            self._interval = min(2 * self._interval, LONGEST_PROGRESS_INTERVAL)
            self._next = now + self._interval
            what = self._name if shown.what == self._name else f"{self._name}: {shown.what}"
            self._say(f"cc-slurm-adapter: {what}: {self._line_text(shown, now)}", lines.NOTICE)

    def close(self) -> None:
        """Erase the bar."""
        if self.is_drawn and self._first is not None:
            self._draw("")
        self._first = None

    def _begin(self, shown: Shown, now: float) -> None:
        self._first, self._began = shown, now
        self._interval = PROGRESS_INTERVAL
        self._next = now if self.is_drawn else now + self._interval

    def _bar_text(self, shown: Shown, now: float) -> str:
        done = int(BLOCKS * _bounded(shown.share))
        bar = f"[{'#' * done}{'.' * (BLOCKS - done)}] {_percent(shown)}"
        return ", ".join([f"{shown.what} {bar} {_counted(shown)}", *self._speed(shown, now)])[:COLUMNS]

    def _line_text(self, shown: Shown, now: float) -> str:
        return ", ".join([_percent(shown), _counted(shown), *self._speed(shown, now)])

    def _speed(self, shown: Shown, now: float) -> list[str]:
        """Return the rate and the time left, as far as they are known."""
        texts: list[str] = []
        elapsed, first = now - self._began, self._first
        if first is not None and elapsed >= LEAST_SECONDS:
            count, share = shown.number - first.number, shown.share - first.share
            if count > 0:
                texts.append(f"{_rate(count / elapsed)}/s")
            if share > 0:
                texts.append(f"{duration(elapsed * max(1 - shown.share, 0) / share)} left")
        return texts


def _bounded(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _percent(shown: Shown) -> str:
    return f"{int(100 * _bounded(shown.share)):3} %".strip()


def _counted(shown: Shown) -> str:
    return f"{shown.number:,} {shown.unit}"


def _rate(rate: float) -> str:
    return f"{rate:.1f}" if rate < 10 else f"{rate:,.0f}"
