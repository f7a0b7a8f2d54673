"""squeue's short listing: the jobs and their states, from columns that no user controls.

There is a line for each running job. A poll reads those that may say something new, see `Slurm.list_jobs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from cc_slurm_adapter.model import EndState, ListedJob, Phase
from cc_slurm_adapter.slurm.parse.json_values import read_digits, read_job_id
from cc_slurm_adapter.slurm.parse.left_out import log_left_out
from cc_slurm_adapter.slurm.parse.states import LISTED, read_shown

LISTING = ["squeue", "-h", "-a", "-t", LISTED, "-o", "%A|%T|%S|%e|%1N"]
"""The command for the listing. It runs under SLURM_TIME_FORMAT=%s.

It prints only the first letter of the nodes, or a blank if there are none: %D would be what the job requested, and %B
may be a name that a user has chosen.
"""


def parse_listing(lines: Iterable[bytes]) -> Iterator[ListedJob]:
    """Parse lines of the output of LISTING. A line that does not fit is logged.

    For a pending job slurmctld forecasts a start, and for a job that is not over it forecasts an end. Neither is read.
    """
    left_out: list[str] = []
    for line in lines:
        columns = line.decode("utf-8", errors="replace").split("|")
        job_id = read_job_id(columns[0])
        if len(columns) != 5 or job_id is None:
            left_out.append(repr(line[:100].decode("utf-8", errors="replace")))
            continue
        _, state, start, end, nodes = columns
        phase, end_state = _read_state(state)
        start_time = None if phase is Phase.WAITING else read_digits(start)
        end_time = None if end_state is None else read_digits(end)
        yield ListedJob(job_id, phase, start_time, end_time, end_state, state, nodes != " ", line)
    log_left_out("squeue", left_out)


@lru_cache(maxsize=100)
def _read_state(word: str) -> tuple[Phase, EndState | None]:
    return read_shown(word)
