"""Answers that are settled together: how few transactions that takes, how few wait, and what a kill makes of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.model import NodeState, RunKey
from cc_slurm_adapter.outbox.answered import MOST, MOST_BYTES, MOST_UNSETTLED, Answered
from cc_slurm_adapter.outbox.due_rows import BATCH
from cc_slurm_adapter.outbox.outbox import Batch, Message, Outbox
from cc_slurm_adapter.outbox.report import SinkReport
from cc_slurm_adapter.outbox.row_failures import RowFailures
from cc_slurm_adapter.outbox.sender import Sender
from cc_slurm_adapter.outbox.settle import Settler
from cc_slurm_adapter.outbox.sink_health import SinkHealth, Timing
from cc_slurm_adapter.outbox.tasks import Request, Rows
from cc_slurm_adapter.sinks.base import Answer, Delivery, Encoded, Kind, Verdict
from cc_slurm_adapter.system.threads import stop_all
from tests.fakes.waiting import comes

DELIVERED = Answer(Verdict.DELIVERED)
TIMING = Timing(first_wait=0.02, longest_wait=0.1)


class OneByOne:
    """A destination with some connections, each of which sends one row after the other."""

    name, label, batch_size, withdraws = "cc_rest", "cc-backend", 1, False

    def __init__(self, answer: Callable[[Delivery], Answer], connections: int = 4) -> None:
        self.connections = connections
        self.sent: list[int] = []
        """The jobs of all requests."""
        self._answer = answer

    def connect(self, progress: Callable[[], None]) -> OneByOne:
        return self

    def deliver_all(self, deliveries: Sequence[Delivery]) -> list[Answer]:
        self.sent += [each.key.job_id for each in deliveries]
        return [self._answer(each) for each in deliveries]

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> Answer:
        return DELIVERED

    def abort(self) -> None: ...
    def break_off(self) -> None: ...
    def close(self) -> None: ...


class Counted:
    """How many transactions wrote something to an outbox, as SQLite says."""

    def __init__(self, outbox: Outbox) -> None:
        self.commits = 0
        with outbox._state.reading() as database:
            database.set_trace_callback(self._note)

    def _note(self, statement: str) -> None:
        self.commits += statement == "COMMIT"


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(str(tmp_path / "state.sqlite"))
    yield made
    made.close()


def owe(outbox: Outbox, jobs: int, kinds: Sequence[Kind] = (Kind.START,)) -> None:
    for kind in kinds:
        keys = [RunKey("lab", job_id, 1000) for job_id in range(1, jobs + 1)]
        outbox.commit("lab", Batch(messages=[Message(("cc_rest",), key, kind, Encoded(b"{}")) for key in keys]))


def make_settler(sink: OneByOne, outbox: Outbox) -> Settler:
    health = SinkHealth(SinkReport(sink.name, sink.label), sink.connections, timing=TIMING)
    return Settler(sink, outbox.deliveries, Counters(), health, RowFailures(), lambda: None, lambda: None, None)


def settle(settler: Settler, row: Delivery, answer: Answer = DELIVERED) -> None:
    settler.settle([row], [answer], Request(Rows([row]), time.monotonic(), 0), can_wait=True)


def test_a_transaction_settles_many_answers(outbox: Outbox) -> None:
    owe(outbox, 10 * MOST)
    settler = make_settler(OneByOne(lambda _: DELIVERED), outbox)
    rows = outbox.deliveries.due("cc_rest", 1.0, 10 * MOST)
    counted = Counted(outbox)
    for number, row in enumerate(rows, 1):
        settle(settler, row)
        assert len(settler.answered.jobs) == number % MOST
    assert counted.commits == 10
    assert outbox.counts() == {"delivered": 10 * MOST}


def test_nobody_waits_for_answers_once_the_daemon_stops(outbox: Outbox) -> None:
    owe(outbox, 1)
    settler = make_settler(OneByOne(lambda _: DELIVERED), outbox)
    (row,) = outbox.deliveries.due("cc_rest", 1.0, 1)
    settler.answered.add([(row, DELIVERED)])
    settler.answered.end_waits()
    assert settler.answered.settle()  # by a connection that ends
    assert settler.answered.are_there.is_set()


def test_another_answer_settles_those_before_it_at_once(outbox: Outbox) -> None:
    owe(outbox, 3)
    settler = make_settler(OneByOne(lambda _: DELIVERED), outbox)
    first, second, third = outbox.deliveries.due("cc_rest", 1.0, 3)
    settle(settler, first)
    settle(settler, second)
    assert outbox.counts() == {"pending": 3}
    settle(settler, third, Answer(Verdict.REJECTED, "no"))
    assert outbox.counts() == {"delivered": 2, "parked": 1}


def test_while_some_are_settled_only_as_many_more_wait() -> None:
    """A disk may hold the transaction: whoever brings one more then waits for it, too."""
    goes_on, begun = threading.Event(), threading.Event()

    def hangs(_: object) -> None:
        begun.set()
        goes_on.wait(30)

    answered = Answered(hangs)

    def add(number: int) -> bool:
        return answered.add([(Delivery(number, RunKey("lab", number, 1000), Kind.START, b"{}", 0, 0), DELIVERED)])

    assert [add(number) for number in range(MOST)] == [False] * (MOST - 1) + [True]
    thread = threading.Thread(target=answered.settle)
    thread.start()
    assert begun.wait(30)
    assert [add(number) for number in range(MOST, MOST_UNSETTLED)] == [False] * (MOST - 1) + [True]
    assert len(answered.jobs) == MOST_UNSETTLED <= 48
    goes_on.set()
    thread.join(30)


def test_large_messages_are_settled_sooner() -> None:
    answered = Answered(lambda _: None)
    large = Delivery(1, RunKey("lab", 1, 1000), Kind.START, b"x" * (MOST_BYTES // 2), 0, 0)
    assert not answered.add([(large, DELIVERED)])
    assert answered.add([(large, DELIVERED)])


def test_jobs_stay_busy_until_their_answers_are_settled() -> None:
    """Also while they are: else the same row would be sent again."""
    seen: list[set[tuple[str, int]]] = []
    answered = Answered(lambda _: seen.append(answered.jobs))
    row = Delivery(1, RunKey("lab", 7, 1000), Kind.START, b"{}", 0, 0)
    answered.add([(row, DELIVERED)])
    assert answered.jobs == {("lab", 7)}
    assert answered.settle()
    assert seen == [{("lab", 7)}]
    assert not answered.jobs
    assert not answered.settle()


def test_answers_that_cannot_be_settled_stay_pending() -> None:
    def fails(_: object) -> None:
        raise StateError("the disk is gone")

    answered = Answered(fails)
    answered.add([(Delivery(1, RunKey("lab", 7, 1000), Kind.START, b"{}", 0, 0), DELIVERED)])
    with pytest.raises(StateError):
        answered.settle()
    assert not answered.jobs
    assert not answered.are_there.is_set()


def test_a_drain_takes_few_transactions_and_keeps_the_order(outbox: Outbox) -> None:
    """There is one for rows that are taken and one for answers, and some more when few are left."""
    jobs = 20 * BATCH
    owe(outbox, jobs, (Kind.START, Kind.STOP))
    told: list[tuple[int, Kind]] = []

    def answer(row: Delivery) -> Answer:
        told.append((row.key.job_id, row.kind))
        return DELIVERED

    sender = Sender(OneByOne(answer), outbox, Counters(), timing=TIMING)
    counted = Counted(outbox)
    sender.start()
    assert comes(lambda: not outbox.waiting() and sender.is_idle())
    stop_all([sender], 5)
    assert sorted(told, key=str) == sorted(
        ((job, kind) for job in range(1, jobs + 1) for kind in (Kind.START, Kind.STOP)), key=str
    )
    assert all(told.index((job, Kind.START)) < told.index((job, Kind.STOP)) for job in range(1, jobs + 1))
    assert counted.commits <= 2 * jobs / 4


def test_an_answer_is_settled_although_all_connections_are_busy(outbox: Outbox) -> None:
    owe(outbox, 4)
    go_on = threading.Event()

    def answer(row: Delivery) -> Answer:
        if row.key.job_id > 2:
            go_on.wait(30)
        return DELIVERED

    sender = Sender(OneByOne(answer, connections=2), outbox, Counters(), timing=TIMING)
    sender.start()
    try:
        assert comes(lambda: outbox.counts() == {"delivered": 2, "pending": 2})
    finally:
        go_on.set()
        stop_all([sender], 5)


def test_after_a_kill_what_was_not_settled_is_sent_again_and_nothing_is_lost(tmp_path: Path) -> None:
    """At most MOST answers, and a request of each connection."""
    path = str(tmp_path / "state.sqlite")
    killed = Outbox(path)
    owe(killed, 3 * MOST)
    settler = make_settler(OneByOne(lambda _: DELIVERED), killed)
    for row in killed.deliveries.begin(killed.deliveries.due("cc_rest", 1.0, 2 * MOST - 1), 1.0):
        settle(settler, row)
    assert killed.counts() == {"delivered": MOST, "pending": 2 * MOST}
    outbox = Outbox(path)  # the other one is never closed
    sink = OneByOne(lambda _: Answer(Verdict.DELIVERED, "was stored already", had_it=True))
    sender = Sender(sink, outbox, Counters(), timing=TIMING)
    sender.start()
    assert comes(lambda: not outbox.waiting())
    stop_all([sender], 5)
    assert sorted(sink.sent) == list(range(MOST + 1, 3 * MOST + 1))
    assert outbox.counts() == {"delivered": 3 * MOST}
    outbox.close()
    killed.close()


def test_a_row_that_was_taken_and_not_sent_does_not_count_as_sent(outbox: Outbox) -> None:
    owe(outbox, 3 * BATCH)
    away = threading.Event()

    def answer(row: Delivery) -> Answer:
        if row.key.job_id > 5:
            away.set()
        return Answer(Verdict.UNAVAILABLE, "away") if away.is_set() else DELIVERED

    sink = OneByOne(answer, connections=1)
    sender = Sender(sink, outbox, Counters(), timing=TIMING)
    sender.start()
    assert away.wait(30)
    stop_all([sender], 5)
    sent = {row.key.job_id for row in outbox.deliveries.due("cc_rest", time.time() + 60, 1000) if row.first_sent}
    assert sent == set(sink.sent) - {1, 2, 3, 4, 5}
