"""Whole answers of Slurm's commands as text: one that failed or was cut is a SlurmError, never an empty answer.

An exit code of 0 is not enough: `squeue -O` with a column that it does not know, and sacct with a JSON format that it
does not know, print nothing, name the error on standard error and exit 0 (recorded in errors/unknown-field.squeue and
errors/bad-json-version.sacct). Other words there are no failure: Slurm's commands
complain of many things, as of an obsolete line of slurm.conf, and answer.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterator, Mapping

from cc_slurm_adapter.errors import CommandCancelled, CommandFailed, SlurmError, UnexpectedOutput
from cc_slurm_adapter.slurm.commands import Commands, Finished

BATCH = 500
"""Lines of accounting that are handed on at once."""
MAX_LINE = 64 * 1024
_REFUSED = re.compile(r"error: (Invalid .* specification|application/json output not supported)")


def read_text(commands: Commands, argv: list[str], environment: Mapping[str, str] | None = None) -> str:
    """All that a command prints. Raises SlurmError."""
    answer = commands.run(argv, environment=environment)
    check(argv, answer, printed=bool(answer.output))
    return whole_text(argv, answer)


def whole_text(argv: list[str], answer: Finished) -> str:
    """The output as text, whatever the exit code. Raises UnexpectedOutput when it was cut."""
    if answer.output and not answer.output.endswith(b"\n"):
        raise _cut(argv)
    return answer.output.decode("utf-8", errors="replace")


def read_lines(commands: Commands, argv: list[str], environment: Mapping[str, str]) -> Generator[str, None, None]:
    """The lines of a command's output as they come; raises SlurmError after the last whole one when it fails."""
    rest, printed = b"", False
    answer: Finished | None = None
    with contextlib.closing(commands.pieces(argv, environment=environment)) as pieces:
        while answer is None:
            try:
                *lines, rest = (rest + next(pieces)).split(b"\n")
                printed = True
            except StopIteration as end:
                answer, lines = end.value, []
            yield from (line.decode("utf-8", errors="replace") for line in lines)
            if len(rest) > MAX_LINE:
                raise UnexpectedOutput(" ".join(argv[:3]), f"a line has more than {MAX_LINE} bytes")
    check(argv, answer, printed=printed)
    if rest:
        raise _cut(argv)


def batches(lines: Iterator[str]) -> Iterator[list[str]]:
    """Lines in lists of BATCH; what was read before a failure comes before it, but not when the daemon stops."""
    batch: list[str] = []
    try:
        for line in lines:
            batch.append(line)
            if len(batch) == BATCH:
                yield batch
                batch = []
    except CommandCancelled:
        raise
    except SlurmError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _cut(argv: list[str]) -> UnexpectedOutput:
    return UnexpectedOutput(" ".join(argv[:3]), "the output is cut")  # a number at its end may be half of one


def check(argv: list[str], answer: Finished, *, printed: bool) -> None:
    """Raise CommandFailed for a command that has failed, or that has printed nothing and refuses what it was asked."""
    if answer.exit_code != 0 or (not printed and _REFUSED.search(answer.errors)):
        raise failure(argv, answer)


def failure(argv: list[str], answer: Finished) -> CommandFailed:
    """The error for a command that has failed."""
    return CommandFailed(f"{' '.join(argv[:3])}: {answer.complaint()}")
