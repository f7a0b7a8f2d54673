"""The settings for watching the jobs of a cluster, from the configuration and from Slurm, and the functions to call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cc_slurm_adapter.jobs.first_moment import FirstMoment
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.model import NodeState, Run
from cc_slurm_adapter.outbox.late_runs import LateRuns


@dataclass(frozen=True)
class WatchSettings:
    """Settings that all parts of `jobs/` share."""

    cluster: str
    ignore: IgnoreRules
    has_accounting: bool
    max_span: int
    """How many seconds accounting is read back at most."""
    records_steps: bool = True
    """Whether accounting, where there is any, knows what was launched in a run."""
    on_pending: Callable[[], None] = lambda: None
    """Called when the outbox has new messages."""
    on_nodes: Callable[[Sequence[NodeState]], None] = lambda nodes: None
    """Called with all nodes, ignored ones as well, as soon as a poll has read them."""
    on_start: Callable[[Run], None] = lambda run: None
    """Called with each run whose start is enqueued."""
    clock: Callable[[], float] = time.time
    first_moment: FirstMoment = field(default_factory=FirstMoment)
    """The start of a run that ended before it and was not known then is not reported."""
    late_runs: LateRuns = field(default_factory=LateRuns)

    def now(self) -> int:
        """Return the time in Unix seconds."""
        return int(self.clock())

    def history_until(self) -> int:
        """Return the first moment in Unix seconds; 0 if there is no such limit now."""
        return self.first_moment.limit(self.clock())
