"""What a daemon that runs says about itself and the hooks."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from cc_slurm_adapter import __version__
from cc_slurm_adapter.daemon.checks.running import LONG_WITHOUT_EVENT, find_running
from cc_slurm_adapter.daemon.report import SLURMCTLD_HOOKS, HooksReport, StatusReport
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig, Hooks
from tests.fakes.statuses import REPORT

SITE = ClusterConfig(
    *("alex", "24.11.5", "slurm", "none"),
    has_accounting=True,
    records_steps=True,
    question_rate=None,
    hooks=Hooks(("/h",), ("/h",)),
)
NO_HOOKS = replace(SITE, hooks=Hooks())


def status(hooks: HooksReport, up: float = 100.0, version: str = __version__) -> StatusReport:
    program = REPORT.program._replace(started=REPORT.time - up, version=version)
    return replace(REPORT, program=program, hooks=hooks, faults=())


def levels(report: StatusReport, site: ClusterConfig | None = SITE) -> dict[str, int]:
    return {each.subject: each.level for each in find_running(report, site)}


ALL = HooksReport(37, REPORT.time - 5, 2, SLURMCTLD_HOOKS)


def test_a_daemon_that_is_well_and_reached_is_told_so() -> None:
    assert levels(status(ALL)) == {"daemon": logging.INFO, "hook events": logging.INFO}
    assert any("from both hooks, the last 5 s ago" in each.text for each in find_running(status(ALL), SITE))


def test_its_worst_fault_is_the_level_and_status_has_the_others() -> None:
    faulty = replace(status(ALL), faults=REPORT.faults)
    assert levels(faulty)["daemon"] == logging.ERROR
    assert any("-status" in each.next_step for each in find_running(faulty, SITE))


def test_a_daemon_of_another_version_is_a_warning() -> None:
    found = [each for each in find_running(status(ALL, version="0.0.1"), SITE) if each.level == logging.WARNING]
    assert ["is version 0.0.1" in each.text for each in found] == [True]


@pytest.mark.parametrize(
    ("hooks", "up", "level"),
    [
        (HooksReport(), 100.0, logging.INFO),
        (HooksReport(), LONG_WITHOUT_EVENT + 1, logging.WARNING),
        (HooksReport(3, REPORT.time, 0, SLURMCTLD_HOOKS[:1]), 100.0, logging.INFO),
        (HooksReport(3, REPORT.time, 0, SLURMCTLD_HOOKS[:1]), LONG_WITHOUT_EVENT + 1, logging.WARNING),
    ],
)
def test_events_that_are_missing_matter_only_after_a_while(hooks: HooksReport, up: float, level: int) -> None:
    assert levels(status(hooks, up))["hook events"] == level


def test_without_hooks_no_event_is_expected_and_without_slurm_nothing_is_concluded() -> None:
    assert "hook events" not in levels(status(HooksReport(), 1e6), NO_HOOKS)
    assert "hook events" not in levels(status(HooksReport(), 1e6), None)
