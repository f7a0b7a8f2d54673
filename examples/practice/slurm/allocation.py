"""Which cores and GPUs are free, and choosing nodes for a job: the fullest nodes that fit, in node order."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from examples.practice.slurm.model import HostShare, JobRequest, Record, Settings
from examples.practice.slurm.store import Node


class Need(NamedTuple):
    """What a job needs of its nodes."""

    cores: Sequence[int]
    """How many, node by node, the most first."""
    gpus: int
    whole: bool
    """Everything that the node has, and nobody else on it."""


def need_of(asked: JobRequest | Record, settings: Settings) -> Need:
    """Whole cores for the tasks of a job, which are spread evenly."""
    more = asked.tasks % asked.nodes
    tasks = [asked.tasks // asked.nodes + (place < more) for place in range(asked.nodes)]
    cores = [-(-count * asked.cpus_per_task // settings.threads_per_core) for count in tasks]
    return Need(cores, asked.gpus_per_node, bool(asked.exclusive))


class Pool:
    """The free cores and GPUs of all nodes.

    Nodes with equally much free lie in one heap, so that neither a search nor a change costs more when there
    are thousands of nodes. A node that has changed is left where it was and skipped when it is met.
    """

    def __init__(self, settings: Settings, nodes: Iterable[Node]) -> None:
        self._nodes = list(nodes)
        self._positions = {node.name: position for position, node in enumerate(self._nodes)}
        self._all = (set(range(settings.cores_per_node)), set(range(settings.gpus_per_node)))
        self._cores = [set(self._all[0]) for _ in self._nodes]
        self._gpus = [set(self._all[1]) for _ in self._nodes]
        self._drained = [bool(node.drained) for node in self._nodes]
        self._heaps: dict[tuple[int, int], list[int]] = {}
        self._keys: list[tuple[int, int] | None] = [None] * len(self._nodes)
        for position in range(len(self._nodes)):
            self._file(position)

    def take(self, need: Need) -> list[HostShare] | None:
        """Reserve what a job needs, or None if it does not fit now."""
        positions = self._find(need)
        if positions is None:
            return None
        return [self._take_from(position, need, cores) for position, cores in zip(positions, need.cores)]

    def hold(self, held: Iterable[HostShare]) -> None:
        """Reserve exactly these cores and GPUs."""
        for share in held:
            position = self._positions[share.host]
            self._cores[position] -= set(share.cores)
            self._gpus[position] -= set(share.gpus)
            self._file(position)

    def give_back(self, held: Iterable[HostShare]) -> None:
        for share in held:
            position = self._positions[share.host]
            self._cores[position] |= set(share.cores)
            self._gpus[position] |= set(share.gpus)
            self._file(position)

    def set_drained(self, name: str, *, drained: bool) -> None:
        """A drained node gets no more jobs; those on it go on."""
        position = self._positions.get(name)
        if position is not None:
            self._drained[position] = drained
            self._file(position)

    def in_use(self, name: str) -> tuple[int, set[int]]:
        """How many cores of a node are in use, and which GPUs."""
        position = self._positions[name]
        return len(self._all[0]) - len(self._cores[position]), self._all[1] - self._gpus[position]

    def _find(self, need: Need) -> list[int] | None:
        """Positions of enough nodes, in node order."""
        least = (len(self._all[0]), len(self._all[1])) if need.whole else (need.cores[0], need.gpus)
        found: list[int] = []
        # The fullest nodes first, and nodes with few free GPUs before those with many.
        for key in sorted(key for key in self._heaps if key[0] >= least[0] and key[1] >= least[1]):
            found += self._pop(key, len(need.cores) - len(found))
            if len(found) == len(need.cores):
                return sorted(found)
        for position in found:
            self._file(position, again=True)
        return None

    def _pop(self, key: tuple[int, int], count: int) -> list[int]:
        """Take up to `count` nodes out of a heap."""
        heap = self._heaps[key]
        found: list[int] = []
        while heap and len(found) < count:
            position = heapq.heappop(heap)
            if self._keys[position] == key:
                found.append(position)
                self._keys[position] = None
        if not heap:
            del self._heaps[key]
        return found

    def _file(self, position: int, *, again: bool = False) -> None:
        """Put a node into the heap where it belongs now."""
        key = (len(self._cores[position]), len(self._gpus[position]))
        if self._drained[position]:
            self._keys[position] = None
        elif again or self._keys[position] != key:
            self._keys[position] = key
            heapq.heappush(self._heaps.setdefault(key, []), position)

    def _take_from(self, position: int, need: Need, cores: int) -> HostShare:
        free_cores, free_gpus = self._cores[position], self._gpus[position]
        taken_cores = sorted(free_cores) if need.whole else heapq.nsmallest(cores, free_cores)
        taken_gpus = sorted(free_gpus) if need.whole else heapq.nsmallest(need.gpus, free_gpus)
        free_cores.difference_update(taken_cores)
        free_gpus.difference_update(taken_gpus)
        self._file(position)
        return HostShare(self._nodes[position].name, tuple(taken_cores), tuple(taken_gpus))
