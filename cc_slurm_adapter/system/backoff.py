"""Waiting times that grow: exponential, with full jitter, so that many waiters do not return at the same time."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cc_slurm_adapter.errors import AdapterError, CommandCancelled
from cc_slurm_adapter.log import NOTICE, Reminder

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


TIMING = Timing()


class RetriedStep:
    """A step of the program that is tried again after a failure, with growing waits of its own."""

    def __init__(self, name: str, *, timing: Timing = TIMING) -> None:
        self._name = name
        self._backoff = Backoff(timing.first_retry, timing.longest_retry, jitter=lambda: 1.0)
        self._reminder = Reminder()
        self._told = ""
        """The reason that was logged, while the step fails."""
        self.beside: Sequence[RetriedStep] = ()
        """The steps that ask the same. If one of them has logged a reason, the others do not log it again."""
        self.not_before = 0.0
        """time.monotonic() of the next try."""

    @property
    def is_failing(self) -> bool:
        """Return whether the last attempt failed."""
        return self._backoff.failures > 0

    def may_run(self) -> bool:
        """Return whether the wait after a failure is over."""
        return time.monotonic() >= self.not_before

    def attempt(self, action: Callable[[], bool | None]) -> bool:
        """Do the action. Return False if it failed, which is logged.

        An action that did only a part of its work returns False. That is neither a success nor a failure.
        """
        try:
            if action() is False:
                return True
        except CommandCancelled:
            log.debug("%s broken off: the daemon stops", self._name)
            return False
        except AdapterError as error:
            self._failed(str(error))
            return False
        except MemoryError:
            self._failed("this host has too little memory for it, or the daemon's limit is too low")
            return False
        except Exception as error:  # noqa: BLE001 - an error of this program must not end the daemon
            self._failed(f"an error of this program, {type(error).__name__}", error)
            return False
        self._told = ""
        if self._reminder.over():
            log.log(NOTICE, "%s works again", self._name)
        self._backoff.succeeded()
        return True

    def _failed(self, reason: str, error: Exception | None = None) -> None:
        wait = self._backoff.failed()
        self.not_before = time.monotonic() + wait
        cause = cause_of(reason)
        is_told = any(other._told == cause for other in self.beside if other is not self)
        if not is_told and self._reminder.is_due():
            self._told = cause
            log.error(
                "%s failed, nothing is concluded from that, trying again (in %.0f s): %s",
                self._name,
                wait,
                reason,
                exc_info=error,
            )


def cause_of(reason: str) -> str:
    """Return the reason at the end of an error's text, without the command that met it."""
    return reason.rpartition(":")[2].strip()
