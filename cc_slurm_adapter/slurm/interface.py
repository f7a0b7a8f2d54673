"""What `jobs/` may ask of Slurm. `SlurmClient` implements it; tests put a fake in its place.

Everything that `jobs/` knows about Slurm comes through this one protocol. Three rules apply to all of its methods:

- A query that fails raises SlurmError, and nothing may be concluded from it. It never returns an empty result instead.
- What is missing in a result proves nothing, either: a run is over only when Slurm says so.
- Results that may be large are yielded in parts, as they arrive. Slurm's command waits in between, and closing the
  generator ends it.

Times are Unix seconds. Methods run Slurm's commands in the calling thread, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from cc_slurm_adapter.model import AccountedEnd, AccountedLaunch, Details, ListedJob, NodeState, Run, RunKey

Sift = Callable[[Sequence[bytes]], Iterable[bytes]]
"""Returns those of some lines that are to be read."""


class Slurm(Protocol):
    """The queries about slurmctld's jobs, their texts, accounting, and the nodes."""

    # slurmctld's jobs

    def list_jobs(self, sift: Sift = list) -> Iterable[ListedJob]:
        """List every job in slurmctld that is not pending: running jobs, and for MinJobAge also ended ones.

        `sift` is called with the lines of the listing as they arrive, and returns those that are to be read. Only when
        all has been read without an error was the listing complete.
        """
        ...

    def read_details(self, job_ids: Iterable[int]) -> Generator[Details, None, None]:
        """Yield the runs of these jobs with cores and GPUs, without texts; jobs that slurmctld forgot are left out."""
        ...

    def still_known(self, ended: Mapping[int, int]) -> set[int]:
        """Return which of these jobs slurmctld may still show. `ended` has the time of each one's last end."""
        ...

    def reads_all_jobs(self, count: int) -> bool:
        """Return whether `read_details` of `count` jobs makes slurmctld print all jobs that it knows."""
        ...

    def is_forgotten(self, job_id: int) -> bool:
        """Return whether slurmctld itself says that it knows no such job."""
        ...

    def retry_all(self) -> None:
        """Let all jobs for which Slurm's command failed be queried again now, however recent the failure is."""
        ...

    # Texts: a second query, only for runs that are reported

    def prefetch_job_info(self, keys: Collection[RunKey], listed: int) -> AbstractContextManager[None]:
        """Return a context inside which one query gives slurmInfo of these runs, if that costs slurmctld less."""
        ...

    def with_texts(self, runs: list[Run]) -> Generator[Run, None, None]:
        """Yield the same runs with slurmInfo and job script, as far as Slurm still has them."""
        ...

    # Accounting (slurmdbd)

    def ended_between(self, since: int, until: int) -> Generator[list[AccountedEnd], None, None]:
        """Yield the runs that accounting closed in a window."""
        ...

    def ends_of(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[list[AccountedEnd]]:
        """Yield the runs of these jobs that accounting closed in a window."""
        ...

    def read_accounted(self, job_ids: Iterable[int], since: int, until: int) -> Generator[Details, None, None]:
        """Yield all runs of these jobs in a window, without cores and GPU indices, which accounting does not have."""
        ...

    def launches_of(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[list[AccountedLaunch]]:
        """Yield whether the runs of these jobs launched anything."""
        ...

    def accounting_backlog(self) -> int:
        """Count the messages that slurmctld still has for slurmdbd. With 0, accounting is complete."""
        ...

    # Nodes

    def node_states(self) -> list[NodeState]:
        """Read the state and the allocated resources of every node."""
        ...


def ask_slurmctld(slurm: Slurm, jobs: set[int]) -> tuple[dict[int, Run], set[int]]:
    """Return the runs of these jobs by job id, and the jobs that slurmctld has forgotten.

    Sites without slurmdbd need this. A job that cannot be understood or queried is in neither result.
    """
    read = list(slurm.read_details(jobs)) if jobs else []
    runs = {run.key.job_id: run for details in read for run in details.runs}
    unread = jobs - runs.keys() - {job_id for details in read for job_id in (*details.broken, *details.failed)}
    return runs, {job_id for job_id in unread if slurm.is_forgotten(job_id)}
