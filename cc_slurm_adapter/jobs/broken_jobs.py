"""Jobs that could not be understood: they are left out, each is logged once, and the others go on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.system.grouped_lines import GroupedLines
from cc_slurm_adapter.system.outages import kind_of

log = logging.getLogger(__name__)

MAX_BROKEN = 10_000
"""The most jobs that are remembered because they could not be understood, the latest ones."""


class BrokenJobs:
    """The jobs of one cluster. The main thread changes them; any thread may read `listed` and call `why`."""

    def __init__(self, counters: Counters, clock: Callable[[], float]) -> None:
        self._counters = counters
        self._reasons: dict[int, str] = {}
        """Jobs with a run that could not be understood, each with the reason. Each is logged once."""
        self._since_poll: set[int] = set()
        """Jobs that could not be understood since the last poll began to read."""
        self._lines = GroupedLines(log, clock)
        self.listed = 0
        """How many of the jobs that slurmctld listed last are left out."""

    def set_aside_all(self, broken: Mapping[int, str]) -> None:
        """Leave out jobs that cannot be understood, each with the reason."""
        for job_id, reason in broken.items():
            self.set_aside(job_id, reason)

    def set_aside(self, job_id: int, reason: str) -> None:
        """Set one job aside, and log that once. After a reload or a restart the job is tried again."""
        self._since_poll.add(job_id)
        if job_id not in self._reasons:
            if len(self._reasons) >= MAX_BROKEN:
                del self._reasons[next(iter(self._reasons))]
            self._reasons[job_id] = reason
            self._counters.count("jobs_not_understood")
            what = "cannot be understood and is left out"
            more = f"more jobs cannot be understood and are left out, the first is job {job_id}: {reason}"
            line = f"job {job_id} {what}: {reason}"
            self._lines.report(what, kind_of(reason), line, lambda: more, level=logging.ERROR)

    def count_listed(self, is_listed: Callable[[int], bool]) -> None:
        """Count those that slurmctld still lists, after a poll. Others are over, and nothing can be done about them."""
        self.listed = sum(map(is_listed, self._reasons))

    def start_poll(self) -> None:
        """Forget which jobs could not be understood before this poll."""
        self._since_poll.clear()

    def __contains__(self, job_id: int) -> bool:
        """Return whether a job could not be understood since the last poll began."""
        return job_id in self._since_poll

    def why(self, job_id: int) -> str:
        """Return why a job could not be understood; '' if it could, or was not read."""
        return self._reasons.get(job_id, "")

    def log_more(self) -> None:
        """Log from time to time how many more there are."""
        self._lines.report_due()

    def forget(self) -> None:
        """Forget them all. Those that still cannot be understood are logged again."""
        self._reasons.clear()
        self._lines.forget()
