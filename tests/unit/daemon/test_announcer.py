"""What systemd and the log are told without being asked."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.announcer import Announcer
from cc_slurm_adapter.daemon.report import StatusReport
from cc_slurm_adapter.daemon.status_text import first_line
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.model import Finding
from tests.fakes.statuses import REPORT

WELL = replace(REPORT, faults=())
FAULT = Finding(logging.ERROR, "cc-backend", "it does not answer", "start it")


class FakeBoard:
    """Has the report that the test puts into it."""

    def __init__(self) -> None:
        self.report = WELL
        self.events_a_minute = 0
        self.collected = 0

    @property
    def phase(self) -> str:
        return self.report.program.phase

    @phase.setter
    def phase(self, phase: str) -> None:
        self.report = replace(self.report, program=self.report.program._replace(phase=phase))

    def collect(self) -> StatusReport:
        self.collected += 1
        return self.report


class Site:
    """An announcer whose clock is set by the test."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.board = FakeBoard()
        self.counters = Counters()
        self.told: list[str] = []
        self.announcer = Announcer(self.board, self.counters, self.told.append, lambda: self.now)

    def run(self, seconds: float) -> None:
        """Let time pass, with a call in each second."""
        for _ in range(int(seconds)):
            self.now += 1
            self.announcer.announce_due()

    def change(self, runs: int) -> None:
        self.board.report = replace(self.board.report, runs=self.board.report.runs._replace(started=runs))


@pytest.fixture
def site() -> Site:
    return Site()


def notices(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == NOTICE]


def test_systemd_is_told_the_first_line_at_once_and_once_a_minute(site: Site) -> None:
    site.run(1)
    assert site.told == [first_line(WELL)]
    site.run(59)
    assert len(site.told) == 1
    site.run(6)
    assert site.told == [first_line(WELL)] * 2


def test_systemd_is_told_a_change_within_five_seconds(site: Site) -> None:
    site.run(2)
    site.change(runs=5)
    site.run(5)
    assert len(site.told) == 2
    assert "10 open runs" in site.told[-1]  # with 3 preparing and 2 ignored ones


def test_another_phase_is_told_within_a_second(site: Site) -> None:
    site.board.phase = "waiting for Slurm"
    site.run(1)
    site.board.phase = "running"
    site.run(1)
    assert [line.split(":")[0] for line in site.told] == ["waiting for Slurm", "reports alex to cc-backend"]


def test_it_looks_only_every_five_seconds(site: Site) -> None:
    site.run(60)
    assert site.board.collected == 12


def test_the_log_has_a_notice_once_an_hour(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(NOTICE)
    site.counters.count("hook_events", 3)
    site.run(3 * 3600 + 60)
    assert notices(caplog) == [f"{first_line(WELL)}; since the start: hook_events=3"] * 3


def test_the_log_has_a_notice_after_a_fault(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(NOTICE)
    site.run(120)
    site.board.report = replace(WELL, faults=(FAULT,))
    site.run(120)
    assert notices(caplog) == []  # whoever has met it logs it
    site.board.report = WELL
    site.run(6)
    assert notices(caplog) == [f"{first_line(WELL)}; since the start: nothing"]
    site.run(600)
    assert len(notices(caplog)) == 1


def test_faults_that_come_and_go_do_not_fill_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(NOTICE)
    for _ in range(60):
        site.board.report = replace(WELL, faults=(FAULT,))
        site.run(5)
        site.board.report = WELL
        site.run(5)
    assert 9 <= len(notices(caplog)) <= 10  # in ten minutes


def test_the_line_is_logged_at_info_after_a_poll_that_has_changed_it(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    site.run(60)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    site.change(runs=7)
    site.run(60)
    assert len(caplog.records) == 1  # no poll since
    poll = WELL.steps["poll"]._replace(last_success=1_800_000_060.0)
    site.board.report = replace(site.board.report, steps={**WELL.steps, "poll": poll})
    site.run(60)
    assert len(caplog.records) == 2
    assert caplog.records[-1].message.startswith(first_line(site.board.report))


def test_events_a_minute_are_counted(site: Site) -> None:
    site.run(1)
    site.board.report = replace(WELL, hooks=WELL.hooks._replace(events=WELL.hooks.events + 30))
    site.run(65)
    assert site.board.events_a_minute == 30
    assert sum(point is not None for point in site.announcer.points) == 1
