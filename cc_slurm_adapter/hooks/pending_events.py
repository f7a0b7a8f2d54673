"""Hook events that wait until Slurm shows what they announced: looked up soon, and again a little later each time.

This module alone decides when Slurm is asked and for which jobs. It has no clock: every time is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cc_slurm_adapter.model import HookEvent

PROLOG_WAIT = 0.05
"""Seconds before the first lookup after a prolog: while that runs the job is still CONFIGURING. Epilogs do not wait."""
WAITS = (0.2, 0.5, 1.0, 2.0)
"""Seconds before each further lookup; the last one again and again."""
MAX_WAITING = 5000
"""Events that wait at the same time. More are a flood, and the poll finds real jobs all the same."""
MAX_BATCH = 200
"""Jobs in one lookup, unless it reads all jobs in any case: then it serves all that wait."""
BURST = 50
"""There is no rest after a lookup of so many jobs: they were a burst, and those that came meanwhile are served now."""
REST_SHARE = 5
"""A rest is at most the longest wait divided by this."""
UNKNOWN_TRIES = 2
"""Lookups of a job that slurmctld does not know: it may have been named by hand."""
LONGEST_REPEAT = 60.0
"""Seconds at most until a job is looked up whose event says what is known already: as often as polls come."""


@dataclass
class _Waiting:
    event: HookEvent
    arrived: float
    due: float
    tries: int = 0
    successes: int = 0
    """How many lookups had succeeded when this job's own last failed."""
    is_repeat: bool = False
    """It says what is known already, and was postponed for that."""


class _Repeat(NamedTuple):
    """When a job was looked up for a repeat, and how long the next repeat is postponed."""

    looked_up: float
    wait: float

    def is_over(self, now: float) -> bool:
        """Tell whether nothing came for so long that the next event counts as the first of a series."""
        return now - self.looked_up > 2 * self.wait


class PendingEvents:
    """The events that wait, by job and kind: of several epilogs of one job the newest counts.

    After a lookup there is a rest as long as the lookup took, so that the events of a burst come together: a lookup of
    a few jobs costs Slurm nearly as much as one of many. No new event waits longer than `longest_wait` seconds
    (slurmQueryDelay): a rest takes a fifth of that at most, and the remainder is for the lookup under way. Only where a
    lookup of so many jobs makes slurmctld print all jobs, as `reads_all` tells, Slurm rests half of the time in any
    case.

    Many events can say the same. Prolog, Epilog and their like run on every node of a job, those of slurmctld once for
    each start. When an event of the first kind says what is known already, it is postponed: for `longest_wait`, and
    twice as long each time. It is not dropped, because it may belong to a requeued job's next run, which looks the same
    (SLURM_JOB_RESTART_COUNT is not in event files): that run must be found while it holds its GPUs. Events of
    slurmctld's own hooks are never postponed, so where these are used a next run is found immediately.

    Losing the events when the daemon is killed costs nothing: the first poll after a start asks for all jobs.
    Times are of time.monotonic().
    """

    def __init__(
        self, max_tries: int, longest_wait: float, reads_all: Callable[[int], bool] = lambda count: False
    ) -> None:
        self._max_tries = max_tries
        self._longest_wait = longest_wait
        self._reads_all = reads_all
        self._waiting: dict[tuple[int, bool], _Waiting] = {}
        self._repeats: dict[tuple[int, bool], _Repeat] = {}
        self._batch_size = MAX_BATCH
        """Smaller after a failure: so the job that makes a lookup fail is found, and the others are served."""
        self._successes = 0
        self._rest_until = 0.0

    def add(self, event: HookEvent, now: float) -> bool:
        """Add an event. False when too many wait: then it is left to the next poll, which asks for all jobs."""
        key = event.job_id, event.is_end
        before = self._waiting.get(key)
        if before is not None and not event.comes_once:
            if not before.is_repeat:
                before.due = min(before.due, now + self._longest_wait)
            return True
        if before is None and len(self._waiting) >= MAX_WAITING:
            return False
        if event.comes_once:
            self._repeats.pop(key, None)
        self._waiting[key] = _Waiting(event, now, now if event.is_end else now + PROLOG_WAIT)
        return True

    def next_due(self) -> float | None:
        """Return the time of the next lookup; None when nothing waits."""
        if not self._waiting:
            return None
        return max(min(waiting.due for waiting in self._waiting.values()), self._rest_until)

    def due(self, now: float, is_known: Callable[[HookEvent], bool]) -> list[int]:
        """Return the jobs to look up now: as many as fit into one lookup, those that are due longest first.

        `is_known` tells whether what an event says is known already.
        """
        if now < self._rest_until:
            return []
        due = sorted((each.due, *key) for key, each in self._waiting.items() if each.due <= now)
        keys = ((job_id, is_end) for _, job_id, is_end in due)
        jobs = list(dict.fromkeys(key[0] for key in keys if not self._postpone(self._waiting[key], now, is_known)))
        return jobs if self._reads_all(len(jobs)) else jobs[: self._batch_size]

    def _postpone(self, waiting: _Waiting, now: float, is_known: Callable[[HookEvent], bool]) -> bool:
        """Postpone an event that says what is known already; returns whether it was one."""
        event = waiting.event
        if event.comes_once or waiting.is_repeat or waiting.tries or not is_known(event):
            return False
        last = self._repeats.get((event.job_id, event.is_end))
        wait = self._longest_wait if last is None or last.is_over(now) else last.wait
        waiting.is_repeat, waiting.due = True, now + wait
        return True

    def looked_up(
        self,
        job_ids: Sequence[int],
        began: float,
        now: float,
        is_settled: Callable[[HookEvent], bool],
        known: Collection[int],
    ) -> None:
        """Remove the events of a lookup that are settled or were tried often enough; the others wait on.

        The lookup of these jobs took from `began` until `now`. `known` are the jobs that slurmctld knows. A job of a
        real event is among them: others are soon given up.
        """
        self._successes += 1
        self._batch_size = min(2 * self._batch_size, MAX_BATCH)
        self._rest(len(job_ids), began, now)
        for key, waiting in self._looked_up_at(job_ids, began):
            max_tries = self._max_tries if key[0] in known else min(self._max_tries, UNKNOWN_TRIES)
            waiting.tries += 1
            if waiting.is_repeat:
                self._note_repeat(key, waiting, now)
            if is_settled(waiting.event) or waiting.tries >= max_tries:
                del self._waiting[key]
            else:
                waiting.due = now + WAITS[min(waiting.tries, len(WAITS)) - 1]

    def failed(self, job_ids: Sequence[int], began: float, now: float) -> None:
        """Note that the lookup of these jobs failed. A job that fails alone while other lookups succeed is given up."""
        self._batch_size = max(len(job_ids) // 2, 1)
        self._rest(len(job_ids), began, now)
        if len(job_ids) > 1:
            return
        for key, waiting in self._looked_up_at(job_ids, began):
            waiting.tries += waiting.successes < self._successes
            waiting.successes = self._successes
            waiting.due = now + WAITS[-1]
            if waiting.tries >= self._max_tries:
                del self._waiting[key]

    def _looked_up_at(self, job_ids: Sequence[int], began: float) -> Iterator[tuple[tuple[int, bool], _Waiting]]:
        """Yield what waited for a lookup that began then. An event that was due later gets a lookup of its own."""
        for key in [(job_id, is_end) for job_id in job_ids for is_end in (False, True)]:
            waiting = self._waiting.get(key)
            if waiting is not None and waiting.due <= began:
                yield key, waiting

    def _rest(self, count: int, began: float, now: float) -> None:
        rest = now - began
        if not self._reads_all(count):
            rest = min(rest, self._longest_wait / REST_SHARE) if count < BURST else 0.0
        self._rest_until = now + rest

    def _note_repeat(self, key: tuple[int, bool], waiting: _Waiting, now: float) -> None:
        if len(self._repeats) >= MAX_WAITING:
            self._repeats.clear()
        last = self._repeats.get(key)
        wait = self._longest_wait if last is None or last.is_over(waiting.arrived) else last.wait
        self._repeats[key] = _Repeat(now, min(2 * wait, LONGEST_REPEAT))
