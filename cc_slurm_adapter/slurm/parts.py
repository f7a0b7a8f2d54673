"""Questions about many jobs in parts: one job for which Slurm's own command fails costs only itself.

A crash or a time-out of the command for one job fails the whole part. So a part that fails is halved until that job is
found, as long as Slurm answers other questions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from cc_slurm_adapter.errors import CommandCancelled, SlurmError

MAX_FAILURES = 40
"""Questions that may fail until all is given up for now: so many find five jobs among 200."""
IN_A_ROW = 3
"""Single jobs that may fail without an answer in between, until all is given up: then it is Slurm that fails."""
Answer = TypeVar("Answer")


class Part(NamedTuple):
    """Some jobs that are asked for in one question: by their ids, or as some of all jobs of a user (a user id)."""

    jobs: Sequence[int]
    user: str = ""
    is_doubtful: bool = False
    """A question that failed has asked for them before."""

    def halves(self) -> list[Part]:
        """The same jobs in two questions by their ids; one by one where Slurm filters by user only."""
        if self.user:
            return [Part([job_id], is_doubtful=True) for job_id in self.jobs]
        middle = len(self.jobs) // 2
        return [Part(jobs, is_doubtful=True) for jobs in (self.jobs[:middle], self.jobs[middle:])]


def in_parts(job_ids: Iterable[int], size: int) -> list[Part]:
    """The jobs in order, so many to a part."""
    ids = sorted(set(job_ids))
    return [Part(ids[at : at + size]) for at in range(0, len(ids), size)]


def ask_in_parts(  # noqa: PLR0913 - what is asked, and when to give up
    parts: Iterable[Part],
    ask: Callable[[Part, Part | None], Answer],
    failed: Callable[[int, str], Answer],
    is_there: Callable[[], bool],
    max_failures: int = MAX_FAILURES,
    in_a_row: int = IN_A_ROW,
) -> Iterator[Answer]:
    """What `ask` answers for each part, which it gets together with the following one.

    `failed` makes the answer for a job that Slurm cannot be asked for, from its id and the reason. `is_there` tells
    whether Slurm answers anything: if not, or if too much fails, the error is raised and nothing follows from it.
    """
    left, failures, alone = deque(parts), 0, 0
    while left:
        part = left.popleft()
        try:
            answer = ask(part, left[0] if left else None)
        except CommandCancelled:
            raise
        except SlurmError as error:
            failures += 1
            is_alone = len(part.jobs) == 1
            alone += is_alone
            if failures > max_failures or alone > in_a_row or not is_there():
                raise
            if not is_alone:
                left.extendleft(reversed(part.halves()))
                continue
            answer = failed(part.jobs[0], str(error))
        else:
            alone = 0
        yield answer
