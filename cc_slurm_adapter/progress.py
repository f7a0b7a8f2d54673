"""Progress of long work in the log: every few seconds, and nothing when the work is short."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from cc_slurm_adapter.log import NOTICE

log = logging.getLogger(__name__)

INTERVAL = 10.0


class Progress:
    """Counts towards a total. Short work is never mentioned."""

    def __init__(self, what: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._total = total
        self._clock = clock
        self._last = clock()

    def say(self, done: int) -> None:
        """So much is done."""
        if self._clock() - self._last >= INTERVAL:
            self._last = self._clock()
            log.log(NOTICE, "%s: %d of %d", self._what, done, self._total)
