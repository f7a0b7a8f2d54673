"""A sync as an activity of the main loop: one at a time, beside everything else, and it says how far it is."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.answers import parse_sync
from cc_slurm_adapter.daemon.inbox import StopSync
from cc_slurm_adapter.daemon.main_loop import MainLoop
from cc_slurm_adapter.daemon.syncing import LONGEST_REST, ROOM_WAIT, Syncing
from cc_slurm_adapter.errors import CommandFailed, UnderWay, UsageError
from cc_slurm_adapter.jobs import sync as sync_module
from cc_slurm_adapter.jobs.first_moment import FirstMoment
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.report import COMPLETE, STOPPED, SyncReport, SyncRequest
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.model import AccountedEnd, HookEvent, Phase
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import CcRest
from cc_slurm_adapter.system import backoff
from tests.fakes.clock import Clock
from tests.fakes.slurm_and_sinks import NOW, FakeSlurm, make_run
from tests.fakes.waiting import comes
from tests.unit.daemon.test_main_loop import QUICK
from tests.unit.daemon.test_main_loop import Site as LoopSite
from tests.unit.daemon.test_one_round import Round

HOUR, DAY = 3600, 86400


class SlowSlurm(FakeSlurm):
    """Each hour of accounting takes some seconds of a clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.seconds = 3.0

    def ended_between(self, since: int, until: int) -> Generator[list[AccountedEnd], None, None]:
        self.clock.now += self.seconds
        yield from super().ended_between(since, until)


class Site:
    """A sync without a main loop, over a Slurm whose time is passed in."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.slurm = SlowSlurm(self.clock)
        self.outbox = Outbox(str(folder / "state.sqlite"))
        settings = WatchSettings(
            "lab", IgnoreRules(), True, 7 * DAY, clock=lambda: NOW, first_moment=FirstMoment.at(NOW)
        )
        sink = CcRest("http://127.0.0.1:9", lambda: "token")
        watch = JobWatch(self.slurm, self.outbox, CcMessages(()), [sink], Counters(), settings)
        self.syncing = Syncing(watch.syncs, timing=backoff.Timing(clock=self.clock))

    def begin(self, since: int = NOW - 10 * HOUR, until: int = NOW) -> None:
        wanted = SyncRequest(since, until)
        self.syncing.accept(wanted)
        self.syncing.begin(wanted)

    def step(self) -> SyncReport:
        """Let time pass until the next step is due, and do it."""
        due = self.syncing.next_due()
        assert due is not None
        self.clock.now = max(self.clock.now, due)
        self.syncing.attempt_step()
        return self.syncing.report

    def finish(self) -> SyncReport:
        while self.syncing.report.is_under_way:
            self.step()
        return self.syncing.report


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.outbox.close()


def test_it_says_how_far_it_is_and_how_it_ended(site: Site) -> None:
    for hours in (2, 5, 8):
        site.slurm.close(make_run(hours, NOW - hours * HOUR - 600, Phase.ENDED))
    assert not site.syncing.report.is_under_way
    assert site.syncing.next_due() is None
    site.begin()
    began = site.syncing.report
    assert began.is_under_way
    assert (began.since, began.until, began.reached, began.found) == (NOW - 10 * HOUR, NOW, NOW - 10 * HOUR, 0)
    reports: list[SyncReport] = []
    while site.syncing.report.is_under_way:
        reports.append(site.step())
    reached = [each.reached for each in reports]
    assert reached == sorted(reached)
    assert {each.found for each in reports} == {0, 1, 2, 3}
    end = reports[-1]
    assert (end.result, end.reached, end.found, end.enqueued) == (COMPLETE, NOW, 3, 3)
    assert end.began == began.began <= end.ended


def test_slurmdbd_rests_between_two_hours_as_long_as_the_last_one_took(site: Site) -> None:
    site.begin()
    rests = []
    for _ in range(5):
        site.step()
        due = site.syncing.next_due()
        assert due is not None
        rests.append(due - site.clock.now)
    assert rests == [3.0] * 5
    site.slurm.seconds = 10 * LONGEST_REST
    site.step()
    assert site.syncing.next_due() == site.clock.now + LONGEST_REST


def test_nothing_is_done_before_it_is_due(site: Site) -> None:
    site.begin()
    site.step()
    asked = len(site.slurm.asked)
    site.syncing.attempt_step()
    assert len(site.slurm.asked) == asked


def test_a_failure_is_in_the_report_until_an_hour_was_read(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.begin()
    site.step()
    site.slurm.failure = CommandFailed("sacct: slurmdbd is down")
    for _ in range(4):
        failing = site.step()
        assert failing.is_under_way
        assert failing.why == "sacct: slurmdbd is down"
        assert failing.failing_since
    assert caplog.text.count("slurmdbd is down") == 1
    site.slurm.failure = None
    assert (site.step().failing_since, site.syncing.report.why) == (0, "")
    assert site.finish().result == COMPLETE


def test_it_waits_while_too_many_messages_wait(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no failure: no line is logged, and no query to accounting is open meanwhile."""
    monkeypatch.setattr(sync_module, "MAX_PENDING", 3)
    for job_id in range(1, 6):
        site.slurm.close(make_run(job_id, NOW - 2 * HOUR, Phase.ENDED))
    site.begin()
    while not site.syncing.report.waits_for:
        site.step()
    report = site.syncing.report
    assert (report.enqueued, report.failing_since) == (2, 0)
    assert not site.syncing.is_reading
    assert site.syncing.next_due() == site.clock.now + ROOM_WAIT
    asked = len(site.slurm.asked)
    for _ in range(5):
        site.step()
    assert len(site.slurm.asked) == asked
    monkeypatch.setattr(sync_module, "MAX_PENDING", 100)
    end = site.finish()
    assert (end.result, end.found, end.enqueued, end.waits_for) == (COMPLETE, 5, 5, "")


def test_there_is_one_at_a_time(site: Site) -> None:
    site.begin()
    with pytest.raises(UnderWay, match=r"a sync is under way \(what ended from"):
        site.syncing.accept(SyncRequest(NOW - DAY, NOW))
    site.finish()
    assert site.syncing.accept(SyncRequest(NOW - DAY, NOW)).is_under_way


def test_a_stop_ends_it_and_keeps_what_was_brought(site: Site) -> None:
    for job_id in range(1, 4):
        site.slurm.close(make_run(job_id, NOW - 2 * HOUR, Phase.ENDED))
    site.begin()
    while site.syncing.report.enqueued < 2:
        site.step()
    assert site.syncing.is_reading
    site.syncing.stop()
    report = site.syncing.report
    assert (report.result, report.is_under_way, site.syncing.next_due()) == (STOPPED, False, None)
    assert not site.syncing.is_reading
    site.syncing.stop()
    assert site.syncing.report is report
    site.begin()
    assert (site.finish().found, site.syncing.report.enqueued) == (3, 1)


# --- in the main loop


@pytest.fixture
def loop_site(tmp_path: Path) -> Iterator[LoopSite]:
    made = LoopSite(tmp_path, poll_interval=0.05, timing=QUICK)
    yield made
    made.close()


def test_the_main_loop_goes_on_beside_it(loop_site: LoopSite) -> None:
    now = int(time.time())
    loop_site.slurm.close(make_run(77, start=now - 30 * DAY, phase=Phase.ENDED))
    loop_site.slurm.put(make_run(5, start=now - 10))
    wanted = SyncRequest(now - 31 * DAY, now)
    syncing = loop_site.loop.activities.syncing
    syncing.accept(wanted)
    loop_site.inbox.put(wanted)
    polls = loop_site.slurm.asked.count("list_jobs")
    loop_site.inbox.put(HookEvent(5, "prolog_slurmctld", time.monotonic()))
    assert comes(lambda: {("start", 77), ("stop", 77), ("start", 5)} <= loop_site.owed())
    assert comes(lambda: loop_site.slurm.asked.count("list_jobs") > polls + 2)
    assert comes(lambda: syncing.report.result == COMPLETE)
    assert syncing.report.enqueued == 1


def test_a_stop_comes_through_the_inbox(loop_site: LoopSite) -> None:
    now = int(time.time())
    wanted = SyncRequest(now - 1000 * DAY, now)
    syncing = loop_site.loop.activities.syncing
    syncing.accept(wanted)
    loop_site.inbox.put(wanted)
    loop_site.inbox.put(StopSync())
    assert comes(lambda: syncing.report.result == STOPPED)


def test_one_query_to_accounting_at_a_time(loop_site: LoopSite) -> None:
    """The catch-up waits until an hour of the sync is read, and a sync for the catch-up."""
    now = int(time.time())
    open_, most = [0], [0]

    def ended_between(since: int, until: int) -> Generator[list[AccountedEnd], None, None]:
        open_[0] += 1
        most[0] = max(most[0], open_[0])
        loop_site.slurm.asked.append("window")
        try:
            for _ in range(3):
                yield []
        finally:
            open_[0] -= 1

    loop_site.slurm.ended_between = ended_between  # type: ignore[method-assign]
    wanted = SyncRequest(now - 2 * DAY, now)
    syncing = loop_site.loop.activities.syncing
    syncing.accept(wanted)
    loop_site.inbox.put(wanted)
    assert comes(lambda: syncing.report.result == COMPLETE)
    assert loop_site.slurm.asked.count("window") >= 48
    assert most[0] == 1


def test_a_round_with_a_sync_has_no_catch_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MainLoop, "run", lambda self: None)
    made = Round(tmp_path, timing=QUICK)
    now = int(time.time())
    made.slurm.close(make_run(1, start=now - 9 * DAY, phase=Phase.ENDED))
    made.slurm.close(make_run(2, start=now - 600, phase=Phase.ENDED))
    made.loop.run_round(lambda: True, SyncRequest(now - 10 * DAY, now - 8 * DAY))
    assert made.owed() == {("start", 1), ("stop", 1)}
    assert made.loop.activities.syncing.report.result == COMPLETE
    assert made.last_run.read() is None
    made.outbox.close()


# --- what is asked for


def test_a_request_is_parsed() -> None:
    assert parse_sync({"since": NOW - 5, "until": NOW - 2}, NOW) == SyncRequest(NOW - 5, NOW - 2)
    assert parse_sync({"since": NOW - 5}, NOW + 0.9) == SyncRequest(NOW - 5, NOW)
    assert parse_sync({"since": NOW - 5, "until": NOW + 500}, NOW) == SyncRequest(NOW - 5, NOW)
    assert parse_sync({"job": 7}, NOW) == SyncRequest(1_000_001, NOW, 7)
    assert parse_sync({"since": 5, "job": 7}, NOW).since == 1_000_001


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({}, "since is missing"),
        ({"until": NOW}, "since is missing"),
        ({"since": NOW}, "since must be earlier"),
        ({"since": NOW - 5, "until": NOW - 9}, "since must be earlier"),
        ({"since": "7d"}, 'since is "7d": expected a whole number'),
        ({"since": -5}, "since is -5"),
        ({"since": True}, "since is true"),
        ({"since": 1.5}, "since is 1.5"),
        ({"since": NOW - 5, "until": None}, "until is null"),
        ({"job": 0}, "job is 0"),
        ({"job": 2**31}, "expected a job id"),
        ({"since": 5, "cluster": "x"}, "'cluster' is not understood"),
    ],
)
def test_what_cannot_be_synced(wanted: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says.replace("(", "\\(")):
        parse_sync(wanted, NOW)
