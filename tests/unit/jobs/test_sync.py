"""A sync brings what accounting has of a span or of a job, older than the first moment too, and nothing twice."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.errors import CommandFailed
from cc_slurm_adapter.jobs import sync as sync_module
from cc_slurm_adapter.jobs.first_moment import FirstMoment
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.report import SyncRequest
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.jobs.sync import Sync
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.model import AccountedEnd, End, EndState, Phase, RunKey
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.outbox import Batch, OpenRun, Outbox, Stage
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import CcRest
from tests.fakes.slurm_and_sinks import NOW, FakeSlurm, make_run

HOUR, DAY = 3600, 86400
SINCE = NOW - 30 * DAY


class AskedSlurm(FakeSlurm):
    """Remembers the windows, and has closed all queries."""

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[tuple[int, int]] = []
        self.open = 0

    def ended_between(self, since: int, until: int) -> Generator[list[AccountedEnd], None, None]:
        self.windows.append((since, until))
        self.open += 1
        try:
            yield from super().ended_between(since, until)
        finally:
            self.open -= 1


class Site:
    """The jobs of a cluster whose first moment is now: nothing that has ended is reported by itself."""

    def __init__(self, folder: Path, *, has_accounting: bool = True) -> None:
        self.slurm = AskedSlurm()
        self.outbox = Outbox(str(folder / "state.sqlite"))
        self.late_runs = LateRuns()
        settings = WatchSettings(
            "lab",
            IgnoreRules(),
            has_accounting,
            7 * DAY,
            clock=lambda: NOW,
            first_moment=FirstMoment.at(NOW),
            late_runs=self.late_runs,
        )
        sink = CcRest("http://127.0.0.1:9", lambda: "token")
        self.watch = JobWatch(self.slurm, self.outbox, CcMessages(()), [sink], Counters(), settings)

    def begin(self, since: int = SINCE, until: int = NOW, job: int = 0) -> Sync:
        return self.watch.syncs.begin(SyncRequest(since, until, job))

    def owed(self) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = self.outbox._state.read("SELECT job_id, kind FROM delivery ORDER BY id", ())
        return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.outbox.close()


def test_it_brings_what_ended_before_the_first_moment_oldest_first(site: Site) -> None:
    for job_id, days in ((1, 2), (2, 29), (3, 10)):
        site.slurm.close(make_run(job_id, NOW - days * DAY, Phase.ENDED))
    for _ in site.watch.catch_up(SINCE):
        pass
    assert site.owed() == []
    sync = site.begin()
    assert all(isinstance(each, bool) for each in sync.steps())
    assert site.owed() == [(2, "start"), (2, "stop"), (3, "start"), (3, "stop"), (1, "start"), (1, "stop")]
    assert (sync.reached, sync.counts.found, sync.enqueued, sync.counts.unread) == (NOW, 3, 3, 0)


def test_slurmctld_is_asked_only_for_what_it_may_still_know(site: Site) -> None:
    for job_id in (1, 2, 3):
        site.slurm.close(make_run(job_id, NOW - 2 * DAY, Phase.ENDED))
    list(site.begin(NOW - 3 * DAY).steps())
    assert set(site.slurm.asked) == {"ended_between", "still_known", "read_accounted"}
    assert len(site.owed()) == 6


def test_it_asks_for_an_hour_at_a_time_and_one_query_after_the_other(site: Site) -> None:
    sync = site.begin(NOW - 3 * HOUR - 600)
    for is_between in sync.steps():
        assert is_between == (site.slurm.open == 0)
    assert site.slurm.windows[0][0] == NOW - 3 * HOUR - 600
    assert site.slurm.windows[-1][1] == NOW
    assert all(until - since <= HOUR for since, until in site.slurm.windows)
    assert [since for since, _ in site.slurm.windows[1:]] == [until for _, until in site.slurm.windows[:-1]]


def test_what_ended_outside_of_the_span_is_left_alone(site: Site) -> None:
    for job_id, ago in ((1, 5 * DAY), (2, 3 * DAY), (3, DAY)):
        site.slurm.close(make_run(job_id, NOW - ago, Phase.ENDED))
    sync = site.begin(NOW - 4 * DAY, NOW - 2 * DAY)
    list(sync.steps())
    assert site.owed() == [(2, "start"), (2, "stop")]


def test_a_second_sync_brings_nothing_twice_and_reads_no_job_again(site: Site) -> None:
    for job_id in range(1, 6):
        site.slurm.close(make_run(job_id, NOW - job_id * DAY, Phase.ENDED))
    list(site.begin().steps())
    owed = site.owed()
    site.slurm.asked.clear()
    again = site.begin()
    list(again.steps())
    assert site.owed() == owed
    assert (again.counts.found, again.enqueued) == (5, 0)
    assert set(site.slurm.asked) == {"ended_between"}


def test_an_interrupted_sync_goes_on_with_the_hour_that_was_not_complete(site: Site) -> None:
    for job_id in range(1, 9):
        site.slurm.close(make_run(job_id, NOW - 10 * HOUR + job_id, Phase.ENDED))  # all of one hour
    sync = site.begin(NOW - 11 * HOUR)
    steps = sync.steps()
    while len(site.owed()) < 6:
        next(steps)
    steps.close()
    assert site.slurm.open == 0
    reached = sync.reached
    list(sync.steps())
    assert len(site.owed()) == len(set(site.owed())) == 16
    assert (sync.counts.found, sync.enqueued) == (8, 8)
    assert [window for window in site.slurm.windows if window[0] == reached] == [(reached, reached + HOUR)] * 2


def test_after_a_failure_it_goes_on_where_it_was(site: Site) -> None:
    site.slurm.close(make_run(1, NOW - 5 * HOUR - 600, Phase.ENDED))
    sync = site.begin(NOW - 7 * HOUR)
    site.slurm.failing = {"read_accounted"}
    with pytest.raises(CommandFailed):
        list(sync.steps())
    assert (sync.enqueued, sync.counts.found) == (0, 0)
    assert sync.reached == NOW - 6 * HOUR
    site.slurm.failing = set()
    list(sync.steps())
    assert (sync.enqueued, sync.counts.found) == (1, 1)


def test_a_run_that_ended_at_the_border_of_two_hours_is_one(site: Site) -> None:
    since = NOW - 4 * HOUR
    site.slurm.close(make_run(1, since + HOUR - 50, Phase.ENDED))  # it ends 50 s after its start
    site.slurm.close(make_run(2, NOW - 50, Phase.ENDED))
    sync = site.begin(since)
    list(sync.steps())
    assert (sync.counts.found, sync.enqueued) == (2, 2)


def test_an_open_run_gets_its_stop_and_is_not_started_again(site: Site) -> None:
    run = site.slurm.put(make_run(7, NOW - 2 * HOUR))
    list(site.watch.poll())
    assert site.owed() == [(7, "start")]
    site.slurm.jobs.clear()
    site.slurm.close(make_run(7, run.key.start_time, Phase.ENDED))
    sync = site.begin(NOW - DAY)
    list(sync.steps())
    assert site.owed() == [(7, "start"), (7, "stop")]
    assert (sync.counts.found, sync.enqueued) == (1, 0)


def test_what_cannot_be_read_is_counted(site: Site) -> None:
    for job_id in (1, 2):
        site.slurm.close(make_run(job_id, NOW - DAY, Phase.ENDED))
    site.slurm.failed = {1}  # squeue fails for it, and slurmctld may still show more than accounting
    sync = site.begin()
    list(sync.steps())
    assert site.owed() == [(2, "start"), (2, "stop")]
    assert (sync.counts.found, sync.enqueued, sync.counts.unread) == (2, 1, 1)


def test_one_job_is_brought_alone_from_slurmctld_and_accounting(site: Site) -> None:
    site.slurm.close(make_run(1, NOW - 20 * DAY, Phase.ENDED))
    site.slurm.close(make_run(1, NOW - 10 * DAY, Phase.ENDED))
    site.slurm.close(make_run(2, NOW - 10 * DAY, Phase.ENDED))
    site.slurm.put(make_run(1, NOW - 100))
    sync = site.begin(job=1)
    list(sync.steps())
    assert sorted(site.owed()) == [(1, "start")] * 3 + [(1, "stop")] * 2
    assert (sync.counts.found, sync.enqueued, sync.reached) == (3, 3, NOW)
    assert site.slurm.windows == []


def test_one_job_is_brought_without_accounting(tmp_path: Path) -> None:
    site = Site(tmp_path, has_accounting=False)
    site.slurm.put(make_run(1, NOW - 100))
    sync = site.begin(job=1)
    list(sync.steps())
    assert (sync.counts.found, site.owed()) == (1, [(1, "start")])
    site.slurm.put(make_run(1, NOW - 100, Phase.ENDED))
    again = site.begin(job=1)
    list(again.steps())
    assert (again.counts.found, site.owed()) == (1, [(1, "start"), (1, "stop")])
    assert set(site.slurm.asked) == {"read_details", "with_texts"}
    site.outbox.close()


def test_a_job_that_both_show_is_one_run(site: Site) -> None:
    site.slurm.put(make_run(1, NOW - 100, Phase.ENDED))
    site.slurm.close(make_run(1, NOW - 100, Phase.ENDED))
    sync = site.begin(job=1)
    list(sync.steps())
    assert (sync.counts.found, sync.enqueued) == (1, 1)


def test_a_job_that_nobody_knows_is_no_run(site: Site) -> None:
    sync = site.begin(job=1)
    list(sync.steps())
    assert (sync.counts.found, sync.enqueued, sync.counts.unread) == (0, 0, 0)


def test_it_has_room_until_too_many_messages_wait(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_module, "MAX_PENDING", 3)
    sync = site.begin()
    assert sync.has_room()
    for job_id in (1, 2):
        site.slurm.close(make_run(job_id, NOW - DAY, Phase.ENDED))
    list(sync.steps())
    assert len(site.owed()) == 4
    assert not sync.has_room()


def test_old_runs_without_cores_are_no_warning(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever asks for old jobs knows that their cores cannot be found out any more."""
    run = site.slurm.close(make_run(1, NOW - DAY, Phase.ENDED))
    list(site.begin().steps())
    site.late_runs.start_delivered(run.key, is_new=True)
    site.late_runs.report()
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
    with site.late_runs.ignored():
        pass
    site.late_runs.found(run.key)
    site.late_runs.start_delivered(run.key, is_new=True)
    site.late_runs.report()
    assert "1 run ended before being seen" in caplog.text


def test_a_week_of_100_000_known_runs_asks_for_nothing_but_the_hours(site: Site) -> None:
    """So it costs little to take up a sync that was interrupted."""
    since = NOW - 7 * DAY
    keys = [RunKey("lab", job_id, since + 6 * job_id) for job_id in range(1, 100_001)]
    site.outbox.commit("lab", Batch(runs={key: OpenRun(key, Stage.DONE, "", None) for key in keys}))
    by_hour: dict[int, list[AccountedEnd]] = {}
    for key in keys:
        end = End(EndState.COMPLETED, key.start_time + 5, "COMPLETED")
        by_hour.setdefault((end.end_time - since) // HOUR, []).append(AccountedEnd(key, end))

    def ended_between(begin: int, until: int) -> Generator[list[AccountedEnd], None, None]:
        yield by_hour.get((begin - since) // HOUR, [])

    site.slurm.ended_between = ended_between  # type: ignore[assignment]
    sync = site.begin(since)
    assert sum(sync.steps()) == 7 * 24
    assert (sync.counts.found, sync.enqueued, sync.counts.unread) == (100_000, 0, 0)
    assert site.slurm.asked == []
    assert site.owed() == []
