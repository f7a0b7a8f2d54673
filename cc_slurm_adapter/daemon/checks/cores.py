"""hwthreadNumbering against the hardware threads that cc-backend has for a subcluster.

cc-backend finds the metrics of a job by the hardware threads that are sent. Slurm counts the CPUs of a node by socket,
core and thread. Which numbers these have in the operating system only the node itself knows (`-topology`), so what is
judged here is whether each core of Slurm is sent as one of the cores of the topology, and those of a socket together.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Union

from cc_slurm_adapter.config.hostnames import shortened
from cc_slurm_adapter.model import CpuNumbers, Finding, NodeState, Numbering, NumberingByHost
from cc_slurm_adapter.sinks.clusters import SubCluster
from cc_slurm_adapter.sinks.hwthreads import fits, numbering_for, numbering_of, threads_by_core
from cc_slurm_adapter.system.quantities import counted

SUBJECT = "hwthreadNumbering"
Kind = tuple[str, int, Union[Numbering, CpuNumbers]]
"""The name of a subcluster, how many CPUs a node has in Slurm, and what the configuration says of it."""


def find_cores(placed: Iterable[tuple[NodeState, SubCluster]], numberings: NumberingByHost) -> Iterator[Finding]:
    """Compare the hardware threads of nodes with their subclusters, a finding for nodes of one kind."""
    kinds: dict[Kind, list[str]] = defaultdict(list)
    subs: dict[str, SubCluster] = {}
    for node, sub in placed:
        numbering = numbering_of(node.hostname, numberings)
        if node.cpus and fits(numbering, node.cpus):  # a list of another length is found without cc-backend
            subs[sub.name] = sub
            kinds[sub.name, node.cpus, numbering].append(node.hostname)
    right = 0
    for (name, cpus, numbering), names in kinds.items():
        found = _judge(subs[name], cpus, numbering, shortened(names))
        if found:
            yield found
        else:
            right += len(names)
    if right:
        text = f"hwthreadNumbering: the hardware threads of {counted(right, 'node')} are those of cc-backend's topology"
        yield Finding(logging.INFO, SUBJECT, text)


def _judge(sub: SubCluster, cpus: int, numbering: Numbering | CpuNumbers, names: str) -> Finding | None:
    """Return what is wrong with the nodes of one kind; None if nothing is."""
    where = f"cc-backend's topology of the subcluster {sub.name}"
    if not sub.hwthreads and not sub.cores:
        text = f"{where} lists no hardware threads, so those of {names} cannot be compared with it"
        return Finding(logging.INFO, SUBJECT, text)
    in_cores = sorted(number for core in sub.cores for number in core)
    if in_cores != sorted(set(in_cores)) or in_cores != sorted(sub.hwthreads):
        text = f"{where} does not have the same hardware threads in topology.core as in topology.node, each once"
        return Finding(logging.WARNING, SUBJECT, text, "correct it in cluster.json")
    if numbering is Numbering.CORES and len(in_cores) == len(sub.cores) and _has_the_cores(sub, 1, numbering):
        return None  # the topology has only cores, however many threads Slurm has
    if cpus not in (len(in_cores), len(sub.cores)):
        text = (
            f"{names}: {cpus} CPUs in Slurm, but {where} has {len(in_cores)} hardware threads on {len(sub.cores)} cores"
        )
        return Finding(logging.WARNING, SUBJECT, text, "correct cluster.json, or the nodes in slurm.conf")
    return _judge_numbers(sub, cpus, numbering, names)


def _judge_numbers(sub: SubCluster, cpus: int, numbering: Numbering | CpuNumbers, names: str) -> Finding | None:
    """Judge the numbers of nodes that have as many CPUs as there are hardware threads or cores."""
    threads, odd = divmod(cpus, len(sub.cores))
    if odd or len(set(map(len, sub.cores))) > 1:
        text = f"the cores of {names} have different numbers of hardware threads: their numbers cannot be compared"
        return Finding(logging.INFO, SUBJECT, text)
    if _has_the_cores(sub, threads, numbering):
        return None
    fitting = numbering_for(_in_slurms_order(sub, threads), len(sub.cores), threads)
    now = f"as {numbering.value}" if isinstance(numbering, Numbering) else "by the list in hwthreadNumbering"
    text = (
        f"hwthreadNumbering: the cores of {names}, numbered {now}, are not those of cc-backend's topology of the"
        f" subcluster {sub.name}: {json.dumps(fitting)} would fit that"
    )
    step = "Run cc-slurm-adapter -topology there, and correct hwthreadNumbering (then reload) or cluster.json"
    return Finding(logging.WARNING, SUBJECT, text, step)


def _has_the_cores(sub: SubCluster, threads: int, numbering: Numbering | CpuNumbers) -> bool:
    """Return whether each core of Slurm is sent as one of the topology, and socket by socket.

    If Slurm has one thread for each core, any thread of the core will do. In which order the cores of a socket are, the
    topology does not say.
    """
    core_of = {number: core for core in sub.cores for number in core}
    sent = threads_by_core(len(sub.cores), threads, numbering)
    found = [{core_of.get(number) for number in numbers} for numbers in sent]
    cores = [core for each in found for core in each if core is not None and len(each) == 1]
    if len(set(cores)) < len(sub.cores) or (threads > 1 and sum(map(len, sent)) < sum(map(len, sub.cores))):
        return False
    around = [_around(sub, core) for core in cores]
    return around == sorted(around)


def _in_slurms_order(sub: SubCluster, threads: int) -> list[int]:
    """Return the first `threads` hardware threads of each core, in the order in which slurmd counts them."""
    ascending = (tuple(sorted(core)) for core in sub.cores)
    ordered = sorted(ascending, key=lambda core: (*_around(sub, core), core[0]))
    return [number for core in ordered for number in core[:threads]]


def _around(sub: SubCluster, core: tuple[int, ...]) -> tuple[int, ...]:
    """Return the place of a core's socket, memory domain and die in slurmd's order.

    slurm/topology.py says what that is: the largest first, each by its lowest number.
    """
    groups = (group for group in (*sub.sockets, *sub.memory_domains, *sub.dies) if core[0] in group)
    return tuple(map(min, sorted(groups, key=len, reverse=True)))
