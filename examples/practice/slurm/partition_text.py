"""What `scontrol --oneliner show partition` prints."""

from __future__ import annotations

from collections.abc import Iterator

from examples.practice.slurm.hostlist import expand_hosts
from examples.practice.slurm.model import PARTITIONS, Settings
from examples.practice.slurm.release import release_of

OVERSUBSCRIBE = {"main": "NO", "shared": "YES:4", "excl": "EXCLUSIVE"}


def partition_lines(settings: Settings) -> Iterator[str]:
    """A line for each partition."""
    for name in PARTITIONS:
        yield " ".join(f"{key}={value}" for key, value in _values(name, settings))


def _values(name: str, settings: Settings) -> Iterator[tuple[str, str]]:
    release = release_of(settings.release)
    for key in ("AllowGroups", "AllowAccounts", "AllowQos", "AllocNodes"):
        yield from () if key != "AllowGroups" else (("PartitionName", name),)
        yield key, "ALL"
    yield "Default", "YES" if name == next(iter(PARTITIONS)) else "NO"
    yield from (("QoS", "N/A"), ("DefaultTime", "NONE"), ("DisableRootJobs", "NO"))
    sharing = OVERSUBSCRIBE[name]
    if release.is_before("26.05"):
        yield "ExclusiveUser", "NO"
        if not release.is_before("24.05"):
            yield "ExclusiveTopo", "NO"
    else:
        yield "Exclusive", "NODE" if sharing == "EXCLUSIVE" else "NO"
        sharing = "NO" if sharing == "EXCLUSIVE" else sharing
    yield from (("GraceTime", "0"), ("Hidden", "NO"), ("MaxNodes", "UNLIMITED"), ("MaxTime", "UNLIMITED"))
    yield from (("MinNodes", "0"), ("LLN", "NO"), ("MaxCPUsPerNode", "UNLIMITED"))
    if not release.is_before("23.02"):
        yield "MaxCPUsPerSocket", "UNLIMITED"
    if not release.is_before("23.11"):
        yield "NodeSets", "ALL"
    yield from (("Nodes", settings.nodes), ("PriorityJobFactor", "1"), ("PriorityTier", "1"), ("RootOnly", "NO"))
    yield from (("ReqResv", "NO"), ("OverSubscribe", sharing), ("OverTimeLimit", "NONE"), ("PreemptMode", "OFF"))
    yield from _resources(settings)


def _resources(settings: Settings) -> Iterator[tuple[str, str]]:
    nodes = len(expand_hosts(settings.nodes))
    cpus, gpus = nodes * settings.cpus_per_node, nodes * settings.gpus_per_node
    yield from (("State", "UP"), ("TotalCPUs", str(cpus)), ("TotalNodes", str(nodes)))
    yield from (("SelectTypeParameters", "NONE"), ("JobDefaults", "(null)"))
    yield from (("DefMemPerNode", "UNLIMITED"), ("MaxMemPerNode", "UNLIMITED"))
    tres = f"cpu={cpus},mem={nodes * settings.memory_per_node}M,node={nodes},billing={cpus}"
    yield "TRES", f"{tres},gres/gpu={gpus},gres/gpu:{settings.gpu_type}={gpus}"
