"""Queries about many jobs in parts: a job for which Slurm's own command fails affects only itself.

If the command crashes or times out because of one job, the whole part fails. So a part that fails is halved until that
job is found, as long as Slurm responds to other queries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from cc_slurm_adapter.errors import CommandCancelled, SlurmError

MAX_FAILURES = 40
"""Most queries that may fail before everything is given up for now. This is enough to find five jobs among 200."""
MAX_CONSECUTIVE = 3
"""Most single jobs that may fail without a result in between. With more, everything is given up: Slurm itself fails."""
Result = TypeVar("Result")


class Part(NamedTuple):
    """Some jobs for one query: by their ids, or as a part of all jobs of a user (a user id)."""

    jobs: Sequence[int]
    user: str = ""
    is_doubtful: bool = False
    """Whether they were part of a query that failed."""

    def halves(self) -> list[Part]:
        """Split the part into two queries by ids or, where Slurm filters by user only, into one query for each job."""
        if self.user:
            return [Part([job_id], is_doubtful=True) for job_id in self.jobs]
        middle = len(self.jobs) // 2
        return [Part(jobs, is_doubtful=True) for jobs in (self.jobs[:middle], self.jobs[middle:])]


def split(job_ids: Iterable[int], size: int) -> list[Part]:
    """Split the jobs, in order, into parts of this size."""
    ids = sorted(set(job_ids))
    return [Part(ids[at : at + size]) for at in range(0, len(ids), size)]


def query_in_parts(  # noqa: PLR0913 - what is queried, and when to give up
    parts: Iterable[Part],
    query: Callable[[Part, Part | None], Result],
    failed: Callable[[int, str], Result],
    responds: Callable[[], bool],
    max_failures: int = MAX_FAILURES,
    max_consecutive: int = MAX_CONSECUTIVE,
) -> Iterator[Result]:
    """Yield the result of `query` for each part. `query` gets the part and the following one.

    `failed` makes the result for a job that cannot be queried, from its id and the reason. `responds` tells whether
    Slurm responds to anything. If not, or if too much fails, the error is raised and nothing may be concluded.
    """
    left, failures, consecutive = deque(parts), 0, 0
    while left:
        part = left.popleft()
        try:
            result = query(part, left[0] if left else None)
        except CommandCancelled:
            raise
        except SlurmError as error:
            failures += 1
            is_single = len(part.jobs) == 1
            consecutive += is_single
            if failures > max_failures or consecutive > max_consecutive or not responds():
                raise
            if not is_single:
                left.extendleft(reversed(part.halves()))
                continue
            result = failed(part.jobs[0], str(error))
        else:
            consecutive = 0
        yield result
