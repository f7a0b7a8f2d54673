"""slurmInfo and job scripts of many jobs through one `scontrol` that reads commands from standard input.

Both arrive on its standard output, which also works where scontrol is a wrapper that runs elsewhere. A text is passed
on as soon as it is complete, and scontrol waits meanwhile. So only one text and one piece of output are in memory.

More texts must wait only after a missing one. On standard output a job that is gone looks the same as any job while
slurmctld is away (fixtures/slurm-*/conversations/slurmctld-down). Only standard error has the reason.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import logging
import re
import secrets
import sys
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from typing import NamedTuple

from cc_slurm_adapter.errors import CommandCancelled, CommandFailed, NoConversation, SlurmError, UnexpectedOutput
from cc_slurm_adapter.log import NOTICE, Reminder, Repeated
from cc_slurm_adapter.model import Run, RunKey
from cc_slurm_adapter.slurm.bulk_texts import BulkTexts, read_job_infos
from cc_slurm_adapter.slurm.commands import Command, Commands, Finished
from cc_slurm_adapter.slurm.conversation import ENVIRONMENT, Conversation, Query, Response
from cc_slurm_adapter.slurm.details import UNKNOWN_JOB
from cc_slurm_adapter.system.grouped_lines import GroupedLines
from cc_slurm_adapter.system.outages import cause_of

log = logging.getLogger(__name__)

MANY, ONE_IN = 50, 20
"""One query gives slurmInfo of all jobs if at least MANY are wanted, and at least one in ONE_IN of the listed jobs."""
MAX_LISTED = 20_000
"""... but not if more jobs than this are listed: scontrol needs 40 MB for 10,000, pending ones included. (squeue needs
that at each poll.)"""
MAX_FAILURES = 20
"""Most queries for texts that may fail before everything is given up for now."""
INFO_BYTES = 4 * 1024 * 1024
"""Most bytes of a slurmInfo that are kept. Those of the largest jobs have some thousand."""
MAX_WAITING_BYTES = 8 * 1024 * 1024
"""Most bytes of texts that may wait for scontrol's end. Beyond that it is ended, and another one gets the remaining
queries."""
MAX_LAST_PIECES = 8
"""Most pieces of output to wait for after the last response: scontrol prints one more prompt."""
CUT_NOTE = "\n[cut by cc-slurm-adapter: the {what} has {size} bytes, {limit_name} is {limit}]\n"
_MISSING = re.compile(r"^(?:slurm_load_jobs error|job script retrieval failed): (.*)", re.M)
OF_SLURMCTLD = (UNKNOWN_JOB, "Job script not specified", "Invalid user id", "Access/permission denied")
"""Reasons why slurmctld itself has no text; the third means a script that the user may not see."""


class TextRequest(NamedTuple):
    """Which texts of a job are queried, and how."""

    name: str
    """scontrol's name of this job alone. Usually that is its id. For a task of an array it is `<array>_<task>`, because
    the last task has the id of the whole array. For a component of a heterogeneous job it is `<leader>+<offset>`,
    because the leader's id means all components."""
    script_of: str
    """The id of the job whose script it runs; '' if it has none."""
    info: str | None = None
    """Its slurmInfo, if that is known already."""
    array: int = 0
    """The id of the array whose tasks all have this script; 0 outside arrays."""


class Texts(NamedTuple):
    """The texts of one job; '' where Slurm has none."""

    slurm_info: str
    job_script: str


class JobTexts:
    """Adds slurmInfo and job scripts to runs. It decides how slurmInfo is queried and when to do without texts.

    Texts are optional: if only queries for texts fail, a run is reported without them.
    """

    def __init__(
        self, commands: Commands, state_folder: str, max_script_bytes: int, slurmctld_responds: Callable[[], bool]
    ) -> None:
        self._commands = commands
        self._state_folder = state_folder
        self.max_script_bytes = max_script_bytes
        self._slurmctld_responds = slurmctld_responds
        self._prefetched: BulkTexts | None = None
        self._failed_alone: RunKey | None = None
        """The run for which texts failed last, while no other run got any."""
        self._accepts_commands = True
        """Whether scontrol accepted commands over standard input the last time."""
        self._no_texts, self._no_bulk = Reminder(), Repeated()
        self._lines = GroupedLines(log)

    @contextlib.contextmanager
    def prefetch(self, keys: Collection[RunKey], listed: int) -> Iterator[None]:
        """Return a context inside which one query gives slurmInfo of these runs, if that costs slurmctld less.

        The runs are among the `listed` jobs that slurmctld has just listed.
        """
        if len(keys) >= MANY and listed <= min(len(keys) * ONE_IN, MAX_LISTED):
            self._prefetched = read_job_infos(self._commands, self._state_folder, keys, self._log_bulk_failure)
        try:
            yield
        finally:
            if self._prefetched:
                self._prefetched.close()
            self._prefetched = None

    def _log_bulk_failure(self, error: Exception) -> None:
        if self._no_bulk.is_due(cause_of(str(error))):
            log.warning("slurmInfo is asked for job by job, which takes longer: %s%s", error, self._no_bulk.note)

    def add_to(self, runs: list[Run]) -> Generator[Run, None, None]:
        """Yield the same runs with their texts, in order. Raises SlurmError.

        After a failure the runs are halved until the run that fails alone is found. It is yielded without texts if
        others got some, or if it fails again: one failure may be chance.
        """
        self._lines.report_due()
        left, failures, has_texts = deque([runs]), 0, False
        while left:
            some, done = left.popleft(), 0
            try:
                for run in self._add_or_do_without(some):
                    yield run
                    done, has_texts = done + 1, True
            except CommandCancelled:
                raise
            except SlurmError as error:
                rest, failures = some[done:], failures + 1
                if failures > MAX_FAILURES or not self._slurmctld_responds():
                    raise
                if len(some) > 1:
                    half = len(rest) // 2
                    left.extendleft(part for part in (rest[half:], rest[:half]) if part)
                elif has_texts or rest[0].key == self._failed_alone:
                    self._log_without_texts(rest[0].key, str(error))
                    yield rest[0]
                else:
                    self._failed_alone = rest[0].key
                    raise

    def _log_without_texts(self, key: RunKey, reason: str) -> None:
        what = "is reported without slurmInfo and job script"
        line = f"{key} {what}: {reason}"
        more = f"more runs are reported without slurmInfo and job script, the first is {key}: {reason}"
        self._lines.report(what, cause_of(reason), line, lambda: more, level=logging.ERROR)

    def _add_or_do_without(self, runs: list[Run]) -> Generator[Run, None, None]:
        """Yield the runs with their texts. If scontrol has refused commands twice in a row, yield them without."""
        done = 0
        try:
            for run in self._add(runs):
                self._accepts_commands |= bool(run.job_script or (run.slurm_info and self._prefetched is None))
                if self._accepts_commands and self._no_texts.over():
                    text = "jobs are reported with slurmInfo and job script again%s"
                    log.log(NOTICE, text, self._no_texts.note)
                yield run
                done += 1
        except NoConversation as error:
            if self._accepts_commands or not runs_alone(self._commands):
                self._accepts_commands = False  # once may be chance
                raise
            if self._no_texts.is_due():
                log.error("jobs are reported without slurmInfo and job script: %s%s", error, self._no_texts.note)
            yield from runs[done:]

    def _add(self, runs: list[Run]) -> Generator[Run, None, None]:
        requests = {run.key.job_id: self._request_for(run) for run in runs}
        to_come = Counter(run.key.job_id for run in runs)  # two runs of a requeued job have the same texts
        kept: dict[int, Texts] = {}
        with contextlib.closing(read_texts(self._commands, requests, self.max_script_bytes)) as texts:
            for run in runs:
                job_id = run.key.job_id
                if job_id not in kept:
                    kept[job_id] = next(texts)
                to_come[job_id] -= 1
                yield run.with_texts(*(kept[job_id] if to_come[job_id] else kept.pop(job_id)))

    def _request_for(self, run: Run) -> TextRequest:
        info = self._prefetched.get(run.key) if self._prefetched else None
        return TextRequest(_scontrol_name(run), _script_owner(run), info, run.array_job_id or 0)


def _scontrol_name(run: Run) -> str:
    """Return scontrol's name of this job alone: its id can also mean the whole array or heterogeneous job."""
    if run.array_job_id is not None and run.array_task_id is not None:
        return f"{run.array_job_id}_{run.array_task_id}"
    if run.het_job_id is not None and run.het_job_offset is not None:
        return f"{run.het_job_id}+{run.het_job_offset}"
    return str(run.key.job_id)


def _script_owner(run: Run) -> str:
    """Return the id of the job that has the script, or ''.

    22.05 keeps only a stub of the script for the later components of a heterogeneous job. The leader has the script.
    """
    if run.het_job_id is not None:
        return str(run.het_job_id)
    return str(run.key.job_id) if run.has_script else ""


def read_texts(
    commands: Commands, requests: Mapping[int, TextRequest], max_script_bytes: int
) -> Generator[Texts, None, None]:
    """Yield the texts of these jobs, in order, as they arrive. Raises SlurmError after the last complete text.

    Scripts longer than `max_script_bytes` are cut, with a note; 0 means no scripts. The script of an array, which may
    have megabytes, is queried once for tasks that follow one another. scontrol runs until the last text is read or the
    generator is closed. Other commands may be run in between.
    """
    ordered = [job if max_script_bytes > 0 else job._replace(script_of="") for job in requests.values()]
    left = [(job, _has_script_of(before, job)) for before, job in zip([None, *ordered], ordered)]
    while left:
        done = 0
        with contextlib.closing(_read_some(commands, left, max_script_bytes)) as some:
            for texts in some:
                yield texts
                done += 1
        left = [(job, False) for job, _ in left[done:]]


def _has_script_of(before: TextRequest | None, job: TextRequest) -> bool:
    """Return whether a job runs the same script as the one before it."""
    return bool(before and before.script_of and job.script_of and job.array and job.array == before.array)


def _read_some(
    commands: Commands, jobs: Sequence[tuple[TextRequest, bool]], max_script_bytes: int
) -> Generator[Texts, None, None]:
    """Yield the texts of the first of these jobs, of at least one.

    The flag of each job tells whether it shares the script of the job before it. If that script is missing, the
    generator ends before the job: the task that was queried may be gone although the next one is not.
    """
    waiting: list[Texts] = []
    size, script = 0, ""
    with _Scontrol(commands, [each for job in jobs for each in _queries(*job, max_script_bytes)]) as scontrol:
        for job, is_shared in jobs:
            if is_shared and not script:
                break
            info = _info_text(next(scontrol.responses)) if job.info is None else job.info
            if not is_shared:
                script = _script_text(next(scontrol.responses), max_script_bytes) if job.script_of else ""
            texts = Texts(info, script)
            if waiting or (job.info is None and not info) or (job.script_of and not script):
                waiting.append(texts)
                size += sys.getsizeof(info) + sys.getsizeof(script)
            else:
                yield texts
            if size > MAX_WAITING_BYTES:
                break
        if waiting:
            scontrol.require_slurmctld()
    yield from waiting


def _queries(job: TextRequest, is_shared: bool, max_script_bytes: int) -> Generator[Query, None, None]:
    if job.info is None:
        yield Query(f"show job {job.name}", INFO_BYTES)
    if job.script_of and not is_shared:
        yield Query(f"write batch_script {job.script_of} -", max_script_bytes)


class _Scontrol:
    """One scontrol with these queries. Leaving the `with` block ends it. Without queries none is started."""

    def __init__(self, commands: Commands, queries: Sequence[Query]) -> None:
        self._conversation = Conversation(queries, secrets.token_hex(16))
        self._command: Command | None = None
        if queries:
            stdin = self._conversation.stdin()
            self._command = commands.begin(["scontrol"], stdin=stdin, environment=ENVIRONMENT)
        self.responses = self._query()

    def __enter__(self) -> _Scontrol:
        return self

    def __exit__(self, *_: object) -> None:
        self.responses.close()
        if self._command:
            self._command.close()

    def _query(self) -> Generator[Response, None, None]:
        """Yield the responses. The exit code is ignored: it only tells whether one of the jobs is gone."""
        if self._command is None:
            return
        pieces = self._command.pieces()
        while not self._conversation.is_over:
            try:
                piece = next(pieces)
            except StopIteration as end:
                raise _ended_early(self._conversation, end.value) from None
            responses = self._conversation.feed(piece)
            if self._conversation.is_over:
                _let_end(self._command, pieces)
            yield from responses

    def require_slurmctld(self) -> None:
        """Raise CommandFailed if a text is missing because slurmctld did not respond."""
        errors = self._command.errors.decode("utf-8", errors="replace") if self._command else ""
        for reason in _MISSING.finditer(errors):
            if not any(known in reason[1] for known in OF_SLURMCTLD):
                raise CommandFailed(f"scontrol: {reason[0]}")


def runs_alone(commands: Commands) -> bool:
    """Return whether scontrol runs a command that is given by arguments and needs no slurmctld."""
    with contextlib.suppress(SlurmError):
        return commands.run(["scontrol", "show", "hostnames", "a"]).output == b"a\n"
    return False


def _let_end(command: Command, pieces: Generator[bytes, None, Finished]) -> None:
    """Let scontrol end by itself, because a wrapper may have to clean up.

    All output is read, so how it ends does not matter.
    """
    command.limit_rest()
    with contextlib.suppress(CommandFailed):
        for _ in itertools.islice(pieces, MAX_LAST_PIECES):
            pass


def _ended_early(conversation: Conversation, end: Finished) -> SlurmError:
    if end.exit_code == 0 and not conversation.has_begun:
        return NoConversation()
    return UnexpectedOutput("scontrol", f"it has ended before its last answer: {end.last_error()}")


def _info_text(response: Response) -> str:
    return _text(response, "text", "the most that is kept", INFO_BYTES).rstrip()


def _script_text(response: Response, limit: int) -> str:
    """Return the script without the NUL that old versions of Slurm append."""
    return _text(response, "script", "jobScriptMaxBytes", limit).rstrip("\0")


def _text(response: Response, what: str, limit_name: str, limit: int) -> str:
    """Return the text, or its beginning with a note, cut between two characters. Invalid UTF-8 becomes U+FFFD."""
    if response.size <= limit:
        return response.kept.decode("utf-8", errors="replace")
    # Not final: the decoder holds back a character that was cut in two.
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(response.kept)
    return text + CUT_NOTE.format(what=what, size=response.size, limit_name=limit_name, limit=limit)
