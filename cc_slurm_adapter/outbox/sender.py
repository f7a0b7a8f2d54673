"""Drains the outbox into one sink: per job in order, across jobs over a few connections."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from cc_slurm_adapter.counters import Status
from cc_slurm_adapter.errors import AdapterError
from cc_slurm_adapter.log import NOTICE, Reminder
from cc_slurm_adapter.model import NodeState, RunKey
from cc_slurm_adapter.outbox.clock_step import ClockStep
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.outbox.row_failures import MAX_TRIES, RowFailures
from cc_slurm_adapter.outbox.row_lines import RowLines
from cc_slurm_adapter.outbox.tasks import NodeStates, Request, Rows, Task
from cc_slurm_adapter.outbox.withdrawals import Room
from cc_slurm_adapter.sinks.base import Answer, Connection, Delivery, Kind, Sink, Verdict
from cc_slurm_adapter.system.backoff import Backoff
from cc_slurm_adapter.system.threads import WAIT, Worker

log = logging.getLogger(__name__)

BATCH = 16
"""Rows read at once: each may carry a script of a megabyte."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 20.0
"""Seconds between tries of a sink that is away."""
LONGEST_PAUSE = 3600.0
"""Seconds that a destination may ask for with Retry-After, at most."""
SHORTEST_WAIT = 0.01
LONG_TROUBLE = 10.0
"""Seconds without a success after which a destination was away: when it is back nothing waits on."""
PROBE_EVERY = 10.0
"""Seconds after which a request that hangs gets company, while nothing else is sent: the destination may be back."""
HANGS = 3.0
"""Seconds that a request may be older than the first answer of a destination that is back."""
LOCK_LIMIT = 0.2
"""Seconds that a stop waits for the threads to listen."""
GATHER = 0.05
"""Seconds between two tasks of a connection that takes many rows at once, so that there are many."""

OF_THE_SINK = (Verdict.UNAVAILABLE, Verdict.MISCONFIGURED)
WITHOUT_ASKING = (Verdict.TOO_LARGE, Verdict.NOT_YET)
"""They may be given without an answer of the destination, and so say nothing of it."""


class Sender:
    """Threads that send. `wake()` when rows were added; `stop()` ends them, whatever they wait for."""

    def __init__(  # noqa: PLR0913 - the parts it serves
        self,
        sink: Sink,
        outbox: Outbox,
        status: Status,
        on_unknown: Callable[[], None] = lambda: None,
        on_delivered: Callable[[], None] = lambda: None,
        late_runs: LateRuns | None = None,
    ) -> None:
        """`on_unknown` is called when the destination does not know a run that it once took.

        `on_delivered` is called after each message that it has taken: others may follow it. `late_runs` is told of
        each start that it has.
        """
        self._late_runs = late_runs
        self._on_unknown = on_unknown
        self._on_delivered = on_delivered
        self._sink = sink
        self._outbox = outbox
        self._status = status
        self._changed = threading.Condition()
        self._stopping = False
        self._ready: deque[Delivery] = deque()
        self._under_way: dict[Connection, Request] = {}
        self._nodes: NodeStates | None = None
        self._backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        self._paused_until = 0.0
        self._trouble_reminder = Reminder()
        self._troubles_in_a_row = 0
        self._failing_since = 0.0
        self._successes = 0
        self._troubled = RowFailures()
        self._gather_until = 0.0
        self._lines = RowLines(sink.label)
        self._nodes_reminder = Reminder()
        self._clock = ClockStep()
        self._connections = [sink.connect(partial(self._progress, number)) for number in range(sink.connections)]
        self.workers = [
            Worker(f"{sink.name}-{number}", partial(self._turn, connection), connection.close)
            for number, connection in enumerate(self._connections)
        ]
        """Its threads, one for each connection."""

    def start(self) -> None:
        """Begin to send."""
        for worker in self.workers:
            worker.start()

    def ask_to_stop(self) -> None:
        """Break off what is under way; it is sent again at the next start."""
        self._stopping = True
        for worker in self.workers:
            worker.stop()
        if self._changed.acquire(timeout=LOCK_LIMIT):  # a disk may hold whoever has it
            self._changed.notify_all()
            self._changed.release()
        for connection in self._connections:
            connection.abort()

    def stop(self, time_limit: float) -> None:
        """End within `time_limit` seconds: requests under way are broken off and sent again at the next start."""
        deadline = time.monotonic() + time_limit
        self.ask_to_stop()
        for worker in self.workers:
            worker.join(deadline - time.monotonic())

    def wake(self) -> None:
        """Rows were added. Whoever gathers rows finds them by itself."""
        if time.monotonic() >= self._gather_until:
            with self._changed:
                self._changed.notify_all()

    def retry_now(self) -> None:
        """End every wait: the configuration or the destination has changed."""
        with self._changed:
            self._paused_until = 0.0
            self._changed.notify_all()

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> None:
        """Send these node states; older ones that were not sent yet are dropped."""
        with self._changed:
            self._nodes = NodeStates(cluster, nodes)
            self._changed.notify_all()

    def _turn(self, connection: Connection) -> None:
        task = self._next_task(connection)
        if task is not None:
            self._send(connection, task)
        self._lines.tell_due()

    def _progress(self, number: int) -> None:
        self.workers[number].progress()

    def _send(self, connection: Connection, task: Task) -> None:
        try:
            if isinstance(task, NodeStates):
                self._settle_nodes(connection.post_nodes(*task))
            else:
                self._deliver(connection, task.deliveries)
        finally:
            with self._changed:
                del self._under_way[connection]

    def _deliver(self, connection: Connection, deliveries: list[Delivery]) -> None:
        request = self._under_way[connection]
        try:
            answers = connection.deliver_all(deliveries)
        except MemoryError:
            short = "this host has too little memory, or the daemon's limit is too low"
            answers = [Answer(Verdict.UNAVAILABLE, short)] * len(deliveries)
        except Exception:  # the one place that isolates a delivery
            log.exception("%s", ", ".join(f"{each.kind.value} {each.key} could not be sent" for each in deliveries))
            answer = Answer(Verdict.FAILED, "an error of this program, see the log")
            if len(deliveries) > 1:
                self._troubled.suspect(each.row_id for each in deliveries)
                answer = answer._replace(verdict=Verdict.NOT_YET, retry_after=FIRST_WAIT)
            answers = [answer] * len(deliveries)
        try:
            self._settle_all(deliveries, answers, request)
        except AdapterError as error:
            log.error("%s", error)  # the rows stay owed and are sent again
            self._pause(self._failed(request))

    def _next_task(self, connection: Connection) -> Task | None:
        """The next thing to send; None after WAIT seconds without one. Waits without asking again and again.

        Whoever finds more than it takes wakes another one.
        """
        deadline = time.monotonic() + WAIT
        with self._changed:
            while not self._stopping and time.monotonic() < deadline:
                wait: float | None = self._seconds_of_silence()
                if not wait:
                    task, wait = self._find_task()
                    if task is not None:
                        self._under_way[connection] = Request(task, time.monotonic(), self._successes)
                        if self._ready or isinstance(task, NodeStates):
                            self._changed.notify()
                        return task
                self._changed.wait(min(wait or WAIT, WAIT))
            return None

    def _seconds_of_silence(self) -> float:
        """How long nothing is to be sent: a destination in trouble is asked by one request at a time."""
        until = self._paused_until
        if self._backoff.failures:
            began = (request.began for request in self._under_way.values() if isinstance(request.task, Rows))
            until = max(until, max(began, default=-PROBE_EVERY) + PROBE_EVERY)
        return max(until - time.monotonic(), 0)

    def _find_task(self) -> tuple[Task | None, float | None]:
        """Something to send now, or the seconds until there may be."""
        if self._nodes is not None:
            task, self._nodes = self._nodes, None
            return task, None
        try:
            self._follow_clock()
            while True:
                if not self._ready:
                    wait = self._gather_until - time.monotonic()
                    if wait > 0:
                        return None, wait
                    self._refill()
                if not self._ready:
                    break
                rows = self._take_rows()
                if rows:
                    return Rows(rows), None
            due = self._outbox.next_due(self._sink.name, time.time())
        except AdapterError as error:
            log.error("%s", error)
            return None, LONGEST_WAIT
        return None, None if due is None else max(due - time.time(), SHORTEST_WAIT)

    def _take_rows(self) -> list[Delivery]:
        """Some that go together; none when something else of their jobs has become due since they were read."""
        rows = [self._ready.popleft()]
        while self._ready and len(rows) < self._sink.at_once:
            if not self._troubled.may_go_together(rows[0].row_id, self._ready[0].row_id):
                break
            rows.append(self._ready.popleft())
        if 1 < self._sink.at_once > len(rows):
            self._gather_until = time.monotonic() + GATHER
        return self._outbox.take(rows, time.time())

    def _follow_clock(self) -> None:
        """The outbox knows Unix times, as they outlive this process: a clock that was set must not make rows wait."""
        with self._changed:
            step = self._clock.step()
            if step:
                log.warning("the clock was set by %+.0f s", step)
                self._outbox.clock_was_set(self._sink.name, step)
                self._clock.took(step)

    def _refill(self) -> None:
        """Of a job one row is under way at a time."""
        tasks = [request.task for request in self._under_way.values()]
        busy = {each.key[:2] for task in tasks if isinstance(task, Rows) for each in task.deliveries}
        self._ready.extend(self._outbox.due(self._sink.name, time.time(), BATCH, busy))

    def _settle_all(self, deliveries: Sequence[Delivery], answers: Sequence[Answer], request: Request) -> None:
        self._follow_clock()  # before anything is put off
        answered = list(zip(deliveries, answers))
        done = [(delivery, answer) for delivery, answer in answered if answer.verdict is Verdict.DELIVERED]
        if done:
            self._settle_delivered(done, request)
            request = request._replace(successes=self._successes)  # those of its own say nothing of the others
        if len(deliveries) > 1:
            self._troubled.suspect(each.row_id for each, answer in answered if answer.verdict in OF_THE_SINK)
        is_away = self._stopping
        for delivery, answer in answered:
            if answer.verdict in OF_THE_SINK:
                # One trouble, however many rows it kept from leaving: the others just stay owed.
                if not is_away:
                    self._settle_trouble(delivery, answer, request)
                is_away = True
            elif answer.verdict is not Verdict.DELIVERED:
                self._settle(delivery, answer, request)
            # Last, so that whoever sees the number finds that all has been done which follows from the answer.
            self._status.count(f"{self._sink.counted_as}{delivery.kind.value}_{answer.verdict.name.lower()}")

    def _settle(self, delivery: Delivery, answer: Answer, request: Request) -> None:
        if answer.verdict is Verdict.FAILED:
            self._settle_trouble(delivery, answer, request)
            return
        settle = {
            Verdict.REJECTED: self._settle_parked,
            Verdict.CONFLICT: self._settle_conflict,
            Verdict.UNKNOWN_RUN: self._settle_start_first,
            Verdict.TOO_LARGE: self._settle_too_large,
            Verdict.NOT_YET: self._settle_later,
        }
        if answer.verdict not in WITHOUT_ASKING:
            self._sink_answers([delivery], request)
        settle[answer.verdict](delivery, answer)

    def _settle_delivered(self, done: list[tuple[Delivery, Answer]], request: Request) -> None:
        deliveries = [delivery for delivery, _ in done]
        self._sink_answers(deliveries, request)
        had_before = {delivery.row_id for delivery, answer in done if answer.had_it and not delivery.first_sent}
        for delivery, answer in done:
            if self._late_runs is not None and delivery.kind is Kind.START:
                self._late_runs.start_delivered(delivery.key, is_new=not answer.reason)
        self._outbox.delivered(*deliveries, had_before=had_before)
        self._on_delivered()
        for delivery, answer in done:
            if delivery.kind is Kind.WITHDRAW:
                log.log(
                    NOTICE,
                    "%s: removed from %s to make room for the next run of its job",
                    delivery.key,
                    self._sink.label,
                )
                continue
            said = f" ({answer.reason})" if answer.reason else ""
            log.info("%s: %s delivered to %s%s", delivery.key, delivery.kind.value, self._sink.label, said)
            if delivery.parkings:
                self._lines.tell(delivery, "delivered after it was parked", answer.reason or "it was stored", NOTICE)

    def _settle_parked(self, delivery: Delivery, answer: Answer) -> None:
        if delivery.kind is Kind.WITHDRAW:
            self._settle_not_withdrawn(delivery, answer)
            return
        self._say_restored(self._outbox.parked(delivery, answer.reason))
        self._troubled.forget(delivery.row_id)
        self._lines.tell(delivery, "refused and parked, tried again later or after SIGHUP", answer.reason)

    def _settle_conflict(self, delivery: Delivery, answer: Answer) -> None:
        if self._sink.withdraws:
            room = self._outbox.make_room(delivery, time.time() + LONGEST_WAIT)
            if room is not Room.NONE:
                log.info("%s: another run of this job is stored, %s: %s", delivery.key, room.value, answer.reason)
                return
        restored = self._outbox.conflict(delivery, answer.reason)
        self._lines.tell(delivery, "not stored, another run of this job is", answer.reason)
        self._say_restored(restored)

    def _settle_not_withdrawn(self, delivery: Delivery, answer: Answer) -> None:
        refused, restored = self._outbox.not_withdrawn(delivery, answer.reason)
        self._troubled.forget(delivery.row_id)
        log.warning(
            "%s: %s does not remove it for the next run of its job: %s", delivery.key, self._sink.label, answer.reason
        )
        if refused:
            why = "an earlier run could not be removed"
            log.warning("%s: start not stored, another run of this job is: %s: %s", refused, self._sink.label, why)
        self._say_restored(restored)

    def _say_restored(self, keys: Sequence[RunKey]) -> None:
        for key in keys:
            log.warning("%s: is sent to %s again, as the later run was refused after all", key, self._sink.label)

    def _settle_start_first(self, delivery: Delivery, answer: Answer) -> None:
        if delivery.refusals < MAX_TRIES and self._outbox.start_first(delivery):
            self._outbox.put_off(delivery, 0, answer.reason, refused=True)
            self._lines.tell(
                delivery, "of a run that is not known there (any more), sending its start again", answer.reason
            )
            self._on_unknown()
        else:
            self._settle_parked(delivery, answer)

    def _settle_too_large(self, delivery: Delivery, answer: Answer) -> None:
        if not self._outbox.cut(delivery):
            self._settle_parked(delivery, answer)
        else:
            self._lines.tell(delivery, "too large, sending it with less text", answer.reason)

    def _settle_trouble(self, delivery: Delivery, answer: Answer, request: Request) -> None:
        """Only a row that is refused while others succeed is itself the trouble: it is parked after some tries.

        An answer that did not come says nothing of the row, however often. The outbox takes rows that
        failed last, so all get their turn whichever it is. A connection that is broken off for one row while others
        pass says that the row is too large.
        """
        trouble = self._troubled.of(delivery.row_id, request.successes)
        if answer.broke_off:
            self._troubled.was_refused(delivery.row_id)
            if trouble.broke_off(self._successes) >= self._troubled.tries_of(delivery.row_id):
                self._troubled.forget(delivery.row_id)
                self._settle_too_large(delivery, answer)
                return
        self._troubles_in_a_row += 1
        others_succeed = self._successes > trouble.successes_before
        is_refusal = answer.verdict is Verdict.FAILED or (answer.verdict is Verdict.MISCONFIGURED and others_succeed)
        if is_refusal:
            self._troubled.was_refused(delivery.row_id)
        if is_refusal and others_succeed and delivery.refusals + 1 >= self._troubled.tries_of(delivery.row_id):
            self._settle_parked(delivery, answer)
            return
        pause = 0.0
        if answer.retry_after or (not others_succeed and self._is_whole_sink(answer)):
            pause = self._pause_sink(answer, request)
        wait = max(pause + SHORTEST_WAIT, min(FIRST_WAIT * 2 ** min(trouble.times, 10), LONGEST_WAIT))
        trouble.times += 1
        self._outbox.put_off(delivery, time.time() + wait, answer.reason, refused=is_refusal)
        what = f"{delivery.kind.value} to {self._sink.label} failed"
        log.info("%s: %s, again in %.0f s: %s", delivery.key, what, wait, answer.reason)

    def _is_whole_sink(self, answer: Answer) -> bool:
        """Errors of one row after another, without a success between them, are no row's own."""
        return answer.verdict is not Verdict.FAILED or self._troubles_in_a_row >= 2 * self._sink.connections

    def _settle_later(self, delivery: Delivery, answer: Answer) -> None:
        self._outbox.put_off(delivery, time.time() + (answer.retry_after or LONGEST_WAIT), answer.reason)

    def _pause_sink(self, answer: Answer, request: Request) -> float:
        """Everything waits; returns for how many seconds."""
        if answer.verdict is Verdict.MISCONFIGURED:
            self._say_trouble(logging.ERROR, "refuses everything, nothing is lost but somebody must act", answer.reason)
        else:
            self._say_trouble(logging.WARNING, "cannot be reached, everything waits", answer.reason)
        pause = min(max(self._failed(request), answer.retry_after or 0), LONGEST_PAUSE)
        self._pause(pause)
        return pause

    def _failed(self, request: Request) -> float:
        """For how many seconds to wait now. Those that the request took count as waiting, too."""
        if not self._backoff.failures:
            self._failing_since = request.began
        return max(self._backoff.failed() - (time.monotonic() - request.began), 0)

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._ready.clear()
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def _sink_answers(self, deliveries: Sequence[Delivery], request: Request) -> None:
        self._successes += len(deliveries)
        for delivery in deliveries:
            self._troubled.is_settled(delivery.row_id)
        if self._trouble_reminder.over():
            log.log(NOTICE, "%s answers again", self._sink.label)
        with self._changed:
            was_away = self._backoff.failures and time.monotonic() - self._failing_since > LONG_TROUBLE
            self._backoff.succeeded()
        self._troubles_in_a_row = 0
        if was_away:
            self._go_on(request)

    def _go_on(self, answered: Request) -> None:
        """The destination is back: nothing waits for it any longer, and what was sent well before this is sent anew."""
        self._troubled.forget_all()
        self._outbox.retry_owed(self._sink.name)
        with self._changed:
            for connection, request in self._under_way.items():
                if request.began < answered.began - HANGS:
                    connection.break_off()

    def _say_trouble(self, level: int, what: str, reason: str) -> None:
        if self._trouble_reminder.is_due(reason):
            log.log(level, "%s %s: %s", self._sink.label, what, reason)

    def _settle_nodes(self, answer: Answer) -> None:
        if answer.verdict is Verdict.DELIVERED:
            if self._nodes_reminder.over():
                log.log(NOTICE, "%s can be used again", self._sink.label)
        elif self._nodes_reminder.is_due(answer.reason):
            what = "cannot be used" if answer.verdict in OF_THE_SINK else "does not take the node states"
            log.warning("%s %s: %s", self._sink.label, what, answer.reason)
