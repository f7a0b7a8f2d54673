"""Hardware threads by the operating system's numbers.

Slurm tells which cores a job holds. cc-backend's topology lists hardware threads as the operating
system numbers them, which it does in one of two common ways; only the administrator knows which.
"""

from __future__ import annotations

import enum
import re

from cc_slurm_adapter.job import Resource


class Numbering(enum.Enum):
    """How the hardware threads of a node are numbered. The values are the words of the configuration."""

    BLOCK = "block"
    """First one thread of every core, then their second ones: thread t of core c is c + t * cores."""
    INTERLEAVED = "interleaved"
    """The threads of a core follow each other: thread t of core c is c * threads + t."""
    CORES = "cores"
    """No threads at all: the numbers of the cores are listed, as the existing adapter does."""


NumberingByHost = tuple[tuple["re.Pattern[str]", Numbering], ...]
"""The first regular expression that is found in a host name counts."""


def numbering_of(hostname: str, numberings: NumberingByHost) -> Numbering:
    """How a host is numbered; BLOCK where no regular expression matches."""
    return next((found for regex, found in numberings if regex.search(hostname)), Numbering.BLOCK)


def hwthreads(resource: Resource, numbering: Numbering) -> list[int]:
    """What a run holds of a node, ascending: all threads of its cores, or the cores with CORES."""
    cores, threads = resource.cores, range(resource.threads_per_core)
    if numbering is Numbering.BLOCK:
        return sorted(core + thread * resource.node_cores for core in cores for thread in threads)
    if numbering is Numbering.INTERLEAVED:
        return sorted(core * resource.threads_per_core + thread for core in cores for thread in threads)
    return sorted(cores)


def has_smt(resource: Resource) -> bool:
    """Whether the run holds more than one hardware thread of a core there."""
    return bool(resource.cores) and resource.threads_per_core > 1
