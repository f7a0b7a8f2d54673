"""cc-backend's clusters as it describes them: the hosts and the hardware of each subcluster, and its clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cc_slurm_adapter.system.http_dates import parse_http_date

Groups = tuple[tuple[int, ...], ...]
"""Hardware threads that belong together, by the operating system's numbers."""


@dataclass(frozen=True)
class SubCluster:
    """Hosts with the same hardware. What cc-backend does not describe is empty."""

    name: str
    nodes: str = ""
    """Its hosts as a host list. `*` is every host that no other subcluster has."""
    hwthreads: tuple[int, ...] = ()
    """All hardware threads of a host, by the operating system's numbers."""
    cores: Groups = ()
    sockets: Groups = ()
    memory_domains: Groups = ()
    dies: Groups = ()
    accelerators: tuple[str, ...] = ()
    """The ids of a host's GPUs: their PCI addresses."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that cc-backend knows."""

    name: str
    sub_clusters: tuple[SubCluster, ...] = ()


class ServerClock(NamedTuple):
    """What the header Date of a response says about a server's clock. All times are in Unix seconds."""

    date: float
    """The server's time, without the parts of the second."""
    sent: float
    """This host's time before the request."""
    received: float
    """This host's time after the response."""

    @property
    def ahead(self) -> tuple[float, float]:
        """Return by how many seconds the server's clock is ahead, at least and at most. Negative: it is behind."""
        return self.date - self.received, self.date + 1.0 - self.sent


class ClusterList(NamedTuple):
    """What cc-backend answers when it is asked for its clusters."""

    clusters: tuple[Cluster, ...]
    clock: ServerClock | None = None
    """None if the response has no usable Date."""

    @property
    def names(self) -> list[str]:
        """Return the names of the clusters."""
        return [cluster.name for cluster in self.clusters]

    def get(self, name: str) -> Cluster | None:
        """Return the cluster of this name; None if cc-backend has none."""
        return next((cluster for cluster in self.clusters if cluster.name == name), None)


def read_clock(date: str, sent: float, received: float) -> ServerClock | None:
    """Return what a header Date says, of a response to a request between two moments; None if it says nothing."""
    moment = parse_http_date(date)
    return None if moment is None else ServerClock(moment, sent, received)


def parse_clusters(document: Any) -> tuple[Cluster, ...]:
    """Return the clusters of a parsed response. Raises KeyError and TypeError if it does not list any by name.

    What else has an unknown form is empty: the names alone are worth something.
    """
    return tuple(_parse_cluster(each) for each in document["clusters"])


def _parse_cluster(found: Any) -> Cluster:
    subs = found.get("subClusters") if isinstance(found, Mapping) else None
    listed = subs if isinstance(subs, list) else []
    return Cluster(str(found["name"]), tuple(_parse_sub_cluster(each) for each in listed if isinstance(each, Mapping)))


def _parse_sub_cluster(found: Mapping[str, Any]) -> SubCluster:
    topology = found.get("topology")
    hardware = topology if isinstance(topology, Mapping) else {}
    return SubCluster(
        name=str(found.get("name", "")),
        nodes=str(found.get("nodes") or ""),
        hwthreads=_numbers(hardware.get("node")),
        cores=_groups(hardware.get("core")),
        sockets=_groups(hardware.get("socket")),
        memory_domains=_groups(hardware.get("memoryDomain")),
        dies=_groups(hardware.get("die")),
        accelerators=_ids(hardware.get("accelerators")),
    )


def _numbers(found: object) -> tuple[int, ...]:
    return tuple(each for each in found if type(each) is int) if isinstance(found, list) else ()


def _groups(found: object) -> Groups:
    return tuple(filter(None, map(_numbers, found))) if isinstance(found, list) else ()


def _ids(found: object) -> tuple[str, ...]:
    listed = found if isinstance(found, list) else []
    return tuple(str(each["id"]) for each in listed if isinstance(each, Mapping) and "id" in each)
