"""Logs equal lines in groups: the first one immediately, then how many more there were, however many there are."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

SOON, AT_MOST_EVERY = 60.0, 3600.0
"""Seconds from the first line of a group to the line about those after it, and between further lines."""
MAX_GROUPS = 100
"""The most groups that are counted separately."""
_OTHERS = "others"


@dataclass
class _Group:
    """What came in a group since its last line. Times are on the clock of the lines."""

    logged_at: float
    next_line: float
    level: int
    count: int = 0
    more: str = ""


class GroupedLines:
    """Lines in groups. Used by several threads; `report_due` is called now and then."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._groups: dict[str, _Group] = {}

    def report(  # noqa: PLR0913 - the two lines, how they are grouped and counted
        self, what: str, kind: str, line: str, more: Callable[[], str], *, level: int = logging.WARNING, count: int = 1
    ) -> None:
        """Log a line if it is the first of its group, which is `what` happened and the `kind` of reason; else count it.

        At INFO it is logged in any case. `more` is called if this one is the first of those that are only counted: it
        returns what follows their number.
        """
        with self._lock:
            name = f"{what}: {kind}"
            group = self._groups.get(name) or self._begin(name, what, level)
            if group is None:
                self._log.log(level, "%s", line)
                return
            self._log.info("%s", line)
            group.more = group.more if group.count else more()
            group.count += count

    def _begin(self, name: str, what: str, level: int) -> _Group | None:
        """Count a group separately from now on, and return None. If there are too many, return the shared one."""
        if len(self._groups) < MAX_GROUPS:
            self._groups[name] = self._new_group(level)
            return None
        return self._groups.setdefault(f"{what}: {_OTHERS}", self._new_group(level))

    def _new_group(self, level: int) -> _Group:
        now = self._clock()
        return _Group(now, now + SOON, level)

    def forget(self) -> None:
        """Let the next line of each group be logged, whatever was logged before."""
        with self._lock:
            self._groups.clear()

    def report_due(self) -> None:
        """Log how many more there were, for each group that is due. Forget groups without anything new for an hour."""
        now = self._clock()
        with self._lock:
            for name, group in list(self._groups.items()):
                if group.count and now >= group.next_line:
                    self._log.log(group.level, "%d %s", group.count, group.more)
                    group.count, group.logged_at, group.next_line = 0, now, now + AT_MOST_EVERY
                elif not group.count and now >= group.logged_at + AT_MOST_EVERY:
                    del self._groups[name]
