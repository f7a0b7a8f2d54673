"""Sends what is pending to one sink: per job in order, across jobs over a few connections.

What an answer does to its row is decided in `settle`; how long nothing is sent at all, in `sink_health`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.errors import AdapterError
from cc_slurm_adapter.log import NOTICE, Repeated
from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.outbox.clock_step import ClockStep
from cc_slurm_adapter.outbox.deliveries import Deliveries
from cc_slurm_adapter.outbox.event_latency import EventLatency
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.outbox.report import SinkReport
from cc_slurm_adapter.outbox.row_failures import RowFailures
from cc_slurm_adapter.outbox.settle import Settler
from cc_slurm_adapter.outbox.sink_health import SHORTEST_WAIT, TIMING, SinkHealth, Timing
from cc_slurm_adapter.outbox.tasks import NodeStates, Request, Rows, Task
from cc_slurm_adapter.sinks.base import Answer, Connection, Delivery, Sink, Verdict
from cc_slurm_adapter.system.outages import Outages
from cc_slurm_adapter.system.threads import Worker

log = logging.getLogger(__name__)

BATCH = 16
"""Rows read at once: each may carry a script of a megabyte."""
LOCK_LIMIT = 0.2
"""Seconds that a stop waits for the threads to listen."""
GATHER = 0.05
"""Seconds between two tasks of a connection that takes many rows at once, so that there are many."""


class _DueRows:
    """The rows of one sink that are due: some are read at once, and popped as they are sent.

    It is used under the sender's lock; only `is_gathering` needs none.
    """

    def __init__(self, sink: Sink, deliveries: Deliveries, failures: RowFailures) -> None:
        """`failures` says which rows may go together."""
        self._sink = sink
        self._deliveries = deliveries
        self._failures = failures
        self._read: deque[Delivery] = deque()
        self._gather_until = 0.0
        self._clock = ClockStep()
        self._clock_steps = Repeated()

    @property
    def is_gathering(self) -> bool:
        """Tell whether rows are gathered now, so that many go together."""
        return time.monotonic() < self._gather_until

    @property
    def has_more(self) -> bool:
        """Tell whether rows were read that are not popped yet."""
        return bool(self._read)

    def are_there(self) -> bool:
        """Return whether any row is due now, a refused one that is tried again as well. Raises StateError."""
        return bool(self._read or self._deliveries.due(self._sink.name, time.time(), 1))

    def drop(self) -> None:
        """Drop what was read: everything waits, and what is due then is read again."""
        self._read.clear()

    def next_rows(self, under_way: Iterable[Request]) -> tuple[Rows | None, float | None]:
        """Pop rows to send now, or return the seconds until there may be some; None without any. Raises StateError."""
        self.follow_clock()
        while True:
            if not self._read:
                wait = self._gather_until - time.monotonic()
                if wait > 0:
                    return None, wait
                self._refill(under_way)
            if not self._read:
                break
            rows = self._pop()
            if rows:
                return Rows(rows), None
        due = self._deliveries.next_due(self._sink.name, time.time())
        return None, None if due is None else max(due - time.time(), SHORTEST_WAIT)

    def retry_pending(self) -> None:
        """Let no pending row wait any longer."""
        self._deliveries.retry_pending(self._sink.name)

    def follow_clock(self) -> None:
        """Shift the times in the outbox when the clock was set, so that no row waits for that.

        They are Unix times, as they outlive this process.
        """
        step = self._clock.step()
        if step:
            if self._clock_steps.is_due():
                log.warning("the clock was set by %+.0f s%s", step, self._clock_steps.note)
            self._deliveries.shift_times(self._sink.name, step)
            self._clock.followed(step)

    def _pop(self) -> list[Delivery]:
        """Pop some that go together; none where something else of their jobs has become due since they were read."""
        rows = [self._read.popleft()]
        while self._read and len(rows) < self._sink.batch_size:
            if not self._failures.may_go_together(rows[0].row_id, self._read[0].row_id):
                break
            rows.append(self._read.popleft())
        if 1 < self._sink.batch_size > len(rows):
            self._gather_until = time.monotonic() + GATHER
        return self._deliveries.begin(rows, time.time())

    def _refill(self, under_way: Iterable[Request]) -> None:
        """Read more rows that are due: of a job one row is under way at a time."""
        tasks = [request.task for request in under_way]
        busy = {each.key[:2] for task in tasks if isinstance(task, Rows) for each in task.deliveries}
        self._read.extend(self._deliveries.due(self._sink.name, time.time(), BATCH, busy))


class _Lines:
    """The lines about failures that are neither the destination's nor a row's. Used by all threads that send."""

    def __init__(self, label: str, state_outages: Outages) -> None:
        """`state_outages` is shared with all who use the state file."""
        self._part = f"reading messages for {label}"
        self._state_outages = state_outages
        self._errors = Repeated()

    def could_not_send(self, deliveries: Iterable[Delivery], error: Exception) -> None:
        """Log an error of this program, which may occur for many rows."""
        if self._errors.is_due(type(error).__name__):
            text = ", ".join(f"{each.kind.value} {each.key} could not be sent" for each in deliveries)
            log.error("%s%s", text, self._errors.note, exc_info=error)

    def state_failed(self, error: AdapterError) -> None:
        """Log that the state file cannot be used."""
        note = self._state_outages.failed(self._part, str(error))
        if note is not None:
            log.error("%s%s", error, note)

    def state_works(self) -> None:
        """Log that the state file can be used again."""
        note = self._state_outages.works(self._part)
        if note is not None:
            log.log(NOTICE, "%s works again%s", self._part, note)


class Sender:
    """Threads that send. `wake` is called when rows were added; `stop_all` ends them, whatever they wait for."""

    def __init__(  # noqa: PLR0913 - the parts it serves
        self,
        sink: Sink,
        outbox: Outbox,
        counters: Counters,
        on_unknown: Callable[[], None] = lambda: None,
        on_delivered: Callable[[], None] = lambda: None,
        late_runs: LateRuns | None = None,
        event_latency: EventLatency | None = None,
        *,
        timing: Timing = TIMING,
        outages: Outages | None = None,
    ) -> None:
        """`on_unknown` is called when the destination does not know a run that it once had.

        `on_delivered` is called after each message that was delivered: others may follow it. `late_runs` learns of
        each start that the destination has, `event_latency` of each start and stop. `outages` is shared with all who
        ask the same destination.
        """
        self._sink = sink
        self._lines = _Lines(sink.label, outbox.outages)
        self._changed = threading.Condition()
        self._stopping = False
        self._under_way: dict[Connection, Request] = {}
        self._nodes: NodeStates | None = None
        self._failures = RowFailures()
        self._due = _DueRows(sink, outbox.deliveries, self._failures)
        self._health = SinkHealth(
            SinkReport(sink.name, sink.label, withdraws=sink.withdraws),
            sink.connections,
            self._drop_ready,
            self._go_on,
            timing=timing,
            outages=outages,
        )
        self._settler = Settler(
            sink,
            outbox.deliveries,
            counters,
            self._health,
            self._failures,
            on_unknown,
            on_delivered,
            late_runs,
            event_latency,
        )
        self._connections = [sink.connect(partial(self._progress, number)) for number in range(sink.connections)]
        self.workers = [
            Worker(
                f"{sink.name}-{number}",
                partial(self._turn, connection),
                connection.close,
                longest_pause=timing.after_errors,
            )
            for number, connection in enumerate(self._connections)
        ]
        """Its threads, one for each connection."""

    @property
    def report(self) -> SinkReport:
        """Whether the destination answers. Any thread may read it."""
        return self._health.report

    def is_idle(self) -> bool:
        """Return whether nothing is under way and nothing may be sent now. Raises StateError."""
        with self._changed:
            return not self._under_way and self._nodes is None and not self._due.are_there()

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

    def wake(self) -> None:
        """Tell the threads that rows were added. A thread that gathers rows finds them by itself."""
        if not self._due.is_gathering:
            with self._changed:
                self._changed.notify_all()

    def retry_now(self) -> None:
        """End every wait: the configuration or the destination has changed."""
        self._health.end_pause()
        with self._changed:
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
        self._settler.report_due()

    def _progress(self, number: int) -> None:
        self.workers[number].progress()

    def _send(self, connection: Connection, task: Task) -> None:
        try:
            if isinstance(task, NodeStates):
                self._health.nodes_answered(connection.post_nodes(*task))
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
        except Exception as error:  # noqa: BLE001 - the one place that isolates a delivery
            self._lines.could_not_send(deliveries, error)
            answer = Answer(Verdict.FAILED, "an error of this program, see the log")
            if len(deliveries) > 1:
                self._failures.suspect(each.row_id for each in deliveries)
                answer = answer._replace(verdict=Verdict.NOT_YET, retry_after=self._health.timing.first_wait)
            answers = [answer] * len(deliveries)
        try:
            with self._changed:
                self._due.follow_clock()  # before anything is put off
            self._settler.settle(deliveries, answers, request, lambda: self._stopping)
        except AdapterError as error:
            self._lines.state_failed(error)
            self._health.pause_after_error(request)

    def _next_task(self, connection: Connection) -> Task | None:
        """The next thing to send; None after a turn without one. It waits without asking again and again.

        A thread that finds more than it sends wakes another one.
        """
        turn = self._health.timing.turn
        deadline = time.monotonic() + turn
        with self._changed:
            while not self._stopping and time.monotonic() < deadline:
                wait: float | None = self._health.silence(self._under_way.values())
                if not wait:
                    task, wait = self._find_task()
                    if task is not None:
                        self._under_way[connection] = Request(task, time.monotonic(), self._health.successes)
                        if self._due.has_more or isinstance(task, NodeStates):
                            self._changed.notify()
                        return task
                self._changed.wait(min(wait or turn, turn))
            return None

    def _find_task(self) -> tuple[Task | None, float | None]:
        """Find something to send now, or the seconds until there may be."""
        if self._nodes is not None:
            task, self._nodes = self._nodes, None
            return task, None
        try:
            found = self._due.next_rows(self._under_way.values())
        except AdapterError as error:
            self._lines.state_failed(error)
            return None, self._health.timing.longest_wait
        self._lines.state_works()
        return found

    def _drop_ready(self) -> None:
        with self._changed:
            self._due.drop()

    def _go_on(self, answered: Request) -> None:
        """Let nothing wait any longer for a destination that is back, and send anew what was sent well before this."""
        self._failures.forget_all()
        self._due.retry_pending()
        with self._changed:
            for connection, request in self._under_way.items():
                if request.began < answered.began - self._health.timing.hangs:
                    connection.break_off()
