"""When the daemon counts as healthy and as ready."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cc_slurm_adapter.daemon.health import why_not_healthy, why_not_ready
from cc_slurm_adapter.daemon.report import StatusReport
from cc_slurm_adapter.system.backoff import StepReport
from tests.fakes.statuses import REPORT

(DESTINATION,) = REPORT.destinations
ANSWERS = DESTINATION._replace(sink=DESTINATION.sink._replace(failing_since=0.0, why=""))
WELL = replace(REPORT, destinations=(ANSWERS,))


def idle(report: StatusReport, seconds: float) -> StatusReport:
    return replace(report, program=report.program._replace(progress_at=report.time - seconds))


def test_it_is_healthy_while_the_main_thread_makes_progress() -> None:
    assert why_not_healthy(idle(REPORT, 59)) == []  # whatever else fails
    assert why_not_healthy(idle(REPORT, 75)) == ["the main thread has made no progress for 75 s"]


def test_it_is_ready_while_slurm_and_the_leading_destination_answer() -> None:
    assert why_not_ready(WELL) == []
    following = DESTINATION._replace(sink=DESTINATION.sink._replace(name="cc_nats", label="NATS"))
    assert why_not_ready(replace(WELL, destinations=(ANSWERS, following))) == []


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (
            replace(WELL, program=WELL.program._replace(phase="waiting for Slurm's answer (scontrol show config)")),
            "waiting for Slurm's answer (scontrol show config)",
        ),
        (
            replace(WELL, steps={"poll": StepReport("x", 5.0, 1.0, 1_799_999_000.0, 2, "squeue: timed out")}),
            "slurmctld does not answer: squeue: timed out",
        ),
        (replace(WELL, steps={"poll": StepReport("x")}), "the first poll of slurmctld is not over yet"),
        (replace(WELL, destinations=()), "nothing is sent yet"),
        (replace(WELL, destinations=(DESTINATION,)), "cc-backend cannot be reached: refused"),
        (
            replace(
                WELL,
                destinations=(DESTINATION._replace(sink=DESTINATION.sink._replace(refuses_all=True, why="HTTP 401")),),
            ),
            "cc-backend refuses everything: HTTP 401",
        ),
        (idle(WELL, 120), "the main thread has made no progress for 120 s"),
    ],
)
def test_it_is_not_ready_otherwise(report: StatusReport, reason: str) -> None:
    assert why_not_ready(report) == [reason]
