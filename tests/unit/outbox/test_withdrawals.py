"""requeuedRuns "last": the row of a requeued run is removed for the next run of its job, and nothing else ever is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.jobs.run_store import RunStore
from cc_slurm_adapter.model import End, EndState, Phase, RunKey
from cc_slurm_adapter.outbox import withdrawals
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.outbox import Batch, Outbox, Stage
from cc_slurm_adapter.outbox.sender import Sender
from cc_slurm_adapter.outbox.sink_health import Timing
from cc_slurm_adapter.outbox.stored_messages import stored
from cc_slurm_adapter.sinks import rest
from cc_slurm_adapter.sinks.base import CC_NATS, CC_REST, Answer, Delivery, Kind, Verdict
from cc_slurm_adapter.sinks.http_client import HttpResponse
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import CcRest, judge
from cc_slurm_adapter.system.threads import stop_all
from examples.practice.cc_backend import CcBackend, CcBackendServer, Dropped, LostAnswer, OtherAnswer
from tests.fakes.slurm_and_sinks import make_run

NOW = int(time.time())
BEGIN = NOW - 10_000
PATIENCE = 60.0
TIMING = Timing(first_wait=0.02, longest_wait=0.05)
REST_TIMING = rest.Timing(commit_span=0.1)  # the commit worker of the stand-in runs with every request
DELETE_PATH, START_PATH = "/api/jobs/delete_job/", "/api/jobs/start_job/"
REQUEUED, PREEMPTED = (EndState.CANCELLED, "REQUEUED"), (EndState.PREEMPTED, "PREEMPTED")
NODE_FAIL, COMPLETED = (EndState.NODE_FAIL, "NODE_FAIL"), (EndState.COMPLETED, "COMPLETED")


class Site:
    """An outbox, a recorder, a sender and a stand-in cc-backend whose commit worker runs at once."""

    def __init__(self, folder: Path, *, withdraws: bool = True) -> None:
        self.backend = CcBackend(commit_interval=0)
        self.server = CcBackendServer(self.backend)
        self.server.start()
        self.withdraws = withdraws
        self.path = str(folder / "state.sqlite")
        self.status = Counters()
        self._open()

    def _open(self) -> None:
        self.sink = CcRest(self.server.url, lambda: self.backend.token, withdraws=self.withdraws, timing=REST_TIMING)
        self.outbox = Outbox(self.path, {CC_REST: ""})
        if not self.withdraws:
            self.outbox.withdraw_nothing()
        self.sender = Sender(self.sink, self.outbox, self.status, timing=TIMING)
        self.store = RunStore(
            "lab", self.outbox, CcMessages(()), [self.sink], self.status, self.sender.wake, LateRuns()
        )

    def restart(self) -> None:
        stop_all([self.sender], 2)
        self.outbox.close()
        self._open()
        self.sender.start()

    def close(self) -> None:
        stop_all([self.sender], 2)
        self.outbox.close()
        self.server.close()

    def begin(self, start: int, job_id: int = 1) -> RunKey:
        batch, run = Batch(), make_run(job_id, start=start)
        self.store.enqueue_start(batch, run)
        self.store.set_state(batch, run, Stage.STARTED)
        self.store.commit(batch)
        return run.key

    def end(self, key: RunKey, how: tuple[EndState, str] = REQUEUED) -> RunKey:
        end_state, word = how
        self.store.end({key: End(end_state, key.start_time + 5, word)})
        return key

    def report(self, start: int, how: tuple[EndState, str] = REQUEUED, job_id: int = 1) -> RunKey:
        """A run from its start to its end, until cc-backend has both."""
        key = self.end(self.begin(start, job_id), how)
        self.wait(lambda: self.outbox.waiting() == 0)
        return key

    def wait(self, condition: object) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline, (self.outbox.counts(), self.rows())
            time.sleep(0.005)

    def drained(self) -> None:
        self.wait(lambda: self.outbox.waiting() == 0)

    def said(self, caplog: pytest.LogCaptureFixture) -> str:
        """The log, when all has been said."""
        stop_all([self.sender], PATIENCE)
        return caplog.text

    def rows(self) -> dict[int, str]:
        """States by start time."""
        return {row.start_time: row.state for row in self.backend.rows}

    def removals(self) -> int:
        return sum(request.path == DELETE_PATH for request in self.backend.log)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    made.sender.start()
    yield made
    made.close()


# --- what is removed


@pytest.mark.parametrize("how", [REQUEUED, PREEMPTED, NODE_FAIL], ids=lambda how: how[1])
def test_the_last_run_takes_the_place_of_the_first(
    site: Site, how: tuple[EndState, str], caplog: pytest.LogCaptureFixture
) -> None:
    first = site.report(BEGIN, how)
    second = site.report(BEGIN + 100, COMPLETED)
    assert site.rows() == {second.start_time: "completed"}
    assert site.outbox.counts() == {}
    assert site.said(caplog).count(f"{first}: removed from cc-backend to make room for the next run of its job") == 1
    assert "not stored" not in site.said(caplog)


def test_each_of_many_runs_takes_the_place_of_the_one_before(site: Site) -> None:
    for number in range(4):
        site.report(BEGIN + 100 * number, PREEMPTED)
        assert site.rows() == {BEGIN + 100 * number: "preempted"}
    assert site.removals() == 3


def test_with_first_nothing_is_removed(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.withdraws = False
    site.restart()
    site.report(BEGIN)
    second = site.report(BEGIN + 100, COMPLETED)
    assert site.rows() == {BEGIN: "cancelled"}
    assert site.removals() == 0
    assert f"{second}: start not stored, another run of this job is" in site.said(caplog)


def test_two_runs_that_are_both_stored_make_room_one_after_the_other(site: Site) -> None:
    """cc-backend took the second one while the first was not committed yet."""
    site.backend.commit_interval = 1e9
    site.backend.commit()
    first, second = site.begin(BEGIN), site.begin(BEGIN + 100)
    site.drained()
    site.end(first)
    site.end(second)
    site.drained()
    assert site.rows() == {BEGIN: "cancelled", BEGIN + 100: "cancelled"}
    third = site.report(BEGIN + 200, COMPLETED)
    assert site.rows() == {third.start_time: "completed"}
    assert site.removals() == 2


def test_a_later_run_waits_until_the_end_of_the_earlier_one_is_known(site: Site) -> None:
    first = site.begin(BEGIN)
    site.drained()
    second = site.begin(BEGIN + 100)
    site.wait(lambda: any(request.status == 422 for request in site.backend.log))
    site.end(first)
    site.end(second, COMPLETED)
    site.drained()
    assert site.rows() == {second.start_time: "completed"}


def test_runs_a_day_apart_are_both_stored(site: Site) -> None:
    site.report(BEGIN - 86400)
    site.report(BEGIN, COMPLETED)
    assert site.rows() == {BEGIN - 86400: "cancelled", BEGIN: "completed"}
    assert site.removals() == 0


def test_what_was_parked_before_it_was_stored_is_kept_without_that(site: Site) -> None:
    """When it is sent again, another refusal is the first one."""
    first = site.begin(BEGIN)
    site.drained()
    refusal = site.backend.add_fault(OtherAnswer(status=400, body=b'{"error":"no"}', job_ids=frozenset([1])))
    site.end(first)
    site.wait(lambda: site.outbox.counts() == {"parked": 1, "delivered": 1, "retained": 1})
    site.backend.remove_fault(refusal)
    assert site.outbox.retry_all() == 1
    site.sender.retry_now()
    site.drained()
    rows = site.outbox._state.read("SELECT kind, state, parkings, parked_since, why FROM delivery ORDER BY kind", ())
    assert rows == [(kind, "retained", 0, 0, "") for kind in ("start", "stop", "withdraw")]


# --- what is never removed


def test_a_run_that_ended_by_itself_is_not_removed(site: Site) -> None:
    """Its job was begun again by hand, or its id was given out again."""
    site.report(BEGIN, COMPLETED)
    site.report(BEGIN + 100, COMPLETED)
    assert site.rows() == {BEGIN: "completed"}
    assert site.removals() == 0


def test_a_row_that_somebody_else_has_reported_is_not_removed(site: Site) -> None:
    run = make_run(1, start=BEGIN)
    connection = site.sink.connect()
    other = Delivery(1, run.key, Kind.START, CcMessages(()).encode_start(run).whole(), 0, 0)
    assert connection.deliver(other).verdict is Verdict.DELIVERED
    connection.close()
    site.report(BEGIN)
    site.report(BEGIN + 100, COMPLETED)
    assert site.rows() == {BEGIN: "cancelled"}
    assert site.removals() == 0


def test_an_earlier_run_that_is_reported_late_removes_no_later_one(site: Site) -> None:
    site.report(BEGIN + 100, PREEMPTED)
    site.report(BEGIN, PREEMPTED)
    assert site.rows() == {BEGIN + 100: "preempted"}
    assert site.removals() == 0


def test_nothing_is_removed_for_a_run_that_is_reported_late_and_refused_because_of_a_later_one(site: Site) -> None:
    """The first and the third are both there, as cc-backend had not committed the first when it took the third."""
    site.backend.commit_interval = 1e9
    site.backend.commit()
    first, third = site.begin(BEGIN), site.begin(BEGIN + 200)
    site.drained()
    site.end(first)
    site.drained()
    site.report(BEGIN + 100)
    assert site.rows() == {BEGIN: "cancelled", third.start_time: "running"}
    assert site.removals() == 0


def test_another_job_of_the_same_start_stays(site: Site) -> None:
    site.report(BEGIN, job_id=2)
    site.report(BEGIN)
    site.report(BEGIN + 100, COMPLETED)
    assert {(row.job_id, row.start_time) for row in site.backend.rows} == {(2, BEGIN), (1, BEGIN + 100)}


# --- when it does not work


@pytest.mark.parametrize("status", [400, 422])
def test_a_start_that_is_refused_after_all_brings_the_removed_run_back(
    site: Site, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    first = site.report(BEGIN)
    before = site.backend.rows[0]
    body = json.dumps({"status": "as told", "error": "as told"}).encode()
    site.backend.add_fault(AfterRemoval(START_PATH, count=1, status=status, body=body))
    second = site.end(site.begin(BEGIN + 100), COMPLETED)
    outcome = "parked" if status == 400 else "conflict"
    site.wait(lambda: site.outbox.counts().get(outcome) and site.outbox.counts().get("retained") == 3)
    (row,) = site.backend.rows
    assert (row.key, row.start, row.state, row.stop_time) == (before.key, before.start, before.state, before.stop_time)
    assert site.said(caplog).count(f"{first}: sent to cc-backend again, as the later run was refused after all") == 1
    if status == 422:
        assert f"{second}: start not stored, another run of this job is" in site.said(caplog)
        return
    site.outbox.deliveries.shift_times(CC_REST, -1000)  # time passes: it is surely not stored
    site.outbox.retry_all()  # what was wrong is mended: now it takes the place
    site.restart()
    site.drained()
    assert site.rows() == {second.start_time: "completed"}


class AfterRemoval(OtherAnswer):
    """Only requests after one for a removal."""

    removed = False

    def hits(self, path: str, job_id: int | None) -> bool:
        self.removed = self.removed or path == DELETE_PATH
        return self.removed and super().hits(path, job_id)


@pytest.mark.parametrize("status", [400, 404, 405, 409])
def test_where_rows_cannot_be_removed_the_first_run_stays(
    site: Site, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    first = site.report(BEGIN)
    site.backend.add_fault(OtherAnswer(DELETE_PATH, status=status))
    second = site.report(BEGIN + 100, COMPLETED)
    assert site.rows() == {BEGIN: "cancelled"}
    assert site.said(caplog).count(f"{first}: cc-backend does not remove it for the next run of its job") == 1
    assert site.said(caplog).count(f"{second}: start not stored, another run of this job is") == 1
    assert site.outbox.counts() == {"conflict": 2}


def test_a_token_that_may_not_remove_holds_everything_until_somebody_acts(site: Site) -> None:
    site.report(BEGIN)
    with site.backend.fault(OtherAnswer(DELETE_PATH, status=401, body=b'{"error":"no"}')):
        second = site.begin(BEGIN + 100)
        site.wait(lambda: site.status.counts().get("withdraw_misconfigured", 0) > 1)
        assert site.rows() == {BEGIN: "cancelled"}
    site.drained()
    assert site.rows() == {second.start_time: "running"}


def test_a_row_that_is_gone_already_is_no_trouble(site: Site) -> None:
    """An administrator removed it, or a request before this one whose answer was lost."""
    site.report(BEGIN)
    site.backend.add_fault(LostAnswer(DELETE_PATH, count=1))
    second = site.report(BEGIN + 100, COMPLETED)
    assert site.rows() == {second.start_time: "completed"}


def test_every_answer_to_a_removal_has_its_verdict() -> None:
    def verdict(status: int, body: str) -> Verdict:
        return judge(Kind.WITHDRAW, HttpResponse(status, body.encode())).verdict

    assert verdict(200, '{"msg":"Successfully deleted job 1"}') is Verdict.DELIVERED
    assert verdict(200, "<html>") is Verdict.UNAVAILABLE
    assert {verdict(status, '{"error":"x"}') for status in (401, 403)} == {Verdict.MISCONFIGURED}
    assert {verdict(status, body) for status in (400, 404, 405, 422) for body in ('{"error":"x"}', "<html>")} == {
        Verdict.REJECTED
    }
    assert verdict(500, '{"error":"x"}') is Verdict.FAILED
    assert {verdict(status, "") for status in (429, 502, 503, 504)} == {Verdict.UNAVAILABLE}


def test_a_row_that_is_not_found_may_not_be_committed_yet(site: Site) -> None:
    site.backend.commit_interval = 1e9
    site.backend.commit()
    run = make_run(1, start=BEGIN)
    connection = site.sink.connect()
    connection.deliver(Delivery(1, run.key, Kind.START, CcMessages(()).encode_start(run).whole(), 0, 0))
    removal = Delivery(2, run.key, Kind.WITHDRAW, CcMessages(()).encode_withdrawal(run.key).whole(), 0, 0)
    answer = connection.deliver(removal)
    assert (answer.verdict, answer.retry_after) == (Verdict.NOT_YET, REST_TIMING.commit_span)
    site.backend.commit()
    assert connection.deliver(removal) == Answer(Verdict.DELIVERED)
    again = Delivery(2, run.key, Kind.WITHDRAW, removal.payload, 0, NOW - 1000.0)
    assert connection.deliver(again).verdict is Verdict.DELIVERED
    assert site.backend.rows == []
    connection.close()


# --- how long it is kept


def test_what_is_kept_goes_after_a_day(site: Site) -> None:
    site.report(BEGIN)
    assert site.outbox.counts() == {"retained": 3}
    site.outbox.tidy(604800)
    assert site.outbox.counts() == {"retained": 3}
    site.outbox._state.write(lambda database: withdrawals.forget_old(database, time.time() + withdrawals.DAY + 1))
    assert site.outbox.counts() == {}


def test_the_oldest_go_before_when_too_much_is_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for job_id in (1, 2, 3):
        site.report(BEGIN, job_id=job_id)
    one = len(stored(CcMessages(()).encode_start(make_run(1, start=BEGIN))).payload) + 300
    monkeypatch.setattr(withdrawals, "RETAINED_BYTES", 2 * one)
    site.outbox.tidy(604800)
    assert site.outbox.counts() == {"retained": 6}
    site.report(BEGIN + 100, COMPLETED, job_id=1)
    site.report(BEGIN + 100, COMPLETED, job_id=3)
    assert {row.key[1:] for row in site.backend.rows} == {(1, BEGIN), (2, BEGIN), (3, BEGIN + 100)}


def test_a_run_that_is_withdrawn_at_the_moment_is_not_forgotten(site: Site) -> None:
    site.report(BEGIN)
    with site.backend.fault(OtherAnswer(DELETE_PATH, status=503)):
        site.begin(BEGIN + 100)
        site.wait(lambda: site.status.counts().get("withdraw_unavailable", 0) > 0)
        site.outbox._state.write(lambda database: withdrawals.forget_old(database, time.time() + withdrawals.DAY + 1))
        assert site.outbox.counts() == {"retained": 2, "pending": 2}
    site.drained()
    assert site.rows() == {BEGIN + 100: "running"}


def test_a_change_back_to_first_takes_the_intention_back(site: Site) -> None:
    site.report(BEGIN)
    stop_all([site.sender], 2)
    second = site.begin(BEGIN + 100)
    site.outbox.deliveries.make_room(start_of(site, second), 0)
    assert site.outbox.counts() == {"retained": 2, "pending": 2}
    site.withdraws = False
    site.restart()
    site.drained()
    assert site.rows() == {BEGIN: "cancelled"}
    assert site.removals() == 0
    assert site.outbox.counts() == {"conflict": 1}


def start_of(site: Site, key: RunKey) -> Delivery:
    question = (
        "SELECT d.id, payload FROM delivery AS d JOIN message AS m ON m.id = d.message"
        " WHERE start_time = ? AND kind = 'start'"
    )
    ((row_id, payload),) = site.outbox._state.read(question, (key.start_time,))
    return Delivery(row_id, key, Kind.START, payload, 0, 0)


# --- other sinks


def test_what_follows_hears_of_every_run_and_of_no_removal(tmp_path: Path) -> None:
    outbox = Outbox(str(tmp_path / "state.sqlite"), {CC_REST: "", CC_NATS: CC_REST})
    rest = CcRest("http://127.0.0.1:1", lambda: "", withdraws=True)
    nats = CcRest("http://127.0.0.1:1", lambda: "")
    nats.name = CC_NATS
    store = RunStore("lab", outbox, CcMessages(()), [rest, nats], Counters(), lambda: None, LateRuns())
    heard: list[tuple[Kind, int]] = []

    def send(sink: str, *verdicts: Verdict) -> None:
        for verdict in verdicts or [Verdict.DELIVERED] * 9:
            for each in outbox.deliveries.begin(outbox.deliveries.due(sink, 1e12, 1), 1e12):
                if verdict is Verdict.DELIVERED:
                    outbox.deliveries.delivered(each)
                    heard.extend([(each.kind, each.key.start_time)] if sink == CC_NATS else [])
                else:
                    assert outbox.deliveries.make_room(each, 0) is withdrawals.Room.MADE

    for start, how in ((BEGIN, PREEMPTED), (BEGIN + 100, COMPLETED)):
        batch, run = Batch(), make_run(1, start=start, phase=Phase.ENDED)
        store.enqueue_start(batch, run)
        store.enqueue_stop(batch, run.key, End(how[0], start + 5, how[1]))
        store.set_state(batch, run, Stage.DONE)
        store.commit(batch)
        send(CC_REST, *([Verdict.CONFLICT] if start > BEGIN else []))
        send(CC_REST)
        send(CC_NATS)
    assert heard == [(kind, start) for start in (BEGIN, BEGIN + 100) for kind in (Kind.START, Kind.STOP)]
    assert outbox.counts() == {}
    outbox.close()


def test_when_another_sink_leads_what_may_have_been_removed_is_told_to_it(site: Site) -> None:
    site.report(BEGIN, job_id=2)
    site.report(BEGIN)
    stop_all([site.sender], 2)
    second = site.begin(BEGIN + 100)
    site.outbox.deliveries.make_room(start_of(site, second), 0)
    (removal,) = site.outbox.deliveries.due(CC_REST, 1e12, 9)
    site.outbox.deliveries.delivered(*site.outbox.deliveries.begin([removal], 1.0))
    site.outbox.close()
    nats = Outbox(site.path, {CC_NATS: ""})
    told = []
    for (each,) in iter(lambda: nats.deliveries.due(CC_NATS, 1e12, 9), []):
        told.append((each.kind, each.key.job_id, each.key.start_time))
        nats.deliveries.delivered(each)
    nats.close()
    assert told == [(Kind.START, 1, BEGIN), (Kind.STOP, 1, BEGIN), (Kind.START, 1, BEGIN + 100)]


# --- all at once


def test_through_faults_of_all_kinds_and_restarts_each_job_has_its_last_run(site: Site) -> None:
    for fault in (
        LostAnswer(fraction=0.2, seed=1),
        Dropped(fraction=0.2, seed=2),
        OtherAnswer(fraction=0.1, seed=3, status=503),
    ):
        site.backend.add_fault(fault)
    jobs, times = range(1, 13), 4
    for number in range(times):
        for job_id in jobs:
            is_last = number == times - 1
            site.end(site.begin(BEGIN + 100 * number, job_id), COMPLETED if is_last else PREEMPTED)
        site.restart()
    site.drained()
    assert sorted((row.job_id, row.start_time, row.state) for row in site.backend.rows) == [
        (job_id, BEGIN + 100 * (times - 1), "completed") for job_id in jobs
    ]
    assert site.outbox.counts() == {}
