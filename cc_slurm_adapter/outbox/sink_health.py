"""The health of a destination: whether it answers, how long nothing is sent to it, and what was logged about that."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cc_slurm_adapter.log import NOTICE, SOMETHING_ELSE
from cc_slurm_adapter.outbox.report import SinkReport
from cc_slurm_adapter.outbox.tasks import Request, Rows
from cc_slurm_adapter.sinks.base import Answer, Verdict
from cc_slurm_adapter.system import threads
from cc_slurm_adapter.system.backoff import Backoff
from cc_slurm_adapter.system.outages import Outages

log = logging.getLogger(__name__)

LONGEST_PAUSE = 3600.0
"""The most seconds that a destination may ask for with Retry-After."""
SHORTEST_WAIT = 0.01
LAST_ANSWER_EVERY = 0.1
"""Seconds after which the time of the last answer is noted again."""
ROWS, NODE_STATES = "messages", "node states"
"""The parts that fail in an outage of the destination."""

CONCERN_ALL = (Verdict.UNAVAILABLE, Verdict.MISCONFIGURED)
"""Verdicts about the destination as a whole, whatever was sent."""


class Timing(NamedTuple):
    """How long a sender waits, in seconds."""

    first_wait: float = 1.0
    """Between tries of a destination that is away, and of a row that fails."""
    longest_wait: float = 20.0
    """The most of that: the wait doubles with every try."""
    long_outage: float = 10.0
    """Without a success for so long, a destination counts as away: when it is back, no row waits any longer."""
    probe_every: float = 10.0
    """After that another request is sent beside one that hangs: the destination may be back."""
    hangs: float = 3.0
    """How much older a request may be than the first answer of a destination that is back."""
    turn: float = threads.WAIT
    """The most that a thread waits for something to send."""
    after_errors: float = threads.LONGEST_PAUSE
    """The most that a thread waits after an error of this program."""
    something_else: float = SOMETHING_ELSE
    """Until another failure than the last one is logged."""
    clock: Callable[[], float] = time.monotonic


TIMING = Timing()


def wait_of_row(failures: int, pause: float, *, timing: Timing = TIMING) -> float:
    """Return how many seconds a row waits that has failed `failures` times before: longer than a pause of all rows."""
    own: float = min(timing.first_wait * 2 ** min(failures, 10), timing.longest_wait)
    return max(pause + SHORTEST_WAIT, own)


class SinkHealth:
    """The health of one destination. Used by all threads that send to it."""

    def __init__(  # noqa: PLR0913 - the parts that it uses
        self,
        report: SinkReport,
        connections: int,
        on_pause: Callable[[], None] = lambda: None,
        on_back: Callable[[Request], None] = lambda _: None,
        *,
        timing: Timing = TIMING,
        outages: Outages | None = None,
    ) -> None:
        """`report` names the destination. `on_pause` is called when everything has to wait.

        `on_back` is called with the first request that was answered after a long outage. `outages` is shared with all
        who ask the same destination.
        """
        self.timing = timing
        self.report = report
        """What was found out about it. Replaced as a whole, so any thread may read it."""
        self._connections = connections
        self._on_pause = on_pause
        self._on_back = on_back
        self._lock = threading.Lock()
        self._backoff = Backoff(timing.first_wait, timing.longest_wait)
        self._paused_until = 0.0
        self._failing_since = 0.0
        self._failures_in_a_row = 0
        self._outages = outages or Outages(timing.clock, something_else=timing.something_else)
        self.successes = 0
        """How many rows were answered as rows, whether they were accepted or refused."""

    def silence(self, under_way: Iterable[Request]) -> float:
        """Return for how many seconds nothing is to be sent. A destination that fails gets one request at a time."""
        until, is_failing = self._paused_until, self._backoff.failures > 0
        if is_failing:
            began = (request.began for request in under_way if isinstance(request.task, Rows))
            until = max(until, max(began, default=-self.timing.probe_every) + self.timing.probe_every)
        return max(until - self.timing.clock(), 0) if until else 0.0

    def end_pause(self) -> None:
        """Let nothing wait any longer: the configuration or the destination has changed."""
        with self._lock:
            self._paused_until = 0.0

    def answers(self, rows: int, request: Request) -> None:
        """Record that the destination has answered this many rows."""
        with self._lock:
            self.successes += rows
            was_failing = self._backoff.failures > 0
            was_away = was_failing and self.timing.clock() - self._failing_since > self.timing.long_outage
            self._backoff.succeeded()
            self._failures_in_a_row = 0
            now, last = time.time(), self.report
            if was_failing or last.why or last.failing_since or not 0 <= now - last.last_answer < LAST_ANSWER_EVERY:
                self.report = last._replace(last_answer=now, failing_since=0.0, refuses_all=False, why="")
        note = self._outages.works(ROWS, proves=True)
        if note is not None:
            log.log(NOTICE, "%s answers again%s", self.report.label, note)
        if was_away:
            self._on_back(request)

    def count_failure(self) -> None:
        """Record that a row has failed, for whatever reason."""
        with self._lock:
            self._failures_in_a_row += 1

    def fails_as_a_whole(self, answer: Answer) -> bool:
        """Return whether an answer is about more than its row.

        If one row after another fails, without a success between them, the cause is not in the rows.
        """
        return answer.verdict is not Verdict.FAILED or self._failures_in_a_row >= 2 * self._connections

    def pause_after(self, answer: Answer, request: Request) -> float:
        """Let everything wait because of an answer. Return for how many seconds."""
        if answer.verdict is Verdict.MISCONFIGURED:
            self._log(
                logging.ERROR, "refuses everything: nothing is lost, but an administrator must act", answer.reason
            )
        else:
            self._log(logging.WARNING, "cannot be reached, everything waits", answer.reason)
        return self._pause(request, answer.retry_after or 0)

    def pause_after_error(self, request: Request) -> None:
        """Let everything wait because an answer could not be stored: its rows stay pending and are sent again."""
        self._pause(request, 0)

    def _pause(self, request: Request, at_least: float) -> float:
        with self._lock:
            if not self._backoff.failures:
                self._failing_since = request.began
            now = self.timing.clock()
            wait = self._backoff.failed() - (now - request.began)  # the time of the request counts as waiting, too
            pause = min(max(wait, at_least, 0.0), LONGEST_PAUSE)
            self._paused_until = max(self._paused_until, now + pause)
        self._on_pause()
        return pause

    def _log(self, level: int, what: str, reason: str) -> None:
        with self._lock:
            since = self.report.failing_since or time.time()
            refuses_all = level == logging.ERROR
            self.report = self.report._replace(
                failing_since=since, failed_at=time.time(), refuses_all=refuses_all, why=reason
            )
        note = self._outages.failed(ROWS, reason)
        if note is not None:
            log.log(level, "%s %s: %s%s", self.report.label, what, reason, note)

    def nodes_answered(self, answer: Answer) -> None:
        """Log whether node states are accepted. No message about a job waits because of that."""
        why = "" if answer.verdict is Verdict.DELIVERED else answer.reason
        with self._lock:
            answered = self.report.last_answer if why else time.time()
            self.report = self.report._replace(nodes_why=why, last_answer=answered)
            if not why and answered - self.report.failed_at > 2 * self.timing.longest_wait:
                # No row was tried for long: those that failed are dropped or parked, and the destination is back.
                self.report = self.report._replace(failing_since=0.0, refuses_all=False, why="")
        note = self._outages.failed(NODE_STATES, why) if why else self._outages.works(NODE_STATES, proves=True)
        if note is None:
            return
        if not why:
            log.log(NOTICE, "%s can be used again%s", self.report.label, note)
        else:
            what = "cannot be used" if answer.verdict in CONCERN_ALL else "does not accept the node states"
            log.warning("%s %s: %s%s", self.report.label, what, why, note)
