"""Hook events that wait until Slurm shows what they announced: asked about soon, and again a little later each time.

It decides alone when Slurm is asked and for which jobs, by times that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cc_slurm_adapter.model import HookEvent

PROLOG_WAIT = 0.05
"""Seconds before the first question after a prolog: while it runs the job is still CONFIGURING. Epilogs ask at once."""
WAITS = (0.2, 0.5, 1.0, 2.0)
"""Seconds before each further question; the last one again and again."""
MAX_WAITING = 5000
"""Events that wait at the same time. More than that is a flood, and the poll finds real jobs all the same."""
AT_ONCE = 200
"""Jobs in one question, unless it reads all jobs in any case: then it serves all that wait."""
MANY = 50
"""No rest after a question for so many jobs: they were a burst, and those that came meanwhile are served now."""
REST = 5
"""Which part of the longest wait may be a rest."""
UNKNOWN_TRIES = 2
LONGEST_REPEAT = 60.0
"""Seconds at most until a job is asked about whose event says what is known already: as often as polls come."""


@dataclass
class _Waiting:
    event: HookEvent
    arrived: float
    due: float
    tries: int = 0
    answers: int = 0
    """How many questions had been answered when this one failed by itself."""
    is_repeat: bool = False
    """It says what is known already, and was put off for that."""


class _Repeat(NamedTuple):
    """When a job was asked about for a repeat, and how long the next repeat is put off."""

    asked: float
    wait: float

    def is_over(self, now: float) -> bool:
        """Nothing came for so long that the next event is taken for the first of a series."""
        return now - self.asked > 2 * self.wait


class PendingEvents:
    """By job and by kind: of several epilogs of one job the newest counts. Times are of time.monotonic().

    Between two questions there is a rest as long as the first of them took, so that the events of a burst come
    together: a question for a few jobs costs Slurm nearly as much as one for many. No new event waits longer than
    `longest_wait` seconds (slurmQueryDelay): a rest takes a fifth of that at most, the others are for the question
    under way. Only where a question makes slurmctld print all jobs, as `reads_all` says of a number of jobs, Slurm
    rests half of the time in any case.

    Many events can say the same. Prolog, Epilog and their like run on every node of a job, those of slurmctld once for
    each start. When a job stands already where an event of the first kind says, it is put off: for `longest_wait`, and
    twice as long each time. It is not dropped, since the event may also be that of a requeued job's next run,
    which looks the same (SLURM_JOB_RESTART_COUNT is not in event files): that run must be found while it holds its
    GPUs. Events of slurmctld's own hooks are never put off, so where these are used a next run is found at once.

    What is lost with it when the daemon is killed costs nothing: the first pass after a start asks for all jobs.
    """

    def __init__(
        self, max_tries: int, longest_wait: float, reads_all: Callable[[int], bool] = lambda count: False
    ) -> None:
        self._max_tries = max_tries
        self._longest_wait = longest_wait
        self._reads_all = reads_all
        self._waiting: dict[tuple[int, bool], _Waiting] = {}
        self._repeats: dict[tuple[int, bool], _Repeat] = {}
        self._at_once = AT_ONCE
        """Fewer after a failure: so the job that spoils a question is found, and the others are served."""
        self._answers = 0
        self._rest_until = 0.0

    def add(self, event: HookEvent, now: float) -> bool:
        """An event arrived. False when so many wait that it is left to the next poll, which asks for all jobs."""
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
        """When Slurm is to be asked next."""
        if not self._waiting:
            return None
        return max(min(waiting.due for waiting in self._waiting.values()), self._rest_until)

    def due(self, now: float, is_known: Callable[[HookEvent], bool]) -> list[int]:
        """Jobs to ask about now: as many as fit into one question, those that wait longest first.

        `is_known` says whether a job stands already where its event says.
        """
        moment = self.next_due()
        if moment is None or now < moment:
            return []
        due = sorted((each.due, each.event.job_id, each.event.is_end) for each in self._waiting.values())
        keys = ((job_id, is_end) for when, job_id, is_end in due if when <= now)
        jobs = list(dict.fromkeys(key[0] for key in keys if not self._put_off(self._waiting[key], now, is_known)))
        return jobs if self._reads_all(len(jobs)) else jobs[: self._at_once]

    def _put_off(self, waiting: _Waiting, now: float, is_known: Callable[[HookEvent], bool]) -> bool:
        """Whether the event is a repeat, which waits on."""
        event = waiting.event
        if event.comes_once or waiting.is_repeat or waiting.tries or not is_known(event):
            return False
        last = self._repeats.get((event.job_id, event.is_end))
        wait = self._longest_wait if last is None or last.is_over(now) else last.wait
        waiting.is_repeat, waiting.due = True, now + wait
        return True

    def looked_at(
        self,
        job_ids: Sequence[int],
        began: float,
        now: float,
        is_settled: Callable[[HookEvent], bool],
        known: Collection[int],
    ) -> None:
        """These jobs were asked about: those that are settled or were tried often enough leave, the others wait on.

        The question began and ended at these times. `known` are the jobs that slurmctld knows. A job of a real event
        is among them: others are soon given up.
        """
        self._answers += 1
        self._at_once = min(2 * self._at_once, AT_ONCE)
        self._rest(len(job_ids), began, now)
        for key, waiting in self._asked(job_ids, began):
            max_tries = self._max_tries if key[0] in known else min(self._max_tries, UNKNOWN_TRIES)
            waiting.tries += 1
            if waiting.is_repeat:
                self._note_repeat(key, waiting, now)
            if is_settled(waiting.event) or waiting.tries >= max_tries:
                del self._waiting[key]
            else:
                waiting.due = now + WAITS[min(waiting.tries, len(WAITS)) - 1]

    def failed(self, job_ids: Sequence[int], began: float, now: float) -> None:
        """The question for these jobs had no answer. One that fails by itself while others are answered is given up."""
        self._at_once = max(len(job_ids) // 2, 1)
        self._rest(len(job_ids), began, now)
        if len(job_ids) > 1:
            return
        for key, waiting in self._asked(job_ids, began):
            waiting.tries += waiting.answers < self._answers
            waiting.answers = self._answers
            waiting.due = now + WAITS[-1]
            if waiting.tries >= self._max_tries:
                del self._waiting[key]

    def _asked(self, job_ids: Sequence[int], began: float) -> Iterator[tuple[tuple[int, bool], _Waiting]]:
        """What waited for a question that began then. What was to wait longer is asked about for itself."""
        for key in [(job_id, is_end) for job_id in job_ids for is_end in (False, True)]:
            waiting = self._waiting.get(key)
            if waiting is not None and waiting.due <= began:
                yield key, waiting

    def _rest(self, count: int, began: float, now: float) -> None:
        rest = now - began
        if not self._reads_all(count):
            rest = min(rest, self._longest_wait / REST) if count < MANY else 0.0
        self._rest_until = now + rest

    def _note_repeat(self, key: tuple[int, bool], waiting: _Waiting, now: float) -> None:
        if len(self._repeats) >= MAX_WAITING:
            self._repeats.clear()
        last = self._repeats.get(key)
        wait = self._longest_wait if last is None or last.is_over(waiting.arrived) else last.wait
        self._repeats[key] = _Repeat(now, min(2 * wait, LONGEST_REPEAT))
