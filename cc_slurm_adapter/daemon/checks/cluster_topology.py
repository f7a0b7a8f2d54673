"""Slurm's nodes against the cluster as cc-backend describes it: hosts, GPUs and hardware threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.config.hostnames import HostNames
from cc_slurm_adapter.daemon.checks.accelerators import find_accelerators
from cc_slurm_adapter.daemon.checks.cluster_hosts import NodeNames, find_hosts, find_without_subcluster, read_hosts
from cc_slurm_adapter.daemon.checks.cores import find_cores
from cc_slurm_adapter.model import Finding, NodeState
from cc_slurm_adapter.sinks.clusters import Cluster

MOST_KINDS = 20
"""Most findings about GPUs, and as many about hardware threads: nodes of one kind are one."""


def compare_topology(config: Config, cluster: Cluster, nodes: Sequence[NodeState]) -> Iterator[Finding]:
    """Compare all nodes of Slurm with a cluster of cc-backend."""
    hosts, names = read_hosts(cluster), _names(config, nodes)
    yield from find_hosts(hosts, names)
    wanted = [node for node in nodes if node.hostname in names.reported]
    subs = [hosts.sub_cluster_of(names.reported[node.hostname]) for node in wanted]
    placed = [(node, sub) for node, sub in zip(wanted, subs) if sub is not None]
    yield from islice(find_accelerators(placed, config.gpu_pci_addrs), MOST_KINDS)
    yield from islice(find_cores(placed, config.hwthread_numbering), MOST_KINDS)


def find_refused(config: Config, cluster: Cluster, nodes: Sequence[NodeState]) -> list[Finding]:
    """Find the nodes of Slurm whose jobs cc-backend refuses, because it has them in no subcluster."""
    return list(find_without_subcluster(read_hosts(cluster), _names(config, nodes)))


def _names(config: Config, nodes: Sequence[NodeState]) -> NodeNames:
    names = HostNames(config.hostname_rewrite, lambda finding: None)  # what is wrong with them is another check
    names.learn(node.hostname for node in nodes)
    sent = {node.hostname: names.sent(node.hostname) for node in nodes}
    ignored = config.ignore_hosts
    return NodeNames(sent, {node: name for node, name in sent.items() if not (ignored and ignored.search(node))})
