"""What this program knows about one job: what the state file has, and what only the running daemon knows.

GET /jobs/ID of the control socket answers with it as JSON, `parse_state` reads that. The messages have names of users
and jobs. Neither Slurm nor cc-backend is asked: `-job` does that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cc_slurm_adapter.daemon.report import StatusReport, plain
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.jobs.report import JobNotes
from cc_slurm_adapter.outbox.job_rows import JobRows, MessageRow, RunRow

VERSION = 1
"""It grows if a field is removed, renamed or changes its meaning."""


class Failing(NamedTuple):
    """A step of the main thread, or a destination, that fails now."""

    name: str
    """A step as in `report.STEPS`, or a destination as in the state file."""
    label: str
    """For people."""
    since: float
    """Unix seconds."""
    why: str
    refuses_all: bool = False
    """Of a destination: whether it answers and refuses everything."""


class DaemonFacts(NamedTuple):
    """What only the running daemon knows. Times are Unix seconds."""

    cluster: str
    """The cluster that it reports; '' before Slurm has answered."""
    user: str
    phase: str
    """`running`, or what a start waits for."""
    started: float
    first_moment: int
    """0 for no limit."""
    accounting_read_until: int
    """0 if it was not read since the start."""
    failing: tuple[Failing, ...]
    not_understood: str
    awaiting_layout: tuple[int, ...]
    """As in `JobNotes`."""


class JobState(NamedTuple):
    """What this program knows about a job. `daemon` is None if no daemon runs."""

    job_id: int
    rows: JobRows
    daemon: DaemonFacts | None

    def as_object(self) -> dict[str, Any]:
        """Return it as an object for JSON."""
        rows: dict[str, Any] = plain(self.rows)
        return {"version": VERSION, "job_id": self.job_id, **rows, "daemon": plain(self.daemon)}


def facts_of_daemon(notes: JobNotes, status: StatusReport) -> DaemonFacts:
    """Return what only the daemon knows about a job."""
    steps = [
        Failing(name, step.name, step.failing_since, step.why)
        for name, step in status.steps.items()
        if step.failing_since
    ]
    sinks = [
        Failing(each.sink.name, each.sink.label, each.sink.failing_since, each.sink.why, each.sink.refuses_all)
        for each in status.destinations
        if each.sink.failing_since
    ]
    return DaemonFacts(
        cluster=status.slurm.cluster,
        user=status.program.user,
        phase=status.program.phase,
        started=status.program.started,
        first_moment=status.slurm.first_moment,
        accounting_read_until=status.slurm.accounting_read_until,
        failing=(*steps, *sinks),
        not_understood=notes.not_understood,
        awaiting_layout=notes.awaiting_layout,
    )


def parse_state(facts: Mapping[str, Any]) -> JobState:
    """Read what `as_object` has made. Raises StateError for anything else, as another version may print."""
    try:
        if facts["version"] != VERSION:
            raise ValueError(f"it has the version {facts['version']}")
        rows = JobRows(
            tuple(RunRow(**row) for row in facts["runs"]),
            tuple(MessageRow(**row) for row in facts["rows"]),
            dict(facts["checkpoints"]),
        )
        return JobState(int(facts["job_id"]), rows, _parse_daemon(facts["daemon"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError(
            f"the daemon answers in another form ({error}): restart it, so that it is this version"
        ) from None


def _parse_daemon(facts: Mapping[str, Any] | None) -> DaemonFacts | None:
    if facts is None:
        return None
    failing = tuple(Failing(**each) for each in facts["failing"])
    return DaemonFacts(**{**facts, "failing": failing, "awaiting_layout": tuple(facts["awaiting_layout"])})
