"""The details of jobs as slurmctld knows them now, queried as each release of Slurm allows."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from dataclasses import replace

from cc_slurm_adapter.errors import SlurmError, UnexpectedOutput
from cc_slurm_adapter.log import Repeated
from cc_slurm_adapter.model import Details, Missing, Run, Sharing
from cc_slurm_adapter.slurm.commands import Command, Commands
from cc_slurm_adapter.slurm.json_formats import CurrentFormat, JsonFormat
from cc_slurm_adapter.slurm.output import failure, read_text
from cc_slurm_adapter.slurm.parse.jobs import job_id_of, parse_sharing, sharing_command
from cc_slurm_adapter.slurm.parse.json_stream import JobSplitter
from cc_slurm_adapter.slurm.parse.json_values import Json, read_digits
from cc_slurm_adapter.slurm.parts import Part, query_in_parts, split
from cc_slurm_adapter.slurm.postponed_jobs import PostponedJobs
from cc_slurm_adapter.slurm.prefetched import Prefetched

log = logging.getLogger(__name__)

_errors = Repeated()
"""For errors of this program that a job of an unforeseen shape causes: many jobs may have that shape."""

CHUNK = 200
"""Most jobs in one query. squeue then needs 40 to 98 MB; for all jobs together it would need gigabytes."""
MANY_OF_A_USER, ONE_IN = 20, 20
"""Where squeue filters by user only, one query reads the jobs of a user if at least MANY_OF_A_USER of them are wanted,
and at least one in ONE_IN of all jobs of that user."""
MAX_ARRAYS = 10_000
"""Most arrays that are remembered."""
DOUBTFUL_LIMIT = 20.0
"""Seconds without output that are allowed for a query that repeats a part of a failed query."""
SMALLEST_QUERY = ["squeue", "-h", "-a", "-j", "1", "-o", "%A"]
"""The smallest query that needs slurmctld's list of jobs. Whether the job exists does not matter."""
USERS = ["squeue", "-h", "-a", "-t", "all", "-o", "%A|%U"]
"""The job id and user id of all jobs, from columns that no user controls."""
UNKNOWN_JOB = "Invalid job id"
"""What every release prints for a job that slurmctld does not know (recorded in errors/unknown-id.*)."""

Parse = Callable[[Json], Run]


def job_failed(job_id: int, reason: str) -> Details:
    """Make the result for a job that cannot be queried."""
    return Details(failed={job_id: reason})


def read_jobs(
    command: Command, parse: Parse, wanted: Collection[int], on_output: Callable[[], None] = lambda: None
) -> Details:
    """Read the wanted jobs from the JSON of squeue, scontrol or sacct. Raises SlurmError.

    `on_output` is called before each piece of output is read.
    """
    details = Details()

    def add(job: Json) -> None:
        details.listed += 1
        try:
            if job_id_of(job) in wanted:
                details.runs.append(parse(job))
        except UnexpectedOutput as error:
            details.broken[_id_or_zero(job)] = str(error)
        except MemoryError:
            raise
        except Exception as error:  # a job of an unforeseen shape costs only itself
            if _errors.is_due(type(error).__name__):
                log.exception("job %s cannot be read%s", _id_or_zero(job), _errors.note)
            details.broken[_id_or_zero(job)] = f"an error of this program, {type(error).__name__}"

    def feed(piece: bytes) -> None:
        on_output()
        splitter.feed(piece)

    splitter = JobSplitter(command.argv[0], add, details.broken.__setitem__)
    finished = command.drain(feed)
    if finished.exit_code != 0:
        raise failure(command.argv, finished)
    splitter.finish()
    return details


def is_forgotten(commands: Commands, job_id: int) -> bool:
    """Return whether slurmctld itself says that it knows no such job. Raises SlurmError if it does not say."""
    argv = ["scontrol", "show", "job", str(job_id)]
    finished = commands.run(argv)
    if finished.exit_code == 0:
        return False
    if UNKNOWN_JOB in finished.errors:
        return True
    raise failure(argv, finished)


class DetailReader:
    """Reads the details of jobs.

    `learn` gets the nodes of runs and returns whether it knows more nodes than before. `postponed` keeps the jobs for
    which Slurm's command fails.
    """

    def __init__(
        self,
        commands: Commands,
        parse: Parse,
        learn: Callable[[set[str]], bool],
        postponed: PostponedJobs | None = None,
    ) -> None:
        self._commands = commands
        self._parse = parse
        self._learn = learn
        self._postponed = postponed or PostponedJobs()
        self._arrays: dict[int, None] = {}
        """Ids of the arrays that had a task among the jobs read, the newest last."""

    def read(self, job_ids: Iterable[int], current_format: CurrentFormat) -> Generator[Details, None, None]:
        """Yield the runs of these jobs, some at a time. Raises SlurmError.

        Jobs that slurmctld does not know are left out. So are jobs for which its command has failed for a long time.

        Slurm prepares the next part while the output of this one is read, and while the caller handles what this
        generator yields. squeue prints nothing before it has prepared everything, so only one of them is at work. After
        a failure the format is looked up again: Slurm may have been upgraded, and then the failure is not due to a
        single job.
        """
        json_format = current_format.find()
        prefetched = Prefetched()
        began = 0.0

        def query(part: Part, following: Part | None) -> Details:
            nonlocal began

            def begin_following() -> None:
                if following is not None and not prefetched.was_tried(following):
                    prefetched.try_to_put(following, lambda: self._begin(following, json_format))

            began = time.monotonic()
            details = self._read_part(part, json_format, prefetched.pop(part), begin_following)
            self._postponed.succeeded(part.jobs)
            begin_following()  # if nothing was printed
            return details

        def may_halve() -> bool:
            return current_format.is_unchanged() and not json_format.lists_all_jobs and self.slurmctld_responds()

        def failed(job_id: int, reason: str) -> Details:
            self._postponed.failed(job_id, reason, time.monotonic() - began)
            return job_failed(job_id, reason) if self._postponed.with_hope([job_id]) else Details()

        wanted = sorted(set(job_ids))
        due = self._postponed.due(wanted)
        if len(due) < len(wanted):
            not_due = self._postponed.with_hope(set(wanted).difference(due))
            yield Details(failed=dict.fromkeys(not_due, "it failed a short while ago"))
        parts = self._plan(due, json_format)
        try:
            yield from query_in_parts(parts, query, failed, may_halve)
        finally:
            prefetched.close()

    def retry_all(self) -> None:
        """Make all postponed jobs due immediately."""
        self._postponed.retry_all()

    def slurmctld_responds(self) -> bool:
        """Return whether slurmctld responds to the smallest query that needs its list of jobs.

        All other queries here need that list, too.
        """
        with contextlib.suppress(SlurmError):
            finished = self._commands.run(SMALLEST_QUERY)
            return finished.exit_code == 0 or UNKNOWN_JOB in finished.errors
        return False

    def _plan(self, job_ids: Iterable[int], json_format: JsonFormat) -> list[Part]:
        """Split the jobs into queries that this format allows."""
        if json_format.lists_all_jobs:
            ids = sorted(set(job_ids))
            return split(ids, len(ids) or 1)
        if not json_format.filters_by_user_only:
            return split(job_ids, CHUNK)
        ids = sorted(set(job_ids))
        by_user = self._by_user(ids) if len(ids) >= MANY_OF_A_USER else {}
        together = {job_id for jobs in by_user.values() for job_id in jobs}
        return [
            *(Part(jobs, user) for user, jobs in by_user.items()),
            *split((job_id for job_id in ids if job_id not in together), 1),
        ]

    def _by_user(self, job_ids: list[int]) -> dict[str, list[int]]:
        """Return by user id the jobs that are queried by user. squeue then prints all jobs of that user.

        Jobs of root are never among them: `-u 0` prints everybody's (src/squeue/squeue.c of 23.11 reads 0 as no user).
        """
        rows = [row.partition("|") for row in read_text(self._commands, USERS).splitlines()]
        users = {read_digits(job_id): user for job_id, _, user in rows if user.isdecimal() and int(user)}
        counts = Counter(users.values())
        found: dict[str, list[int]] = {}
        for job_id in job_ids:
            if job_id in users:
                found.setdefault(users[job_id], []).append(job_id)
        is_worth = {
            user: len(jobs) >= MANY_OF_A_USER and counts[user] <= len(jobs) * ONE_IN for user, jobs in found.items()
        }
        return {user: jobs for user, jobs in found.items() if is_worth[user]}

    def _begin(self, part: Part, json_format: JsonFormat) -> Command | None:
        """Start the query of a part and return it; None if there is nothing to query."""
        if json_format.lists_all_jobs:
            return self._commands.begin(["squeue", "-a", "--json"])
        if part.user:
            return self._commands.begin(["squeue", "-a", "-u", part.user, json_format.option])
        names = self._names(part.jobs)
        if not names:
            return None
        if len(names) == 1:
            return self._commands.begin(["scontrol", "show", "job", names[0], json_format.option])
        return self._commands.begin(["squeue", "-a", "-t", "all", "-j", ",".join(names), json_format.option])

    def _read_part(
        self, part: Part, json_format: JsonFormat, command: Command | None, on_output: Callable[[], None]
    ) -> Details:
        """Read the details of a part, from a query that was started before or from a new one."""
        details = self._finish(part, json_format, command, on_output)
        if self._learn({resource.hostname for run in details.runs for resource in run.resources}):
            details = self._finish(part, json_format, None, on_output)  # there were nodes that no poll had listed yet
        for run in details.runs:
            self._note_array(run)
        return self._with_sharing(details) if json_format.lacks_sharing else details

    def _finish(
        self, part: Part, json_format: JsonFormat, command: Command | None, on_output: Callable[[], None]
    ) -> Details:
        command = command or self._begin(part, json_format)
        if command is None:
            return Details()
        if part.is_doubtful:
            command.time_limit = DOUBTFUL_LIMIT
        with command:
            details = read_jobs(command, self._parse, frozenset(part.jobs), on_output)
        if command.argv[0] == "scontrol" and not details.listed:
            self._check_unknown(part.jobs[0])
        return details

    def _check_unknown(self, job_id: int) -> None:
        """Raise SlurmError unless slurmctld says that it knows no such job.

        scontrol's JSON without a job, and exit code 0, do not prove that: both also occur when slurmctld is away.
        """
        if not is_forgotten(self._commands, job_id):
            raise UnexpectedOutput(f"scontrol show job {job_id}", "slurmctld has the job, but its JSON has none")

    def _note_array(self, run: Run) -> None:
        if run.array_job_id:
            self._arrays.pop(run.array_job_id, None)
            self._arrays[run.array_job_id] = None
        if len(self._arrays) > MAX_ARRAYS:
            del self._arrays[next(iter(self._arrays))]

    def _names(self, job_ids: Iterable[int]) -> list[str]:
        """Return the names of these jobs for squeue and scontrol.

        The last task of an array has the array's id, and for that id both would print all tasks. So this task is
        queried by its number. It is left out if it is pending.
        """
        arrays = self._arrays.keys() & set(job_ids)
        if not arrays:
            return list(map(str, job_ids))
        argv = ["squeue", "-h", "-a", "-t", "all", "-j", ",".join(map(str, sorted(arrays))), "-o", "%A|%K"]
        finished = self._commands.run(argv)
        if finished.exit_code != 0 and UNKNOWN_JOB not in finished.errors:
            raise failure(argv, finished)
        rows = finished.output.decode("ascii", errors="replace").splitlines()
        tasks = {job_id: task for job_id, _, task in (row.partition("|") for row in rows)}
        names = [str(job_id) if job_id not in arrays else _task_name(job_id, tasks) for job_id in job_ids]
        return [name for name in names if name]

    def _with_sharing(self, details: Details) -> Details:
        """Add who shares the nodes, which the format lacks, from squeue's text."""
        if not details.runs:
            return details
        sharing = parse_sharing(read_text(self._commands, sharing_command(run.key.job_id for run in details.runs)))
        runs = [_with_sharing_of(run, sharing.get(run.key.job_id)) for run in details.runs]
        return replace(details, runs=runs)


def _with_sharing_of(run: Run, sharing: Sharing | None) -> Run:
    """Add the sharing from squeue's text. If that has none, whole nodes may in fact be nodes reserved for one user."""
    if sharing is not None:
        return replace(run, sharing=sharing)
    return replace(run, missing=run.missing | {Missing.SHARING}) if run.sharing is Sharing.WHOLE_NODE else run


def _task_name(job_id: int, tasks: Mapping[str, str]) -> str:
    """Return the name of an array task; '' for a pending one. `tasks` has task numbers, or ranges, by job id."""
    task = tasks.get(str(job_id))
    if task is None:
        return str(job_id)
    return f"{job_id}_{task}" if task.isdigit() else ""


def _id_or_zero(job: Json) -> int:
    found = job.get("job_id")
    return found if isinstance(found, int) and not isinstance(found, bool) else 0
