"""Prints the requests that the daemon would send, as JSON lines, and sends none of them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable

from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.destinations import Destinations
from cc_slurm_adapter.lines import print_line
from cc_slurm_adapter.log import log_findings
from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.sinks.base import DescribableSink, Kind, label_of
from cc_slurm_adapter.system.quantities import counted

AT_ONCE = 100
"""Rows that are read together."""
NOUNS = {Kind.START: "start", Kind.STOP: "stop", Kind.WITHDRAW: "withdrawal", Kind.REMOVE: "removal"}


class PrintedRequests(Destinations):
    """The destinations of the configuration, with a line in place of each request.

    What is printed counts as accepted: so a stop follows its start, and NATS follows cc-backend, as when it is sent.
    """

    def __init__(
        self,
        config: Config,
        counters: Counters,
        report: Callable[..., None] = log_findings,
        write: Callable[[str], None] = print_line,
    ) -> None:
        super().__init__(config, counters, report)
        self._write = write
        self._outbox: Outbox | None = None
        self.printed: Counter[tuple[str, Kind]] = Counter()
        """How many messages of each kind were printed for each sink."""
        self.nodes = 0
        """How many nodes' states were printed."""

    def print_from(self, outbox: Outbox) -> None:
        """Print from now on what this outbox gets."""
        self._outbox = outbox

    def wake(self) -> None:
        """Print what is pending; called after each commit."""
        if self._outbox is not None:
            while sum(self._print_some(self._outbox, sink) for sink in self.sinks):  # a stop is due after its start
                pass

    def _print_some(self, outbox: Outbox, sink: DescribableSink) -> int:
        """Print some rows of a sink. Return how many."""
        now = time.time()
        due = outbox.deliveries.begin(outbox.deliveries.due(sink.name, now, AT_ONCE), now)
        for each in due:
            self._write(json.dumps(sink.describe(each)))
            self.printed[sink.name, each.kind] += 1
        outbox.deliveries.delivered(*due)
        return len(due)

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> None:
        """Print the states of the nodes as they would be sent."""
        reported = self.hosts.as_sent(nodes)
        for sink in self.sinks:
            for request in sink.describe_nodes(cluster, reported):
                self._write(json.dumps(request))
                self.nodes = len(nodes)

    def summary(self) -> str:
        """Return what was printed, in words."""
        parts = [
            f"{counted(number, NOUNS[kind])} for {label_of(sink)}" for (sink, kind), number in self.printed.items()
        ]
        nodes = [f"the states of {counted(self.nodes, 'node')}"] if self.nodes else []
        return ", ".join([*parts, *nodes]) or "no request"
