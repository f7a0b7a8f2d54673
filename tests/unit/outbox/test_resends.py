"""A run that is sent anew: what cc-backend had of it goes, and in the end it has one row, the right one."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.jobs.run_store import RunStore
from cc_slurm_adapter.model import End, EndState, Run, RunKey
from cc_slurm_adapter.outbox import dropped_runs
from cc_slurm_adapter.outbox.deliveries import FORGET_AT_ONCE
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.outbox import Batch, Outbox, Stage
from cc_slurm_adapter.outbox.resends import CHANGED, OTHER_WAITS, RUNS_AT_ONCE, UNDER_WAY, Again, Wanted, count
from cc_slurm_adapter.outbox.selection import Selection
from cc_slurm_adapter.outbox.sender import Sender
from cc_slurm_adapter.outbox.sink_health import Timing
from cc_slurm_adapter.sinks import rest
from cc_slurm_adapter.sinks.base import CC_NATS, CC_REST, Answer, Delivery, Kind, Verdict
from cc_slurm_adapter.sinks.http_client import HttpResponse
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import CcRest, judge
from cc_slurm_adapter.system.threads import stop_all
from examples.practice.cc_backend import CcBackend, CcBackendServer, Dropped, JobRow, LostAnswer, OtherAnswer
from tests.fakes.slurm_and_sinks import make_run

NOW = int(time.time())
BEGIN = NOW - 10_000
PATIENCE = 60.0
TIMING = Timing(first_wait=0.02, longest_wait=0.05)
REST_TIMING = rest.Timing(commit_span=0.1)
PATHS = {"remove": "/api/jobs/delete_job/", "start": "/api/jobs/start_job/", "stop": "/api/jobs/stop_job/"}
WRONG, RIGHT = (
    CcMessages(((re.compile("node"), gpus),))
    for gpus in (("0000:01:00.0", "0000:02:00.0"), ("0000:41:00.0", "0000:42:00.0"))
)
RIGHT_GPUS = ["0000:41:00.0", "0000:42:00.0"]
HOW = End(EndState.COMPLETED, BEGIN + 50, "COMPLETED")


class Site:
    """An outbox, a sender and a stand-in cc-backend that is told of runs with the wrong GPUs."""

    def __init__(self, folder: Path) -> None:
        self.withdraws = False
        self.backend = CcBackend(commit_interval=0)
        self.server = CcBackendServer(self.backend)
        self.server.start()
        self.path = str(folder / "state.sqlite")
        self.counters = Counters()
        self.open()

    def open(self) -> None:
        self.sink = CcRest(self.server.url, lambda: self.backend.token, withdraws=self.withdraws, timing=REST_TIMING)
        self.outbox = Outbox(self.path, {CC_REST: ""})
        self.sender = Sender(self.sink, self.outbox, self.counters, timing=TIMING)
        self.store = RunStore("lab", self.outbox, WRONG, [self.sink], self.counters, self.sender.wake, LateRuns())

    def restart(self) -> None:
        self.stop()
        self.open()
        self.sender.start()

    def stop(self) -> None:
        stop_all([self.sender], PATIENCE)
        self.outbox.close()

    def close(self) -> None:
        self.stop()
        self.server.close()

    def begin(self, job_id: int = 1, start: int = BEGIN) -> Run:
        batch, run = Batch(), make_run(job_id, start=start)
        self.store.enqueue_start(batch, run)
        self.store.set_state(batch, run, Stage.STARTED)
        self.store.commit(batch)
        return run

    def report(self, *, is_over: bool = False, job_id: int = 1, start: int = BEGIN) -> Run:
        """A run that cc-backend has, with its end if it is over."""
        run = self.begin(job_id, start)
        if is_over:
            self.store.end({run.key: HOW})
        self.drained()
        return run

    def again(self, *runs: Run, is_over: bool = False) -> dict[RunKey, str]:
        """Send these anew. Return why some are not."""
        refused = self.outbox.resends.send(CC_REST, [again(run, is_over=is_over) for run in runs])
        self.sender.wake()
        return refused

    def wait(self, condition: object) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline, (self.outbox.counts(), self.backend.rows)
            time.sleep(0.005)

    def drained(self) -> None:
        self.wait(lambda: self.outbox.waiting() == 0)

    def requests(self) -> list[str]:
        """The kinds of all requests about jobs so far that were answered well."""
        names = {path: kind for kind, path in PATHS.items()}
        return [names[each.path] for each in self.backend.log if each.path in names and each.status in (200, 201)]

    def rows(self) -> list[tuple[str, int, str, object]]:
        return self.outbox._state.read("SELECT kind, start_time, state, next_try FROM delivery ORDER BY kind", ())


def again(run: Run, *, is_over: bool = False) -> Again:
    stop = RIGHT.encode_stop(run.key, HOW) if is_over else None
    return Again(run.key, RIGHT.encode_withdrawal(run.key), RIGHT.encode_start(run), stop)


def facts(row: JobRow) -> tuple[object, ...]:
    """What a row is judged by: its GPUs, and how it is."""
    return row.start["resources"][0]["accelerators"], row.state, row.stop_time


RUNNING, OVER = (RIGHT_GPUS, "running", None), (RIGHT_GPUS, "completed", HOW.end_time)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    made.sender.start()
    yield made
    made.close()


# --- what is sent


def test_a_running_run_is_removed_and_its_new_start_is_sent(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    run = site.report()
    assert facts(site.backend.rows[0]) != RUNNING
    assert site.again(run) == {}
    site.drained()
    assert [facts(row) for row in site.backend.rows] == [RUNNING]
    assert site.requests() == ["start", "remove", "start"]
    assert site.rows()[0][:3] == ("start", BEGIN, "delivered")
    assert f"{run.key}: removed from cc-backend to be sent anew" in caplog.text
    site.store.end({run.key: HOW})
    site.drained()
    assert [facts(row) for row in site.backend.rows] == [OVER]


def test_of_a_run_that_is_over_the_stop_is_sent_again_too(site: Site) -> None:
    run = site.report(is_over=True)
    assert site.again(run, is_over=True) == {}
    site.drained()
    assert [facts(row) for row in site.backend.rows] == [OVER]
    assert site.requests() == ["start", "stop", "remove", "start", "stop"]
    assert site.outbox.counts() == {}


def test_a_stop_that_still_waits_is_sent_once_and_after_the_new_start(site: Site) -> None:
    run = site.report()
    with site.backend.fault(OtherAnswer(PATHS["stop"], status=503)):
        site.store.end({run.key: HOW})
        site.wait(lambda: site.counters.counts().get("stop_unavailable", 0) > 0)
        assert site.again(run) == {}
    site.drained()
    assert site.requests() == ["start", "remove", "start", "stop"]
    assert [facts(row) for row in site.backend.rows] == [OVER]


def test_a_run_that_ended_between_the_question_and_the_answer_gets_its_own_stop_only(site: Site) -> None:
    """Its end came after slurmctld had shown it running, or the other way round."""
    run = site.report(is_over=True)
    assert site.again(run) == {run.key: CHANGED}, "the stop was delivered and nobody knows it any more"
    other = site.report(job_id=2)
    assert site.again(other, is_over=True) == {}
    site.drained()
    assert "stop" not in site.requests()[-2:], "the next poll ends it, as always"
    site.store.end({other.key: HOW})
    site.drained()
    assert [facts(row) for row in site.backend.rows if row.job_id == 2] == [OVER]


def test_texts_go_with_the_new_start(site: Site) -> None:
    site.report()
    site.again(make_run(1, start=BEGIN, job_script="#!/bin/sh\nright", slurm_info="JobId=1"))
    site.drained()
    assert site.backend.rows[0].start["metaData"]["jobScript"] == "#!/bin/sh\nright"
    site.outbox.tidy(604800)
    assert site.outbox._state.read("SELECT COUNT(*) FROM text", ()) == [(0,)], "they go when it has them"


# --- whatever happens in between


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("arrives", [False, True])
@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("is_over", [False, True])
def test_a_kill_at_any_request_leaves_one_right_row(
    site: Site, number: int, arrives: bool, commits: bool, is_over: bool
) -> None:
    """The process ends with the request under way, or right after cc-backend has stored it."""
    run = site.report(is_over=is_over)
    if number == 2 and not is_over:
        return
    site.stop()
    site.open()
    site.backend.commit_interval = 1e9
    assert site.again(run, is_over=is_over) == {}
    connection, deliveries = site.sink.connect(), site.outbox.deliveries
    for step in range(number + 1):
        (due,) = deliveries.begin(deliveries.due(CC_REST, 1e12, 9), time.time())
        assert due.kind is (Kind.REMOVE, Kind.START, Kind.STOP)[step]
        if step < number:
            assert connection.deliver(due).verdict is Verdict.DELIVERED
            deliveries.delivered(due)
        elif arrives:
            assert connection.deliver(due).verdict is Verdict.DELIVERED
    connection.close()
    if commits:
        site.backend.commit()
    site.restart()
    site.drained()
    site.backend.commit()
    assert [facts(row) for row in site.backend.rows] == [OVER if is_over else RUNNING]


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("fault", [LostAnswer, Dropped])
def test_answers_that_are_lost_leave_one_right_row(site: Site, fault: type[LostAnswer], kind: str) -> None:
    run = site.report(is_over=True)
    site.backend.add_fault(fault(PATHS[kind], count=1))
    site.again(run, is_over=True)
    site.drained()
    assert [facts(row) for row in site.backend.rows] == [OVER]


def test_a_row_that_is_not_committed_yet_is_found_later(site: Site) -> None:
    """The start was sent again just now, so the table has it only when the commit worker has run."""
    site.backend.commit_interval = 1e9
    site.backend.commit()
    run = site.report()
    site.again(run)
    site.wait(lambda: site.counters.counts().get("remove_not_yet", 0) > 0)
    site.backend.commit()
    site.drained()
    site.backend.commit()
    assert [facts(row) for row in site.backend.rows] == [RUNNING]


def test_through_faults_of_all_kinds_and_restarts_each_run_has_one_right_row(site: Site) -> None:
    jobs = range(1, 13)
    runs = [site.report(is_over=job % 2 == 0, job_id=job) for job in jobs]
    for fault in (
        LostAnswer(fraction=0.2, seed=1),
        Dropped(fraction=0.2, seed=2),
        OtherAnswer(fraction=0.1, seed=3, status=503),
    ):
        site.backend.add_fault(fault)
    for run in runs:
        assert site.again(run, is_over=run.key.job_id % 2 == 0) == {}
        if run.key.job_id % 4 == 0:
            site.restart()
    site.drained()
    assert sorted((row.job_id, *facts(row)) for row in site.backend.rows) == [
        (job, *(RUNNING if job % 2 else OVER)) for job in jobs
    ]


# --- what is refused


def test_a_new_start_that_is_refused_is_parked_and_shown_and_sent_when_it_is_accepted(site: Site) -> None:
    run = site.report()
    refusal = site.backend.add_fault(OtherAnswer(PATHS["start"], status=400, body=b'{"error":"no such host"}'))
    site.again(run)
    site.wait(lambda: site.outbox.counts() == {"parked": 1})
    (shown,) = site.outbox.admin.list_rows(Selection()).rows
    assert (shown.kind, shown.state, shown.job_id) == ("start", "parked", 1)
    assert "no such host" in shown.reason
    site.backend.remove_fault(refusal)
    site.outbox.retry_all()
    site.sender.retry_now()
    site.drained()
    assert [facts(row) for row in site.backend.rows] == [RUNNING]


def test_a_parked_start_is_made_anew_and_its_stop_follows(site: Site) -> None:
    refusal = site.backend.add_fault(OtherAnswer(PATHS["start"], status=400, body=b'{"error":"no such host"}'))
    run, other = site.begin(), site.begin(2)
    site.store.end({run.key: HOW})
    site.wait(lambda: site.outbox.counts() == {"parked": 2, "pending": 1})
    site.backend.remove_fault(refusal)
    assert site.again(run) == {}
    site.wait(lambda: site.outbox.counts().get("parked") == 1)
    site.wait(lambda: "pending" not in site.outbox.counts())
    assert [facts(row) for row in site.backend.rows] == [OVER]
    probes = [row for row in site.rows() if row[2] == "parked" and isinstance(row[3], float) and row[3] < 1e15]
    assert len(probes) == 1, f"{other.key} is the probe of its reason now"


@pytest.mark.parametrize("status", [400, 404, 405, 409])
def test_where_rows_cannot_be_removed_all_stays_as_it_was(
    site: Site, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    run = site.report(is_over=True)
    before = facts(site.backend.rows[0])
    site.backend.add_fault(OtherAnswer(PATHS["remove"], status=status))
    site.again(run, is_over=True)
    site.drained()
    assert [facts(row) for row in site.backend.rows] == [before]
    assert site.outbox.counts() == {}
    assert f"{run.key}: cc-backend does not remove it, so it cannot be sent anew" in caplog.text


def test_a_token_that_may_not_remove_holds_everything_until_somebody_acts(site: Site) -> None:
    run = site.report()
    with site.backend.fault(OtherAnswer(PATHS["remove"], status=401, body=b'{"error":"no"}')):
        site.again(run)
        site.wait(lambda: site.counters.counts().get("remove_misconfigured", 0) > 1)
        assert facts(site.backend.rows[0]) != RUNNING
    site.drained()
    assert [facts(row) for row in site.backend.rows] == [RUNNING]


def test_every_answer_to_a_removal_means_what_it_means_for_a_withdrawal() -> None:
    for status in (200, 400, 401, 404, 405, 409, 422, 500, 502, 503):
        response = HttpResponse(status, b'{"error":"x"}')
        assert judge(Kind.REMOVE, response) == judge(Kind.WITHDRAW, response), status


# --- which runs


def test_nothing_is_done_twice_or_at_the_wrong_moment(site: Site) -> None:
    site.stop()
    site.open()
    waiting = site.begin()
    assert site.again(waiting) == {waiting.key: "its start is still to be sent: ask again when cc-backend has it"}
    site.sender.start()
    site.drained()
    site.stop()
    site.open()
    assert site.again(waiting) == {}
    assert site.again(waiting) == {waiting.key: UNDER_WAY}
    assert site.again(make_run(77, start=BEGIN)) == {RunKey("lab", 77, BEGIN): CHANGED}
    site.restart()
    site.drained()
    assert site.requests() == ["start", "remove", "start"]


def test_a_run_in_conflict_or_dropped_is_left_alone(site: Site) -> None:
    site.report(is_over=True)
    second = site.begin(start=BEGIN + 100)
    site.wait(lambda: site.outbox.counts() == {"conflict": 1})
    assert site.again(second) == {second.key: "another run of its job is stored in its place"}
    site.outbox.admin.drop(Selection(job_id=1))
    assert site.again(second) == {second.key: "an administrator has dropped it"}
    known = {each.key: each.why_not for each in site.outbox.resends.runs(CC_REST, "lab", Wanted(1))}
    assert known == {second.key._replace(start_time=BEGIN): "", second.key: "an administrator has dropped it"}


@pytest.mark.parametrize("start", [BEGIN + 100, BEGIN - 100], ids=["later", "earlier"])
@pytest.mark.parametrize("is_parked", [False, True], ids=["under way", "parked"])
def test_beside_a_start_of_its_job_that_waits_a_run_is_left_alone(site: Site, start: int, *, is_parked: bool) -> None:
    """That start is refused because of this run, or is accepted in its place, and one of the two is lost."""
    run = site.report(is_over=True)
    site.stop()
    site.open()
    other = site.begin(start=start)
    deliveries = site.outbox.deliveries
    (under_way,) = deliveries.begin(deliveries.due(CC_REST, 1e12, 9), time.time())
    if is_parked:
        deliveries.parked(under_way, "no such host")
    assert site.again(run, is_over=True) == {run.key: OTHER_WAITS}
    if is_parked:
        (under_way,) = deliveries.due(CC_REST, 1e12, 9)
    deliveries.delivered(under_way)
    assert under_way.key == other.key
    assert site.again(run, is_over=True) == {}


def test_a_run_that_was_dropped_after_it_was_read_is_left_alone(site: Site) -> None:
    run = site.report(is_over=True)
    site.outbox._state.write(
        lambda database: database.execute("UPDATE run SET note = ?", (dropped_runs.note_for(CC_REST),))
    )
    assert site.again(run, is_over=True) == {run.key: "an administrator has dropped it"}
    assert site.outbox.counts() == {}


def test_what_waits_is_dropped_with_its_removal(site: Site) -> None:
    run = site.report()
    site.stop()
    site.open()
    site.again(run)
    assert [row[:3] for row in site.rows()] == [("remove", BEGIN, "pending"), ("start", BEGIN, "pending")]
    shown = site.outbox.admin.list_rows(Selection()).rows
    assert [(row.what, row.next) for row in shown] == [("removal", "now"), ("start", "after its removal")]
    site.outbox.admin.drop(Selection(job_id=1))
    assert site.outbox.counts() == {"dropped": 1}
    site.restart()
    site.drained()
    assert site.requests() == ["start"]


def test_an_answer_to_what_was_under_way_changes_nothing(site: Site) -> None:
    run = site.report()
    site.stop()
    site.open()
    site.store.end({run.key: HOW})
    deliveries = site.outbox.deliveries
    (stop,) = deliveries.begin(deliveries.due(CC_REST, 1e12, 9), time.time())
    connection = site.sink.connect()
    assert connection.deliver(stop).verdict is Verdict.DELIVERED
    assert site.again(run) == {}
    deliveries.delivered(stop)
    connection.close()
    assert [row[:3] for row in site.rows()] == [(kind, BEGIN, "pending") for kind in PATHS]
    site.restart()
    site.drained()
    assert [facts(row) for row in site.backend.rows] == [OVER]


def test_the_runs_since_a_time_are_those_that_began_or_ended_since(site: Site) -> None:
    for job in (1, 2, 3):
        site.report(job_id=job, start=BEGIN + job)
    site.report(job_id=4, is_over=True)
    site.outbox._state.write(lambda database: database.execute("UPDATE run SET changed = ? WHERE job_id = 1", (BEGIN,)))
    ids = [each.key.job_id for each in site.outbox.resends.runs(CC_REST, "lab", Wanted(since=BEGIN + 2))]
    assert ids == [2, 3, 4]
    assert [each.key.job_id for each in site.outbox.resends.runs(CC_REST, "lab", Wanted(2))] == [2]
    assert site.outbox.resends.runs(CC_REST, "other", Wanted(since=1)) == []
    assert site.outbox.admin.count_runs("lab", Wanted(since=1)) == (4, 4)
    assert [each.key.job_id for each in site.outbox.resends.runs(CC_REST, "lab", Wanted(since=1), (2, BEGIN + 2))] == [
        3,
        4,
    ]


def test_a_step_has_a_limit(tmp_path: Path) -> None:
    outbox = Outbox(str(tmp_path / "state.sqlite"), {CC_REST: ""})
    rows = [("lab", job, BEGIN, "started", "node01", NOW) for job in range(1, RUNS_AT_ONCE + 100)]
    insert = "INSERT INTO run (cluster, job_id, start_time, stage, hosts, changed) VALUES (?, ?, ?, ?, ?, ?)"
    outbox._state.write(lambda database: database.executemany(insert, rows))
    assert len(outbox.resends.runs(CC_REST, "lab", Wanted(since=1))) == RUNS_AT_ONCE + 1
    with outbox._state.reading() as database:
        assert count(database, "lab", Wanted(since=1)) == (len(rows), len(rows))
    outbox.close()


def test_nothing_begins_while_a_crash_would_undo_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    run = site.report()
    monkeypatch.setattr(type(site.outbox._state), "is_durable", property(lambda self: False))
    with pytest.raises(StateError, match="the state file cannot be written now"):
        site.again(run)
    monkeypatch.undo()
    assert site.outbox.counts() == {"delivered": 1}


def test_nothing_begins_without_room_for_texts(site: Site) -> None:
    run = site.report()
    with_texts = make_run(1, start=BEGIN, job_script="x" * 100_000, slurm_info="JobId=1")
    site.outbox.resends._texts._max_bytes = 100_000
    with pytest.raises(StateError, match="without room for more job scripts"):
        site.again(with_texts)
    assert site.outbox.counts() == {"delivered": 1}
    site.outbox.resends._texts._max_bytes = 500_000
    assert site.again(with_texts) == {}
    site.drained()
    assert len(site.backend.rows[0].start["metaData"]["jobScript"]) == 100_000
    assert run.key.start_time == site.backend.rows[0].start_time


def test_whether_a_start_had_texts_is_known_while_there_is_one(site: Site) -> None:
    def bare() -> list[bool]:
        return [each.is_bare for each in site.outbox.resends.runs(CC_REST, "lab", Wanted(1))]

    run = site.report()
    assert bare() == [True]
    site.again(make_run(1, start=BEGIN, slurm_info="JobId=1"))
    site.drained()
    assert bare() == [False]
    site.store.end({run.key: HOW})
    site.drained()
    site.outbox.tidy(604800)
    assert bare() == [False]


# --- with requeuedRuns "last"


def test_a_run_that_may_make_room_still_may_when_it_was_sent_anew(site: Site) -> None:
    site.withdraws = True
    site.restart()
    run = site.begin()
    site.store.end({run.key: End(EndState.PREEMPTED, BEGIN + 50, "PREEMPTED")})
    site.drained()
    assert site.outbox.counts() == {"retained": 3}
    assert site.again(run, is_over=True) == {}
    site.drained()
    assert site.outbox.counts() == {"retained": 3}
    later = site.begin(start=BEGIN + 100)
    site.drained()
    assert [row.start_time for row in site.backend.rows] == [later.key.start_time]


def test_a_run_that_makes_room_at_this_moment_is_left_alone(site: Site) -> None:
    site.withdraws = True
    site.restart()
    run = site.begin()
    site.store.end({run.key: End(EndState.PREEMPTED, BEGIN + 50, "PREEMPTED")})
    site.drained()
    with site.backend.fault(OtherAnswer(PATHS["remove"], status=503)):
        later = site.begin(start=BEGIN + 100)
        site.wait(lambda: site.counters.counts().get("withdraw_unavailable", 0) > 0)
        assert site.again(run, is_over=True) == {run.key: "it makes room for a later run of its job"}
    site.drained()
    assert [row.start_time for row in site.backend.rows] == [later.key.start_time]


# --- other sinks


def test_what_follows_hears_of_nothing_again_but_gets_the_new_message_if_it_waits(tmp_path: Path) -> None:
    outbox = Outbox(str(tmp_path / "state.sqlite"), {CC_REST: "", CC_NATS: CC_REST})
    sink = CcRest("http://127.0.0.1:1", lambda: "")
    nats = CcRest("http://127.0.0.1:1", lambda: "")
    nats.name = CC_NATS
    store = RunStore("lab", outbox, WRONG, [sink, nats], Counters(), lambda: None, LateRuns())
    batch, run, late = Batch(), make_run(1, start=BEGIN), make_run(2, start=BEGIN)
    for each in (run, late):
        store.enqueue_start(batch, each)
        store.set_state(batch, each, Stage.STARTED)
    store.commit(batch)
    heard: list[tuple[int, object]] = []

    def send(name: str, limit: int = 9) -> None:
        for each in outbox.deliveries.begin(outbox.deliveries.due(name, 1e12, limit), 1e12):
            outbox.deliveries.delivered(each)
            if name == CC_NATS:
                heard.append((each.key.job_id, json.loads(each.payload)["resources"][0]["accelerators"]))

    send(CC_REST)
    send(CC_NATS, 1)
    assert [job for job, _ in heard] == [1]
    assert outbox.resends.send(CC_REST, [again(run), again(late)]) == {}
    for _ in range(2):
        send(CC_REST)
        send(CC_NATS)
    assert heard[1:] == [(2, RIGHT_GPUS)]
    assert outbox.counts() == {"delivered": 4}
    outbox.close()


@pytest.mark.parametrize("sinks", [{CC_REST: ""}, {CC_REST: "", CC_NATS: CC_REST}], ids=["rest", "rest and nats"])
def test_the_texts_of_a_new_start_stay_when_those_of_delivered_starts_are_forgotten(
    tmp_path: Path, sinks: dict[str, str]
) -> None:
    outbox = Outbox(str(tmp_path / "state.sqlite"), sinks)
    made = [CcRest("http://127.0.0.1:1", lambda: "") for _ in sinks]
    for sink, name in zip(made, sinks):
        sink.name = name
    store = RunStore("lab", outbox, WRONG, made, Counters(), lambda: None, LateRuns())

    def begin(*job_ids: int) -> list[Run]:
        batch = Batch()
        runs = [make_run(job, start=BEGIN, job_script=f"#!/bin/sh\n{job}", slurm_info="JobId") for job in job_ids]
        for run in runs:
            store.enqueue_start(batch, run)
            store.set_state(batch, run, Stage.STARTED)
        store.commit(batch)
        return runs

    def deliver(*kinds: Kind, without_job: int = 0) -> None:
        for name in sinks:
            due = [each for each in outbox.deliveries.due(name, 1e12, 999) if each.kind in kinds]
            some = [each for each in due if each.key.job_id != without_job]
            outbox.deliveries.delivered(*outbox.deliveries.begin(some, 1e12))

    (run,) = begin(1)
    deliver(Kind.START)
    assert outbox.resends.send(CC_REST, [again(run)]) == {}
    begin(*range(2, FORGET_AT_ONCE + 2))
    deliver(Kind.START, without_job=1)
    deliver(Kind.REMOVE)
    (start,) = outbox.deliveries.due(CC_REST, 1e12, 999)
    texts = json.loads(start.payload)["metaData"]
    assert (texts["jobScript"], texts["slurmInfo"]) == ("#!/bin/sh\n1", "JobId")
    deliver(Kind.START)
    outbox.tidy(604800)
    assert outbox._state.read("SELECT COUNT(*) FROM text", ()) == [(0,)]
    outbox.close()


def test_when_another_sink_leads_nothing_is_removed_any_more(site: Site) -> None:
    run = site.report()
    site.stop()
    site.open()
    site.again(run)
    site.outbox.close()
    nats = Outbox(site.path, {CC_NATS: ""})
    due = nats.deliveries.due(CC_NATS, 1e12, 9)
    assert [(each.kind, each.key) for each in due] == [(Kind.START, run.key)]
    nats.close()
    site.open()


def test_a_removal_of_what_was_sent_before_has_its_answer(site: Site) -> None:
    connection = site.sink.connect()
    removal = Delivery(
        1, RunKey("lab", 9, BEGIN), Kind.REMOVE, RIGHT.encode_withdrawal(RunKey("lab", 9, BEGIN)).whole(), 0, 0
    )
    assert connection.deliver(removal).verdict is Verdict.NOT_YET
    sent = Delivery(1, removal.key, Kind.REMOVE, removal.payload, 0, NOW - 1000.0)
    assert connection.deliver(sent) == Answer(Verdict.DELIVERED, "was no longer stored")
    connection.close()


def test_the_removal_of_a_run_is_the_first_of_its_kinds() -> None:
    """The view `sendable` sorts by the words."""
    with sqlite3.connect(":memory:") as database:
        values = ", ".join(f"('{kind.value}')" for kind in Kind)
        found = [kind for (kind,) in database.execute(f"SELECT column1 FROM (VALUES {values}) ORDER BY 1")]  # noqa: S608
    assert found == ["remove", "start", "stop", "withdraw"]
