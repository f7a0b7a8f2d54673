"""Waiting times that grow: exponential, with full jitter, so that many waiters do not return at the same time."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import NamedTuple

from cc_slurm_adapter.errors import AdapterError, CommandCancelled, NoRoom
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.system.outages import Outages

log = logging.getLogger(__name__)


class Backoff:
    """Counts failures in a row and computes how long to wait after each."""

    def __init__(self, first: float, longest: float, jitter: Callable[[], float] = random.random) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self.failures = 0

    def failed(self) -> float:
        """Count a failure. Return the seconds until the next try: any time up to the step, at most `longest`."""
        step: float = min(self._first * 2 ** min(self.failures, 30), self._longest)
        self.failures += 1
        return step * self._jitter()

    def succeeded(self) -> None:
        """Start again from the first step."""
        self.failures = 0


class Timing(NamedTuple):
    """How long a step that failed waits until it is tried again, in seconds."""

    first_retry: float = 1.0
    longest_retry: float = 60.0
    """The most: the wait doubles with every failure."""
    no_room: float = 5.0
    """How long it waits if it found no room for its messages."""
    clock: Callable[[], float] = time.monotonic


TIMING = Timing()


class StepReport(NamedTuple):
    """What happened to a step that is done again and again. Times are in Unix seconds."""

    name: str
    last_success: float = 0.0
    """0 if it never succeeded since the start."""
    seconds: float = 0.0
    """How long the last attempt took."""
    failing_since: float = 0.0
    """When the failures began that still last; 0 if the last attempt succeeded."""
    failures: int = 0
    """How many there were since then."""
    why: str = ""
    """The reason of the last one."""
    failed_at: float = 0.0
    """When that was; 0 while the step does not fail."""
    waits: str = ""
    """What it waits for, so that it is not done now, which is no failure."""


class RetriedStep:
    """A step of the program that is tried again after a failure, with growing waits of its own."""

    def __init__(
        self, name: str, *, timing: Timing = TIMING, outages: Outages | None = None, proves: bool = False
    ) -> None:
        """`outages` is shared with those that ask the same: what one of them has logged, the others do not log.

        `proves` says that the action always asks what they ask, so that a success of it ends their outage.
        """
        self._name = name
        self._clock = timing.clock
        self._no_room = timing.no_room
        self._backoff = Backoff(timing.first_retry, timing.longest_retry, jitter=lambda: 1.0)
        self._outages = outages or Outages(timing.clock)
        self._proves = proves
        self.not_before = 0.0
        """The time of the next try, by the clock of `timing`."""
        self.observe: Callable[[float, bool], None] = lambda seconds, has_worked: None
        """Called after each attempt with the seconds that it took and whether it worked. The seconds of attempts that
        did only a part of their work are added to those of the next one."""
        self._unobserved = 0.0
        """Seconds of attempts that did only a part of their work."""
        self.report = StepReport(name)
        """What happened to it. Replaced as a whole, so any thread may read it."""

    @property
    def is_failing(self) -> bool:
        """Return whether the last attempt failed."""
        return self._backoff.failures > 0

    @property
    def is_waiting(self) -> bool:
        """Return whether the last attempt found no room for its messages."""
        return bool(self.report.waits)

    def may_run(self) -> bool:
        """Return whether the wait after a failure is over."""
        return self._clock() >= self.not_before

    def attempt(self, action: Callable[[], bool | None]) -> bool:
        """Do the action. Return False if it failed, which is logged, or found no room for its messages.

        An action that did only a part of its work returns False. That is neither a success nor a failure.
        """
        began = self._clock()
        try:
            if action() is False:
                self._unobserved += self._clock() - began
                return True
        except CommandCancelled:
            log.debug("%s broken off: the daemon stops", self._name)
        except NoRoom as error:
            self._wait(began, str(error))
        except AdapterError as error:
            self._failed(began, str(error))
        except MemoryError:
            self._failed(began, "this host has too little memory for it, or the daemon's limit is too low")
        except Exception as error:  # noqa: BLE001 - an error of this program must not end the daemon
            self._failed(began, f"an error of this program, {type(error).__name__}", error)
        else:
            self._succeeded(began)
            return True
        return False

    def _succeeded(self, began: float) -> None:
        seconds = self._clock() - began
        self.report = StepReport(self._name, time.time(), seconds)
        self._pass_on(seconds, has_worked=True)
        note = self._outages.works(self._name, proves=self._proves)
        if note is not None:
            log.log(NOTICE, "%s works again%s", self._name, note)
        self._backoff.succeeded()

    def _wait(self, began: float, why: str) -> None:
        """Wait until there is room. It has come so far without a failure."""
        self._unobserved += self._clock() - began
        if not self.is_waiting:
            log.log(NOTICE, "%s waits: %s", self._name, why)
        self.report = StepReport(self._name, self.report.last_success, self.report.seconds, waits=why)
        self.not_before = self._clock() + self._no_room
        self._backoff.succeeded()

    def _pass_on(self, seconds: float, *, has_worked: bool) -> None:
        """Call `observe` after an attempt."""
        self.observe(self._unobserved + seconds, has_worked)
        self._unobserved = 0.0

    def _failed(self, began: float, reason: str, error: Exception | None = None) -> None:
        before, seconds = self.report, self._clock() - began
        since = before.failing_since or time.time() - seconds
        failures = before.failures + 1
        self.report = StepReport(self._name, before.last_success, seconds, since, failures, reason, time.time())
        self._pass_on(seconds, has_worked=False)
        wait = self._backoff.failed()
        self.not_before = self._clock() + wait
        # An error of this program is a failure of this step alone.
        note = self._outages.failed(self._name, reason, f"{self._name}: {reason}" if error else "")
        if note is not None:
            log.error(
                "%s failed, nothing is concluded from that, trying again (in %.0f s): %s%s",
                self._name,
                wait,
                reason,
                note,
                exc_info=error,
            )
