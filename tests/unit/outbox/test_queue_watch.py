"""The numbers of messages that wait, for whoever asks how the daemon is."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox.database import Briefly, StateDatabase
from cc_slurm_adapter.outbox.outbox import Batch, Message, Outbox
from cc_slurm_adapter.outbox.queue_watch import SHARE, QueueWatch
from cc_slurm_adapter.outbox.report import Parked, QueueReport
from cc_slurm_adapter.sinks.base import CC_NATS, CC_REST, Encoded, Kind

SINKS = {CC_REST: "", CC_NATS: CC_REST}


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(str(tmp_path / "state.sqlite"), SINKS)
    yield made
    made.close()


def enqueue(outbox: Outbox, *job_ids: int, kind: Kind = Kind.START) -> list[RunKey]:
    keys = [RunKey("lab", job_id, 1_800_000_000) for job_id in job_ids]
    messages = [Message((CC_REST, CC_NATS), key, kind, Encoded(b"{}")) for key in keys]
    outbox.commit("lab", Batch(messages=messages))
    return keys


def counted(outbox: Outbox) -> dict[str, QueueReport]:
    """What a watch counts that has counted nothing before."""
    return QueueWatch(outbox._state, 1000).report().queues


def test_before_anything_happens_each_sink_has_nothing(outbox: Outbox) -> None:
    assert counted(outbox) == {CC_REST: QueueReport(CC_REST), CC_NATS: QueueReport(CC_NATS)}


def test_pending_messages_are_counted_with_the_age_of_the_oldest(outbox: Outbox) -> None:
    before = int(time.time())
    enqueue(outbox, 1, 2)
    found = counted(outbox)
    assert found[CC_REST]._replace(oldest_pending=0.0) == QueueReport(CC_REST, pending=2)
    assert before <= found[CC_REST].oldest_pending <= time.time()
    assert found[CC_NATS] == QueueReport(CC_NATS)  # they follow what cc-backend has not yet


def test_refused_messages_and_conflicts_are_counted_and_the_stops_behind_them_are_not_pending(outbox: Outbox) -> None:
    parked, conflict, _ = enqueue(outbox, 1, 2, 3)
    enqueue(outbox, 1, 2, kind=Kind.STOP)
    rows = {each.key: each for each in outbox.deliveries.due(CC_REST, time.time(), 10)}
    outbox.deliveries.parked(rows[parked], "HTTP 400: unknown cluster")
    outbox.deliveries.conflict(rows[conflict], "HTTP 422: another run")
    found = counted(outbox)[CC_REST]
    assert (found.pending, found.parked, found.conflicts) == (1, 1, 1)
    assert QueueWatch(outbox._state, 1000).report().parked == (Parked(CC_REST, 1, parked, "HTTP 400: unknown cluster"),)


def test_it_counts_again_only_after_a_rest_that_is_long_beside_the_count(outbox: Outbox) -> None:
    moments = iter([100.0, 100.0, 101.0, 101.0 + SHARE - 0.1, 101.0 + SHARE, 200.0, 200.0])
    watch = QueueWatch(outbox._state, 1000, lambda: next(moments))
    assert watch.report().queues[CC_REST].pending == 0  # due at 100, counted from 100 to 101
    enqueue(outbox, 1)
    assert watch.report().queues[CC_REST].pending == 0
    assert watch.report().queues[CC_REST].pending == 1


def test_it_does_not_wait_for_a_file_that_is_in_use(outbox: Outbox) -> None:
    enqueue(outbox, 1)
    watch = QueueWatch(outbox._state, 1000)
    before = watch.report()
    watch._next = 0.0
    held, release = threading.Event(), threading.Event()

    def hold(state: StateDatabase) -> None:
        with state.reading():
            held.set()
            release.wait(60)

    holder = threading.Thread(target=hold, args=(outbox._state,))
    holder.start()
    assert held.wait(60)
    try:
        assert watch.report() == before  # with the time when it was counted
    finally:
        release.set()
        holder.join(60)


def test_the_state_file_is_described(outbox: Outbox, tmp_path: Path) -> None:
    state = QueueWatch(outbox._state, 1000).report().state
    assert state.path == str(tmp_path / "state.sqlite")
    assert state.is_durable
    assert state.max_bytes == 1000
    assert 4096 <= state.bytes < 1_000_000


def look(outbox: Outbox) -> QueueReport:
    """What the outbox's own watch finds for cc-backend, without its rest after a count."""
    outbox.watch._next = 0.0
    return outbox.watch.report().queues[CC_REST]


def counts(outbox: Outbox) -> list[str]:
    """The queries that count, of two looks one after the other with nothing in between."""
    asked: list[str] = []
    look(outbox)
    with outbox._state.reading() as database:
        database.set_trace_callback(asked.append)
    look(outbox)
    with outbox._state.reading() as database:
        database.set_trace_callback(None)
    return [query for query in asked if "COUNT" in query]


def test_what_comes_and_what_goes_is_counted(outbox: Outbox) -> None:
    enqueue(outbox, 1)
    assert look(outbox).pending == 1
    enqueue(outbox, 2)
    assert look(outbox).pending == 2
    outbox.deliveries.delivered(outbox.deliveries.due(CC_REST, time.time(), 1)[0])
    assert look(outbox).pending == 1


def test_nothing_is_counted_again_while_nothing_changes(outbox: Outbox) -> None:
    enqueue(outbox, 1)
    assert counts(outbox) == []
    assert look(outbox).pending == 1


def test_what_another_process_changes_is_counted(outbox: Outbox, tmp_path: Path) -> None:
    enqueue(outbox, 1)
    assert look(outbox).pending == 1
    with closing(sqlite3.connect(tmp_path / "state.sqlite")) as other:
        other.execute("UPDATE delivery SET state = 'done'")
        other.commit()
    assert look(outbox).pending == 0


def test_a_request_does_not_wait_long_for_a_file_that_is_in_use(outbox: Outbox) -> None:
    enqueue(outbox, 1)
    brief = Briefly(outbox._state, 0.01)
    with outbox._state.reading():
        for ask in (lambda: brief.write(lambda _: None), lambda: brief.reading().__enter__()):
            with pytest.raises(StateError, match="is in use"):
                ask()
    assert brief.write(lambda database: database.execute("SELECT COUNT(*) FROM delivery").fetchone()) == (2,)
