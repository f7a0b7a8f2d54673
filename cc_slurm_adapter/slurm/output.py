"""The output of Slurm's commands as text. If a command failed or its output was cut, SlurmError is raised.

An exit code of 0 is not enough. `squeue -O` with a column that it does not know, and sacct with a JSON format that it
does not know, print nothing, name the error on standard error and exit with 0 (recorded in errors/unknown-field.squeue
and errors/bad-json-version.sacct). Other text on standard error is not a failure: beside a good result Slurm's commands
print many warnings, for example about an obsolete line of slurm.conf.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Generator, Iterator, Mapping

from cc_slurm_adapter.errors import CommandCancelled, CommandFailed, SlurmError, UnexpectedOutput
from cc_slurm_adapter.slurm.commands import Commands, Finished

BATCH = 500
"""Lines of accounting in a batch."""
MAX_LINE = 64 * 1024
"""Most bytes of a line. Slurm prints no longer ones."""
EPOCH_TIMES = {"SLURM_TIME_FORMAT": "%s"}
"""The environment in which Slurm's commands print Unix seconds."""
_REFUSED = re.compile(r"error: (Invalid .* specification|application/json output not supported)")


def read_text(commands: Commands, argv: list[str], environment: Mapping[str, str] | None = None) -> str:
    """Run a command and return its output. Raises SlurmError."""
    finished = commands.run(argv, environment=environment)
    check(argv, finished, printed=bool(finished.output))
    return whole_text(argv, finished)


def whole_text(argv: list[str], finished: Finished) -> str:
    """Return the output as text, whatever the exit code. Raises UnexpectedOutput if it was cut."""
    if finished.output and not finished.output.endswith(b"\n"):
        raise _cut(argv)
    return finished.output.decode("utf-8", errors="replace")


def read_lines(commands: Commands, argv: list[str], environment: Mapping[str, str]) -> Generator[str, None, None]:
    """Yield the lines of a command's output as they arrive. Raises SlurmError, after the last whole line."""
    with contextlib.closing(read_raw_lines(commands, argv, environment)) as parts:
        for lines in parts:
            yield from (line.decode("utf-8", errors="replace") for line in lines)


def read_raw_lines(
    commands: Commands, argv: list[str], environment: Mapping[str, str]
) -> Generator[list[bytes], None, None]:
    """Yield the lines of a command's output, those that arrive together. Raises SlurmError, after the last whole line.

    They have no line feed at their end.
    """
    rest, printed = b"", False
    finished: Finished | None = None
    with contextlib.closing(commands.pieces(argv, environment=environment)) as pieces:
        while finished is None:
            try:
                *lines, rest = (rest + next(pieces)).split(b"\n")
                printed = True
            except StopIteration as end:
                finished, lines = end.value, []
            yield lines
            if len(rest) > MAX_LINE:
                raise UnexpectedOutput(" ".join(argv[:3]), f"a line has more than {MAX_LINE} bytes")
    check(argv, finished, printed=printed)
    if rest:
        raise _cut(argv)


def read_kept_lines(commands: Commands, argv: list[str], environment: Mapping[str, str]) -> Generator[str, None, None]:
    """Yield the lines of a command's output once it has ended, so that no other query is asked beside it.

    Until then they are kept compressed: at a million jobs a day, an hour has 41,667 lines, which take 0.4 MB. Raises
    SlurmError, after the last whole line; if the daemon stops, immediately.
    """
    kept: list[bytes] = []
    failure: SlurmError | None = None
    try:
        with contextlib.closing(read_raw_lines(commands, argv, environment)) as parts:
            kept.extend(zlib.compress(b"\n".join(lines), 1) for lines in parts if lines)
    except CommandCancelled:
        raise
    except SlurmError as error:
        failure = error
    for block in kept:
        yield from zlib.decompress(block).decode("utf-8", errors="replace").split("\n")
    if failure is not None:
        raise failure


def batches(lines: Iterator[str]) -> Iterator[list[str]]:
    """Yield lines in lists of BATCH. A failure is raised after the lines read before it, unless the daemon stops."""
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


def check(argv: list[str], finished: Finished, *, printed: bool) -> None:
    """Raise CommandFailed if a command has failed, or has printed nothing but the refusal of an option."""
    if finished.exit_code != 0 or (not printed and _REFUSED.search(finished.errors)):
        raise failure(argv, finished)


def failure(argv: list[str], finished: Finished) -> CommandFailed:
    """Make the error for a command that has failed."""
    return CommandFailed(f"{' '.join(argv[:3])}: {finished.last_error()}")
