"""What an administrator does with messages that wait: nothing dropped is ever sent, nor a stop without its start."""

from __future__ import annotations

import contextlib
import json
import resource
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.errors import UsageError
from cc_slurm_adapter.jobs import notes
from cc_slurm_adapter.jobs.run_store import RunStore
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.model import End, EndState, RunKey
from cc_slurm_adapter.outbox import admin as admin_module
from cc_slurm_adapter.outbox import state_file
from cc_slurm_adapter.outbox.admin import (
    Changed,
    Step,
    answer_drop,
    answer_queue,
    answer_retry,
)
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.outbox import Batch, Outbox, Stage
from cc_slurm_adapter.outbox.selection import Selection
from cc_slurm_adapter.outbox.sender import Sender
from cc_slurm_adapter.outbox.sink_health import Timing
from cc_slurm_adapter.outbox.withdrawals import Room
from cc_slurm_adapter.sinks.base import CC_NATS, CC_REST, Delivery, Kind
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import CcRest
from cc_slurm_adapter.system.threads import stop_all
from examples.practice.cc_backend import CcBackend, CcBackendServer, refused_jobs
from tests.fakes.slurm_and_sinks import make_run
from tests.fakes.waiting import comes

NOW = int(time.time())
BEGIN = NOW - 10_000
ALL = Selection()
WHY = "HTTP 422: no such host"


class Named(NamedTuple):
    """As much of a sink as RunStore uses."""

    name: str
    withdraws: bool = False


class Site:
    """The outbox with both sinks, and the store that the main thread uses."""

    def __init__(self, folder: Path, *sinks: str) -> None:
        self.path = str(folder / "state.sqlite")
        names = sinks or (CC_REST, CC_NATS)
        self.sinks = {name: names[0] if place else "" for place, name in enumerate(names)}
        self.open()

    def open(self) -> None:
        self.outbox = Outbox(self.path, self.sinks, timing=state_file.Timing(retry_file=0.0, busy_briefly=0.01))
        sinks: list[Any] = [Named(name, name == CC_REST) for name in self.sinks]
        self.store = RunStore("lab", self.outbox, CcMessages(()), sinks, Counters(), lambda: None, LateRuns())

    def restart(self) -> None:
        self.outbox.close()
        self.open()

    def begin(self, job_id: int = 1, start: int = BEGIN) -> RunKey:
        batch, run = Batch(), make_run(job_id, start=start, job_script="#!/bin/sh\n", slurm_info="JobId=1")
        self.store.enqueue_start(batch, run)
        self.store.set_state(batch, run, Stage.STARTED)
        self.store.commit(batch)
        return run.key

    def end(self, key: RunKey, state: EndState = EndState.COMPLETED) -> RunKey:
        self.store.end({key: End(state, key.start_time + 5, state.name)})
        return key

    def due(self, sink: str = CC_REST) -> list[Delivery]:
        deliveries = self.outbox.deliveries
        return deliveries.begin(deliveries.due(sink, time.time() + 1, 1000), time.time() + 1)

    def deliver_all(self, *sinks: str) -> list[str]:
        """Deliver all that is due, and return what that was."""
        sent = []
        for sink in sinks or self.sinks:
            while rows := self.due(sink):
                sent += [f"{sink} {row.kind.value} {row.key.job_id}" for row in rows]
                self.outbox.deliveries.delivered(*rows)
        return sent

    def park(self, reason: str = WHY) -> None:
        for row in self.due():
            self.outbox.deliveries.parked(row, reason)

    def conflict(self) -> None:
        for row in self.due():
            self.outbox.deliveries.conflict(row, "HTTP 422: another run")

    def rows(self, where: str = "state != 'done'") -> list[tuple[str, str, int, str]]:
        query = "SELECT sink, kind, job_id, state FROM delivery WHERE {} ORDER BY sink, job_id, kind"
        found = self.query(query.format(where))
        return [(sink, kind, job_id, state) for sink, kind, job_id, state in found]

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as database:
            return database.execute(statement).fetchall()

    def tidy(self) -> None:
        self.outbox.tidy(7 * 86400.0)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.outbox.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Site]:
    """Only cc-backend."""
    made = Site(tmp_path, CC_REST)
    yield made
    made.outbox.close()


def numbers(changed: Changed) -> tuple[int, int, int, int]:
    return changed.messages, changed.starts, changed.stops, changed.runs


# --- list and show


def test_a_list_has_what_waits_and_says_until_when(site: Site) -> None:
    site.end(site.begin(1))
    site.begin(2)
    site.park()
    page = site.outbox.admin.list_rows(ALL)
    assert [(row.sink, row.kind, row.job_id, row.state, row.next) for row in page.rows if row.job_id == 1] == [
        (CC_REST, "start", 1, "parked", page.rows[0].next),
        (CC_NATS, "start", 1, "following", "after cc-backend"),
        (CC_REST, "stop", 1, "pending", "after its start"),
        (CC_NATS, "stop", 1, "following", "after cc-backend"),
    ]
    assert page.rows[0].next.startswith("20"), "the probe has a time"
    assert [row.next for row in page.rows if row.job_id == 2 and row.sink == CC_REST] == ["after the probe"]
    assert (page.messages, page.starts, page.stops, page.next) == (6, 4, 2, None)
    assert page.rows[0].reason == WHY
    assert page.rows[0].message_bytes > 100
    assert page.rows[0].text_bytes > 10
    assert page.rows[2].text_bytes == 0, "a stop has no texts"


def test_a_list_has_pages(site: Site) -> None:
    for job_id in range(1, 8):
        site.begin(job_id)
    found, after = [], 0
    while True:
        page = site.outbox.admin.list_rows(Selection(sink=CC_REST), 3, after)
        found.append([row.job_id for row in page.rows])
        assert page.messages == 7
        if page.next is None:
            break
        after = page.next
    assert found == [[1, 2, 3], [4, 5, 6], [7]]
    assert site.outbox.admin.list_rows(ALL, 10**9).messages == 14


@pytest.mark.parametrize(
    ("selection", "jobs"),
    [
        (Selection(("parked",)), {1}),
        (Selection(("pending",)), {1, 2}),
        (Selection(("pending", "parked"), job_id=1), {1}),
        (Selection(("following",)), {1, 2}),
        (Selection(("conflict",)), set()),
        (Selection(reason="NO SUCH"), {1}),
        (Selection(reason="no%such"), set()),
        (Selection(reason="n_ such"), set()),
        (Selection(reason="HTTP 423"), set()),
        (Selection(cluster="lab"), {1, 2}),
        (Selection(cluster="other"), set()),
        (Selection(sink=CC_NATS), {1, 2}),
        (Selection(job_id=2), {2}),
    ],
)
def test_what_is_selected(site: Site, selection: Selection, jobs: set[int]) -> None:
    site.end(site.begin(1))
    site.park()
    site.begin(2)
    assert {row.job_id for row in site.outbox.admin.list_rows(selection).rows} == jobs


def test_a_job_is_shown_with_its_messages(site: Site) -> None:
    key = site.begin(4711)
    site.begin(4712)
    site.deliver_all(CC_REST)
    site.end(key)
    found = site.outbox.admin.rows_of_job(4711)
    assert [(run.start_time, run.stage, run.note) for run in found.runs] == [(key.start_time, "done", "")]
    assert [(row.sink, row.kind, row.state, row.next) for row in found.rows] == [
        (CC_NATS, "start", "pending", "now"),
        (CC_REST, "start", "delivered", ""),
        (CC_NATS, "stop", "following", "after cc-backend"),
        (CC_REST, "stop", "pending", "now"),
    ]
    assert found.rows[0].message is not None
    assert found.rows[0].message["jobId"] == 4711
    assert "jobScript" not in json.dumps(found.rows[0].message)


# --- retry


def test_all_rows_of_a_reason_are_tried_again_and_not_only_the_probe(alone: Site) -> None:
    for job_id in range(1, 5):
        alone.end(alone.begin(job_id))
    alone.park()
    assert alone.due() == []
    assert numbers(alone.outbox.admin.retry(Selection(("parked",)))) == (8, 4, 4, 4)
    assert {row.key.job_id for row in alone.due()} == {1, 2, 3, 4}
    alone.park("HTTP 422: still no such host")
    assert alone.due() == []
    assert alone.query("SELECT COUNT(*) FROM delivery WHERE state = 'parked' AND next_try < 1e15") == [(1,)]
    alone.outbox.admin.retry(ALL)
    assert len(alone.deliver_all()) == 8
    assert alone.rows() == []


def test_one_job_is_tried_again_and_the_others_wait(alone: Site) -> None:
    for job_id in (1, 2, 3):
        alone.begin(job_id)
    alone.park()
    assert numbers(alone.outbox.admin.retry(Selection(job_id=2))) == (1, 1, 0, 1)
    (row,) = alone.due()
    assert row.key.job_id == 2
    alone.outbox.deliveries.delivered(row)
    assert alone.due() == [], "the probe is still that of job 1"


def test_a_pending_row_is_due_now(alone: Site) -> None:
    alone.begin(1)
    (row,) = alone.due()
    alone.outbox.deliveries.put_off(row, time.time() + 3600, "HTTP 500", refused=True)
    assert alone.due() == []
    assert numbers(alone.outbox.admin.retry(Selection(("pending",)))) == (1, 1, 0, 1)
    (again,) = alone.due()
    assert again.refusals == 0


def test_a_run_in_conflict_is_sent_again_start_first(site: Site) -> None:
    key = site.begin(1)
    site.conflict()
    site.end(key)
    assert {state for *_, state in site.rows()} == {"conflict"}
    assert numbers(site.outbox.admin.retry(Selection(job_id=1))) == (4, 2, 2, 1)
    assert site.rows() == [
        (CC_NATS, "start", 1, "following"),
        (CC_NATS, "stop", 1, "following"),
        (CC_REST, "start", 1, "pending"),
        (CC_REST, "stop", 1, "pending"),
    ]
    assert site.deliver_all() == [f"{sink} {kind} 1" for sink in (CC_REST, CC_NATS) for kind in ("start", "stop")]
    site.tidy()
    assert site.rows() == []


def test_nats_gets_the_stop_of_a_run_that_it_has_when_cc_backend_gets_it_after_a_conflict(site: Site) -> None:
    key = site.begin(1)
    site.deliver_all()
    site.outbox.resend_starts(CC_REST, "lab", lambda each: True, time.time() + 60)
    site.conflict()
    site.end(key)
    assert (CC_NATS, "stop", 1, "conflict") in site.rows()
    site.outbox.admin.retry(ALL)
    assert site.deliver_all() == [f"{CC_REST} start 1", f"{CC_REST} stop 1", f"{CC_NATS} stop 1"]
    site.tidy()
    assert site.rows() == []


def test_a_start_in_conflict_does_not_wait_for_a_leading_one_that_was_delivered(site: Site) -> None:
    key = site.begin(1)
    site.deliver_all()
    site.end(key)
    with closing(sqlite3.connect(site.path)) as database, database:
        database.execute("UPDATE delivery SET state = 'conflict' WHERE sink = ? AND kind = 'start'", (CC_NATS,))
    site.outbox.admin.retry(ALL)
    assert site.rows("sink = 'cc_nats' AND kind = 'start'") == [(CC_NATS, "start", 1, "pending")]
    assert site.deliver_all() == [f"{CC_REST} stop 1", f"{CC_NATS} start 1", f"{CC_NATS} stop 1"]


def test_an_old_run_in_conflict_is_not_parked_for_its_age(alone: Site) -> None:
    alone.begin(1)
    alone.conflict()
    with closing(sqlite3.connect(alone.path)) as database, database:
        database.execute("UPDATE delivery SET created = ?", (NOW - 30 * 86400,))
    alone.outbox.admin.retry(ALL)
    alone.tidy()
    assert alone.rows() == [(CC_REST, "start", 1, "pending")]


def test_a_follower_in_conflict_is_not_sent_before_cc_backend_has_the_run(site: Site) -> None:
    site.begin(1)
    site.conflict()
    assert site.outbox.admin.retry(Selection(sink=CC_NATS)).messages == 0
    assert site.due(CC_NATS) == []


def test_a_stop_whose_start_in_conflict_is_forgotten_is_never_sent(alone: Site) -> None:
    """A start is older than its stop, and so it is forgotten first."""
    key = alone.begin(1)
    alone.conflict()
    alone.end(key)
    with closing(sqlite3.connect(alone.path)) as database, database:
        database.execute("UPDATE delivery SET created = ? WHERE kind = 'start'", (NOW - 30 * 86400,))
    alone.tidy()
    assert alone.rows() == [(CC_REST, "stop", 1, "conflict")]
    assert alone.outbox.admin.retry(ALL).messages == 0
    assert alone.due() == []


def test_a_row_under_way_that_is_tried_again_is_not_sent_twice_at_the_same_time(alone: Site) -> None:
    alone.begin(1)
    (row,) = alone.due()
    alone.outbox.admin.retry(ALL)
    assert alone.outbox.deliveries.due(CC_REST, time.time(), 10, {row.key[:2]}) == []
    alone.outbox.deliveries.delivered(row)
    assert alone.due() == []


# --- drop


def test_with_a_start_goes_its_stop_and_what_follows(site: Site) -> None:
    site.end(site.begin(1))
    site.begin(2)
    before = site.outbox.admin.drop(Selection(job_id=1), Step(dry_run=True))
    assert numbers(before) == (4, 2, 2, 1)
    assert len(site.rows()) == 6
    assert numbers(site.outbox.admin.drop(Selection(job_id=1))) == (4, 2, 2, 1)
    assert site.deliver_all() == [f"{CC_REST} start 2", f"{CC_NATS} start 2"]
    assert site.query("SELECT COUNT(*) FROM message") == [(1,)]


@pytest.mark.parametrize("state", ["pending", "parked", "conflict", "following"])
def test_the_stop_of_a_dropped_open_run_is_never_sent(site: Site, state: str) -> None:
    """The main thread still has the run as STARTED, and adds the stop when it ends."""
    key = site.begin(1)
    if state == "parked":
        site.park()
    elif state == "conflict":
        site.conflict()
    assert numbers(site.outbox.admin.drop(Selection((state,)))) == (
        (1, 1, 0, 1) if state == "following" else (2, 2, 0, 1)
    )
    assert site.outbox.admin.list_rows(Selection(sink=CC_NATS)).rows == []
    site.restart()
    site.tidy()
    site.end(key)
    sent = site.deliver_all()
    assert sent == ([f"{CC_REST} start 1", f"{CC_REST} stop 1"] if state == "following" else [])
    site.tidy()
    assert site.rows() == []
    assert site.query("SELECT COUNT(*) FROM message") == [(0,)]
    assert site.query("SELECT stage FROM run") == [("done",)]


@pytest.mark.parametrize("when", ["over", "open", "restarted"])
def test_a_run_keeps_the_note_that_it_was_dropped(site: Site, when: str) -> None:
    """Without rows it looks like one that was delivered."""
    key = site.begin(1)
    if when == "over":
        site.end(key)
    site.park()
    site.outbox.admin.drop(Selection(job_id=1))
    if when == "restarted":
        site.restart()
    if when != "over":
        site.end(key)
    site.outbox.admin.retry(Selection(job_id=1))
    site.tidy()
    assert site.rows() == []
    note = "dropped by an administrator for NATS; dropped by an administrator for cc-backend"
    assert site.query("SELECT stage, note FROM run") == [("done", note)]
    assert notes.is_dropped(note, CC_REST)


def test_a_run_that_is_dropped_for_nats_only_says_so(site: Site) -> None:
    site.begin(1)
    site.outbox.admin.drop(Selection(sink=CC_NATS))
    ((note,),) = site.query("SELECT note FROM run")
    assert (notes.is_dropped(note, CC_NATS), notes.is_dropped(note, CC_REST)) == (True, False)


def test_a_delivered_start_says_when_that_was(site: Site) -> None:
    site.begin(1)
    site.park()
    before = time.time()
    site.outbox.admin.retry(ALL)
    site.deliver_all(CC_REST)
    row = next(each for each in site.outbox.admin.rows_of_job(1).rows if each.sink == CC_REST)
    assert before <= row.delivered <= time.time()
    assert (row.next_try, row.next) == (None, "")


def test_the_names_in_a_dropped_start_are_gone_while_its_run_is_open(site: Site) -> None:
    site.begin(1)
    site.outbox.admin.drop(Selection(sink=CC_NATS))
    assert site.query("SELECT LENGTH(payload) > 0 FROM message") == [(1,)], "cc-backend still gets it"
    site.outbox.admin.drop(ALL)
    assert site.query("SELECT payload FROM message") == [(b"",)]
    assert site.query("SELECT * FROM text") == []
    assert [row.message for row in site.outbox.admin.rows_of_job(1).rows] == [None, None]


def test_a_dropped_run_of_which_cc_backend_lists_a_row_gets_its_stop_from_the_comparison(site: Site) -> None:
    """The start was under way when it was dropped, and arrived."""
    key = site.begin(1)
    (row,) = site.due()
    site.outbox.admin.drop(ALL)
    site.outbox.deliveries.delivered(row)
    site.end(key)
    assert site.deliver_all() == []
    batch = Batch()
    site.store.enqueue_stop(batch, key, End(EndState.COMPLETED, BEGIN + 5, "COMPLETED"))
    site.store.commit(batch)
    assert site.deliver_all(CC_REST) == [f"{CC_REST} stop 1"]


@pytest.mark.parametrize("verdict", ["delivered", "parked", "conflict", "put_off", "cut", "make_room", "start_first"])
@pytest.mark.parametrize("is_over", [True, False])
def test_a_row_under_way_that_is_dropped_does_not_come_back(site: Site, verdict: str, *, is_over: bool) -> None:
    key = site.begin(1)
    if is_over:
        site.end(key)
    (row,) = site.due()
    site.outbox.admin.drop(ALL)
    settle(site.outbox, row, verdict)
    assert site.outbox.admin.list_rows(ALL).rows == []
    site.tidy()
    assert site.deliver_all() == []
    if not is_over:
        site.end(key)
    assert site.deliver_all() == []
    site.tidy()
    assert site.rows() == []


def settle(outbox: Outbox, row: Delivery, verdict: str) -> None:
    deliveries = outbox.deliveries
    if verdict == "delivered":
        deliveries.delivered(row)
    elif verdict in ("parked", "conflict"):
        getattr(deliveries, verdict)(row, WHY)
    elif verdict == "put_off":
        deliveries.put_off(row, 0, WHY, refused=True)
    elif verdict == "cut":
        if not deliveries.cut(row):
            deliveries.parked(row, WHY)
    elif verdict == "make_room" and row.kind is Kind.START:
        if deliveries.make_room(row, time.time() + 0.001) is Room.NONE:
            deliveries.conflict(row, WHY)
    elif verdict == "start_first" and row.kind is Kind.STOP:
        if deliveries.start_first(row):
            deliveries.put_off(row, 0, WHY, refused=True)
        else:
            deliveries.parked(row, WHY)
    else:
        deliveries.put_off(row, 0, WHY)


def test_rows_that_were_read_before_they_were_dropped_are_not_begun(alone: Site) -> None:
    alone.begin(1)
    read = alone.outbox.deliveries.due(CC_REST, time.time(), 10)
    alone.outbox.admin.drop(ALL)
    assert alone.outbox.deliveries.begin(read, time.time()) == []


def test_a_stop_alone_is_dropped_with_its_delivered_start(site: Site) -> None:
    key = site.begin(1)
    site.deliver_all()
    site.end(key)
    site.park()
    assert numbers(site.outbox.admin.drop(Selection(("parked",)))) == (2, 0, 2, 1)
    assert site.rows() == []
    assert site.query("SELECT COUNT(*) FROM message") == [(0,)]


def test_a_stop_behind_its_start_is_not_selected_by_itself(alone: Site) -> None:
    alone.end(alone.begin(1))
    alone.park()
    assert alone.outbox.admin.list_rows(Selection(("pending",))).messages == 1
    assert alone.outbox.admin.drop(Selection(("pending",))).messages == 0
    assert alone.outbox.admin.retry(Selection(("pending",))).messages == 0
    assert numbers(alone.outbox.admin.drop(Selection(("parked",)))) == (2, 1, 1, 1)


def test_only_the_follower_is_dropped(site: Site) -> None:
    key = site.begin(1)
    assert numbers(site.outbox.admin.drop(Selection(sink=CC_NATS))) == (1, 1, 0, 1)
    site.end(key)
    assert site.deliver_all() == [f"{CC_REST} start 1", f"{CC_REST} stop 1"]
    site.tidy()
    assert site.rows() == []


def test_a_run_that_nats_has_and_cc_backend_has_lost_leaves_nothing_when_it_is_dropped(site: Site) -> None:
    key = site.begin(1)
    site.deliver_all()
    site.outbox.resend_starts(CC_REST, "lab", lambda each: True, time.time() + 60)
    assert numbers(site.outbox.admin.drop(ALL)) == (1, 1, 0, 1)
    site.end(key)
    assert site.deliver_all() == []
    site.tidy()
    assert site.rows() == []


def test_the_reason_of_a_dropped_probe_gets_another_probe(alone: Site) -> None:
    for job_id in (1, 2, 3):
        alone.begin(job_id)
    alone.park()
    assert alone.query("SELECT job_id FROM delivery WHERE next_try < 1e15") == [(1,)]
    alone.outbox.admin.drop(Selection(job_id=1))
    assert alone.query("SELECT job_id FROM delivery WHERE state = 'parked' AND next_try < 1e15") == [(2,)]


def test_a_later_run_of_the_job_is_sent_when_an_earlier_one_is_dropped(alone: Site) -> None:
    alone.end(alone.begin(1, BEGIN))
    (row,) = alone.due()
    alone.outbox.deliveries.put_off(row, time.time() + 3600, "HTTP 500")
    alone.begin(1, BEGIN + 100)
    assert alone.due() == []
    with closing(sqlite3.connect(alone.path)) as database, database:
        database.execute("UPDATE delivery SET reason = 'HTTP 500' WHERE start_time = ?", (BEGIN,))
    alone.outbox.admin.drop(Selection(reason="HTTP 500"))
    assert [each.key.start_time for each in alone.due()] == [BEGIN + 100]


@pytest.mark.parametrize("withdrawal", ["intended", "under way", "delivered"])
def test_the_run_that_made_room_for_a_dropped_one_is_in_cc_backend_again(alone: Site, withdrawal: str) -> None:
    first = alone.end(alone.begin(1, BEGIN), EndState.PREEMPTED)
    assert alone.deliver_all() == [f"{CC_REST} start 1", f"{CC_REST} stop 1"]
    alone.begin(1, BEGIN + 100)
    (start,) = alone.due()
    assert alone.outbox.deliveries.make_room(start, 0) is Room.MADE
    under_way = [] if withdrawal == "intended" else alone.due()
    assert [row.kind for row in under_way] == [] if withdrawal == "intended" else [Kind.WITHDRAW]
    if withdrawal == "delivered":
        alone.outbox.deliveries.delivered(*under_way)
    changed = alone.outbox.admin.drop(Selection(job_id=1))
    assert numbers(changed) == (1, 1, 0, 1)
    assert changed.restored == (0 if withdrawal == "intended" else 1)
    if withdrawal == "under way":
        alone.outbox.deliveries.delivered(*under_way)
    sent = [] if withdrawal == "intended" else [f"{CC_REST} start 1", f"{CC_REST} stop 1"]
    assert alone.deliver_all() == sent
    kept = alone.rows("state != 'dropped'")
    assert [(kind, state) for _, kind, _, state in kept] == [
        (kind, "retained") for kind in ("start", "stop", "withdraw")
    ]
    assert {start for (start,) in alone.query("SELECT start_time FROM delivery WHERE state != 'dropped'")} == {
        first.start_time
    }


def test_a_removal_that_nothing_waits_for_can_be_dropped(alone: Site) -> None:
    alone.end(alone.begin(1, BEGIN), EndState.PREEMPTED)
    alone.deliver_all()
    alone.begin(1, BEGIN + 100)
    (start,) = alone.due()
    alone.outbox.deliveries.make_room(start, 0)
    assert alone.outbox.admin.drop(Selection(job_id=1, reason="nothing like that")).messages == 0
    with closing(sqlite3.connect(alone.path)) as database, database:
        database.execute("DELETE FROM delivery WHERE start_time = ?", (BEGIN + 100,))
    assert numbers(alone.outbox.admin.drop(ALL)) == (1, 0, 0, 1)
    assert alone.rows() == []


def test_a_dropped_run_that_slurm_never_ends_is_forgotten_with_its_cluster(alone: Site) -> None:
    alone.begin(1)
    alone.outbox.admin.drop(ALL)
    with closing(sqlite3.connect(alone.path)) as database, database:
        database.execute("DELETE FROM run")
    alone.tidy()
    assert alone.rows() == []


def test_other_sinks_than_before_get_nothing_of_a_dropped_run(tmp_path: Path) -> None:
    site = Site(tmp_path, CC_REST)
    key = site.begin(1)
    site.outbox.admin.drop(ALL)
    site.outbox.close()
    other = Site(tmp_path, CC_NATS)
    other.end(key)
    assert other.deliver_all() == []
    other.outbox.close()


def test_a_change_of_sinks_is_logged_with_their_names_for_people(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path, CC_REST)
    site.begin(1)
    site.outbox.close()
    Site(tmp_path, CC_NATS).outbox.close()
    assert "jobs are not reported to cc-backend any more: what waited goes to NATS" in caplog.text


# --- while the file cannot be written


@contextlib.contextmanager
def no_space() -> Iterator[None]:
    """No file of this process may grow: SQLite gets the error of a disk that takes nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("state", ["pending", "parked", "conflict"])
def test_what_is_dropped_in_memory_stays_so_when_the_file_can_be_written(site: Site, state: str) -> None:
    key = site.begin(1)
    if state == "parked":
        site.park()
    elif state == "conflict":
        site.conflict()
    with no_space():
        answer = answer_drop(site.outbox.admin, {"all": True})
        assert (answer["messages"], answer["durable"]) == (2, False)
    site.tidy()
    assert site.outbox.is_durable
    site.restart()
    site.end(key)
    assert site.deliver_all() == []
    site.tidy()
    assert site.rows() == []
    assert site.query("SELECT COUNT(*) FROM message") == [(0,)]


def test_a_message_that_only_the_file_has_is_tried_again_when_that_can_be_written(alone: Site) -> None:
    alone.begin(1)
    alone.conflict()
    with no_space():
        alone.end(alone.begin(2))
        assert alone.outbox.admin.retry(Selection(("conflict",))).messages == 0
    alone.tidy()
    assert alone.outbox.admin.retry(Selection(("conflict",))).messages == 1
    assert alone.deliver_all() == [f"{CC_REST} start 1", f"{CC_REST} start 2", f"{CC_REST} stop 2"]


# --- many messages


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_module, "RUNS_AT_ONCE", 2)


def test_many_messages_are_changed_in_steps(site: Site, small_steps: None) -> None:
    for job_id in range(1, 6):
        site.end(site.begin(job_id))
    found, step = [], Step()
    while True:
        changed = site.outbox.admin.drop(ALL, step)
        found.append(numbers(changed))
        if changed.next is None:
            break
        site.begin(100 + len(found))
        site.restart()  # as after a kill
        step = Step(changed.next, changed.until)
    assert found == [(8, 4, 4, 2), (8, 4, 4, 2), (4, 2, 2, 1)]
    assert {row.job_id for row in site.outbox.admin.list_rows(ALL).rows} == {101, 102}, "they came later"


def test_each_run_is_counted_once_although_two_sinks_wait_for_it(site: Site, small_steps: None) -> None:
    for job_id in range(1, 6):
        site.begin(job_id)
    site.deliver_all(CC_REST)
    changed = site.outbox.admin.retry(ALL)
    assert (changed.runs, changed.next) == (2, RunKey("lab", 2, BEGIN))


def test_a_step_reads_the_runs_in_the_order_of_the_index(alone: Site) -> None:
    """Else each step of many would sort all that waits."""
    statement = admin_module._NEXT_RUNS.format(matches=admin_module._matches(ALL))
    values = {
        **admin_module._values(ALL),
        "until": 9,
        "limit": 9,
        "after_cluster": "",
        "after_job": 0,
        "after_start": 0,
    }
    with closing(sqlite3.connect(alone.path)) as database:
        plan = " ".join(row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", values))
    assert "sqlite_autoindex_delivery_1" in plan
    assert "TEMP B-TREE" not in plan


# --- requests


def test_answers_have_what_a_request_needs(site: Site, small_steps: None) -> None:
    for job_id in (1, 2, 3):
        site.end(site.begin(job_id))
    site.park()
    admin = site.outbox.admin
    answer = answer_queue(admin, {"state": "parked", "limit": "2"})
    assert json.loads(json.dumps(answer)) == answer
    assert (answer["version"], answer["messages"], answer["starts"], answer["stops"]) == (1, 3, 3, 0)
    rows = answer["rows"]
    assert isinstance(rows, list)
    assert [row["job_id"] for row in rows] == [1, 2]
    assert answer["next"] == rows[1]["id"]
    assert rows[1]["next_try"] is None
    assert rows[1]["next"] == "after the probe"
    assert NOW < rows[0]["next_try"] < NOW + 3 * 3600
    first = answer_retry(admin, {"state": "parked"})
    assert (first["messages"], first["next"], first["durable"]) == (4, ["lab", 2, BEGIN], True)
    second = answer_retry(admin, {"all": True, "after": first["next"], "until": first["until"]})
    assert (second["messages"], second["next"]) == (2, None)
    assert answer_drop(admin, {"job": 3, "dry_run": True})["messages"] == 4
    assert answer_drop(admin, {"job": 3})["messages"] == 4
    assert answer_drop(admin, {"job": 3})["messages"] == 0


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "many"},
        {"limit": "0"},
        {"limit": "1001"},
        {"after": "-1"},
        {"state": "lost"},
        {"job": "x"},
        {"colour": "red"},
    ],
)
def test_a_wrong_query_is_refused(site: Site, query: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        answer_queue(site.outbox.admin, query)


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"all": False},
        {"all": 1},
        {"all": True, "state": "parked"},
        {"after": None},
        {"job": True},
        {"job": 0},
        {"all": True, "dry_run": 1},
        {"all": True, "after": "x"},
        {"all": True, "after": ["lab", "1", 1]},
        {"all": True, "after": ["lab", 2**63, 1]},
        {"all": True, "until": -1},
        {"all": True, "limit": 1},
    ],
)
def test_a_wrong_change_is_refused_and_drops_nothing(site: Site, words: dict[str, object]) -> None:
    site.begin(1)
    with pytest.raises(UsageError):
        answer_drop(site.outbox.admin, words)
    assert len(site.rows()) == 2


def test_the_log_says_who_wanted_a_change_and_how_much_it_was(alone: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(NOTICE)
    alone.begin(1)
    answer_retry(alone.outbox.admin, {"sink": "cc_rest"}, 1001)
    answer_drop(alone.outbox.admin, {"job": 1})
    assert caplog.messages[-2:] == [
        "tried again for an administrator (uid 1001: sink cc-backend): 1 message of 1 run (1 start, 0 stops)",
        "dropped by an administrator (job 1): 1 message of 1 run (1 start, 0 stops)",
    ]


def test_what_follows_cannot_be_tried_again(site: Site) -> None:
    site.begin(1)
    with pytest.raises(UsageError, match="cc-backend"):
        answer_retry(site.outbox.admin, {"state": "following"})
    assert answer_retry(site.outbox.admin, {"all": True})["messages"] == 1


# --- with a sender


class Sending:
    """An outbox, a sender and a stand-in cc-backend."""

    def __init__(self, folder: Path) -> None:
        self.backend = CcBackend()
        self.server = CcBackendServer(self.backend)
        self.server.start()
        self.sink = CcRest(self.server.url, lambda: self.backend.token)
        self.outbox = Outbox(str(folder / "state.sqlite"), {CC_REST: ""})
        self.sender = Sender(self.sink, self.outbox, Counters(), timing=Timing(first_wait=0.02, longest_wait=0.1))
        self.store = RunStore("lab", self.outbox, CcMessages(()), [self.sink], Counters(), self.sender.wake, LateRuns())
        self.sender.start()

    def begin(self, job_id: int) -> RunKey:
        batch, run = Batch(), make_run(job_id, start=BEGIN)
        self.store.enqueue_start(batch, run)
        self.store.set_state(batch, run, Stage.STARTED)
        self.store.commit(batch)
        return run.key

    def wait_for(self, **states: int) -> None:
        assert comes(lambda: self.outbox.counts() == states)

    def close(self) -> None:
        stop_all([self.sender], 2)
        self.outbox.close()
        self.server.close()


@pytest.fixture
def sending(tmp_path: Path) -> Iterator[Sending]:
    made = Sending(tmp_path)
    yield made
    made.close()


def test_a_sender_sends_what_is_tried_again_and_nothing_of_what_was_dropped(sending: Sending) -> None:
    fault = sending.backend.add_fault(refused_jobs([1, 2, 3]))
    keys = [sending.begin(job_id) for job_id in (1, 2, 3)]
    sending.wait_for(parked=3)
    sending.outbox.admin.drop(Selection(job_id=1))
    sending.wait_for(parked=2, dropped=1)
    sending.backend.remove_fault(fault)
    sending.outbox.admin.retry(ALL)
    sending.sender.retry_now()
    sending.wait_for(delivered=2, dropped=1)
    sending.store.end({key: End(EndState.COMPLETED, BEGIN + 5, "COMPLETED") for key in keys})
    sending.wait_for()
    assert {row.job_id: row.state for row in sending.backend.rows} == {2: "completed", 3: "completed"}


# --- any order of all this


class Model:
    """What cc-backend and NATS were sent, and what they have, while anything happens in any order."""

    JOBS = (1, 1, 1, 2)
    STARTS = (BEGIN, BEGIN + 100)

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder)
        self.under_way: list[tuple[str, Delivery]] = []
        self.has_start: set[tuple[str, RunKey]] = set()
        self.dropped: set[tuple[str, RunKey]] = set()

    def begin(self, job_id: int, place: int, *, is_sent: bool = False) -> None:
        key = RunKey("lab", job_id, self.STARTS[place])
        earlier = RunKey("lab", job_id, self.STARTS[0])
        if self.site.store.unknown([key]) and earlier not in self.site.store.open_runs:
            self.site.begin(job_id, key.start_time)
            if is_sent:
                self.send(CC_REST)

    def end(self, job_id: int, place: int, *, requeued: bool = False) -> None:
        key = RunKey("lab", job_id, self.STARTS[place])
        if key in self.site.store.open_runs:
            self.site.end(key, EndState.PREEMPTED if requeued else EndState.COMPLETED)

    def send(self, sink: str) -> None:
        busy = {row.key[:2] for name, row in self.under_way if name == sink}
        deliveries = self.site.outbox.deliveries
        for row in deliveries.begin(deliveries.due(sink, time.time() + 1, 2, busy), time.time()):
            assert (sink, row.key) not in self.dropped, "it was dropped"
            if row.kind is not Kind.START:
                assert (sink, row.key) in self.has_start, f"{row.kind} without its start"
            self.under_way.append((sink, row))

    def answer(self, verdict: str) -> None:
        if not self.under_way:
            return
        sink, row = self.under_way.pop(0)
        if sink == CC_NATS and verdict in ("conflict", "make_room", "start_first"):
            verdict = "delivered"
        if row.kind is not Kind.START and verdict in ("conflict", "make_room"):
            verdict = "delivered"  # only a start is refused because of another run
        settle(self.site.outbox, row, verdict)
        if verdict == "delivered":
            self.has_start |= {(sink, row.key)} if row.kind is Kind.START else set()

    def change(self, what: str, selection: Selection) -> None:
        admin = self.site.outbox.admin
        if what == "retry":
            admin.retry(selection)
            return
        would = admin.drop(selection, Step(dry_run=True))
        before = self.waiting()
        done = admin.drop(selection)
        assert done[:4] == would[:4]
        gone = before - self.waiting()
        self.dropped |= {(sink, key) for sink, key, kind in gone if kind != "withdraw"}

    def waiting(self) -> set[tuple[str, RunKey, str]]:
        rows = self.site.outbox.admin.list_rows(ALL, 1000).rows
        return {(row.sink, RunKey(row.cluster, row.job_id, row.start_time), row.kind) for row in rows}

    def check(self) -> None:
        waiting = self.waiting()
        assert not {(sink, key) for sink, key, _ in waiting} & self.dropped
        assert self.site.query("SELECT message FROM delivery EXCEPT SELECT id FROM message") == []
        assert self.site.query("SELECT id FROM message EXCEPT SELECT message FROM delivery") == []

    def finish(self) -> None:
        """All ends and arrives: nothing is left but what may still be withdrawn, and what is in conflict."""
        for job_id in self.JOBS:
            for place in (0, 1):
                self.end(job_id, place)
        while self.under_way:
            self.answer("delivered")
        for _ in range(8):
            self.site.outbox.admin.retry(Selection(("pending", "parked")))
            for sink in (CC_REST, CC_NATS):
                self.send(sink)
                while self.under_way:
                    self.answer("delivered")
        self.check()
        self.site.tidy()
        left = {state for *_, state in self.site.rows()}
        assert left <= {"retained", "conflict"} | ({"delivered"} if self.withdrawn() else set())

    def withdrawn(self) -> bool:
        return bool(self.site.rows("kind = 'withdraw' AND state = 'delivered'"))


SELECTIONS = st.builds(
    Selection,
    states=st.sampled_from([(), (), ("pending",), ("parked",), ("conflict",), ("following",), ("parked", "conflict")]),
    sink=st.sampled_from(["", "", CC_REST, CC_NATS]),
    job_id=st.sampled_from([None, 1]),
)
VERDICTS = st.sampled_from(
    ["delivered", "delivered", "parked", "conflict", "put_off", "cut", "make_room", "start_first"]
)
PLACES = (st.sampled_from(Model.JOBS), st.sampled_from([0, 0, 1]))
STEPS = st.one_of(
    st.tuples(st.just("begin"), *PLACES),
    st.tuples(st.just("begin and send"), *PLACES),
    st.tuples(st.just("end"), *PLACES),
    st.tuples(st.just("requeue"), *PLACES),
    st.tuples(st.just("send"), st.sampled_from([CC_REST, CC_REST, CC_NATS])),
    st.tuples(st.just("answer"), VERDICTS),
    st.tuples(st.just("retry"), SELECTIONS),
    st.tuples(st.just("drop"), SELECTIONS),
    st.tuples(st.just("tidy")),
    st.tuples(st.just("restart")),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=5, max_size=20))
def test_whatever_happens_no_stop_is_sent_alone_and_nothing_of_a_dropped_run(
    steps: Sequence[tuple[object, ...]],
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        model = Model(Path(folder))
        for what, *values in steps:
            if what in ("begin", "begin and send"):
                model.begin(*values, is_sent=what != "begin")  # type: ignore[arg-type]
            elif what in ("end", "requeue"):
                model.end(*values, requeued=what == "requeue")  # type: ignore[arg-type]
            elif what == "send":
                model.send(*values)  # type: ignore[arg-type]
            elif what == "answer":
                model.answer(*values)  # type: ignore[arg-type]
            elif what in ("retry", "drop"):
                model.change(str(what), *values)  # type: ignore[arg-type]
            elif what == "tidy":
                model.site.tidy()
            else:
                model.under_way.clear()  # a kill
                model.site.restart()
            model.check()
        model.finish()
        model.site.outbox.close()
