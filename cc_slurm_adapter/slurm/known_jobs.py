"""Which of many ended jobs slurmctld can still show: one short listing instead of a query for each 200 of them.

slurmctld forgets a job MinJobAge seconds after its end, so of old jobs it shows nothing. To be asked for their details
is not cheap for it: it copies all its jobs, whatever the query names, and some releases print all of them.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Mapping

from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.output import read_text
from cc_slurm_adapter.slurm.parse.json_values import read_job_id

ALL_JOBS = ["squeue", "-h", "-a", "-t", "all", "-o", "%A"]
"""The ids of all jobs, pending ones too: an ended run's job may wait for its next run."""
MANY = 50
"""So many jobs are worth a listing. Fewer are asked for by their ids."""
MARGIN = 60
"""Seconds by which a job must have ended before the listing, since slurmctld's clock may be another one."""
MAX_AGE = 600.0
"""Seconds after which there is a new listing."""
CLOCK_STEP = 5.0
"""Seconds by which the clock may have been set since the listing."""


class KnownJobs:
    """The jobs that slurmctld knew at the last listing. It tells nothing about jobs that ended after that."""

    def __init__(
        self,
        commands: Commands,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._commands = commands
        self._clock, self._monotonic = clock, monotonic
        self._listed = array("Q")
        self._as_of = 0.0
        """The Unix time of the listing; 0 if there is none."""
        self._read_at = 0.0
        """The same by the monotonic clock."""

    def among(self, ended: Mapping[int, int]) -> set[int]:
        """Return which of these jobs slurmctld may still know. `ended` has the Unix time of each one's last end.

        A job is left out only if slurmctld did not list it after its end. Raises SlurmError.
        """
        if self._is_outdated():
            self._as_of = 0.0
        doubtful = self._later(ended)
        if len(doubtful) >= MANY and self._could_tell(ended[job_id] for job_id in doubtful):
            self._read()
            doubtful = self._later(ended)
        return doubtful.union(job_id for job_id in self._listed if job_id in ended)

    def _later(self, ended: Mapping[int, int]) -> set[int]:
        """Return the jobs about which the listing tells nothing."""
        return {job_id for job_id, end_time in ended.items() if end_time > self._as_of - MARGIN}

    def _could_tell(self, ends: Iterable[int]) -> bool:
        """Return whether a listing would tell something about most of these jobs, which have not just ended."""
        settled = [end_time <= self._clock() - MARGIN for end_time in ends]
        return 2 * sum(settled) >= len(settled)

    def _is_outdated(self) -> bool:
        age = self._monotonic() - self._read_at
        return age > MAX_AGE or abs(self._clock() - self._as_of - age) > CLOCK_STEP

    def _read(self) -> None:
        began, read_at = self._clock(), self._monotonic()
        ids = map(read_job_id, read_text(self._commands, ALL_JOBS).splitlines())
        self._listed = array("Q", (job_id for job_id in ids if job_id is not None))
        self._as_of, self._read_at = began, read_at
