"""cc-backend's messages on NATS, for cc-backend and for everybody who listens.

The README of the recorded exchanges under tests/recorded/cc_backend describes their form, in its section NATS.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from cc_slurm_adapter.model import NodeState, RunKey
from cc_slurm_adapter.sinks.base import CC_NATS, LABELS, Answer, Connection, Delivery, Kind, Verdict
from cc_slurm_adapter.sinks.messages import encode_node_parts
from cc_slurm_adapter.sinks.nats.client import NatsClient, Outgoing
from cc_slurm_adapter.sinks.nats.line_protocol import encode_point

FUNCTIONS = {Kind.START: "start_job", Kind.STOP: "stop_job"}
NANOSECONDS = 1_000_000_000
MAX_DESCRIBED = 1024 * 1024
"""Bytes of a message of node states where no server has said what it accepts: a server's default."""


class CcNats:
    """The sink of NATS. Node states are published only if `node_subject` is not empty.

    A stop is published at least `stop_delay` seconds after its start, because cc-backend handles messages in parallel.
    """

    name = CC_NATS
    label = LABELS[CC_NATS]
    connections = 1
    batch_size = 128
    withdraws = False

    def __init__(
        self,
        client: NatsClient,
        hostname: str,
        subject: str,
        node_subject: str = "",
        stop_delay: float = 0.0,
    ) -> None:
        self._client = client
        self.hostname = hostname
        self.subject = subject
        self.node_subject = node_subject
        self._recent_starts = RecentStarts(stop_delay)

    def renew_access(self) -> None:
        """Let the credentials be read again before the next message. Any thread may call this."""
        self._client.renew_access()

    def connect(self, progress: Callable[[], None] = lambda: None) -> Connection:
        """Make a connection. All share one connection to NATS.

        `progress` is not called, because a batch is one step.
        """
        return CcNatsConnection(self, self._client, self._recent_starts)

    def message_of(self, delivery: Delivery) -> Outgoing:
        """Return what is published for a row."""
        key, kind = delivery.key, delivery.kind
        tags = {"function": FUNCTIONS[kind], "hostname": self.hostname, "type": "node", "type-id": "0"}
        seconds = key.start_time if kind is Kind.START else json.loads(delivery.payload)["stopTime"]
        point = encode_point("job", tags, delivery.payload, seconds * NANOSECONDS)
        message_id = f"{key.cluster}/{key.job_id}/{key.start_time}/{kind.value}"
        return Outgoing(self.subject, point, message_id)

    def messages_of_nodes(self, cluster: str, nodes: list[NodeState], max_payload: int) -> list[Outgoing]:
        """Return what is published for the states of all nodes, in messages of at most `max_payload` bytes."""
        now = time.time_ns()

        def point(body: bytes) -> bytes:
            return encode_point("nodestate", {}, body, now)

        parts = encode_node_parts(cluster, nodes, max_payload, point)
        return [Outgoing(self.node_subject, part) for part in parts]

    def describe(self, delivery: Delivery) -> dict[str, object]:
        """Return the message for a row, as a line of its protocol."""
        return self._described(self.message_of(delivery))

    def describe_nodes(self, cluster: str, nodes: list[NodeState]) -> list[dict[str, object]]:
        """Return the messages for the states of all nodes; none without a subject for them."""
        messages = self.messages_of_nodes(cluster, nodes, MAX_DESCRIBED) if self.node_subject else []
        return [self._described(each) for each in messages]

    def _described(self, message: Outgoing) -> dict[str, object]:
        return {"to": self.label, "subject": message.subject, "message": message.payload.decode()}


class RecentStarts:
    """Remembers when the starts of the last `delay` seconds were published. A stop waits for the rest of the delay."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._published: dict[RunKey, float] = {}
        self._since = time.monotonic()
        self._lock = threading.Lock()

    def note(self, key: RunKey) -> None:
        """Record that a start was published now."""
        now = time.monotonic()
        with self._lock:
            self._published[key] = now
            while self._published and now - next(iter(self._published.values())) > self._delay:
                del self._published[next(iter(self._published))]

    def seconds_left(self, key: RunKey) -> float:
        """Return how many seconds a stop must still wait; not more than 0 if it may be published now.

        A start from an earlier process counts as published when this process began.
        """
        with self._lock:
            return self._published.get(key, self._since) + self._delay - time.monotonic()


class CcNatsConnection:
    """Publishes rows and node states."""

    def __init__(self, sink: CcNats, client: NatsClient, recent_starts: RecentStarts) -> None:
        self._sink = sink
        self._client = client
        self._recent_starts = recent_starts

    def deliver_all(self, deliveries: Sequence[Delivery]) -> list[Answer]:
        """Publish rows and wait until the server has them. Stops whose start was just published are postponed."""
        waits = [0.0 if each.kind is Kind.START else self._recent_starts.seconds_left(each.key) for each in deliveries]
        ready = [each for each, wait in zip(deliveries, waits) if wait <= 0]
        answers = iter(self._client.publish([self._sink.message_of(each) for each in ready]) if ready else ())
        all_answers = [
            Answer(Verdict.NOT_YET, "its start has only just been sent", wait) if wait > 0 else next(answers)
            for wait in waits
        ]
        for delivery, answer in zip(deliveries, all_answers):
            if delivery.kind is Kind.START and answer.verdict is Verdict.DELIVERED:
                self._recent_starts.note(delivery.key)
        return all_answers

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> Answer:
        """Publish the states of all nodes, in messages of the size that the server accepts.

        Without a subject for them, only check whether NATS is there.
        """
        if not self._sink.node_subject:
            return self._client.check()
        return self._client.publish_all(partial(self._sink.messages_of_nodes, cluster, nodes))

    def abort(self) -> None:
        """Close the connection to NATS, because the daemon stops."""
        self._client.close()

    def break_off(self) -> None:
        """Do nothing: each message has its own time limit, so none hangs longer than that."""

    def close(self) -> None:
        """Do nothing: the connection to NATS is shared, and `abort` closes it."""
