"""Whole answers of Slurm's commands as text: one that failed or was cut is a SlurmError, never an empty answer."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping

from cc_slurm_adapter.errors import CommandCancelled, CommandFailed, SlurmError, UnexpectedOutput
from cc_slurm_adapter.slurm.commands import Commands, Finished

BATCH = 500
"""Lines of accounting that are handed on at once."""
MAX_LINE = 64 * 1024


def read_text(commands: Commands, argv: list[str], environment: Mapping[str, str] | None = None) -> str:
    """All that a command prints. Raises SlurmError."""
    answer = commands.run(argv, environment=environment)
    if answer.exit_code != 0:
        raise failure(argv, answer)
    return whole_text(argv, answer)


def whole_text(argv: list[str], answer: Finished) -> str:
    """The output as text, whatever the exit code. Raises UnexpectedOutput when it was cut."""
    if answer.output and not answer.output.endswith(b"\n"):
        raise _cut(argv)
    return answer.output.decode("utf-8", errors="replace")


def read_lines(commands: Commands, argv: list[str], environment: Mapping[str, str]) -> Generator[str, None, None]:
    """The lines of a command's output as they come; raises SlurmError after the last whole one when it fails."""
    rest = b""
    answer: Finished | None = None
    with contextlib.closing(commands.pieces(argv, environment=environment)) as pieces:
        while answer is None:
            try:
                *lines, rest = (rest + next(pieces)).split(b"\n")
            except StopIteration as end:
                answer, lines = end.value, []
            yield from (line.decode("utf-8", errors="replace") for line in lines)
            if len(rest) > MAX_LINE:
                raise UnexpectedOutput(" ".join(argv[:3]), f"a line has more than {MAX_LINE} bytes")
    if answer.exit_code != 0:
        raise failure(argv, answer)
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


def failure(argv: list[str], answer: Finished) -> CommandFailed:
    """The error for a command that has ended with another exit code than 0."""
    return CommandFailed(f"{' '.join(argv[:3])}: {answer.complaint()}")
