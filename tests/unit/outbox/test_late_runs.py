"""Which runs were seen too late is said when cc-backend has taken them, and why they were; not of those that it had."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.model import Missing, Phase, Run, RunKey
from cc_slurm_adapter.outbox.late_runs import GAP, MAX_WAITING, LateRuns
from cc_slurm_adapter.outbox.sender import Sender
from cc_slurm_adapter.sinks.messages import CcMessages
from examples.practice.cc_backend import refused_jobs
from tests.fakes.slurm_and_sinks import FakeSlurm, make_run
from tests.unit.outbox.test_sender import NOW, Site

HOUR = 3600
PHRASE = "ended before being seen"


class LateSite(Site):
    """With a watch over a Slurm that knows no cores of what is over."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.late_runs = LateRuns()
        self.slurm = FakeSlurm()
        self.now = float(NOW)
        settings = WatchSettings("lab", IgnoreRules(), True, 86400, clock=lambda: self.now, late_runs=self.late_runs)
        self.watch = JobWatch(self.slurm, self.outbox, CcMessages(()), [self.sink], self.status, settings)
        self.sender = Sender(self.sink, self.outbox, self.status, late_runs=self.late_runs)

    def catch_up(self, since: float) -> None:
        for _ in self.watch.catch_up(int(since)):
            pass
        self.sender.wake()

    def missed(self, *job_ids: int, end: int = NOW - 50) -> list[Run]:
        """They have ended, and only accounting knows them."""
        return [self.slurm.close(make_run(job_id, end - 50, Phase.ENDED)) for job_id in job_ids]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LateSite]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    made = LateSite(tmp_path)
    yield made
    made.close()
    monkeypatch.undo()
    time.tzset()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if PHRASE in line]


def test_only_what_it_did_not_have_is_said_and_only_once_it_has_taken_it(
    site: LateSite, caplog: pytest.LogCaptureFixture
) -> None:
    runs = site.missed(*range(1, 16))
    known = [make_run(run.key.job_id, run.key.start_time) for run in runs[12:]]
    site.owe(*known)
    site.sender.start()
    assert site.settled()
    site.server.stop()
    site.catch_up(NOW - HOUR)
    assert said(caplog) == []  # nothing has been taken yet
    site.server.start()
    assert site.settled()
    site.catch_up(NOW - 60)
    (line,) = said(caplog)
    assert line.startswith(f"12 runs {PHRASE}")
    since, until = (time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(when)) for when in (NOW - HOUR, NOW))
    assert f"away from {since} to {until}" in line
    assert line.endswith("jobs 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more")
    site.catch_up(NOW - 60)
    assert len(said(caplog)) == 1


def test_without_an_absence_the_hooks_are_named(site: LateSite, caplog: pytest.LogCaptureFixture) -> None:
    site.missed(7)
    site.sender.start()
    site.catch_up(NOW - GAP)
    assert site.settled()
    site.catch_up(NOW)
    (line,) = said(caplog)
    assert "no hook reported them in time" in line
    assert line.endswith("jobs 7")


def test_what_is_complete_or_only_counted_by_slurm_is_not_late(
    site: LateSite, caplog: pytest.LogCaptureFixture
) -> None:
    site.slurm.put(make_run(1, NOW - 900, Phase.ENDED))
    site.slurm.put(make_run(2, NOW - 900, missing=frozenset({Missing.GPUS})))
    site.sender.start()
    list(site.watch.poll())
    site.sender.wake()
    assert site.settled(delivered=1)
    site.catch_up(NOW)
    assert said(caplog) == []


def test_what_is_refused_is_not_said(site: LateSite, caplog: pytest.LogCaptureFixture) -> None:
    site.missed(1)
    site.backend.add_fault(refused_jobs([1]))
    site.sender.start()
    site.catch_up(NOW - HOUR)
    assert site.settled(parked=1, pending=1)
    site.catch_up(NOW)
    assert said(caplog) == []


def test_a_destination_that_is_away_for_long_fills_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    late_runs = LateRuns()
    keys = [make_run(job_id).key for job_id in range(1, MAX_WAITING + 2)]
    for key in keys:
        late_runs.found(key)
    for key in keys:
        late_runs.start_delivered(key, is_new=True)
    late_runs.report()
    (line,) = said(caplog)
    assert line.startswith(f"{MAX_WAITING:,} runs")


@pytest.mark.usefixtures("site")
def test_their_times_are_said_in_this_host_s_time(caplog: pytest.LogCaptureFixture) -> None:
    late_runs = LateRuns()
    for job_id, start in ((7, 86400), (9, 3600), (8, 2 * 86400)):
        late_runs.found(RunKey("lab", job_id, start))
        late_runs.start_delivered(RunKey("lab", job_id, start), is_new=True)
    late_runs.report()
    (line,) = said(caplog)
    assert "the first, of job 9, began 1970-01-01 01:00:00 UTC, the last 1970-01-03 00:00:00 UTC;" in line
