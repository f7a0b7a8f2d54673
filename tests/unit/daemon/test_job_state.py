"""What GET /jobs/ID returns can be read again, and is refused if another version made it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cc_slurm_adapter.daemon.job_state import DaemonFacts, Failing, JobState, facts_of_daemon, parse_state
from cc_slurm_adapter.daemon.report import DestinationReport
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.jobs.report import JobNotes
from cc_slurm_adapter.outbox.job_rows import JobRows, RunRow
from cc_slurm_adapter.outbox.report import QueueReport, SinkReport
from cc_slurm_adapter.system.backoff import StepReport
from tests.fakes.job_rows import make_row
from tests.fakes.statuses import WELL

RUN = RunRow("lab", 100, "started", "n1", 105, "")
ROWS = JobRows((RUN,), (make_row(100),), {"lab": 777})
STATUS = replace(
    WELL,
    slurm=WELL.slurm._replace(cluster="lab", first_moment=400, accounting_read_until=990),
    steps={
        "poll": StepReport("the poll", failing_since=900, failures=3, why="squeue fails"),
        "accounting": StepReport("catching up"),
    },
    destinations=(
        DestinationReport(
            SinkReport("cc_rest", "cc-backend", 0, 950, refuses_all=True, why="HTTP 401"), QueueReport("cc_rest")
        ),
        DestinationReport(SinkReport("cc_nats", "NATS"), QueueReport("cc_nats")),
    ),
)


def made() -> dict[str, Any]:
    daemon = facts_of_daemon(JobNotes("jobs[1].nodes: it is missing", (100,)), STATUS)
    return dict(json.loads(json.dumps(JobState(1, ROWS, daemon).as_object())))


def test_everything_comes_back() -> None:
    state = parse_state(made())
    assert state.job_id == 1
    assert state.rows == ROWS
    assert state.daemon == DaemonFacts(
        cluster="lab",
        user="slurm",
        phase="running",
        started=WELL.program.started,
        first_moment=400,
        accounting_read_until=990,
        failing=(
            Failing("poll", "the poll", 900, "squeue fails"),
            Failing("cc_rest", "cc-backend", 950, "HTTP 401", True),
        ),
        not_understood="jobs[1].nodes: it is missing",
        awaiting_layout=(100,),
    )


def test_what_was_read_without_a_daemon_comes_back() -> None:
    state = JobState(1, ROWS, None)
    assert parse_state(json.loads(json.dumps(state.as_object()))) == state


@pytest.mark.parametrize(
    "changes",
    [{"version": 2}, {"daemon": {}}, {"daemon": 7}, {"runs": [{"start": 1}]}, {"rows": 7}, {"checkpoints": 3}],
)
def test_another_form_says_to_restart_the_daemon(changes: dict[str, object]) -> None:
    with pytest.raises(StateError, match="restart it, so that it is this version"):
        parse_state({**made(), **changes})
    with pytest.raises(StateError, match="restart it"):
        parse_state({})
