"""What a pass asks of Slurm. `SlurmClient` answers; tests put a fake in its place."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from cc_slurm_adapter.job import NodeState, Run, RunKey, Sighting
from cc_slurm_adapter.slurm.accounting import AccountedEnd, AccountedLaunch
from cc_slurm_adapter.slurm.details import Details


class Slurm(Protocol):
    """Each question may raise SlurmError; answers in parts are told as they come."""

    def list_jobs(self) -> Iterable[Sighting]: ...
    def read_details(self, job_ids: Iterable[int]) -> Generator[Details, None, None]: ...
    def texts_of_many(self, keys: Collection[RunKey], listed: int) -> AbstractContextManager[None]: ...
    def add_texts(self, runs: list[Run]) -> Generator[Run, None, None]: ...
    def ended_between(self, since: int, until: int) -> Generator[list[AccountedEnd], None, None]: ...
    def ends_of(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[list[AccountedEnd]]: ...
    def read_accounted(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[Details]: ...
    def launches_of(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[list[AccountedLaunch]]: ...
    def is_forgotten(self, job_id: int) -> bool: ...
    def accounting_backlog(self) -> int: ...
    def node_states(self) -> list[NodeState]: ...


def ask_slurmctld(slurm: Slurm, jobs: set[int]) -> tuple[dict[int, Run], set[int]]:
    """For a site without slurmdbd: the runs of these jobs by job id, and those jobs that slurmctld has forgotten.

    A job that cannot be understood is neither.
    """
    read = list(slurm.read_details(jobs)) if jobs else []
    runs = {run.key.job_id: run for details in read for run in details.runs}
    unread = jobs - runs.keys() - {job_id for details in read for job_id in details.broken}
    return runs, {job_id for job_id in unread if slurm.is_forgotten(job_id)}
