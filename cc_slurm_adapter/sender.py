"""Drains the outbox into one sink: per job in order, across jobs over a few connections."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from typing import NamedTuple, Union

from cc_slurm_adapter.backoff import Backoff
from cc_slurm_adapter.errors import AdapterError
from cc_slurm_adapter.job import NodeState
from cc_slurm_adapter.outbox import Outbox
from cc_slurm_adapter.sinks import Answer, Connection, Delivery, Kind, Sink, Verdict
from cc_slurm_adapter.status import Status

log = logging.getLogger(__name__)

CONNECTIONS = 4
BATCH = 64
FIRST_WAIT, LONGEST_WAIT = 1.0, 20.0
"""Seconds between tries of a sink that is away."""
SHORTEST_WAIT = 0.01
MAX_ROW_TRIES = 5
REMIND = 600.0
"""Seconds until a trouble that goes on is said again."""


class NodeStates(NamedTuple):
    """The states of all nodes after a poll; only the newest are worth sending."""

    cluster: str
    nodes: list[NodeState]


Task = Union[Delivery, NodeStates]


class Sender:
    """Threads that send. `wake()` when rows were added; `stop()` ends them, whatever they wait for."""

    def __init__(self, sink: Sink, outbox: Outbox, status: Status) -> None:
        self._sink = sink
        self._outbox = outbox
        self._status = status
        self._changed = threading.Condition()
        self._stopping = False
        self._ready: deque[Delivery] = deque()
        self._on_their_way: dict[int, Delivery] = {}
        self._nodes: NodeStates | None = None
        self._backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        self._paused_until = 0.0
        self._trouble_said = 0.0
        self._troubles_in_a_row = 0
        self._connections = [sink.connect() for _ in range(CONNECTIONS)]
        self._threads = [
            threading.Thread(target=self._work, args=(connection,), name=f"{sink.name}-{number}", daemon=True)
            for number, connection in enumerate(self._connections)
        ]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def stop(self, time_limit: float) -> None:
        """End within `time_limit` seconds: requests under way are broken off and sent again at the next start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for connection in self._connections:
            connection.abort()
        deadline = time.monotonic() + time_limit
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def wake(self) -> None:
        """Rows were added."""
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

    def _work(self, connection: Connection) -> None:
        while True:
            task = self._next_task()
            if task is None:
                connection.close()
                return
            if isinstance(task, NodeStates):
                self._settle_nodes(connection.post_nodes(*task))
            else:
                self._send(connection, task)

    def _send(self, connection: Connection, delivery: Delivery) -> None:
        try:
            answer = connection.deliver(delivery)
        except Exception:  # the one place that isolates a delivery
            log.exception("%s %s could not be sent", delivery.kind.value, delivery.key)
            answer = Answer(Verdict.ROW_TROUBLE, "an error of this program, see the log")
        try:
            if not (self._stopping and answer.verdict is Verdict.SINK_TROUBLE):
                self._settle(delivery, answer)
        except AdapterError as error:
            log.error("%s", error)  # the row stays owed and is sent again
            self._pause(self._backoff.failed())
        finally:
            with self._changed:
                del self._on_their_way[delivery.row_id]
                self._changed.notify_all()

    def _next_task(self) -> Task | None:
        """The next thing to send; None when the sender stops. Waits without asking again and again."""
        with self._changed:
            while not self._stopping:
                wait: float | None = max(self._paused_until - time.monotonic(), 0)
                if not wait and not (self._backoff.failures and self._on_their_way):
                    task, wait = self._find_task()
                    if task is not None:
                        return task
                self._changed.wait(wait or None)
            return None

    def _find_task(self) -> tuple[Task | None, float | None]:
        """Something to send now, or the seconds until there may be."""
        if self._nodes is not None:
            task, self._nodes = self._nodes, None
            return task, None
        try:
            if not self._ready:
                self._refill()
            if self._ready:
                delivery = self._ready.popleft()
                self._on_their_way[delivery.row_id] = delivery
                return delivery, None
            due = self._outbox.next_due(self._sink.name, self._on_their_way)
        except AdapterError as error:
            log.error("%s", error)
            return None, LONGEST_WAIT
        return None, None if due is None else max(due - time.time(), SHORTEST_WAIT)

    def _refill(self) -> None:
        now = time.time()
        found = self._outbox.due(self._sink.name, now, BATCH, self._on_their_way)
        if found:
            self._outbox.mark_sent(found, now)
            self._ready.extend(found)

    def _settle(self, delivery: Delivery, answer: Answer) -> None:
        settle = {
            Verdict.DELIVERED: self._settle_delivered,
            Verdict.PARKED: self._settle_parked,
            Verdict.SHADOWED: self._settle_shadowed,
            Verdict.START_FIRST: self._settle_start_first,
            Verdict.TOO_LARGE: self._settle_too_large,
            Verdict.ROW_TROUBLE: self._settle_row_trouble,
            Verdict.LATER: self._settle_later,
            Verdict.SINK_TROUBLE: self._settle_sink_trouble,
            Verdict.HELD: self._settle_held,
        }[answer.verdict]
        if answer.verdict not in (Verdict.SINK_TROUBLE, Verdict.HELD, Verdict.ROW_TROUBLE):
            self._sink_answers()
        settle(delivery, answer)
        self._status.count(f"{delivery.kind.value}_{answer.verdict.name.lower()}")

    def _settle_delivered(self, delivery: Delivery, answer: Answer) -> None:
        self._outbox.delivered(delivery)
        log.info(
            "%s: %s delivered%s", delivery.key, delivery.kind.value, f" ({answer.reason})" if answer.reason else ""
        )

    def _settle_parked(self, delivery: Delivery, answer: Answer) -> None:
        self._outbox.parked(delivery, answer.reason)
        log.warning(
            "%s: %s refused and parked, tried again in an hour or after SIGHUP: %s",
            delivery.key,
            delivery.kind.value,
            answer.reason,
        )

    def _settle_shadowed(self, delivery: Delivery, answer: Answer) -> None:
        self._outbox.shadowed(delivery, answer.reason)
        log.warning("%s: not stored, another run of this job is: %s", delivery.key, answer.reason)

    def _settle_start_first(self, delivery: Delivery, answer: Answer) -> None:
        if delivery.refusals < MAX_ROW_TRIES and self._outbox.start_first(delivery):
            self._outbox.put_off(delivery, 0, answer.reason, refused=True)
            log.warning("%s: the destination does not know it (any more), sending its start again", delivery.key)
        else:
            self._settle_parked(delivery, answer)

    def _settle_too_large(self, delivery: Delivery, answer: Answer) -> None:
        smaller = self._sink.cut(delivery.payload) if delivery.kind is Kind.START else None
        if smaller is None:
            self._settle_parked(delivery, answer)
        else:
            self._outbox.replace_payload(delivery, smaller)
            log.warning("%s: too large for the destination, sending it with less text", delivery.key)

    def _settle_row_trouble(self, delivery: Delivery, answer: Answer) -> None:
        """Only a row that fails while others succeed is itself the trouble."""
        self._troubles_in_a_row += 1
        if self._troubles_in_a_row >= 2 * CONNECTIONS:
            self._settle_sink_trouble(delivery, answer)
            return
        if delivery.refusals + 1 >= MAX_ROW_TRIES:
            self._settle_parked(delivery, answer)
            return
        wait = FIRST_WAIT * 2**delivery.refusals
        self._outbox.put_off(delivery, time.time() + wait, answer.reason, refused=True)
        log.warning("%s: %s failed, again in %.0f s: %s", delivery.key, delivery.kind.value, wait, answer.reason)

    def _settle_later(self, delivery: Delivery, answer: Answer) -> None:
        self._outbox.put_off(delivery, time.time() + (answer.retry_after or LONGEST_WAIT), answer.reason)

    def _settle_sink_trouble(self, delivery: Delivery, answer: Answer) -> None:
        self._put_back(delivery, answer)
        self._say_trouble(logging.WARNING, "cannot be reached, everything waits", answer.reason)

    def _settle_held(self, delivery: Delivery, answer: Answer) -> None:
        self._put_back(delivery, answer)
        self._say_trouble(logging.ERROR, "refuses everything, nothing is lost but somebody must act", answer.reason)

    def _put_back(self, delivery: Delivery, answer: Answer) -> None:
        """The row is owed as before, and so is everything that was taken with it."""
        self._outbox.put_off(delivery, 0, answer.reason)
        wait = self._backoff.failed()
        self._pause(wait if answer.retry_after is None else answer.retry_after)

    def _pause(self, seconds: float) -> None:
        with self._changed:
            with contextlib.suppress(AdapterError):
                self._outbox.mark_unsent(self._ready)
            self._ready.clear()
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def _sink_answers(self) -> None:
        if self._backoff.failures:
            log.warning("%s answers again", self._sink.name)
        with self._changed:
            self._backoff.succeeded()
        self._trouble_said = 0.0
        self._troubles_in_a_row = 0

    def _say_trouble(self, level: int, what: str, reason: str) -> None:
        """Once, and again every ten minutes while it lasts."""
        now = time.monotonic()
        if not self._trouble_said or now - self._trouble_said > REMIND:
            self._trouble_said = now
            log.log(level, "%s %s: %s", self._sink.name, what, reason)

    def _settle_nodes(self, answer: Answer) -> None:
        if answer.verdict is Verdict.DELIVERED:
            log.debug("node states delivered")
        else:
            log.log(
                logging.DEBUG if answer.verdict is Verdict.SINK_TROUBLE else logging.WARNING,
                "node states were not taken: %s",
                answer.reason,
            )
