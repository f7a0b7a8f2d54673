"""The sender with a real outbox and the stand-in cc-backend: order, faults, parking, stopping."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

import pytest

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.model import End, EndState, NodeState, Run
from cc_slurm_adapter.outbox import clock_step
from cc_slurm_adapter.outbox.outbox import Batch, Message, Outbox
from cc_slurm_adapter.outbox.sender import Sender
from cc_slurm_adapter.outbox.sink_health import Timing
from cc_slurm_adapter.sinks.base import Answer, Delivery, Encoded, Kind, Verdict
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import CcRest
from cc_slurm_adapter.system.threads import stop_all
from examples.practice.cc_backend import (
    CcBackend,
    CcBackendServer,
    Dropped,
    LostAnswer,
    NoAnswer,
    OtherAnswer,
    refused_jobs,
)
from tests.fakes.slurm_and_sinks import make_run
from tests.fakes.waiting import PATIENCE, comes

NOW = int(time.time())
TIMING = Timing(first_wait=0.02, longest_wait=0.1)


class Site:
    """An outbox, a sender and a stand-in cc-backend."""

    def __init__(self, folder: Path) -> None:
        self.backend = CcBackend()
        self.server = CcBackendServer(self.backend)
        self.server.start()
        self.sink = CcRest(self.server.url, lambda: self.backend.token)
        self.outbox = Outbox(str(folder / "state.sqlite"))
        self.status = Counters()
        self.sender = Sender(self.sink, self.outbox, self.status, timing=TIMING)

    def close(self) -> None:
        stop_all([self.sender], 2)
        self.outbox.close()
        self.server.close()

    def owe(self, *runs: Run, kinds: tuple[Kind, ...] = (Kind.START, Kind.STOP)) -> None:
        messages = []
        for run in runs:
            end = End(EndState.COMPLETED, run.key.start_time + 5, "COMPLETED")
            payloads = {
                Kind.START: CcMessages(()).encode_start(run),
                Kind.STOP: CcMessages(()).encode_stop(run.key, end),
            }
            messages += [Message((self.sink.name,), run.key, kind, payloads[kind]) for kind in kinds]
        self.outbox.commit("lab", Batch(messages=messages))
        self.sender.wake()

    def settled(self, **outcomes: int) -> bool:
        """Whether the outbox comes to hold just these."""
        return comes(lambda: self.outbox.counts() == outcomes)

    def states(self) -> dict[int, str]:
        return {row.job_id: row.state for row in self.backend.rows}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def runs(*job_ids: int) -> list[Run]:
    return [make_run(job_id, start=NOW - 1000) for job_id in job_ids]


def test_everything_owed_arrives_once_and_in_order(site: Site) -> None:
    site.owe(*runs(*range(1, 101)))
    site.sender.start()
    assert site.settled()
    assert len(site.backend.rows) == 100
    assert set(site.states().values()) == {"completed"}
    assert all(row.starts == 1 and row.stops == 1 for row in site.backend.rows)


def test_rows_added_later_are_sent_at_once(site: Site) -> None:
    site.sender.start()
    site.owe(*runs(1), kinds=(Kind.START,))
    assert site.settled(delivered=1)
    site.owe(*runs(1), kinds=(Kind.STOP,))
    assert site.settled()


def test_a_sender_is_idle_when_nothing_is_due_or_under_way(site: Site) -> None:
    assert site.sender.is_idle()
    site.owe(*runs(1))
    assert not site.sender.is_idle()
    site.sender.post_nodes("lab", [])
    site.sender.start()
    assert site.settled()
    assert comes(site.sender.is_idle)
    with site.backend.fault(refused_jobs([2])):
        site.owe(*runs(2))
        assert site.settled(parked=1, pending=1)
        assert comes(site.sender.is_idle)  # the refused one is tried again much later
    site.outbox.retry_all()
    assert not site.sender.is_idle()
    site.sender.retry_now()
    assert site.settled()
    assert comes(site.sender.is_idle)


def test_a_refused_job_is_parked_and_the_others_arrive(site: Site) -> None:
    fault = site.backend.add_fault(refused_jobs([2]))
    site.owe(*runs(1, 2, 3))
    site.sender.start()
    assert site.settled(parked=1, pending=1)
    assert site.states() == {1: "completed", 3: "completed"}
    site.backend.remove_fault(fault)
    assert site.outbox.retry_all() == 1
    site.sender.retry_now()
    assert site.settled()
    assert site.states()[2] == "completed"


def test_what_was_parked_before_a_restart_is_told_when_it_is_delivered(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The outbox remembers it: the sender keeps nothing of what is parked, which may be much and be given up."""
    fault = site.backend.add_fault(refused_jobs([2]))
    site.owe(*runs(1, 2))
    site.sender.start()
    assert site.settled(parked=1, pending=1)
    stop_all([site.sender], PATIENCE)
    caplog.clear()
    site.backend.remove_fault(fault)
    site.outbox.retry_all()
    site.sender = Sender(site.sink, site.outbox, site.status, timing=TIMING)
    site.sender.start()
    assert site.settled()
    stop_all([site.sender], PATIENCE)
    told = [record.getMessage() for record in caplog.records if "delivered after it was parked" in record.getMessage()]
    assert [line.split(" of lab ")[0] for line in told] == ["job 2"]


def test_nothing_is_lost_or_doubled_while_the_destination_is_away(site: Site) -> None:
    site.server.stop()
    site.owe(*runs(*range(1, 21)))
    site.sender.start()
    while site.status.counts().get("start_unavailable", 0) < 3:
        time.sleep(0.005)
    assert site.outbox.counts() == {"pending": 40}
    site.server.start()
    assert site.settled()
    assert set(site.states().values()) == {"completed"}
    assert len(site.backend.rows) == 20


def test_lost_answers_double_nothing(site: Site) -> None:
    site.backend.add_fault(LostAnswer(fraction=0.4, seed=1))
    site.backend.add_fault(Dropped(fraction=0.4, seed=2))
    site.owe(*runs(*range(1, 41)))
    site.sender.start()
    assert site.settled()
    assert len(site.backend.rows) == 40
    assert set(site.states().values()) == {"completed"}


def test_a_wrong_token_holds_everything_and_parks_nothing(site: Site) -> None:
    right, site.backend.token = site.backend.token, "eyJ.other.token"
    site.sink = CcRest(site.server.url, lambda: right)
    site.sender = Sender(site.sink, site.outbox, site.status, timing=TIMING)
    site.owe(*runs(1, 2))
    site.sender.start()
    while site.status.counts().get("start_misconfigured", 0) < 2:
        time.sleep(0.005)
    assert site.outbox.counts() == {"pending": 4}
    site.backend.token = right
    assert site.settled()


def test_a_row_that_fails_while_others_succeed_is_parked(site: Site) -> None:
    site.backend.add_fault(OtherAnswer(status=500, body=b'{"error":"odd"}', job_ids=frozenset([2])))
    site.owe(*runs(2))
    site.sender.start()
    while not site.status.counts().get("start_failed"):
        time.sleep(0.005)
    site.owe(*runs(1, 3))
    assert site.settled(parked=1, pending=1)
    assert site.states() == {1: "completed", 3: "completed"}


@pytest.mark.parametrize("status", [403, 500])
def test_half_of_all_requests_refused_park_nobody(site: Site, status: int) -> None:
    """cc-backend's database is locked at times, or one of two proxies is set up wrong."""
    site.backend.add_fault(OtherAnswer(fraction=0.5, seed=status, status=status, body=b'{"error":"not now"}'))
    site.owe(*runs(*range(1, 41)))
    site.sender.start()
    assert site.settled()
    assert site.states() == dict.fromkeys(range(1, 41), "completed")
    counts = site.status.counts()
    assert counts.get("start_failed", 0) + counts.get("start_misconfigured", 0) > 5
    assert "start_rejected" not in counts
    assert "stop_rejected" not in counts
    assert "parked" not in site.outbox.counts()


def test_a_destination_that_asks_for_a_pause_gets_it_from_all(site: Site) -> None:
    site.owe(*runs(1, 2, 3))
    site.sender.start()
    assert site.settled()
    site.backend.add_fault(OtherAnswer(status=429, headers={"Retry-After": "1"}, count=1))
    site.owe(*runs(4))
    while not site.status.counts().get("start_unavailable"):
        time.sleep(0.005)
    asked = len(site.backend.log)
    site.owe(*runs(*range(5, 10)))
    assert site.settled()
    assert site.backend.log[asked].time >= site.backend.log[asked - 1].time + 1


def test_errors_for_everybody_park_nobody(site: Site) -> None:
    fault = site.backend.add_fault(OtherAnswer(status=500, body=b'{"error":"disk full"}'))
    site.owe(*runs(*range(1, 11)))
    site.sender.start()
    while len(site.backend.log) < 60:
        time.sleep(0.005)
    assert "parked" not in site.outbox.counts()
    site.backend.remove_fault(fault)
    assert site.settled()


def test_rows_that_always_fail_do_not_hold_up_the_others(site: Site) -> None:
    bad = frozenset(range(1, 13))
    site.backend.add_fault(OtherAnswer(status=500, body=b'{"error":"odd"}', job_ids=bad))
    site.owe(*runs(*range(1, 26)))
    site.sender.start()
    assert site.backend.wait_for(lambda: len(site.states()) == 13, PATIENCE)
    for job_id in range(26, 29):
        site.owe(*runs(job_id))
        assert site.backend.wait_for(lambda number=job_id: number in site.states(), PATIENCE)  # type: ignore[misc]
    assert site.settled(parked=12, pending=12)
    assert sorted(site.states()) == list(range(13, 29))


def test_one_row_that_a_proxy_refuses_does_not_hold_the_sink(site: Site) -> None:
    site.backend.add_fault(OtherAnswer(status=403, body=b"<html>", job_ids=frozenset([1])))
    site.owe(*runs(1, 2, 3))
    site.sender.start()
    assert comes(lambda: len(site.states()) >= 2)
    assert site.states().keys() == {2, 3}


@pytest.mark.parametrize("seconds", ["0", "99999999999", "-5", "soon"])
def test_no_time_that_a_destination_names_ends_the_sender(site: Site, seconds: str) -> None:
    site.backend.add_fault(OtherAnswer(status=503, headers={"Retry-After": seconds}, count=1))
    site.owe(*runs(1))
    site.sender.start()
    while not site.status.counts().get("start_unavailable"):
        time.sleep(0.005)
    site.outbox.retry_all()
    site.sender.retry_now()
    assert site.settled()


def test_a_destination_that_lost_a_run_gets_its_start_again(site: Site) -> None:
    site.sender.start()
    site.owe(*runs(1), kinds=(Kind.START,))
    assert site.settled(delivered=1)
    site.backend.forget()
    site.owe(*runs(1), kinds=(Kind.STOP,))
    assert site.settled()
    assert site.states() == {1: "completed"}


def test_a_run_behind_another_stored_run_is_shadowed_and_its_stop_not_sent(site: Site) -> None:
    site.sender.start()
    site.owe(*runs(1))
    assert site.settled()
    later = make_run(1, start=NOW - 500)
    site.owe(later)
    assert site.settled(conflict=2)
    (row,) = site.backend.rows
    assert (row.start_time, row.stop_time) == (NOW - 1000, NOW - 995)


def test_a_start_that_is_too_large_is_cut_and_sent(site: Site) -> None:
    site.backend.add_fault(OtherAnswer(status=413, count=1))
    site.owe(make_run(1, start=NOW - 1000, job_script="x" * 1000))
    site.sender.start()
    assert site.settled()
    (row,) = site.backend.rows
    assert "left out" in row.start["metaData"]["jobScript"]


def test_only_the_newest_node_states_are_sent(site: Site) -> None:
    for number in range(3):
        site.sender.post_nodes("lab", [NodeState("node01", ("idle",), number, 0, 0)])
    site.sender.start()
    assert site.backend.wait_for(lambda: ("lab", "node01") in site.backend.node_states, PATIENCE)
    assert site.backend.node_states["lab", "node01"].payload["cpusAllocated"] == 2
    assert len(site.backend.log) == 1


def test_a_stop_ends_a_request_that_hangs(site: Site) -> None:
    fault = site.backend.add_fault(NoAnswer())
    site.owe(*runs(1, 2, 3, 4, 5))
    site.sender.start()
    while len(site.sender._under_way) < 4:
        time.sleep(0.005)
    began = time.monotonic()
    stop_all([site.sender], 2)
    assert time.monotonic() - began < 1
    assert site.outbox.counts() == {"pending": 10}
    site.backend.remove_fault(fault)


def test_a_stop_ends_a_wait(site: Site) -> None:
    site.sender.start()
    began = time.monotonic()
    stop_all([site.sender], 2)
    assert time.monotonic() - began < 1


def test_a_stop_that_the_destination_does_not_know_is_told_to_whoever_compares(site: Site) -> None:
    called: list[bool] = []
    site.sender = Sender(site.sink, site.outbox, site.status, on_unknown=lambda: called.append(True), timing=TIMING)
    site.sender.start()
    (run,) = runs(1)
    site.owe(run, kinds=(Kind.START,))
    assert site.settled(delivered=1)
    assert not called
    site.backend.forget()
    site.owe(run, kinds=(Kind.STOP,))
    assert site.settled()
    assert called
    assert site.states() == {1: "completed"}


class Batches:
    """A destination that takes many rows at once, and answers as it is told: `answer` gets try and job id."""

    name, label, connections = "cc_nats", "NATS", 1
    withdraws = False

    def __init__(self, answer: Callable[[int, int], Verdict], at_once: int) -> None:
        self.batch_size = at_once
        self.sizes: list[int] = []
        self._answer = answer

    def connect(self, progress: Callable[[], None]) -> Batches:
        return self

    def deliver_all(self, deliveries: Sequence[Delivery]) -> list[Answer]:
        self.sizes.append(len(deliveries))
        verdicts = [self._answer(len(self.sizes), each.key.job_id) for each in deliveries]
        if Verdict.UNAVAILABLE in verdicts:  # the connection is lost, with all that was on it
            verdicts = [Verdict.UNAVAILABLE] * len(verdicts)
        return [Answer(verdict, "as told") for verdict in verdicts]

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> Answer:
        return Answer(Verdict.DELIVERED)

    def abort(self) -> None: ...
    def break_off(self) -> None: ...
    def close(self) -> None: ...


def send_batches(site: Site, answer: Callable[[int, int], Verdict], jobs: int = 40, at_once: int = 16) -> Batches:
    sink = Batches(answer, at_once)
    messages = [Message((sink.name,), run.key, Kind.START, Encoded(b"xx")) for run in runs(*range(1, jobs + 1))]
    site.outbox.commit("lab", Batch(messages=messages))
    site.sender = Sender(sink, site.outbox, site.status, timing=TIMING)
    site.sender.start()
    return sink


def test_rows_go_together_where_the_destination_takes_many(site: Site) -> None:
    sink = send_batches(site, lambda time, job_id: Verdict.DELIVERED)
    assert site.settled(delivered=40)
    assert sink.sizes == [16, 16, 8]
    assert "nats_start_delivered=40" in str(site.status)


def test_a_row_that_costs_the_connection_holds_up_no_other(site: Site) -> None:
    sink = send_batches(site, lambda time, job_id: Verdict.UNAVAILABLE if job_id == 5 else Verdict.DELIVERED)
    assert site.settled(delivered=39, pending=1)
    assert sink.sizes[0] == 16
    assert 1 in sink.sizes


def test_trouble_of_the_destination_parks_no_row_of_a_batch_that_it_took_in_part(site: Site) -> None:
    fixed = threading.Event()

    def answer(time: int, job_id: int) -> Verdict:
        return Verdict.DELIVERED if fixed.is_set() or (time == 1 and job_id <= 8) else Verdict.MISCONFIGURED

    sink = send_batches(site, answer)
    assert comes(lambda: len(sink.sizes) >= 15)
    assert site.outbox.counts() == {"delivered": 8, "pending": 32}
    fixed.set()
    assert site.settled(delivered=40)


def test_what_is_too_large_is_no_answer_of_a_destination_in_trouble(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    sink = send_batches(site, lambda time, job_id: Verdict.TOO_LARGE if job_id == 3 else Verdict.MISCONFIGURED)
    assert comes(lambda: len(sink.sizes) >= 8)
    assert "answers again" not in caplog.text


def test_an_error_of_the_program_counts_against_no_row_that_was_sent_with_others(site: Site) -> None:
    def answer(time: int, job_id: int) -> Verdict:
        if job_id == 7:
            raise ValueError("a payload that is broken")
        return Verdict.DELIVERED

    send_batches(site, answer, jobs=10)
    assert site.settled(delivered=9, parked=1)


def test_an_error_of_the_program_at_one_row_pauses_no_other(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def answer(time: int, job_id: int) -> Verdict:
        if job_id == 30:
            raise ValueError("a payload that is broken")
        return Verdict.DELIVERED

    send_batches(site, answer, at_once=1)
    assert site.settled(delivered=39, parked=1)
    assert "everything waits" not in caplog.text


def test_a_step_of_the_clock_counts_until_the_outbox_has_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[float] = []

    def shift_times(sink: str, step: float) -> None:
        moved.append(step)
        if len(moved) == 1:
            raise StateError("the disk is full")

    monkeypatch.setattr(site.outbox.deliveries, "shift_times", shift_times)
    offset = clock_step._clock_offset()
    monkeypatch.setattr(clock_step, "_clock_offset", lambda: offset - 3600)
    site.sender.start()
    site.owe(*runs(1))
    deadline = time.monotonic() + PATIENCE
    while len(moved) < 2 and time.monotonic() < deadline:
        site.sender.wake()
        time.sleep(0.01)
    time.sleep(0.1)
    site.sender.wake()
    assert [round(by) for by in moved] == [-3600, -3600]


def test_an_idle_sender_makes_progress(site: Site) -> None:
    """Else it could not be told from one that is stuck."""
    site.sender = Sender(site.sink, site.outbox, site.status, timing=TIMING._replace(turn=0.01))
    site.sender.start()
    assert comes(lambda: min(worker.steps for worker in site.sender.workers) > 3)


class ManyRequests(Batches):
    """Answers only when whoever sends was told often of what it does for that."""

    def connect(self, progress: Callable[[], None]) -> Batches:
        self._progress = progress
        return self

    def deliver_all(self, deliveries: Sequence[Delivery]) -> list[Answer]:
        for _ in range(100):
            self._progress()
        return super().deliver_all(deliveries)


def test_a_sender_makes_progress_with_each_of_many_requests(site: Site) -> None:
    """Else a slow destination that lists much would look like a thread that is stuck."""
    sink = ManyRequests(lambda _, __: Verdict.DELIVERED, at_once=1)
    site.outbox.commit("lab", Batch(messages=[Message((sink.name,), runs(1)[0].key, Kind.START, Encoded(b"{}"))]))
    site.sender = Sender(sink, site.outbox, site.status, timing=TIMING)
    worker, _ = site.sender.workers
    before = worker.steps
    site.sender.start()
    assert site.settled(delivered=1)
    assert worker.steps - before >= 100


def test_an_error_that_nobody_thought_of_ends_no_thread(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.sender = Sender(site.sink, site.outbox, site.status, timing=TIMING._replace(after_errors=0.01))
    errors: list[Exception] = [MemoryError(), ValueError("nobody thought of that"), MemoryError()]
    due = site.outbox.deliveries.due

    def fails_first(sink: str, now: float, limit: int, busy: set[tuple[str, int]]) -> list[Delivery]:
        if errors:
            raise errors.pop()
        return due(sink, now, limit, busy)

    monkeypatch.setattr(site.outbox.deliveries, "due", fails_first)
    site.sender.start()
    site.owe(*runs(1, 2, 3))
    assert site.settled()
    assert all(worker.is_alive for worker in site.sender.workers)
