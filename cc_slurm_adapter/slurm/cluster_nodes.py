"""The nodes of the cluster: those that sinfo lists, and those in no partition, which only scontrol shows."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from cc_slurm_adapter.errors import CommandCancelled, SlurmError
from cc_slurm_adapter.log import NOTICE, Reminder
from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.output import failure, read_lines, read_text, whole_text
from cc_slurm_adapter.slurm.parse.gres import GPU, Names
from cc_slurm_adapter.slurm.parse.nodes import (
    SCONTROL,
    SCONTROL_ALL,
    SINFO,
    NodeLayout,
    ShownNodes,
    SinfoParser,
    is_node_name,
    node_names,
    parse_scontrol,
    read_rows,
)
from cc_slurm_adapter.system.outages import cause_of

log = logging.getLogger(__name__)

ALL_EVERY = 3600.0
"""Seconds between two searches for nodes in no partition that nothing else names. A search costs 1 KB per node."""
MAX_ARGUMENT = 100_000
"""Most bytes of names in one query. The kernel allows 128 KiB in one argument."""


class ClusterNodes:
    """The nodes with their layouts and states. One thread uses it.

    A node in no partition is found by its job, by its absence from sinfo, or by a search once in ALL_EVERY seconds.
    """

    def __init__(
        self, commands: Commands, accelerators: Names = GPU, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._commands = commands
        self._accelerators = accelerators
        self._sinfo = SinfoParser(accelerators)
        self._clock = clock
        self.layouts: dict[str, NodeLayout] = {}
        """Layouts by node name, of every node that was known within ALL_EVERY seconds: jobs may still be on it."""
        self._listed: set[str] = set()
        """Nodes that the last sinfo listed."""
        self._outside: set[str] = set()
        """Nodes that are read through scontrol."""
        self._unknown: set[str] = set()
        """Nodes that jobs named and scontrol did not show since the last sinfo."""
        self._next_all = self._clock()
        self._failures = Reminder(clock)

    def read(self) -> list[NodeState]:
        """Read CPUs, memory, GPUs and state of every node. Raises SlurmError if sinfo fails."""
        layouts, states = self._sinfo.parse(read_text(self._commands, SINFO))
        self._outside |= self._listed - layouts.keys()
        self._listed = set(layouts)
        self._unknown.clear()
        self.layouts.update(layouts)
        try:
            return states + self._read_outside()
        except CommandCancelled:
            raise
        except SlurmError as error:
            if self._failures.is_due(cause_of(str(error))):
                text = "nodes in no partition are left out of the node states, asking again: %s%s"
                log.warning(text, error, self._failures.note)
            return states

    def learn(self, names: Iterable[str]) -> bool:
        """Read those nodes of jobs whose layouts are unknown. Return whether one is known now. Raises SlurmError."""
        wanted = {name for name in names if is_node_name(name)} - self.layouts.keys() - self._unknown
        if not wanted:
            return False
        layouts, _ = read_rows(self._show(wanted).rows.items(), self._accelerators)
        self._unknown |= wanted - layouts.keys()
        self._outside |= layouts.keys()
        self.layouts.update(layouts)
        return bool(layouts)

    def _read_outside(self) -> list[NodeState]:
        if self._clock() >= self._next_all:
            self._search_for_more()
        self._outside -= self._listed
        shown = self._show(self._outside)
        self._outside -= shown.absent
        layouts, states = read_rows(shown.rows.items(), self._accelerators)
        self.layouts.update(layouts)
        if self._failures.over():
            log.log(NOTICE, "nodes in no partition are among the node states again%s", self._failures.note)
        return [state for state in states if state.states[0] != "future"]  # which sinfo does not list either

    def _search_for_more(self) -> None:
        with contextlib.closing(read_lines(self._commands, SCONTROL_ALL, {})) as lines:
            names = set(node_names(lines))
        self._next_all = self._clock() + ALL_EVERY
        new = names - self._listed - self._outside
        if new:
            log.info("nodes in no partition, or hidden from sinfo: %d, %s", len(new), ", ".join(sorted(new)[:3]))
        self._outside |= new
        self.layouts = {name: layout for name, layout in self.layouts.items() if name in names | self._listed}

    def _show(self, names: Iterable[str]) -> ShownNodes:
        """Read these nodes through scontrol. A node that a comment imitates is queried alone."""
        found = ShownNodes({}, frozenset(), frozenset())
        for some in _in_arguments(sorted(names)):
            shown = parse_scontrol(self._query(some))
            results = [shown, *(parse_scontrol(self._query([name]), alone=True) for name in shown.doubtful & set(some))]
            for result in results:
                found.rows.update((name, row) for name, row in result.rows.items() if name in some)
                found = found._replace(absent=found.absent | result.absent)
        return found

    def _query(self, names: Sequence[str]) -> str:
        argv = [*SCONTROL, ",".join(names)]
        finished = self._commands.run(argv)
        text = whole_text(argv, finished)
        if finished.exit_code != 0 and " not found\n" not in text:  # its exit code for a name that it does not know
            raise failure(argv, finished)
        return text


def _in_arguments(names: Sequence[str]) -> Iterator[list[str]]:
    """Yield the names in lists that fit into one argument each."""
    some: list[str] = []
    size = 0
    for name in names:
        if some and size + len(name) >= MAX_ARGUMENT:
            yield some
            some, size = [], 0
        some.append(name)
        size += len(name) + 1
    if some:
        yield some
