"""Sends what is pending to one sink: per job in order, across jobs over a few connections.

What an answer does to its row is decided in `settle`; how long nothing is sent at all, in `sink_health`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.errors import AdapterError
from cc_slurm_adapter.log import NOTICE, Repeated
from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.outbox.answered import LONGEST
from cc_slurm_adapter.outbox.due_rows import DueRows
from cc_slurm_adapter.outbox.event_latency import EventLatency
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.outbox.report import SinkReport
from cc_slurm_adapter.outbox.row_failures import RowFailures
from cc_slurm_adapter.outbox.settle import Settler
from cc_slurm_adapter.outbox.sink_health import TIMING, SinkHealth, Timing
from cc_slurm_adapter.outbox.tasks import NodeStates, Request, Rows, Task
from cc_slurm_adapter.sinks.base import Answer, Connection, Delivery, Sink, Verdict
from cc_slurm_adapter.system.outages import Outages
from cc_slurm_adapter.system.threads import Worker

log = logging.getLogger(__name__)

LOCK_LIMIT = 0.2
"""Seconds that a stop waits for the threads to listen."""


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
        self._under_way: dict[Connection, Request | None] = {}
        """What each connection is busy with. Its place stays when that is over, so that no lock is needed then."""
        self._nodes: NodeStates | None = None
        self._failures = RowFailures()
        self._due = DueRows(sink, outbox.deliveries, self._failures)
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
                partial(self._end, connection),
                longest_pause=timing.after_errors,
            )
            for number, connection in enumerate(self._connections)
        ]
        if sink.batch_size == 1:
            self.workers.append(Worker("settle", self._settle_late, self._settle_all))
        """Its threads, one for each connection, and one that settles what none of them has settled in time."""

    @property
    def report(self) -> SinkReport:
        """Whether the destination answers. Any thread may read it."""
        return self._health.report

    def is_idle(self) -> bool:
        """Return whether nothing is under way and nothing may be sent now. Raises StateError."""
        with self._changed:
            is_busy = _requests(self._under_way) or self._settler.answered.jobs or self._nodes is not None
            return not is_busy and not self._due.are_there()

    def start(self) -> None:
        """Begin to send."""
        for worker in self.workers:
            worker.start()

    def ask_to_stop(self) -> None:
        """Break off what is under way; it is sent again at the next start."""
        self._stopping = True
        for worker in self.workers:
            worker.stop()
        self._settler.answered.end_waits()
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
        request = self._next_request(connection)
        if request is not None:
            self._send(connection, request)
        if not self._due.has_more:
            self._settler.report_due()

    def _settle_late(self) -> None:
        """Settle answers that have waited for long, as all connections are busy with other requests."""
        if self._settler.answered.are_there.wait(self._health.timing.turn) and not self._stopping:
            time.sleep(LONGEST)
            self._settle_all()

    def _settle_all(self) -> None:
        try:
            if self._settler.answered.settle():
                self.wake()
        except AdapterError as error:
            self._lines.state_failed(error)

    def _end(self, connection: Connection) -> None:
        """Leave nothing unsettled, and no row that counts as sent although it was not."""
        self._settle_all()
        try:
            with self._changed:
                self._due.drop()
                self._due.give_back()
        except AdapterError as error:
            self._lines.state_failed(error)
        connection.close()

    def _progress(self, number: int) -> None:
        self.workers[number].progress()

    def _send(self, connection: Connection, request: Request) -> None:
        task = request.task
        try:
            if isinstance(task, NodeStates):
                self._health.nodes_answered(connection.post_nodes(*task))
            else:
                self._deliver(connection, task.deliveries, request)
        finally:
            self._under_way[connection] = None

    def _deliver(self, connection: Connection, deliveries: list[Delivery], request: Request) -> None:
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
        is_well = all(answer.verdict is Verdict.DELIVERED for answer in answers)
        self._due.answered(time.monotonic() - request.began if is_well else math.inf)
        try:
            if not is_well:
                with self._changed:
                    self._due.follow_clock()  # before anything is put off
            can_wait = self._sink.batch_size == 1 and not self._stopping
            self._settler.settle(deliveries, answers, request, lambda: self._stopping, can_wait=can_wait)
        except AdapterError as error:
            self._lines.state_failed(error)
            self._health.pause_after_error(request)

    def _next_request(self, connection: Connection) -> Request | None:
        """The next thing to send; None after a turn without one. It waits without asking again and again.

        A thread that finds more than it sends wakes another one.
        """
        turn = self._health.timing.turn
        deadline = time.monotonic() + turn
        with self._changed:
            while not self._stopping and time.monotonic() < deadline:
                wait: float | None = self._health.silence(_requests(self._under_way))
                if not wait:
                    task, wait = self._find_task()
                    if task is not None:
                        request = Request(task, time.monotonic(), self._health.successes)
                        self._under_way[connection] = request
                        if self._due.has_more or isinstance(task, NodeStates):
                            self._changed.notify()
                        return request
                self._changed.wait(min(wait or turn, turn))
            return None

    def _find_task(self) -> tuple[Task | None, float | None]:
        """Find something to send now, or the seconds until there may be."""
        if self._nodes is not None:
            task, self._nodes = self._nodes, None
            return task, None
        try:
            found = self._due.next_rows(self._busy)
            if found[0] is None and self._settler.answered.settle():  # what is settled may release other rows
                found = self._due.next_rows(self._busy)
        except AdapterError as error:
            self._lines.state_failed(error)
            return None, self._health.timing.longest_wait
        self._lines.state_works()
        return found

    def _busy(self) -> set[tuple[str, int]]:
        """Return the jobs (cluster, job id) of which a message is under way, or answered and not settled."""
        tasks = [request.task for request in _requests(self._under_way)]
        sent = {each.key[:2] for task in tasks if isinstance(task, Rows) for each in task.deliveries}
        return sent | self._settler.answered.jobs

    def _drop_ready(self) -> None:
        with self._changed:
            self._due.drop()

    def _go_on(self, answered: Request) -> None:
        """Let nothing wait any longer for a destination that is back, and send anew what was sent well before this."""
        self._failures.forget_all()
        self._due.retry_pending()
        with self._changed:
            for connection, request in self._under_way.items():
                if request and request.began < answered.began - self._health.timing.hangs:
                    connection.break_off()


def _requests(under_way: Mapping[Connection, Request | None]) -> list[Request]:
    """Return what is under way. It is called under the sender's lock, so that nothing begins meanwhile."""
    return [request for request in list(under_way.values()) if request is not None]
