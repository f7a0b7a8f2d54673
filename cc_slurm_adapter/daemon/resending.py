"""Does the resend that an administrator has asked for, in steps between which the main loop does all else.

Only the main thread uses it. cc-backend is asked in a thread of its own, which ends by itself: it may take long.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cc_slurm_adapter.daemon.resend_requests import DONE, FAILED, ResendReport, ResendRequest, ResendRequests
from cc_slurm_adapter.errors import AdapterError, SinkError
from cc_slurm_adapter.jobs.resend import LEFT, OVER, SAME, SENT, Plan, Resend
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.sinks.base import Allocation, AskableSink
from cc_slurm_adapter.system.quantities import counted
from cc_slurm_adapter.system.threads import Aside

log = logging.getLogger(__name__)


class Timing(NamedTuple):
    """How long cc-backend is waited for, in seconds."""

    tick: float = 0.2
    """The most in one step: hook events wait meanwhile."""
    limit: float = 120.0
    """The most until the runs are listed. What is not listed by then is left to the next step."""
    starts: float = 300.0
    """The most until all new starts are accepted, from the first on."""
    last: float = 5.0
    """The most for the answers to the last ones: whoever asks is to hear of a refusal, but not to wait long for it."""


TIMING = Timing()


class StoredRuns:
    """What cc-backend has of some runs, read in a thread of its own, span after span."""

    def __init__(self, sink: AskableSink, cluster: str, plan: Plan, timing: Timing) -> None:
        self._answers: list[dict[RunKey, Allocation]] = []
        """Of each span that was read to its end. Only the thread adds to it."""
        self._connection = sink.connect(lambda: None)
        self._cluster = cluster
        self._plan = plan
        self._timing = timing
        self._deadline = time.monotonic() + timing.limit
        self._aside = Aside("stored-runs", self._read)

    def _read(self) -> None:
        try:
            for first, last in self._plan.spans:
                found: dict[RunKey, Allocation] = {}
                for row in self._connection.allocations(self._cluster, first, last):
                    key = RunKey(self._cluster, row.job_id, row.start_time)
                    if key in self._plan.asked:
                        found[key] = row.allocation
                self._answers.append(found)
        finally:
            self._connection.close()

    def is_complete(self) -> bool:
        """Wait a moment. Return whether all was read, or the time is over. Raises SinkError."""
        if self._aside.is_done(self._timing.tick):
            return True
        if time.monotonic() < self._deadline:
            return False
        self._connection.abort()
        return True

    def take(self) -> dict[RunKey, Allocation]:
        """Return what was read. If that is not all, the plan ends early. Raises SinkError if nothing of it is left."""
        answers = self._answers[:]
        if not self._plan.keep_answered(self._plan.spans[: len(answers)]):
            raise SinkError(f"cc-backend does not list these runs within {self._timing.limit:.0f} s")
        return {key: allocation for answer in answers for key, allocation in answer.items()}


class Resending:
    """Does one request at a time, and reports what became of it."""

    def __init__(
        self,
        requests: ResendRequests,
        resend: Resend,
        sink: AskableSink,
        cluster: str,
        *,
        timing: Timing = TIMING,
    ) -> None:
        """`sink` is what is asked for the runs that it has."""
        self._requests = requests
        self._resend = resend
        self._sink = sink
        self._cluster = cluster
        self._timing = timing
        self._request = ResendRequest()
        self._plan = Plan()
        self._steps: Iterator[None] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether there is more to do immediately."""
        return self._steps is not None

    def begin(self, request: ResendRequest) -> None:
        """Begin with a request."""
        self._request, self._plan = request, Plan()
        self._steps = self._all_steps(request)

    def attempt_step(self) -> None:
        """Do the next step, if there is one. A failure ends the request: whoever asked for it is told."""
        if self._steps is None:
            return
        error = ""
        try:
            for _ in self._steps:
                return
        except AdapterError as failure:
            error = str(failure)
        except Exception as failure:
            log.exception("the resend has failed")
            error = f"an error of this program, {type(failure).__name__}, see the log"
        self._end(error)

    def _all_steps(self, request: ResendRequest) -> Iterator[None]:
        self._plan = self._resend.find(request.wanted, request.after)
        yield
        stored: dict[RunKey, Allocation] = {}
        if self._plan.spans:
            reading = StoredRuns(self._sink, self._cluster, self._plan, self._timing)
            while not reading.is_complete():
                yield
            stored = reading.take()
        starts, last = self._waiting(self._timing.starts), self._waiting(self._timing.last)
        yield from self._resend.send(self._plan, stored, starts, last)

    def _waiting(self, seconds: float) -> Callable[[], bool]:
        """Return what waits a moment for cc-backend, and returns False when that takes longer, from the first call."""
        deadline = 0.0

        def wait() -> bool:
            nonlocal deadline
            deadline = deadline or time.monotonic() + seconds
            time.sleep(self._timing.tick)
            return time.monotonic() < deadline

        return wait

    def _end(self, error: str) -> None:
        self._steps, plan = None, self._plan
        outcomes = tuple(plan.outcomes)
        self._requests.ended(
            ResendReport(self._request.id, FAILED if error else DONE, error, outcomes, None if error else plan.next)
        )
        results = Counter(outcome.result for outcome in outcomes)
        log.log(
            NOTICE,
            "sent anew for an administrator (%s): %s; %d stored as they are, %d left alone%s",
            self._request.who,
            counted(results[SENT], "run"),
            results[SAME],
            results[LEFT] + results[OVER],
            f"; then it failed: {error}" if error else "",
        )
