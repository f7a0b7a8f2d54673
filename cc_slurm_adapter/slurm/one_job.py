"""One job by the name that people use, and what squeue says of it, for `-job`.

Slurm names a task of an array `123_4` and a component of a heterogeneous job `123+1`. Each has a job id of its own,
which is what is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cc_slurm_adapter.errors import UsageError
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.details import UNKNOWN_JOB
from cc_slurm_adapter.slurm.output import check, read_text, whole_text
from cc_slurm_adapter.slurm.parse.accounting import EARLIEST
from cc_slurm_adapter.slurm.parse.json_values import read_digits, read_job_id

COLUMNS = "%A|%F|%K|%T|%r"
"""Job id, id of the array, task, state, reason: no user can write into any of them."""
RECORD_COLUMNS = "JobIDRaw,JobID"
_NAME = re.compile(r"([0-9]{1,10})(?:([_+])([0-9]{1,7}))?", re.ASCII)
HOW_TO_FIND = "`squeue -h -a -t all -o '%i %A'` or `sacct -a -X -o JobID,JobIDRaw` show the id of each"


class JobName(NamedTuple):
    """What was asked for: a job id, a task of an array, or a component of a heterogeneous job."""

    job_id: int
    """Its id, or that of the array, or of the leader."""
    mark: str = ""
    """`_` before the number of a task, `+` before that of a component, '' in a plain id."""
    number: int = 0

    def __str__(self) -> str:
        return f"{self.job_id}{self.mark}{self.number}" if self.mark else str(self.job_id)


class QueueLine(NamedTuple):
    """A job as squeue lists it."""

    job_id: int
    array_job_id: int
    """The job itself where it is no task of an array."""
    task: str
    """The number of the task, or those that wait together, as `5-10`; N/A for a job that is no task."""
    state: str
    reason: str
    """Why it waits, or how it ended, in Slurm's words."""


def parse_name(text: str) -> JobName:
    """Return what a person has typed as a job. Raises UsageError."""
    found = _NAME.fullmatch(text.strip())
    job_id = read_job_id(found[1]) if found else None
    if found is None or job_id is None:
        raise UsageError(
            f"{text[:40]!r} is no job: give its id, or 123_4 for a task of an array, or 123+1 for a component of a"
            f" heterogeneous job; {HOW_TO_FIND}"
        )
    return JobName(job_id, found[2] or "", int(found[3] or 0))


def read_queue(commands: Commands, name: JobName) -> list[QueueLine]:
    """Read what squeue lists under a name: all tasks where it is that of an array. Raises SlurmError."""
    argv = ["squeue", "-h", "-a", "-t", "all", "-j", str(name), "-o", COLUMNS]
    finished = commands.run(argv)
    if finished.exit_code != 0 and UNKNOWN_JOB in finished.errors:
        return []
    check(argv, finished, printed=bool(finished.output))
    return list(parse_queue(whole_text(argv, finished).splitlines()))


def parse_queue(lines: Iterable[str]) -> Iterator[QueueLine]:
    """Parse the output of squeue with COLUMNS. A line that does not fit is left out."""
    for line in lines:
        columns = line.split("|", 4)
        job_id = read_job_id(columns[0])
        if job_id is not None and len(columns) == 5:
            yield QueueLine(job_id, read_job_id(columns[1]) or job_id, *columns[2:])


def id_in_queue(name: JobName, lines: Iterable[QueueLine]) -> int | None:
    """Return the job id that squeue has for a name; None if it has none.

    Tasks that wait together have no ids of their own yet: they have that of the array.
    """
    if not name.mark:
        return name.job_id
    found = list(lines)
    if name.mark == "+":
        return found[0].job_id if len(found) == 1 else None
    exact = [line.job_id for line in found if read_digits(line.task) == name.number]
    waiting = [line.job_id for line in found if read_digits(line.task) is None]
    return next(iter([*exact, *waiting]), None)


def read_accounted_id(commands: Commands, name: JobName) -> int | None:
    """Return the job id that accounting has for a name; None if it has none. Raises SlurmError."""
    argv = [
        "sacct",
        "-X",
        "-a",
        "-D",
        "-n",
        "-P",
        "-j",
        str(name),
        "-S",
        f"uts{EARLIEST}",
        f"--format={RECORD_COLUMNS}",
    ]
    rows = [line.split("|") for line in read_text(commands, argv).splitlines()]
    ids = [read_job_id(row[0]) for row in rows if len(row) == 2 and row[1] == str(name)]
    return ids[-1] if ids else None
