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
Answer = TypeVar("Answer")


class Part(NamedTuple):
    """Some jobs that are asked for in one question: by their ids, or as some of all jobs of a user (a user id)."""

    jobs: Sequence[int]
    user: str = ""
    is_doubtful: bool = False
    """A question that failed has asked for them before."""

    def halves(self) -> list[Part]:
        """The same jobs in two questions, by their ids."""
        middle = len(self.jobs) // 2
        return [Part(jobs, is_doubtful=True) for jobs in (self.jobs[:middle], self.jobs[middle:])]


def in_parts(job_ids: Iterable[int], size: int) -> list[Part]:
    """The jobs in order, so many to a part."""
    ids = sorted(set(job_ids))
    return [Part(ids[at : at + size]) for at in range(0, len(ids), size)]


def ask_in_parts(
    parts: Iterable[Part],
    ask: Callable[[Part, Part | None], Answer],
    failed: Callable[[int, str], Answer],
    is_there: Callable[[], bool],
) -> Iterator[Answer]:
    """What `ask` answers for each part, which it gets together with the following one.

    `failed` makes the answer for a job that Slurm cannot be asked for, from its id and the reason. `is_there` tells
    whether Slurm answers anything: if not, or if too much fails, the error is raised and nothing follows from it.
    """
    left, failures = deque(parts), 0
    while left:
        part = left.popleft()
        try:
            answer = ask(part, left[0] if left else None)
        except CommandCancelled:
            raise
        except SlurmError as error:
            failures += 1
            if failures > MAX_FAILURES or not is_there():
                raise
            if len(part.jobs) > 1:
                left.extendleft(reversed(part.halves()))
                continue
            answer = failed(part.jobs[0], str(error))
        yield answer
