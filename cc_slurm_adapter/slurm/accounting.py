"""Queries to accounting: which runs have ended, and what it knows about the runs of some jobs."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace

from cc_slurm_adapter.errors import CommandCancelled, SlurmError
from cc_slurm_adapter.model import AccountedEnd, AccountedLaunch, Details, Missing, Run
from cc_slurm_adapter.slurm.cluster_nodes import ClusterNodes
from cc_slurm_adapter.slurm.commands import Command, Commands
from cc_slurm_adapter.slurm.details import CHUNK, job_failed, read_jobs
from cc_slurm_adapter.slurm.json_formats import CurrentFormat
from cc_slurm_adapter.slurm.output import EPOCH_TIMES, batches, read_kept_lines, read_text
from cc_slurm_adapter.slurm.parse.accounting import (
    EARLIEST,
    EndedParser,
    ended_command,
    launches_command,
    parse_accounted_run,
    parse_launches,
    parse_users,
    runs_command,
    users_command,
    with_sharing,
)
from cc_slurm_adapter.slurm.parse.gres import Names
from cc_slurm_adapter.slurm.parse.json_values import Json
from cc_slurm_adapter.slurm.parse.partitions import COMMAND as PARTITIONS
from cc_slurm_adapter.slurm.parse.partitions import Partition, parse_partitions
from cc_slurm_adapter.slurm.parts import Part, Result, query_in_parts, split
from cc_slurm_adapter.slurm.prefetched import Prefetched
from cc_slurm_adapter.system.grouped_lines import GroupedLines
from cc_slurm_adapter.system.outages import cause_of

log = logging.getLogger(__name__)

MAX_FAILURES = 2000
"""Most queries of one call that may fail while slurmdbd responds. Accounting is history, so the record of one job must
not keep the others from being read."""
PARTITION_SECONDS = 600.0
"""How long the partitions are used before they are read again."""


class Accounting:
    """What `sacct` knows. Each method raises SlurmError, and then nothing may be concluded.

    If a query fails for one job alone, the others are still read.
    """

    def __init__(
        self, commands: Commands, cluster: str, accelerators: Names, current_format: CurrentFormat, nodes: ClusterNodes
    ) -> None:
        self._commands = commands
        self._cluster = cluster
        self._accelerators = accelerators
        self._format = current_format
        self._nodes = nodes
        self._partitions: dict[str, Partition] = {}
        self._partitions_until = 0.0
        self._lines = GroupedLines(log)
        self._prefetched = Prefetched()
        """The next query of `read_runs`. Any other one ends it: accounting is asked one thing at a time."""

    def ended_between(self, since: int, until: int) -> Generator[list[AccountedEnd], None, None]:
        """Yield the runs that accounting closed in a window of Unix seconds, in batches.

        sacct has ended before the first batch is yielded. If it fails, the runs that it printed before are yielded
        first.
        """
        argv = ended_command(since, until)
        parser = EndedParser(self._cluster)
        self._prefetched.close()
        with contextlib.closing(read_kept_lines(self._commands, argv, EPOCH_TIMES)) as lines:
            for batch in batches(lines):
                yield parser.parse(batch)

    def ends_of(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[list[AccountedEnd]]:
        """Yield all runs of these jobs that accounting closed in a window of Unix seconds, some jobs at a time."""

        def query(part: Part, _: Part | None) -> list[AccountedEnd]:
            text = self._read(ended_command(since, until, part.jobs))
            return EndedParser(self._cluster).parse(text.splitlines())

        return self._in_parts(job_ids, query, self._no_ends, self._responds)

    def read_runs(self, job_ids: Iterable[int], since: int, until: int) -> Generator[Details, None, None]:
        """Yield all runs of these jobs in a window of Unix seconds.

        They have neither cores nor GPU indices, which accounting lacks. The next query is under way while the caller
        handles what this generator yields.
        """
        option = self._format.find().option

        def begin(part: Part) -> Command:
            return self._commands.begin(runs_command(part.jobs, since, until, option))

        def query(part: Part, following: Part | None) -> Details:
            with self._prefetched.pop(part) or begin(part) as command:
                details = read_jobs(command, self._parse_run, frozenset(part.jobs))
            whole = self._with_users(self._with_proven_sharing(details), since, until)
            if following is not None:
                self._prefetched.try_to_put(following, lambda: begin(following))
            return whole

        def may_halve() -> bool:
            return self._format.is_unchanged() and self._responds()

        try:
            yield from self._in_parts(job_ids, query, job_failed, may_halve)
        finally:
            self._prefetched.close()

    def _read(self, argv: list[str]) -> str:
        """Ask accounting for what it prints at once. Raises SlurmError."""
        self._prefetched.close()
        return read_text(self._commands, argv, EPOCH_TIMES)

    def launches_of(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[list[AccountedLaunch]]:
        """Yield whether the runs of these jobs launched anything, for all runs in a window of Unix seconds."""

        def query(part: Part, _: Part | None) -> list[AccountedLaunch]:
            text = self._read(launches_command(part.jobs, since, until))
            return parse_launches(text, self._cluster)

        return self._in_parts(job_ids, query, self._no_launches, self._responds)

    def _no_ends(self, job_id: int, reason: str) -> list[AccountedEnd]:
        self._log_failure("accounting cannot be asked for", job_id, reason)
        return []

    def _no_launches(self, job_id: int, reason: str) -> list[AccountedLaunch]:
        self._log_failure("accounting cannot be asked for the steps of", job_id, reason)
        return []

    def _log_failure(self, what: str, job_id: int, reason: str) -> None:
        """Log that the query for one job alone has failed. That may concern many jobs, at every catch-up."""
        line = f"{what} job {job_id}, the others go on: {reason}"
        more = f"more times {what} a job, the first time {job_id}: {reason}"
        self._lines.report(what, cause_of(reason), line, lambda: more, level=logging.ERROR)

    def _in_parts(
        self,
        job_ids: Iterable[int],
        query: Callable[[Part, Part | None], Result],
        failed: Callable[[int, str], Result],
        responds: Callable[[], bool],
    ) -> Iterator[Result]:
        self._lines.report_due()
        return query_in_parts(split(job_ids, CHUNK), query, failed, responds, MAX_FAILURES, MAX_FAILURES)

    def _responds(self) -> bool:
        """Return whether slurmdbd responds to the smallest query."""
        self._prefetched.close()
        with contextlib.suppress(SlurmError):
            return self._commands.run(ended_command(EARLIEST, EARLIEST + 1, [1])).exit_code == 0
        return False

    def _parse_run(self, job: Json) -> Run:
        return parse_accounted_run(job, self._cluster, self._accelerators)

    def _with_proven_sharing(self, details: Details) -> Details:
        """Add who shared the nodes, if layouts and partitions prove what accounting does not record."""
        if not any(Missing.SHARING in run.missing for run in details.runs):
            return details
        try:
            if not self._nodes.layouts:
                self._nodes.read()
            partitions = self._read_partitions()
        except CommandCancelled:
            raise
        except SlurmError as error:
            log.info("the partitions are not known, so neither is who shared the nodes of old runs: %s", error)
            return details
        runs = [with_sharing(run, self._nodes.layouts, partitions) for run in details.runs]
        return replace(details, runs=runs)

    def _read_partitions(self) -> dict[str, Partition]:
        if time.monotonic() >= self._partitions_until:
            self._partitions = parse_partitions(read_text(self._commands, PARTITIONS))
            self._partitions_until = time.monotonic() + PARTITION_SECONDS
        return self._partitions

    def _with_users(self, details: Details, since: int, until: int) -> Details:
        """Add the names of users that the JSON lacks. A run whose user accounting does not name is broken."""
        nameless = {run.key.job_id for run in details.runs if not run.user}
        if not nameless:
            return details
        users = parse_users(self._read(users_command(sorted(nameless), since, until)))
        runs = [run if run.user else replace(run, user=users.get(run.key.job_id, "")) for run in details.runs]
        broken = {run.key.job_id: "accounting names no user" for run in runs if not run.user}
        return replace(details, runs=[run for run in runs if run.user], broken={**details.broken, **broken})
