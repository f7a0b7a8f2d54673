"""slurmInfo and job scripts of many jobs through one `scontrol` that reads commands from standard input.

Both come over its standard output, which also works where scontrol is a wrapper that runs elsewhere. A text is handed
on as soon as it is complete, and scontrol waits meanwhile: what waits here is one text and one piece of the output.

Only where a text is missing more has to wait. On standard output a job that is gone looks as one that a slurmctld
which is away cannot be asked for (fixtures/slurm-*/conversations/slurmctld-down); the reason is on standard error.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import re
import secrets
import sys
from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple

from cc_slurm_adapter.errors import CommandFailed, NoConversation, SlurmError, UnexpectedOutput
from cc_slurm_adapter.slurm.commands import EXIT_LIMIT, Command, Commands, Finished
from cc_slurm_adapter.slurm.conversation import ENVIRONMENT, Answer, Conversation, Question
from cc_slurm_adapter.slurm.details import UNKNOWN_JOB

INFO_BYTES = 4 * 1024 * 1024
"""More of a slurmInfo is not kept; those of the largest jobs have some thousand."""
MOST_WAITING = 8 * 1024 * 1024
"""Bytes of texts that may wait for scontrol's end; then it is ended, and another is asked for the rest."""
LAST_PIECES = 8
"""So many pieces of output are waited for after the last answer: scontrol prints one more prompt."""
CUT_NOTE = "\n[cut by cc-slurm-adapter: the {what} has {size} bytes, {limit_name} is {limit}]\n"
_MISSING = re.compile(r"^(?:slurm_load_jobs error|job script retrieval failed): (.*)", re.M)
OF_SLURMCTLD = (UNKNOWN_JOB, "Job script not specified", "Invalid user id", "Access/permission denied")
"""Why slurmctld itself has no text; the third stands for a script that the user may not see."""


class Wanted(NamedTuple):
    """A job as scontrol is asked for it."""

    name: str
    """What stands for it and nothing else: its id, `<array>_<task>` for a task of an array, because the last task
    has the id of the whole array, `<leader>+<offset>` for a component of a heterogeneous job, because the leader's
    id stands for all components."""
    script_of: str
    """The id of the job whose script it runs; '' when it has none."""
    info: str | None = None
    """Its slurmInfo, when that is known already."""
    array: int = 0
    """The id of the array whose tasks all have this script; 0 outside arrays."""


class Texts(NamedTuple):
    """The texts of one job; '' where Slurm has none."""

    slurm_info: str
    job_script: str


def read_texts(commands: Commands, jobs: Mapping[int, Wanted], max_script_bytes: int) -> Generator[Texts, None, None]:
    """The texts of these jobs, in their order, as they come. Raises SlurmError after the last complete one.

    Scripts longer than `max_script_bytes` are cut and say so; 0 means no scripts. The script of an array, which may
    have megabytes, is asked for once for tasks that follow one another. scontrol runs until the last text is taken, or
    the generator is closed; other commands may be run in between.
    """
    wanted = [job if max_script_bytes > 0 else job._replace(script_of="") for job in jobs.values()]
    left = [(job, _has_script_of(before, job)) for before, job in zip([None, *wanted], wanted)]
    while left:
        done = 0
        with contextlib.closing(_read_some(commands, left, max_script_bytes)) as some:
            for texts in some:
                yield texts
                done += 1
        left = [(job, False) for job, _ in left[done:]]


def _has_script_of(before: Wanted | None, job: Wanted) -> bool:
    """Whether a job runs the same script as the one before it."""
    return bool(before and before.script_of and job.script_of and job.array and job.array == before.array)


def _read_some(
    commands: Commands, jobs: Sequence[tuple[Wanted, bool]], max_script_bytes: int
) -> Generator[Texts, None, None]:
    """The texts of the first of these jobs, at least of one. With each is whether it has the script of the one before.

    Where that script is missing they end: the task that was asked for may be gone, and the next one not.
    """
    waiting: list[Texts] = []
    size, script = 0, ""
    with _Talk(commands, [each for job in jobs for each in _questions(*job, max_script_bytes)]) as talk:
        for job, is_shared in jobs:
            if is_shared and not script:
                break
            info = _info_text(next(talk.answers)) if job.info is None else job.info
            if not is_shared:
                script = _script_text(next(talk.answers), max_script_bytes) if job.script_of else ""
            texts = Texts(info, script)
            if waiting or (job.info is None and not info) or (job.script_of and not script):
                waiting.append(texts)
                size += sys.getsizeof(info) + sys.getsizeof(script)
            else:
                yield texts
            if size > MOST_WAITING:
                break
        if waiting:
            talk.require_slurmctld()
    yield from waiting


def _questions(job: Wanted, is_shared: bool, max_script_bytes: int) -> Generator[Question, None, None]:
    if job.info is None:
        yield Question(f"show job {job.name}", INFO_BYTES)
    if job.script_of and not is_shared:
        yield Question(f"write batch_script {job.script_of} -", max_script_bytes)


class _Talk:
    """One scontrol that is asked these questions; leaving the `with` block ends it. None is started for no question."""

    def __init__(self, commands: Commands, questions: Sequence[Question]) -> None:
        self._conversation = Conversation(questions, secrets.token_hex(16))
        self._command: Command | None = None
        if questions:
            stdin = self._conversation.stdin()
            self._command = commands.begin(["scontrol"], stdin=stdin, environment=ENVIRONMENT)
        self.answers = self._ask()

    def __enter__(self) -> _Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.answers.close()
        if self._command:
            self._command.close()

    def _ask(self) -> Generator[Answer, None, None]:
        """The exit code is not looked at: it tells whether one of the jobs is gone, an answer more."""
        if self._command is None:
            return
        pieces = self._command.pieces()
        while not self._conversation.is_over:
            try:
                piece = next(pieces)
            except StopIteration as end:
                raise _ended_early(self._conversation, end.value) from None
            answers = self._conversation.hear(piece)
            if self._conversation.is_over:
                _let_end(self._command, pieces)
            yield from answers

    def require_slurmctld(self) -> None:
        """Raise CommandFailed when a text is missing for which slurmctld was not there."""
        errors = self._command.errors.decode("utf-8", errors="replace") if self._command else ""
        for reason in _MISSING.finditer(errors):
            if not any(known in reason[1] for known in OF_SLURMCTLD):
                raise CommandFailed(f"scontrol: {reason[0]}")


def runs_alone(commands: Commands) -> bool:
    """Whether scontrol answers a question that comes as arguments, for which it needs no slurmctld."""
    with contextlib.suppress(SlurmError):
        return commands.run(["scontrol", "show", "hostnames", "a"]).output == b"a\n"
    return False


def _let_end(command: Command, pieces: Generator[bytes, None, Finished]) -> None:
    """A wrapper may have something to put away. Everything is said, so nothing depends on how it ends."""
    command.time_limit = EXIT_LIMIT
    with contextlib.suppress(CommandFailed):
        for _ in itertools.islice(pieces, LAST_PIECES):
            pass


def _ended_early(conversation: Conversation, end: Finished) -> SlurmError:
    if end.exit_code == 0 and not conversation.has_begun:
        return NoConversation()
    return UnexpectedOutput("scontrol", f"it has not come to its last answer: {end.complaint()}")


def _info_text(answer: Answer) -> str:
    return _text(answer, "text", "the most that is kept", INFO_BYTES).rstrip()


def _script_text(answer: Answer, limit: int) -> str:
    """Without the NUL that old versions of Slurm append."""
    return _text(answer, "script", "jobScriptMaxBytes", limit).rstrip("\0")


def _text(answer: Answer, what: str, limit_name: str, limit: int) -> str:
    """The text, or its beginning and a note, cut between two characters. Bytes that are no UTF-8 become U+FFFD."""
    if answer.size <= limit:
        return answer.kept.decode("utf-8", errors="replace")
    # Not final: the decoder holds back a character that was cut in two.
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(answer.kept)
    return text + CUT_NOTE.format(what=what, size=answer.size, limit_name=limit_name, limit=limit)
