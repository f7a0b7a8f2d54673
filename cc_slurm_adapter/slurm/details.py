"""The details of jobs as slurmctld knows them now, asked for as each release can answer."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from dataclasses import replace

from cc_slurm_adapter.errors import SlurmError, UnexpectedOutput
from cc_slurm_adapter.model import Details, Missing, Run, Sharing
from cc_slurm_adapter.slurm.commands import Command, Commands
from cc_slurm_adapter.slurm.json_formats import JsonFormat
from cc_slurm_adapter.slurm.output import failure, read_text
from cc_slurm_adapter.slurm.parse.jobs import job_id_of, parse_sharing, sharing_command
from cc_slurm_adapter.slurm.parse.json_stream import JobSplitter
from cc_slurm_adapter.slurm.parse.json_values import Json, read_digits
from cc_slurm_adapter.slurm.parts import Part, ask_in_parts, in_parts
from cc_slurm_adapter.slurm.set_aside import SetAside

log = logging.getLogger(__name__)

CHUNK = 200
"""Jobs in one detailed question: squeue then takes 40 to 98 MB; for all jobs at once it would take gigabytes."""
MANY_OF_A_USER, ONE_IN = 20, 20
"""Where squeue filters by user only, a user's jobs are asked for at once when so many are wanted, and one in so many of
those that the user has."""
MAX_ARRAYS = 10_000
"""So many arrays are remembered."""
DOUBTFUL_LIMIT = 20.0
"""Seconds without a word that are granted to a question which repeats a part of one that failed."""
SMALLEST = ["squeue", "-h", "-a", "-j", "1", "-o", "%A"]
"""Whether there is such a job does not matter."""
USERS = ["squeue", "-h", "-a", "-t", "all", "-o", "%A|%U"]
"""Job and user id of all jobs, from columns that no user controls."""
UNKNOWN_JOB = "Invalid job id"
"""What every release says of a job that slurmctld does not know (recorded in errors/unknown-id.*)."""

Parse = Callable[[Json], Run]


def job_failed(job_id: int, reason: str) -> Details:
    """Of a job that Slurm cannot be asked for."""
    return Details(failed={job_id: reason})


def read_jobs(question: Command, parse: Parse, wanted: Collection[int]) -> Details:
    """The wanted jobs in a document of squeue, scontrol or sacct. Raises SlurmError."""
    details = Details()

    def take(job: Json) -> None:
        details.listed += 1
        try:
            if job_id_of(job) in wanted:
                details.runs.append(parse(job))
        except UnexpectedOutput as error:
            details.broken[_id_or_zero(job)] = str(error)
        except MemoryError:
            raise
        except Exception as error:  # a job of a shape that nobody foresaw costs only itself
            log.exception("job %s", _id_or_zero(job))
            details.broken[_id_or_zero(job)] = f"an error of this program, {type(error).__name__}"

    splitter = JobSplitter(question.argv[0], take, details.broken.__setitem__)
    answer = question.hand_on(splitter.feed)
    if answer.exit_code != 0:
        raise failure(question.argv, answer)
    splitter.finish()
    return details


def is_forgotten(commands: Commands, job_id: int) -> bool:
    """Whether slurmctld itself says that it knows no such job. Raises SlurmError when it says nothing."""
    argv = ["scontrol", "show", "job", str(job_id)]
    answer = commands.run(argv)
    if answer.exit_code == 0:
        return False
    if UNKNOWN_JOB in answer.errors:
        return True
    raise failure(argv, answer)


class DetailReader:
    """Asks for the details. `learn` is told the nodes of runs, and says whether it knows more of them than before."""

    def __init__(self, commands: Commands, parse: Parse, learn: Callable[[set[str]], bool]) -> None:
        self._commands = commands
        self._parse = parse
        self._learn = learn
        self._aside = SetAside()
        self._arrays: dict[int, None] = {}
        """Ids of arrays of which a task was read, the newest last."""

    def read(
        self, job_ids: Iterable[int], json_format: JsonFormat, is_current: Callable[[], bool]
    ) -> Generator[Details, None, None]:
        """The runs of these jobs, some at a time. Raises SlurmError.

        Jobs that slurmctld does not know are left out, and those for which its command fails for long.

        Slurm prepares its answer to the next part while the caller deals with what this generator yields. `is_current`
        says after a failure whether Slurm still has the format.
        """
        asked = _Ahead()

        began = 0.0

        def ask(part: Part, following: Part | None) -> Details:
            nonlocal began
            began = time.monotonic()
            details = self._read_part(part, json_format, asked.take(part))
            self._aside.answered(part.jobs)
            if following is not None:
                with contextlib.suppress(SlurmError):  # what cannot be started now is asked again
                    asked.put(following, self._ask(following, json_format))
            return details

        def may_halve() -> bool:
            return is_current() and not json_format.lists_all_jobs and self.answers()

        def failed(job_id: int, reason: str) -> Details:
            self._aside.failed(job_id, reason, time.monotonic() - began)
            return job_failed(job_id, reason) if self._aside.may_come([job_id]) else Details()

        wanted = sorted(set(job_ids))
        may_be_asked = self._aside.without(wanted)
        if len(may_be_asked) < len(wanted):
            put_off = self._aside.may_come(set(wanted).difference(may_be_asked))
            yield Details(failed=dict.fromkeys(put_off, "it failed a short while ago"))
        parts = self._plan(may_be_asked, json_format)
        try:
            yield from ask_in_parts(parts, ask, failed, may_halve)
        finally:
            asked.close()

    def retry_all(self) -> None:
        """Ask again for jobs that failed, at the next question for them."""
        self._aside.retry_all()

    def answers(self) -> bool:
        """Whether slurmctld answers the smallest question that needs its list of jobs, as all others here do."""
        with contextlib.suppress(SlurmError):
            answer = self._commands.run(SMALLEST)
            return answer.exit_code == 0 or UNKNOWN_JOB in answer.errors
        return False

    def _plan(self, job_ids: Iterable[int], json_format: JsonFormat) -> list[Part]:
        if json_format.lists_all_jobs:
            ids = sorted(set(job_ids))
            return in_parts(ids, len(ids) or 1)
        if not json_format.filters_by_user_only:
            return in_parts(job_ids, CHUNK)
        ids = sorted(set(job_ids))
        by_user = self._by_user(ids) if len(ids) >= MANY_OF_A_USER else {}
        at_once = {job_id for jobs in by_user.values() for job_id in jobs}
        return [
            *(Part(jobs, user) for user, jobs in by_user.items()),
            *in_parts((job_id for job_id in ids if job_id not in at_once), 1),
        ]

    def _by_user(self, job_ids: list[int]) -> dict[str, list[int]]:
        """Those of the jobs that are asked for by user: squeue prints all that a user has then.

        Never those of root: `-u 0` prints the jobs of everybody (src/squeue/squeue.c of 23.11 takes 0 for no user).
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

    def _ask(self, part: Part, json_format: JsonFormat) -> Command | None:
        """The question for a part; None when there is nothing to ask."""
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

    def _read_part(self, part: Part, json_format: JsonFormat, question: Command | None) -> Details:
        details = self._answer(part, json_format, question)
        if self._learn({resource.hostname for run in details.runs for resource in run.resources}):
            details = self._answer(part, json_format, None)  # there were nodes that no poll had seen yet
        for run in details.runs:
            self._note_array(run)
        return self._with_sharing(details) if json_format.lacks_sharing else details

    def _answer(self, part: Part, json_format: JsonFormat, question: Command | None) -> Details:
        question = question or self._ask(part, json_format)
        if question is None:
            return Details()
        if part.is_doubtful:
            question.time_limit = DOUBTFUL_LIMIT
        with question:
            details = read_jobs(question, self._parse, frozenset(part.jobs))
        if question.argv[0] == "scontrol" and not details.listed:
            self._check_unknown(part.jobs[0])
        return details

    def _check_unknown(self, job_id: int) -> None:
        """scontrol's JSON has no job, with exit code 0, also when slurmctld is away. Raises SlurmError then."""
        if not is_forgotten(self._commands, job_id):
            raise UnexpectedOutput(f"scontrol show job {job_id}", "slurmctld has the job, but its JSON has none")

    def _note_array(self, run: Run) -> None:
        if run.array_job_id:
            self._arrays.pop(run.array_job_id, None)
            self._arrays[run.array_job_id] = None
        if len(self._arrays) > MAX_ARRAYS:
            del self._arrays[next(iter(self._arrays))]

    def _names(self, job_ids: Iterable[int]) -> list[str]:
        """What to call these jobs.

        The last task of an array has the array's id, by which squeue and scontrol would print all tasks. So it is
        asked which task that is; one that waits is left out.
        """
        arrays = self._arrays.keys() & set(job_ids)
        if not arrays:
            return list(map(str, job_ids))
        argv = ["squeue", "-h", "-a", "-t", "all", "-j", ",".join(map(str, sorted(arrays))), "-o", "%A|%K"]
        answer = self._commands.run(argv)
        if answer.exit_code != 0 and UNKNOWN_JOB not in answer.errors:
            raise failure(argv, answer)
        rows = answer.output.decode("ascii", errors="replace").splitlines()
        tasks = {job_id: task for job_id, _, task in (row.partition("|") for row in rows)}
        names = [str(job_id) if job_id not in arrays else _task_name(job_id, tasks) for job_id in job_ids]
        return [name for name in names if name]

    def _with_sharing(self, details: Details) -> Details:
        """The same with what the format lacks: squeue's text tells whose the nodes are."""
        if not details.runs:
            return details
        told = parse_sharing(read_text(self._commands, sharing_command(run.key.job_id for run in details.runs)))
        runs = [_with_told_sharing(run, told.get(run.key.job_id)) for run in details.runs]
        return replace(details, runs=runs)


def _with_told_sharing(run: Run, told: Sharing | None) -> Run:
    """Whole nodes of which squeue's text does not tell whose they are may be kept for one user."""
    if told is not None:
        return replace(run, sharing=told)
    return replace(run, missing=run.missing | {Missing.SHARING}) if run.sharing is Sharing.WHOLE_NODE else run


class _Ahead:
    """A question that was asked before its answer is wanted."""

    def __init__(self) -> None:
        self._part: Part | None = None
        self._question: Command | None = None

    def put(self, part: Part, question: Command | None) -> None:
        self._part, self._question = part, question

    def take(self, part: Part) -> Command | None:
        """The question for this part, if it was asked."""
        if self._part is not part:
            self.close()
        question, self._part, self._question = self._question, None, None
        return question

    def close(self) -> None:
        if self._question:
            self._question.close()
        self._part = self._question = None


def _task_name(job_id: int, tasks: Mapping[str, str]) -> str:
    """`tasks` are numbers of tasks by job id; '' for what still waits, which can be several tasks in one line."""
    task = tasks.get(str(job_id))
    if task is None:
        return str(job_id)
    return f"{job_id}_{task}" if task.isdigit() else ""


def _id_or_zero(job: Json) -> int:
    found = job.get("job_id")
    return found if isinstance(found, int) and not isinstance(found, bool) else 0
