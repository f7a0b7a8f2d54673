"""Hook events that wait until Slurm shows what they announced.

An event is looked up soon, and again after waits that grow. This module alone decides when Slurm is asked and for which
jobs. It has no clock: every time is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cc_slurm_adapter.model import HookEvent

PROLOG_WAIT = 0.05
"""Seconds before the first lookup after a prolog: the job is CONFIGURING while the prolog runs. Epilogs do not wait."""
WAITS = (0.2, 0.5, 1.0, 2.0)
"""Seconds before each further lookup. The last value repeats."""
MAX_WAITING = 5000
"""Most events that wait at the same time. More than that is a flood, and the poll finds the real jobs anyway."""
MAX_BATCH = 200
"""Most jobs in one lookup. A lookup that reads all jobs in any case serves all events that wait."""
BURST = 50
"""A lookup of at least this many jobs has no rest after it: the jobs came in a burst, and those that arrived meanwhile
are served now."""
REST_SHARE = 5
"""A rest is at most the longest wait divided by this number."""
UNKNOWN_TRIES = 2
"""Lookups of a job that slurmctld does not know: somebody may have called the hook by hand."""
LONGEST_REPEAT = 60.0
"""Longest wait, in seconds, for an event that says what is already known. By default polls come as often as this."""


@dataclass
class _Waiting:
    event: HookEvent
    arrived: float
    due: float
    tries: int = 0
    successes: int = 0
    """How many lookups had succeeded when the last lookup of this job failed."""
    is_repeat: bool = False
    """Whether the event says what is already known, and was postponed for that reason."""


class _Repeat(NamedTuple):
    """When a job was looked up for a repeat, and how long the next repeat is postponed."""

    looked_up: float
    wait: float

    def is_over(self, now: float) -> bool:
        """Return whether no event came for so long that the next one counts as the first of a series."""
        return now - self.looked_up > 2 * self.wait


class PendingEvents:
    """The events that wait, by job and kind. Several epilogs of one job count as one event.

    After a lookup Slurm gets a rest that is as long as the lookup was. So the events of a burst are looked up together:
    a lookup of a few jobs costs Slurm nearly as much as one of many. No new event waits longer than `longest_wait`
    seconds (slurmQueryDelay): a rest takes at most a fifth of that, and the remainder is for the lookup under way.
    There is one exception: if a lookup of this many jobs makes slurmctld print all jobs (`reads_all` tells), Slurm
    always rests half of the time.

    Many events can say the same. Hooks like Prolog and Epilog run on every node of a job; slurmctld's own hooks run
    once for each start. An event of the first kind that says what is already known is postponed by `longest_wait`, and
    by twice as long each further time. It is not dropped, because it may belong to the next run of a requeued job,
    which looks the same (SLURM_JOB_RESTART_COUNT is not in event files). That run must be found while it holds its
    GPUs. Events of slurmctld's own hooks are never postponed. So the next run is found immediately where these hooks
    are used.

    If the daemon is killed, the events are lost. That costs nothing: the first poll after a start asks for all jobs.
    Times are values of time.monotonic().
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
        """It is smaller after a failure. So the job that makes a lookup fail is found, and the others are served."""
        self._successes = 0
        self._rest_until = 0.0

    def change_limits(self, max_tries: int, longest_wait: float) -> None:
        """Put other limits in force. What waits goes on waiting, until the time that it has."""
        self._max_tries = max_tries
        self._longest_wait = longest_wait

    def add(self, event: HookEvent, now: float) -> bool:
        """Add an event and return whether there was room. If not, the next poll covers it: that asks for all jobs."""
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
        """Return the time of the next lookup; None if no event waits."""
        if not self._waiting:
            return None
        return max(min(waiting.due for waiting in self._waiting.values()), self._rest_until)

    def due(self, now: float, is_known: Callable[[HookEvent], bool]) -> list[int]:
        """Return the jobs to look up now, as many as fit into one lookup. Those that have been due longest come first.

        `is_known` tells whether what an event says is already known.
        """
        if now < self._rest_until:
            return []
        due = sorted((each.due, *key) for key, each in self._waiting.items() if each.due <= now)
        keys = ((job_id, is_end) for _, job_id, is_end in due)
        jobs = list(dict.fromkeys(key[0] for key in keys if not self._postpone(self._waiting[key], now, is_known)))
        return jobs if self._reads_all(len(jobs)) else jobs[: self._batch_size]

    def _postpone(self, waiting: _Waiting, now: float, is_known: Callable[[HookEvent], bool]) -> bool:
        """Postpone an event that says what is already known. Return whether it was postponed."""
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
        """Remove the events of a lookup that are settled or were tried often enough. The others keep waiting.

        The lookup of these jobs took from `began` until `now`. `known` are the jobs that slurmctld knows. The job of a
        real event is one of them, so events of other jobs are given up soon.
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
        """Record that the lookup of these jobs failed.

        A job whose lookup fails alone, while other lookups succeed, is given up after some tries.
        """
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
        """Yield the events of these jobs that were due when a lookup began at `began`, with their keys.

        An event that was due later gets another lookup.
        """
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
