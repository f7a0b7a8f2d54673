"""Hardware threads by the operating system's numbers.

Slurm names the cores that are allocated to a job. cc-backend's topology lists hardware threads by the operating
system's numbers. These follow one of two common orders, or any other: only the node itself knows (`-topology` prints
it), and the configuration passes it on.

Slurm's CPUs are counted from 0 by socket, core and thread of its own layout of the node, like the CPU_IDs of `scontrol
show job -d`: thread t of core c is the CPU c * threads + t.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cc_slurm_adapter.model import CpuNumbers, Numbering, NumberingByHost, Resource


def numbering_of(hostname: str, numberings: NumberingByHost) -> Numbering | CpuNumbers:
    """Return how the hardware threads of a host are numbered; BLOCK if no regular expression matches."""
    for regex, found in numberings:
        if regex.search(hostname):
            return found
    return Numbering.BLOCK


def fits(numbering: Numbering | CpuNumbers, cpus: int) -> bool:
    """Return whether this numbering fits a node with `cpus` CPUs: a list must have exactly as many entries."""
    return isinstance(numbering, Numbering) or len(numbering) == cpus


def hwthreads(resource: Resource, numbering: Numbering | CpuNumbers) -> list[int]:
    """Return the hardware threads that a run has on a node, ascending. With CORES, return its cores instead.

    The list is empty if the numbering does not fit the node: a missing number is better than a wrong one.
    """
    threads, cores = resource.threads_per_core, resource.node_cores
    if numbering is Numbering.CORES:
        return sorted(resource.cores)
    if numbering is Numbering.BLOCK:
        return sorted([core + thread * cores for thread in range(threads) for core in resource.cores])
    if numbering is Numbering.INTERLEAVED:
        return sorted([core * threads + thread for core in resource.cores for thread in range(threads)])
    return sorted(number for numbers in _by_core(resource, numbering) for number in numbers)


def has_smt(resource: Resource, numbering: Numbering | CpuNumbers) -> bool:
    """Return whether more than one hardware thread of a core is listed for this node."""
    if isinstance(numbering, Numbering):
        return resource.threads_per_core > 1 and bool(resource.cores)
    return any(len(numbers) > 1 for numbers in _by_core(resource, numbering))


def numbering_for(cpus: Sequence[int], cores: int, threads: int) -> str | list[int]:
    """Return the value for hwthreadNumbering: the word that says the same as the numbers of Slurm's CPUs, or else them.

    The node has `cores` cores, with `threads` hardware threads each.
    """
    for word in (Numbering.BLOCK, Numbering.INTERLEAVED):
        if list(cpus) == [number for core in threads_by_core(cores, threads, word) for number in core]:
            return str(word.value)
    return list(cpus)


def threads_by_core(cores: int, threads: int, numbering: Numbering | CpuNumbers) -> list[list[int]]:
    """Return what is sent for each core of a node, if a job has only that core."""
    return [hwthreads(Resource("", (core,), (), cores, threads), numbering) for core in range(cores)]


def _by_core(resource: Resource, numbering: CpuNumbers) -> Iterator[list[int]]:
    """Yield the numbers of the threads of each core that is allocated to the run."""
    threads = resource.threads_per_core
    if fits(numbering, resource.node_cores * threads):
        for core in resource.cores:
            yield [number for numbers in numbering[core * threads : (core + 1) * threads] for number in numbers]
