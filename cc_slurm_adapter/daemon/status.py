"""The daemon's state in one line: for the log after a poll and once an hour, and for `systemctl status`."""

from __future__ import annotations

import logging
import time

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.activities import TIMING, Timing
from cc_slurm_adapter.daemon.hook_coverage import HookCoverage
from cc_slurm_adapter.daemon.systemd import tell_status
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.system.backoff import RetriedStep

log = logging.getLogger(__name__)


class StatusLine:
    """Makes the line about what is known, what waits and what has happened. Used only by the main thread."""

    def __init__(
        self,
        watch: JobWatch,
        outbox: Outbox,
        counters: Counters,
        coverage: HookCoverage | None = None,
        *,
        timing: Timing = TIMING,
    ) -> None:
        self._watch = watch
        self._outbox = outbox
        self._counters = counters
        self._coverage = coverage
        self._step = RetriedStep("summing up", timing=timing.retries)
        self._line = ""
        self._shown = ""
        """What systemd shows."""
        self._notice_every = timing.notice_every
        self._next_notice = time.monotonic() + self._notice_every

    def attempt(self) -> None:
        """Log the line, after a poll."""
        self._step.attempt(self.log)

    def log(self) -> None:
        """Log at NOTICE once an hour, else at INFO if anything has happened since the last line. Raises StateError."""
        if self._coverage is not None:
            self._coverage.log_missed()
        waiting = self._outbox.waiting()
        line = f"open runs: {self._watch.open_runs}; waiting messages: {waiting}; since the start: {self._counters}"
        if time.monotonic() >= self._next_notice:
            self._next_notice = time.monotonic() + self._notice_every
            log.log(NOTICE, "%s", line)
        elif line != self._line:
            log.info("%s", line)
        self._line = line

    def show(self, *, slurmctld_answers: bool) -> None:
        """Give the last line to systemd, if systemd shows another one."""
        shown = self._line if slurmctld_answers else f"waiting for slurmctld, which does not answer; {self._line}"
        if shown != self._shown:
            self._shown = shown
            tell_status(shown)
