"""Hook events that wait until Slurm shows what they announced: asked about soon, and again a little later each time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from cc_slurm_adapter.job import HookEvent

PROLOG_WAIT = 0.05
"""Seconds before the first question after a prolog: while it runs the job is still CONFIGURING. Epilogs ask at once."""
WAITS = (0.2, 0.5, 1.0, 2.0)
"""Seconds before each further question; the last one again and again."""
MAX_WAITING = 5000
"""Events that wait at the same time. More than that is a flood, and the poll finds real jobs all the same."""
AT_ONCE = 200
UNKNOWN_TRIES = 2


@dataclass
class _Waiting:
    event: HookEvent
    due: float
    tries: int = 0
    answers: int = 0
    """How many questions had been answered when this one failed by itself."""


class HookQueue:
    """By job and by kind: of several epilogs of one job the newest counts. Times are of time.monotonic().

    What is lost with it when the daemon is killed costs nothing: the first pass after a start asks for all jobs.
    """

    def __init__(self, max_tries: int) -> None:
        self._max_tries = max_tries
        self._waiting: dict[tuple[int, bool], _Waiting] = {}
        self._at_once = AT_ONCE
        """Fewer after a failure: so the job that spoils a question is found, and the others are served."""
        self._answers = 0

    def add(self, event: HookEvent, now: float) -> bool:
        """An event arrived. False when so many wait that it is left to the next poll, which asks for all jobs."""
        if len(self._waiting) >= MAX_WAITING:
            return False
        due = now if event.is_end else now + PROLOG_WAIT
        self._waiting[event.job_id, event.is_end] = _Waiting(event, due)
        return True

    def due(self, now: float) -> list[int]:
        """Jobs to look at now: as many as fit into one question, those that wait longest first."""
        due = sorted((waiting.due, waiting.event.job_id) for waiting in self._waiting.values() if waiting.due <= now)
        return list(dict.fromkeys(job_id for _, job_id in due))[: self._at_once]

    def next_due(self) -> float | None:
        """When the next job is to be looked at."""
        return min((waiting.due for waiting in self._waiting.values()), default=None)

    def looked_at(
        self, job_ids: list[int], now: float, is_settled: Callable[[HookEvent], bool], known: Collection[int]
    ) -> None:
        """These jobs were looked at: those that are settled or were tried often enough leave, the others wait on.

        `known` are those that slurmctld knows. A job of a real event is among them: others are soon given up.
        """
        self._answers += 1
        self._at_once = min(2 * self._at_once, AT_ONCE)
        for job_id in job_ids:
            max_tries = self._max_tries if job_id in known else min(self._max_tries, UNKNOWN_TRIES)
            for is_end in (False, True):
                waiting = self._waiting.get((job_id, is_end))
                if waiting is None or waiting.due > now:
                    continue
                waiting.tries += 1
                if is_settled(waiting.event) or waiting.tries >= max_tries:
                    del self._waiting[job_id, is_end]
                else:
                    waiting.due = now + WAITS[min(waiting.tries, len(WAITS)) - 1]

    def failed(self, job_ids: list[int], now: float) -> None:
        """The question for these jobs had no answer. One that fails by itself while others are answered is given up."""
        self._at_once = max(len(job_ids) // 2, 1)
        if len(job_ids) > 1:
            return
        for is_end in (False, True):
            waiting = self._waiting.get((job_ids[0], is_end))
            if waiting is None or waiting.due > now:
                continue
            waiting.tries += waiting.answers < self._answers
            waiting.answers = self._answers
            waiting.due = now + WAITS[-1]
            if waiting.tries >= self._max_tries:
                del self._waiting[job_ids[0], is_end]
