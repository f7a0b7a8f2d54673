"""What is known about one job, from all sources, as frozen values: what `-job` has gathered and explains.

Times are Unix seconds, 0 where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cc_slurm_adapter.daemon.job_state import DaemonFacts
from cc_slurm_adapter.outbox.job_rows import JobRows, MessageRow, RunRow
from cc_slurm_adapter.sinks.base import CC_REST, StoredRun
from cc_slurm_adapter.slurm.one_job import QueueLine

NEAR = 300
"""If the start times of a run in Slurm and in cc-backend differ by at most this many seconds, they are one run."""
NOT_PRIVATE = ("", "none", "(null)")
"""How Slurm shows that PrivateData is not set."""
NOT_RUNNING = "does not run"
"""The `daemon_failure` if nobody listens on the daemon's socket. Any other one means that a daemon may run."""


class SlurmRun(NamedTuple):
    """A run as Slurm shows it now."""

    source: str
    """`slurmctld` or `accounting`."""
    start: int
    """0 while the job waits."""
    phase: str
    """`waiting`, `configuring`, `running` or `ended`, as in `model.Phase`."""
    state: str = ""
    """How it ended, in Slurm's words; '' before."""
    end: int = 0
    submit: int = 0
    user: str = ""
    partition: str = ""
    hosts: tuple[str, ...] = ()
    left_out: str = ""
    """By what the configuration leaves it out now; '' if it does not."""
    never_ran: bool = False
    """Whether the job was cancelled while it waited."""
    has_launched: bool | None = None
    """Whether accounting has a step of it; None if that is not known."""

    @property
    def is_over(self) -> bool:
        """Whether Slurm says that it has ended."""
        return self.phase == "ended"


class SlurmFacts(NamedTuple):
    """What Slurm says now, and to whom."""

    asked_as: str = ""
    """The user who ran the command."""
    cluster: str = ""
    version: str = ""
    private_data: str = ""
    has_accounting: bool = True
    slurm_user: str = ""
    queue: tuple[QueueLine, ...] = ()
    runs: tuple[SlurmRun, ...] = ()
    """The latest first. A run that both show is here as slurmctld shows it."""
    not_understood: str = ""
    """Why what Slurm prints about the job cannot be understood."""
    is_forgotten: bool = False
    """Whether slurmctld itself says that it knows no such job."""
    slurmctld_failure: str = ""
    accounting_failure: str = ""
    privileges: tuple[str, ...] = ()
    """What Slurm hides from the daemon's user, each with the next step."""


class BackendFacts(NamedTuple):
    """What cc-backend has of the job now."""

    url: str = ""
    """'' if the configuration names none, so that it cannot be asked."""
    runs: tuple[StoredRun, ...] = ()
    failure: str = ""
    searched: tuple[tuple[int, int], ...] = ()
    """Between which moments runs were looked for."""


class ConfigFacts(NamedTuple):
    """What the configuration says. Intervals are in seconds."""

    path: str
    cluster: str
    """The name in everything that is sent; '' if neither the configuration nor Slurm names it."""
    state_path: str
    first_moment: int
    """0 if it is not known."""
    max_span: int = 604800
    poll_interval: int = 60
    cc_poll_interval: int = 21600
    requeued_runs: str = "first"
    leading: str = CC_REST
    """The destination that gets each message first."""
    commit_span: int = 300
    """After so many seconds cc-backend surely lists a start."""


class JobFacts(NamedTuple):
    """Everything that was gathered."""

    name: str
    """What was asked for, as it was typed."""
    job_id: int
    now: float
    config: ConfigFacts
    slurm: SlurmFacts
    state: JobRows
    daemon: DaemonFacts | None
    """None if no daemon answers."""
    backend: BackendFacts
    daemon_failure: str = ""
    """Why the daemon does not answer, NOT_RUNNING or another reason; '' if it does."""
    state_failure: str = ""
    """Why the state file cannot be read; '' if it could be, or the daemon answered."""

    @property
    def hides_jobs(self) -> bool:
        """Whether Slurm may hide jobs from whoever asks: from everybody but root and SlurmUser, if PrivateData is set.

        Operators see all, but that is not known of whoever asks.
        """
        slurm = self.slurm
        return slurm.private_data not in NOT_PRIVATE and slurm.asked_as not in ("root", slurm.slurm_user)

    @property
    def first_moment(self) -> int:
        """The first moment, as the daemon has it."""
        return self.daemon.first_moment if self.daemon else self.config.first_moment

    @property
    def may_run(self) -> bool:
        """Whether a daemon may run that does not answer, or not to whoever asks."""
        return self.daemon is None and self.daemon_failure not in ("", NOT_RUNNING)

    @property
    def read_until(self) -> int:
        """The Unix time up to which accounting was read; 0 if it never was."""
        read = self.daemon.accounting_read_until if self.daemon else 0
        return read or self.state.checkpoints.get(self.config.cluster, 0)


class RunFacts(NamedTuple):
    """One run, from all sources that know it."""

    start: int
    slurm: SlurmRun | None = None
    known: RunRow | None = None
    """As the state file has it."""
    rows: tuple[MessageRow, ...] = ()
    stored: StoredRun | None = None
    """As cc-backend has it."""

    def row(self, sink: str, kind: str) -> MessageRow | None:
        """Return its message of a kind to a sink."""
        return next((row for row in self.rows if (row.sink, row.kind) == (sink, kind)), None)

    @property
    def is_known_here(self) -> bool:
        """Whether this program knows it."""
        return self.known is not None or bool(self.rows)

    @property
    def note(self) -> str:
        """What the state file says is exceptional about it."""
        return self.known.note if self.known else ""


def runs_of(facts: JobFacts) -> list[RunFacts]:
    """Return all runs of the job in this cluster, the latest first."""
    found: dict[int, RunFacts] = {}
    for each in facts.slurm.runs:
        if each.start:
            found[each.start] = RunFacts(each.start, each)
    for known in facts.state.runs:
        if known.cluster == facts.config.cluster:
            found[known.start_time] = found.get(known.start_time, RunFacts(known.start_time))._replace(known=known)
    for row in facts.state.rows:
        if row.cluster == facts.config.cluster:
            before = found.get(row.start_time, RunFacts(row.start_time))
            found[row.start_time] = before._replace(rows=(*before.rows, row))
    for stored in facts.backend.runs:
        start = _nearest(stored.start_time, found)
        found[start] = found.get(start, RunFacts(start))._replace(stored=stored)
    return [found[start] for start in sorted(found, reverse=True)]


def _nearest(start: int, found: dict[int, RunFacts]) -> int:
    """Return the start of the known run that is this one, else the start itself."""
    near = [each for each in found if abs(each - start) <= NEAR]
    return min(near, key=lambda each: abs(each - start), default=start)


def other_clusters(facts: JobFacts) -> list[str]:
    """Return the other clusters for which the state file has a job with this id."""
    return sorted({*_clusters(facts)} - {facts.config.cluster})


def _clusters(facts: JobFacts) -> Iterator[str]:
    yield from (run.cluster for run in facts.state.runs)
    yield from (row.cluster for row in facts.state.rows)
