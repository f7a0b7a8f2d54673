"""The clusters that the stand-in cc-backend knows: their hosts by sub-cluster, and how it describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Union

Hosts = Sequence[str]
Clusters = Mapping[str, Union[Hosts, Mapping[str, Hosts]]]
"""Cluster -> hosts (all in the sub-cluster `main`), or cluster -> sub-cluster -> hosts."""

DEFAULT_CLUSTERS: Clusters = {
    "lab": [f"node{n:02}" for n in range(1, 10)],
    "big": [f"n{n:03}" for n in range(1, 101)],
}
METRICS = (
    "cpu_load",
    "flops_any",
    "mem_bw",
    "mem_used",
    "clock",
    "acc_utilization",
    "acc_mem_used",
)
NO_FOOTPRINT = {f"{metric}_avg": 0 for metric in sorted(METRICS)}
"""What cc-backend shows of a job for which no metrics ever came in."""

_CORES_PER_NODE = 8
"""As the practice cluster's nodes: two sockets, with two threads on each core, numbered as on most machines."""
_UNIT = {"base": "F/s", "prefix": "G"}


class KnownClusters:
    """Looks up sub-clusters and describes clusters."""

    def __init__(self, clusters: Clusters, *, describes_hardware: bool = True) -> None:
        self._describes_hardware = describes_hardware
        self._hosts = {name: _by_sub_cluster(hosts) for name, hosts in sorted(clusters.items())}
        self._sub_cluster_of = {
            (name, host): sub_cluster
            for name, sub_clusters in self._hosts.items()
            for sub_cluster, hosts in sub_clusters.items()
            for host in hosts
        }

    def __contains__(self, cluster: str) -> bool:
        return cluster in self._hosts

    def sub_clusters(self, cluster: str) -> Mapping[str, Hosts]:
        """Sub-clusters of a known cluster, with their hosts."""
        return self._hosts[cluster]

    def sub_cluster_of(self, cluster: str, host: str) -> str | None:
        """The sub-cluster that a host belongs to, None if it belongs to none."""
        return self._sub_cluster_of.get((cluster, host))

    def describe(self, cluster: str | None = None) -> list[dict[str, Any]]:
        """One cluster, or all of them by name, as /api/clusters/ prints them."""
        names = [cluster] if cluster is not None else list(self._hosts)
        return [_cluster_json(name, self._hosts[name], self._describes_hardware) for name in names]


def _by_sub_cluster(hosts: Hosts | Mapping[str, Hosts]) -> Mapping[str, Hosts]:
    return hosts if isinstance(hosts, Mapping) else {"main": hosts}


def _cluster_json(name: str, sub_clusters: Mapping[str, Hosts], describes_hardware: bool) -> dict[str, Any]:
    return {
        "name": name,
        "metricConfig": [_metric_json(metric) for metric in METRICS],
        "subClusters": [_sub_cluster_json(*item, describes_hardware) for item in sub_clusters.items()],
    }


def _metric_json(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "unit": _UNIT,
        "peak": 100,
        "normal": 50,
        "caution": 20,
        "alert": 10,
        "energy": "",
        "scope": "node",
        "aggregation": "avg",
        "footprint": "avg",
        "timestep": 60,
        "restrict": False,
        "lowerIsBetter": False,
    }


def _sub_cluster_json(name: str, hosts: Hosts, describes_hardware: bool) -> dict[str, Any]:
    cores = [[core, core + _CORES_PER_NODE] for core in range(_CORES_PER_NODE)]
    half = _CORES_PER_NODE // 2
    sockets = [sorted(thread for core in some for thread in core) for some in (cores[:half], cores[half:])]
    topology = {
        "node": list(range(2 * _CORES_PER_NODE)),
        "socket": sockets,
        "memoryDomain": sockets,
        "core": cores,
    }
    rate = {"unit": _UNIT, "value": 100}
    return {
        "name": name,
        "nodes": ",".join(hosts),
        "processorType": "practice",
        "topology": topology if describes_hardware else {},
        "flopRateScalar": rate,
        "flopRateSimd": rate,
        "memoryBandwidth": rate,
        "socketsPerNode": 2,
        "coresPerSocket": half,
        "threadsPerCore": 2,
    }
