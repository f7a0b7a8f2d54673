"""In which order the rows of a job leave, whatever happens to them: the oldest run first, its start before its stop."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.model import NodeState, RunKey
from cc_slurm_adapter.outbox.memory import IN_MEMORY
from cc_slurm_adapter.outbox.outbox import Batch, Message, OpenRun, Outbox, Stage
from cc_slurm_adapter.outbox.sender import Sender
from cc_slurm_adapter.outbox.withdrawals import Room
from cc_slurm_adapter.sinks.base import Answer, Delivery, Encoded, Kind, Verdict
from cc_slurm_adapter.system.threads import stop_all

SINK = "rest"
WAITING = ("pending", "parked")
RUNS = [RunKey("lab", job_id, start) for job_id in (1, 2, 3) for start in (100, 200, 300)]
PATIENCE = 60.0


class Row(NamedTuple):
    """A row of the state file."""

    row_id: int
    key: RunKey
    kind: str
    outcome: str
    next_try: float

    @property
    def place(self) -> tuple[int, str]:
        """Among those of its job."""
        return self.key.start_time, self.kind


class Traffic:
    """An outbox, rows that were read from it, rows under way, and a clock that only goes on."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.outbox = Outbox(IN_MEMORY)
        self.now = time.time()
        self.to_come = {key: [Kind.START, Kind.STOP] for key in RUNS}
        self.requeued = {key for key in RUNS if chance.random() < 0.5}
        self.ready: list[Delivery] = []
        self.under_way: list[Delivery] = []
        self.left: list[tuple[RunKey, Kind]] = []

    def rows(self) -> list[Row]:
        question = "SELECT id, cluster, job_id, start_time, kind, state, next_try FROM delivery"
        return [Row(row[0], RunKey(*row[1:4]), *row[4:]) for row in self.outbox._state.read(question, ())]

    # what can happen

    def owe_something(self) -> None:
        key = self.chance.choice([key for key, kinds in self.to_come.items() if kinds] or RUNS)
        if not self.to_come[key]:
            return
        kind = self.to_come[key].pop(0)
        stage = Stage.STARTED if kind is Kind.START else Stage.DONE
        batch = Batch(
            runs={key: OpenRun(key, stage, "", None)},
            messages=[Message((SINK,), key, each, Encoded(b"{}")) for each in self.kinds(key, kind)],
            urgent=self.chance.random() < 0.3,
        )
        self.outbox.commit("lab", batch)

    def kinds(self, key: RunKey, kind: Kind) -> list[Kind]:
        return [kind, Kind.WITHDRAW] if kind is Kind.STOP and key in self.requeued else [kind]

    def read_some(self) -> None:
        busy = {each.key[:2] for each in self.under_way}
        if not self.ready:
            self.ready = self.outbox.deliveries.due(SINK, self.now, self.chance.choice([1, 3, 16]), busy)

    def send_some(self) -> None:
        """One row as over REST, or several as on NATS."""
        count = self.chance.choice([1, 1, 16])
        some, self.ready = self.ready[:count], self.ready[count:]
        for each in self.outbox.deliveries.begin(some, self.now):
            self.check(each)
            self.under_way.append(each)
            self.left.append((each.key, each.kind))

    def check(self, delivery: Delivery) -> None:
        rows = {row.row_id: row for row in self.rows() if row.key.job_id == delivery.key.job_id}
        row = rows[delivery.row_id]
        assert delivery.key.job_id not in {each.key.job_id for each in self.under_way}, "two of a job at once"
        before = [each for each in rows.values() if each.place < row.place and each.outcome in WAITING]
        first = [
            each for each in before if not any(other.key == each.key and other.kind < each.kind for other in before)
        ]
        assert not [each for each in first if each.next_try <= self.now], "an earlier one was due"
        assert row.key not in {each.key for each in before}, "a stop before its start"
        assert row.kind != "start" or not [each for each in first if each.outcome == "pending"], "not the oldest first"

    def answer_one(self) -> None:
        if not self.under_way:
            return
        delivery = self.under_way.pop(self.chance.randrange(len(self.under_way)))
        answer = self.chance.choice(["delivered"] * 4 + ["parked"] * 3 + ["shadowed"] * 2 + ["put off", "start first"])
        if answer == "delivered":
            self.outbox.deliveries.delivered(delivery)
        elif delivery.kind is Kind.WITHDRAW and answer in ("parked", "shadowed"):
            self.outbox.deliveries.not_withdrawn(delivery, "405")
        elif answer == "parked":
            self.outbox.deliveries.parked(delivery, "400")
        elif answer == "shadowed" and delivery.kind is Kind.START:
            if self.outbox.deliveries.make_room(delivery, self.now + 20) is Room.NONE:
                self.outbox.deliveries.conflict(delivery, "422")
        elif answer in ("put off", "shadowed") or delivery.kind is not Kind.STOP:
            self.outbox.deliveries.put_off(delivery, self.now + self.chance.choice([0, 30]), "500")
        elif self.outbox.deliveries.start_first(delivery):
            self.outbox.deliveries.put_off(delivery, 0, "404", refused=True)
        else:
            self.outbox.deliveries.parked(delivery, "404")

    def sighup(self) -> None:
        self.outbox.retry_all()

    def time_passes(self) -> None:
        self.now += self.chance.choice([1, 60, 4000])

    def lose_all_starts(self) -> None:
        self.outbox.resend_starts(SINK, "lab", lambda key: True, self.now + 1)

    def tidy(self) -> None:
        self.outbox.tidy(self.chance.choice([1e9, -1e9]))

    def pause(self) -> None:
        self.ready.clear()

    def drain(self) -> None:
        """Until all that can be delivered is."""
        while any(self.to_come.values()):
            self.owe_something()
        for _ in range(2 * len(RUNS) + 1):
            for delivery in self.under_way:
                self.outbox.deliveries.delivered(delivery)
            self.under_way.clear()
            self.ready.clear()
            self.outbox.retry_all()
            self.read_some()
            while self.ready:
                self.send_some()


EVENTS = [
    *[Traffic.owe_something, Traffic.read_some, Traffic.send_some, Traffic.answer_one] * 3,
    *(Traffic.sighup, Traffic.time_passes, Traffic.lose_all_starts, Traffic.tidy, Traffic.pause),
]


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_of_a_job_nothing_leaves_while_something_earlier_is_under_way_or_due(chance: random.Random) -> None:
    traffic = Traffic(chance)
    try:
        for _ in range(120):
            chance.choice(EVENTS)(traffic)
        traffic.drain()
        assert not [row for row in traffic.rows() if row.outcome in WAITING], "something waits for ever"
    finally:
        traffic.outbox.close()


def test_a_start_that_was_parked_while_it_was_under_way_releases_its_stop() -> None:
    """As of a destination that has been away for very long, and answers at last."""
    outbox, key, now = Outbox(IN_MEMORY), RUNS[0], time.time()

    def commit(kind: Kind, stage: Stage) -> None:
        runs = {key: OpenRun(key, stage, "", None)}
        outbox.commit("lab", Batch(runs=runs, messages=[Message((SINK,), key, kind, Encoded(b"{}"))]))

    commit(Kind.START, Stage.STARTED)
    (under_way,) = outbox.deliveries.begin(outbox.deliveries.due(SINK, now, 9), now)
    outbox.tidy(-1e9)
    assert outbox.counts() == {"parked": 1}
    commit(Kind.STOP, Stage.DONE)
    outbox.deliveries.delivered(under_way)
    assert [each.kind for each in outbox.deliveries.due(SINK, now, 9)] == [Kind.STOP]
    outbox.close()


class Way:
    """A connection of Mixed."""

    def __init__(self, sink: Mixed) -> None:
        self.deliver_all, self.post_nodes = sink.deliver_all, sink.post_nodes

    def abort(self) -> None:
        """Nothing hangs here."""

    break_off = close = abort


class Mixed:
    """A sink whose connections answer at random, and which sees how many requests of a job are under way."""

    name = label = SINK
    connections = 4
    withdraws = False

    def __init__(self, at_once: int, seed: int) -> None:
        self.batch_size = at_once
        self.chance = random.Random(seed)
        self.lock = threading.Lock()
        self.is_kind = False
        self.under_way: dict[int, int] = defaultdict(int)
        self.most = 0
        self.accepted: list[tuple[RunKey, Kind]] = []

    def connect(self, progress: Callable[[], None]) -> Way:
        return Way(self)

    def deliver_all(self, deliveries: Sequence[Delivery]) -> list[Answer]:
        with self.lock:
            for each in deliveries:
                self.under_way[each.key.job_id] += 1
            self.most = max(self.most, *self.under_way.values())
        threading.Event().wait(0.001)  # others get their turn
        with self.lock:
            answers = [self.answer(each) for each in deliveries]
            for each in deliveries:
                self.under_way[each.key.job_id] -= 1
        return answers

    def answer(self, delivery: Delivery) -> Answer:
        verdict = Verdict.DELIVERED
        if not self.is_kind:
            verdict = self.chance.choice([Verdict.DELIVERED, Verdict.REJECTED, Verdict.REJECTED, Verdict.NOT_YET])
        if verdict is Verdict.DELIVERED:
            self.accepted.append((delivery.key, delivery.kind))
        return Answer(verdict, "", 0.001)

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> Answer:
        return Answer(Verdict.DELIVERED)


@pytest.mark.parametrize("at_once", [1, 16])
def test_of_a_job_one_request_is_under_way_at_a_time_through_refusals_and_sighups(tmp_path: Path, at_once: int) -> None:
    sink = Mixed(at_once, seed=at_once)
    outbox = Outbox(str(tmp_path / "state.sqlite"))
    sender = Sender(sink, outbox, Counters())
    sender.start()
    deadline = time.monotonic() + PATIENCE
    try:
        for key in RUNS:
            for kind in (Kind.START, Kind.STOP):
                outbox.commit("lab", Batch(messages=[Message((SINK,), key, kind, Encoded(b"{}"))]))
                sender.wake()
        while outbox.waiting() and time.monotonic() < deadline:
            sink.is_kind = len(sink.accepted) > len(RUNS)
            outbox.retry_all()
            sender.retry_now()
            time.sleep(0.002)
    finally:
        stop_all([sender], 2)
        outbox.close()
    assert sink.most == 1
    assert len(sink.accepted) == len(set(sink.accepted)) == 2 * len(RUNS)
    for key in RUNS:
        assert sink.accepted.index((key, Kind.START)) < sink.accepted.index((key, Kind.STOP))
