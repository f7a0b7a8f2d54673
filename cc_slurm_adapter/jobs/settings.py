"""The settings for watching the jobs of a cluster, from the configuration and from Slurm, and the functions to call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cc_slurm_adapter.jobs.first_moment import FirstMoment
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.log import Work
from cc_slurm_adapter.model import NodeState, Run
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.system.outages import Outages


@dataclass
class WatchSettings:
    """Settings that all parts of `jobs/` share.

    Not frozen, because a reload replaces `ignore` and `max_span` for all of them at once. It does that in the main
    thread, which alone uses them, between two of its steps. Nothing else is ever replaced.
    """

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
    on_work: Callable[[str, Work | None], None] = lambda what, work: None
    """Called with the name of a long piece of work and how far it is; with None when it is over."""
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    """For log lines, which depend on the time that really passes."""
    first_moment: FirstMoment = field(default_factory=FirstMoment)
    """The start of a run that ended before it and was not known then is not reported."""
    late_runs: LateRuns = field(default_factory=LateRuns)
    outages: Outages = field(default_factory=Outages)
    """Shared by all parts of the main thread that ask Slurm or use the state file."""

    def now(self) -> int:
        """Return the time in Unix seconds."""
        return int(self.clock())

    def history_until(self) -> int:
        """Return the first moment in Unix seconds; 0 if there is no such limit now."""
        return self.first_moment.limit(self.clock())
