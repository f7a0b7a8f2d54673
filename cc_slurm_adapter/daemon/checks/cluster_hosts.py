"""Slurm's nodes and the hosts of cc-backend's subclusters: every one in both."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cc_slurm_adapter.config.hostnames import shortened
from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.sinks.clusters import Cluster, SubCluster
from cc_slurm_adapter.slurm.parse.hostlist import MAX_HOSTS, expand
from cc_slurm_adapter.system.quantities import counted

ALL_OTHERS = "*"
"""The host list of a subcluster that has every host that is in no other. Only the first one may have it."""
SUBJECT = "subclusters"


@dataclass(frozen=True)
class ClusterHosts:
    """The subclusters of a cluster by their hosts."""

    cluster: str
    sub_clusters: Mapping[str, tuple[SubCluster, ...]]
    """Those that list a host: one, unless cluster.json is wrong."""
    of_all_others: SubCluster | None
    unreadable: tuple[str, ...]
    """Why the hosts of a subcluster cannot be read, for each where that is so."""

    def sub_cluster_of(self, host: str) -> SubCluster | None:
        """Return the subcluster of a host; None if it is in none."""
        return self.sub_clusters.get(host, (self.of_all_others,))[0]


class NodeNames(NamedTuple):
    """The names under which nodes are sent, by their names in Slurm."""

    sent: Mapping[str, str]
    """All nodes."""
    reported: Mapping[str, str]
    """Those whose jobs are reported: a node that ignoreHosts leaves out need not be in cc-backend."""


def read_hosts(cluster: Cluster) -> ClusterHosts:
    """Return which hosts the subclusters of a cluster have."""
    found: dict[str, list[SubCluster]] = defaultdict(list)
    unreadable: list[str] = []
    of_all_others = None
    for number, sub in enumerate(cluster.sub_clusters):
        if sub.nodes == ALL_OTHERS:
            of_all_others = of_all_others if number else sub
            continue
        try:
            hosts = dict.fromkeys(expand(sub.nodes))
            if len(found) + len(hosts) > MAX_HOSTS:
                raise UnexpectedOutput("host list", f"more than {MAX_HOSTS} hosts in all subclusters")
            for host in hosts:
                found[host].append(sub)
        except UnexpectedOutput as error:
            unreadable.append(f"{sub.name}: {error}")
    frozen = {host: tuple(subs) for host, subs in found.items()}
    return ClusterHosts(cluster.name, frozen, of_all_others, tuple(unreadable))


def find_hosts(hosts: ClusterHosts, names: NodeNames) -> Iterator[Finding]:
    """Compare the hosts of a cluster with Slurm's nodes."""
    for why in hosts.unreadable:
        text = f"cc-backend's hosts of the subcluster {why}"
        yield Finding(logging.WARNING, SUBJECT, text, "correct its nodes in cluster.json")
    problems = [*find_without_subcluster(hosts, names), *_unknown_to_slurm(hosts, names), *_in_several(hosts)]
    yield from problems
    if not problems and names.reported:
        text = f"all {counted(len(names.reported), 'node')} of Slurm are in subclusters of {hosts.cluster}"
        yield Finding(logging.INFO, SUBJECT, f"{text}, and no other hosts are")


def find_without_subcluster(hosts: ClusterHosts, names: NodeNames) -> Iterator[Finding]:
    """Find nodes whose jobs cc-backend refuses. If it refuses all, that is an error."""
    reported = names.reported
    missing = [name for _, name in sorted(reported.items()) if hosts.sub_cluster_of(name) is None]
    if missing:
        level = logging.ERROR if len(missing) == len(reported) else logging.WARNING
        which = f"none of Slurm's {counted(len(reported), 'node')} is" if level == logging.ERROR else _are(missing)
        text = f"{which} in a subcluster of {hosts.cluster}: cc-backend refuses jobs that begin there"
        listed = "" if level == logging.WARNING else f" ({shortened(missing)})"
        step = "add them to a subcluster in cc-backend's cluster.json, or correct hostnameRewrite, or set ignoreHosts"
        yield Finding(level, SUBJECT, text + listed, step)


def _are(names: list[str]) -> str:
    return f"{counted(len(names), 'node')} of Slurm ({shortened(names)}) {'is not' if len(names) == 1 else 'are not'}"


def _unknown_to_slurm(hosts: ClusterHosts, names: NodeNames) -> Iterator[Finding]:
    surplus = hosts.sub_clusters.keys() - set(names.sent.values())
    if surplus:
        verb = "is no node" if len(surplus) == 1 else "are no nodes"
        text = (
            f"{counted(len(surplus), 'host')} of subclusters of {hosts.cluster} {verb} of Slurm ({shortened(surplus)})"
        )
        yield Finding(logging.WARNING, SUBJECT, text, "remove them from cluster.json, or correct their names there")


def _in_several(hosts: ClusterHosts) -> Iterator[Finding]:
    several = [host for host, subs in hosts.sub_clusters.items() if len(subs) > 1]
    if several:
        text = (
            f"{counted(len(several), 'host is', 'hosts are')} in more than one subcluster of {hosts.cluster}, of which"
            f" cc-backend takes any: {shortened(several)}"
        )
        yield Finding(logging.WARNING, SUBJECT, text, "leave each in one in cluster.json")
