"""Asks Slurm: each method is one question with a typed answer, or a SlurmError and no conclusion."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from cc_slurm_adapter.errors import SlurmError, UnexpectedOutput
from cc_slurm_adapter.job import NodeState, Run, RunKey, Sighting
from cc_slurm_adapter.slurm.accounting import (
    AccountedEnd,
    EndedParser,
    ended_command,
    parse_accounted_run,
    parse_users,
    runs_command,
    users_command,
)
from cc_slurm_adapter.slurm.answers import batches, failure, read_lines, read_text
from cc_slurm_adapter.slurm.commands import Command, Commands
from cc_slurm_adapter.slurm.documents import JobSplitter
from cc_slurm_adapter.slurm.job_infos import JobInfos, read_job_infos
from cc_slurm_adapter.slurm.jobs import job_id_of, parse_job, parse_sharing, sharing_command
from cc_slurm_adapter.slurm.json_values import Json
from cc_slurm_adapter.slurm.listing import LISTING, parse_listing
from cc_slurm_adapter.slurm.nodes import SINFO, NodeLayout, parse_sinfo
from cc_slurm_adapter.slurm.texts import Texts, Wanted, read_texts
from cc_slurm_adapter.slurm.versions import JsonFormat, find_format

log = logging.getLogger(__name__)

CHUNK = 200
"""Jobs in one detailed question: squeue then takes 40 to 98 MB; for all jobs at once it would take gigabytes."""
MANY, ONE_IN = 50, 20
"""slurmInfo of all jobs is asked for at once when it is wanted of so many, and of one job in so many."""
MAX_LISTED = 20_000
"""Not when more jobs run: scontrol takes 40 MB for 10,000, waiting ones included. (squeue does so at each poll.)"""
MAX_ARRAYS = 10_000
"""So many arrays are remembered."""
FORMAT_SECONDS = 600.0
"""How long a format is used before it is looked again what Slurm offers: it may be upgraded under this program."""
EPOCH_TIMES = {"SLURM_TIME_FORMAT": "%s"}
_Parse = Callable[[Json], Run]


@dataclass
class Details:
    """Runs that were read, and the jobs that could not be understood with the reason."""

    runs: list[Run] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)


class SlurmClient:
    """The questions the daemon asks.

    Job scripts pass through a private folder in `state_folder`; at most `max_script_bytes` of each are read.
    """

    def __init__(self, commands: Commands, cluster: str, state_folder: str, max_script_bytes: int) -> None:
        self._commands = commands
        self._cluster = cluster
        self._state_folder = state_folder
        self._max_script_bytes = max_script_bytes
        self._format: JsonFormat | None = None
        self._format_until = 0.0
        self._infos: JobInfos | None = None
        self._layouts: dict[str, NodeLayout] = {}
        self._arrays: dict[int, None] = {}
        """Ids of arrays of which a task was read, the newest last."""

    def list_jobs(self) -> Iterable[Sighting]:
        """Every job that slurmctld remembers and that does not wait: running ones, and ended ones for MinJobAge."""
        return parse_listing(self._text(LISTING, EPOCH_TIMES))

    def read_details(self, job_ids: Iterable[int]) -> Generator[Details, None, None]:
        """The runs of these jobs with cores and GPUs, as slurmctld knows them now, in chunks; without texts.

        Jobs that slurmctld no longer knows are left out: that alone says nothing about them.
        """
        if not self._layouts:
            self.node_states()
        json_format = self._json_format()
        refreshed = False
        question: Command | None = None
        chunks = list(_chunks(job_ids, _chunk_size(json_format)))
        try:
            for chunk, following in zip(chunks, [*chunks[1:], []]):
                details = self._read_chunk(chunk, json_format, question)
                if not refreshed and self._has_unknown_nodes(details):
                    self.node_states()  # nodes were added since the last poll
                    refreshed = True
                    details = self._read_chunk(chunk, json_format)
                question = self._ask_ahead(following, json_format)
                yield details
        finally:
            if question:
                question.close()

    @contextlib.contextmanager
    def texts_of_many(self, keys: Collection[RunKey], listed: int) -> Iterator[None]:
        """Inside, slurmInfo of these runs is asked for at once where that costs slurmctld less.

        They are among so many jobs that slurmctld has listed just now, and their details are read inside.
        """
        if len(keys) >= MANY and listed <= min(len(keys) * ONE_IN, MAX_LISTED):
            self._infos = read_job_infos(self._commands, self._state_folder, keys)
        try:
            yield
        finally:
            if self._infos:
                self._infos.close()
            self._infos = None

    def add_texts(self, runs: list[Run]) -> Generator[Run, None, None]:
        """The same runs with slurmInfo and job script, as far as Slurm still has them; read one after the other."""
        jobs = {run.key.job_id: self._wanted(run) for run in runs}
        to_come = Counter(run.key.job_id for run in runs)  # two runs of a requeued job have the same texts
        kept: dict[int, Texts] = {}
        with contextlib.closing(read_texts(self._commands, jobs, self._state_folder, self._max_script_bytes)) as texts:
            for run in runs:
                job_id = run.key.job_id
                if job_id not in kept:
                    kept[job_id] = next(texts)
                to_come[job_id] -= 1
                yield replace(run, **(kept[job_id] if to_come[job_id] else kept.pop(job_id))._asdict())

    def _wanted(self, run: Run) -> Wanted:
        info = self._infos.get(run.key) if self._infos else None
        return Wanted(_scontrol_name(run), _script_owner(run), info)

    def ended_between(self, since: int, until: int) -> Generator[list[AccountedEnd], None, None]:
        """Runs that accounting closed in a window of Unix seconds, some at a time.

        sacct runs until the last of them is taken, or the generator is closed. When it fails, what it had said before
        is handed on first.
        """
        argv = ended_command(since, until)
        parser = EndedParser(self._cluster)
        with contextlib.closing(read_lines(self._commands, argv, EPOCH_TIMES)) as lines:
            for batch in batches(lines):
                yield parser.parse(batch)

    def ends_of(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[list[AccountedEnd]]:
        """All runs of these jobs that accounting closed in a window of Unix seconds, those of some jobs at a time."""
        for chunk in _chunks(job_ids, CHUNK):
            text = self._text(ended_command(since, until, chunk), EPOCH_TIMES)
            yield EndedParser(self._cluster).parse(text.splitlines())

    def read_accounted(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[Details]:
        """All runs of these jobs that accounting knows in a window of Unix seconds: no cores, no GPU indices."""
        option = self._json_format().option
        for chunk in _chunks(job_ids, CHUNK):
            argv = runs_command(chunk, since, until, option)
            with self._commands.begin(argv) as question:
                details = self._read_jobs(question, self._parse_accounted, frozenset(chunk))
            yield self._with_users(details, since, until)

    def _with_users(self, details: Details, since: int, until: int) -> Details:
        nameless = {run.key.job_id for run in details.runs if not run.user}
        if not nameless:
            return details
        users = parse_users(self._text(users_command(sorted(nameless), since, until)))
        runs = [run if run.user else replace(run, user=users.get(run.key.job_id, "")) for run in details.runs]
        broken = {run.key.job_id: "accounting names no user" for run in runs if not run.user}
        return Details([run for run in runs if run.user], {**details.broken, **broken})

    def is_forgotten(self, job_id: int) -> bool:
        """Whether slurmctld itself says that it knows no such job. Raises SlurmError when it says nothing."""
        argv = ["scontrol", "-o", "show", "job", str(job_id)]
        answer = self._commands.run(argv)
        if answer.exit_code == 0:
            return False
        if "Invalid job id" in answer.errors:
            return True
        raise failure(argv, answer)

    def node_states(self) -> list[NodeState]:
        """CPUs, memory, GPUs and state of every node."""
        text = self._text(SINFO)
        if not text:
            raise UnexpectedOutput("sinfo", "it names no node")
        self._layouts, states = parse_sinfo(text)
        return states

    def admin_level(self, user: str) -> str | None:
        """`None`, `Operator` or `Administrator` in Slurm's words; None when accounting does not know the user."""
        text = self._text(["sacctmgr", "-nP", "show", "user", user, "format=user,adminlevel"])
        levels = [line.split("|")[1] for line in text.splitlines() if line.startswith(f"{user}|")]
        return levels[0] if levels else None

    def _json_format(self) -> JsonFormat:
        if self._format is not None and time.monotonic() < self._format_until:
            return self._format
        found = find_format(self._commands)
        if found != self._format:
            log.info("asking Slurm with %s", found.option)
        self._format, self._format_until = found, time.monotonic() + FORMAT_SECONDS
        return found

    def _ask_ahead(self, job_ids: list[int], json_format: JsonFormat) -> Command | None:
        """The next chunk: Slurm prepares its answer while this one is dealt with. What cannot start is asked again."""
        with contextlib.suppress(SlurmError):
            return self._ask(job_ids, json_format)
        return None

    def _ask(self, job_ids: list[int], json_format: JsonFormat) -> Command | None:
        """The question for the details of these jobs; None when there is nothing to ask."""
        names = [] if json_format.lists_all_jobs or not job_ids else self._names(job_ids)
        if json_format.lists_all_jobs and job_ids:
            argv = ["squeue", "-a", "--json"]
        elif not names:
            return None
        elif len(names) == 1:
            argv = ["scontrol", "show", "job", names[0], json_format.option]
        else:
            argv = ["squeue", "-a", "-t", "all", "-j", ",".join(names), json_format.option]
        return self._commands.begin(argv)

    def _read_chunk(self, job_ids: list[int], json_format: JsonFormat, question: Command | None = None) -> Details:
        question = question or self._ask(job_ids, json_format)
        if question is None:
            return Details()
        with question:
            details = self._read_jobs(question, self._parse_job, frozenset(job_ids))
        self._note_arrays(details.runs)
        return self._with_sharing(details) if json_format.lacks_sharing else details

    def _note_arrays(self, runs: list[Run]) -> None:
        for run in runs:
            if run.array_job_id:
                self._arrays.pop(run.array_job_id, None)
                self._arrays[run.array_job_id] = None
        while len(self._arrays) > MAX_ARRAYS:
            del self._arrays[next(iter(self._arrays))]

    def _names(self, job_ids: list[int]) -> list[str]:
        """What to call these jobs.

        The last task of an array has the array's id, by which squeue and scontrol would print all tasks. So it is
        asked which task that is; one that waits is left out.
        """
        arrays = self._arrays.keys() & set(job_ids)
        if not arrays:
            return list(map(str, job_ids))
        argv = ["squeue", "-h", "-a", "-t", "all", "-j", ",".join(map(str, sorted(arrays))), "-o", "%A|%K"]
        rows = self._commands.run(argv).output.decode("ascii", errors="replace").splitlines()
        tasks = {job_id: task for job_id, _, task in (row.partition("|") for row in rows)}
        names = [str(job_id) if job_id not in arrays else _task_name(job_id, tasks) for job_id in job_ids]
        return [name for name in names if name]

    def _with_sharing(self, details: Details) -> Details:
        """The same with what the format lacks: squeue's text tells whose the nodes are."""
        if not details.runs:
            return details
        told = parse_sharing(self._text(sharing_command(run.key.job_id for run in details.runs)))
        runs = [replace(run, sharing=told.get(run.key.job_id, run.sharing)) for run in details.runs]
        return Details(runs, details.broken)

    def _has_unknown_nodes(self, details: Details) -> bool:
        return any(resource.hostname not in self._layouts for run in details.runs for resource in run.resources)

    def _parse_job(self, job: Json) -> Run:
        return parse_job(job, self._cluster, self._layouts)

    def _parse_accounted(self, job: Json) -> Run:
        return parse_accounted_run(job, self._cluster)

    def _read_jobs(self, question: Command, parse: _Parse, wanted: frozenset[int]) -> Details:
        details = Details()

        def take(job: Json) -> None:
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
        try:
            answer = question.hand_on(splitter.feed)
            if answer.exit_code != 0:
                raise failure(question.argv, answer)
            splitter.finish()
        except SlurmError:
            self._format_until = 0.0  # Slurm may have been upgraded: find out again what it offers
            raise
        return details

    def _text(self, argv: list[str], environment: Mapping[str, str] | None = None) -> str:
        return read_text(self._commands, argv, environment)


def _scontrol_name(run: Run) -> str:
    """What scontrol calls this very job, where its id can also stand for the whole array or heterogeneous job."""
    if run.array_job_id is not None and run.array_task_id is not None:
        return f"{run.array_job_id}_{run.array_task_id}"
    if run.het_job_id is not None and run.het_job_offset is not None:
        return f"{run.het_job_id}+{run.het_job_offset}"
    return str(run.key.job_id)


def _script_owner(run: Run) -> str:
    """22.05 keeps only a stub of the script for the later components of a heterogeneous job: its leader has it."""
    if run.het_job_id is not None:
        return str(run.het_job_id)
    return str(run.key.job_id) if run.has_script else ""


def _task_name(job_id: int, tasks: Mapping[str, str]) -> str:
    """`tasks` are numbers of tasks by job id; '' for what still waits, which can be several tasks in one line."""
    task = tasks.get(str(job_id))
    if task is None:
        return str(job_id)
    return f"{job_id}_{task}" if task.isdigit() else ""


def _id_or_zero(job: Json) -> int:
    found = job.get("job_id")
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def _chunk_size(json_format: JsonFormat) -> int | None:
    """Jobs in one detailed question; None: all, since Slurm prints them all in any case."""
    if json_format.lists_all_jobs:
        return None
    return 1 if json_format.one_at_a_time else CHUNK


def _chunks(job_ids: Iterable[int], size: int | None) -> Iterator[list[int]]:
    ids = sorted(set(job_ids))
    for at in range(0, len(ids), size or max(len(ids), 1)):
        yield ids[at : at + (size or len(ids))]
