"""The time that `-check` may take in all. systemd would end a start that waits for it longer than TimeoutStartSec=."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.system.threads import Aside

LONGEST = 60.0
"""Seconds after which cc-backend and NATS are not waited for any more. What began before may take half a minute longer,
and the unit has TimeoutStartSec=120."""
TICK = 1.0
"""Seconds between two looks at the time."""


class TimeLimit:
    """Begins when it is made. It is for what only looks, as what hangs is left behind when the time is over.

    A name server that does not answer holds up a thread for as long as it likes: no timeout of a request ends that.
    """

    def __init__(self, pulse: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        """`pulse` is called about once a second while something is waited for."""
        self._pulse = pulse
        self._clock = clock
        self._end = clock() + LONGEST

    def apply(self, name: str, find: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
        """Yield what `find` finds, as soon as it is known, and a warning if the time is over first.

        `name` says what is asked. Raises what `find` raises.
        """
        if self._left <= 0:
            text = f"not asked, because the checks before it have taken {LONGEST:.0f} s"
            yield Finding(logging.WARNING, name, text, "see what they say, then check again")
            return
        found: deque[Finding] = deque()
        aside = Aside(f"check-{name}", lambda: found.extend(find()))
        is_done = False
        while not is_done and self._left > 0:
            self._pulse()
            try:
                is_done = aside.is_done(min(TICK, max(self._left, 0.0)))
            finally:
                while found:
                    yield found.popleft()
        if not is_done:
            text = f"has not answered, and {LONGEST:.0f} s are over in all"
            yield Finding(
                logging.WARNING, name, text, "see that this host reaches it, and the name server (getent hosts)"
            )

    @property
    def _left(self) -> float:
        """The seconds that are left."""
        return self._end - self._clock()
