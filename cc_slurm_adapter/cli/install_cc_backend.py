"""What cc-backend's cluster.json says of Slurm's nodes, for `-install`: their hardware threads and their GPUs.

One GET is sent, and only if the configuration has the address of cc-backend and a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.config.hostnames import HostNames
from cc_slurm_adapter.daemon.checks.cluster_hosts import read_hosts
from cc_slurm_adapter.daemon.checks.cores import find_cores
from cc_slurm_adapter.daemon.destinations import connect_for_questions
from cc_slurm_adapter.errors import ConfigError, SinkError
from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.sinks.clusters import Cluster


@dataclass(frozen=True)
class Described:
    """What cc-backend has of the nodes; empty where it is not asked."""

    failure: str = ""
    """Why it is not known, though the configuration names cc-backend."""
    numbering: Sequence[str] = ()
    """What there is to say about hwthreadNumbering."""
    accelerators: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The addresses of a node's GPUs, in no order of Slurm's, by the node's name."""


def ask_cc_backend(config: Config, cluster: str, nodes: Sequence[NodeState]) -> Described:
    """Ask cc-backend for its clusters. Raises nothing."""
    try:
        connection = connect_for_questions(config)
    except ConfigError as error:
        return Described("; ".join(error.problems))
    if connection is None:
        return Described()
    try:
        found = connection.clusters().get(cluster)
    except ConfigError as error:
        return Described("; ".join(error.problems))
    except SinkError as error:
        return Described(str(error))
    finally:
        connection.close()
    return describe(config, found, nodes) if found else Described(f"it has no cluster {cluster}")


def describe(config: Config, cluster: Cluster, nodes: Sequence[NodeState]) -> Described:
    """Return what a cluster of cc-backend says of the nodes."""
    hosts = read_hosts(cluster)
    names = HostNames(config.hostname_rewrite, lambda finding: None)  # what is wrong with them, -check says
    names.learn(node.hostname for node in nodes)
    subs = [hosts.sub_cluster_of(names.sent(node.hostname)) for node in nodes]
    placed = [(node, sub) for node, sub in zip(nodes, subs) if sub is not None]
    numbering = [str(finding) for finding in find_cores(placed, config.hwthread_numbering)]
    return Described("", numbering, {node.hostname: sub.accelerators for node, sub in placed})
