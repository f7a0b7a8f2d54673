"""Fakes that the tests pass in where the program expects Slurm or a destination."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

from cc_slurm_adapter.errors import CommandFailed
from cc_slurm_adapter.model import (
    AccountedEnd,
    AccountedLaunch,
    Details,
    End,
    EndState,
    ListedJob,
    Missing,
    NodeState,
    Phase,
    Resource,
    Run,
    RunKey,
    Sharing,
)
from cc_slurm_adapter.slurm.interface import Sift

NOW = 1_800_000_000
COMPLETED = EndState.COMPLETED


def make_run(job_id: int = 1, start: int = NOW - 100, phase: Phase = Phase.RUNNING, **changes: object) -> Run:
    """A run on node01 with two cores and two GPUs."""
    end = End(COMPLETED, start + 50, "COMPLETED") if phase is Phase.ENDED else None
    run = Run(
        key=RunKey("lab", job_id, start),
        phase=phase,
        end=end,
        user="alice",
        account="proj",
        partition="main",
        name="name",
        submit_time=start - 10,
        walltime=3600,
        num_cpus=4,
        num_gpus=2,
        sharing=Sharing.ANY_USER,
        resources=(Resource("node01", (0, 1), (0, 1)),),
    )
    return replace(run, **changes)  # type: ignore[arg-type]


class FakeSlurm:
    """A Slurm that says what the test puts into it, and remembers the questions."""

    def __init__(self) -> None:
        self.jobs: dict[int, Run] = {}
        """What slurmctld knows, by job id."""
        self.accounted: list[Run] = []
        """Runs that accounting has closed."""
        self.asked: list[str] = []
        self.rests: dict[RunKey, RunKey] = {}
        """The key of the last record of a resized run, by the key of that run."""
        self.idle: set[RunKey] = set()
        """Runs of which accounting has no step."""
        self.forgotten: set[int] = set()
        """Jobs of which slurmctld says that it knows no such job."""
        self.read: list[bytes] = []
        """The lines of the last listing that were to be read."""
        self.backlog = 0
        """Messages that slurmctld still has for slurmdbd."""
        self.failure: Exception | None = None
        self.failing: set[str] = set()
        """Questions that fail, each by itself."""
        self.late_failure: Exception | None = None
        """What `ended_between` raises when it has told all that it knows."""
        self.broken: dict[int, str] = {}
        self.failed: set[int] = set()
        """Jobs that Slurm's own command fails for, though not for long yet."""
        self.lists_all = False
        """Whether each question for details makes slurmctld print all jobs."""

    def put(self, run: Run) -> Run:
        """slurmctld knows this run of its job now."""
        self.jobs[run.key.job_id] = run
        return run

    def close(self, run: Run) -> Run:
        """Accounting knows the end of this run, without cores and GPU indices."""
        bare = tuple(Resource(resource.hostname) for resource in run.resources)
        missing = frozenset({Missing.CORES, Missing.GPUS})
        self.accounted.append(replace(run, resources=bare, missing=missing))
        return run

    def list_jobs(self, sift: Sift = list) -> list[ListedJob]:
        self._ask("list_jobs")
        listed = {_line(run): _sighting(run) for run in self.jobs.values()}
        self.read = list(sift(list(listed)))
        return [listed[line]._replace(line=line) for line in self.read]

    def still_known(self, ended: Mapping[int, int]) -> set[int]:
        self._ask("still_known")
        return set(ended) & (self.jobs.keys() | self.failed | self.broken.keys())

    def reads_all_jobs(self, count: int) -> bool:
        return self.lists_all

    def read_details(self, job_ids: Iterable[int]) -> Generator[Details, None, None]:
        self._ask("read_details")
        ids = set(job_ids)
        runs = [run for job_id, run in self.jobs.items() if job_id in ids - self.broken.keys() - self.failed]
        broken = {job_id: reason for job_id, reason in self.broken.items() if job_id in ids}
        yield Details(runs, broken, dict.fromkeys(ids & self.failed, "squeue: exit code -11"))

    def prefetch_job_info(self, keys: Collection[RunKey], listed: int) -> AbstractContextManager[None]:
        if "prefetch_job_info" in self.failing:
            self._ask("prefetch_job_info")
        return contextlib.nullcontext()

    def with_texts(self, runs: list[Run]) -> Generator[Run, None, None]:
        if runs:
            self._ask("with_texts")
        for run in runs:
            yield replace(run, slurm_info=f"JobId={run.key.job_id}", job_script="#!/bin/sh")

    def ended_between(self, since: int, until: int) -> Generator[list[AccountedEnd], None, None]:
        self._ask("ended_between")
        for run in self.accounted:
            if run.end and since <= run.end.end_time <= until:
                yield [AccountedEnd(self.rests.get(run.key, run.key), run.end, run.key in self.rests)]
        if self.late_failure is not None:
            raise self.late_failure

    def ends_of(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[list[AccountedEnd]]:
        self._ask("ends_of")
        ids = set(job_ids)
        for run in self.accounted:
            if run.key.job_id in ids and run.end:
                yield [AccountedEnd(run.key, run.end)]

    def read_accounted(self, job_ids: Iterable[int], since: int, until: int) -> Generator[Details, None, None]:
        self._ask("read_accounted")
        ids = set(job_ids)
        runs = [run for run in self.accounted if run.key.job_id in ids]
        first = [replace(run, phase=Phase.RUNNING, end=None) if run.key in self.rests else run for run in runs]
        yield Details([*first, *(replace(run, key=self.rests[run.key]) for run in runs if run.key in self.rests)])

    def launches_of(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[list[AccountedLaunch]]:
        self._ask("launches_of")
        ids = set(job_ids)
        runs = [run for run in self.accounted if run.key.job_id in ids and run.end]
        yield [AccountedLaunch(run.key, run.end and run.end.end_time, run.key not in self.idle) for run in runs]

    def retry_all(self) -> None:
        self.failed.clear()

    def is_forgotten(self, job_id: int) -> bool:
        self._ask("is_forgotten")
        return job_id in self.forgotten

    def accounting_backlog(self) -> int:
        self._ask("accounting_backlog")
        return self.backlog

    def node_states(self) -> list[NodeState]:
        self._ask("node_states")
        return [NodeState("node01", ("mixed",), 4, 400, 2)]

    def _ask(self, question: str) -> None:
        self.asked.append(question)
        if self.failure is not None:
            raise self.failure
        if question in self.failing:
            raise CommandFailed(f"{question} fails")


def _line(run: Run) -> bytes:
    return repr(_sighting(run)).encode()


def _sighting(run: Run) -> ListedJob:
    ended = run.end
    return ListedJob(
        run.key.job_id,
        run.phase,
        run.key.start_time,
        ended.end_time if ended else None,
        ended.end_state if ended else None,
        ended.raw_state if ended else run.phase.name,
        bool(run.resources),
    )
