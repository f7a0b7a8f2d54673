"""gpuPciAddrs against the accelerators that cc-backend has for a subcluster."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from cc_slurm_adapter.config.hostnames import shortened
from cc_slurm_adapter.model import Finding, NodeState
from cc_slurm_adapter.sinks.clusters import SubCluster
from cc_slurm_adapter.sinks.gpu_addresses import GpuAddresses, addresses_of
from cc_slurm_adapter.system.quantities import counted

SUBJECT = "gpuPciAddrs"
_SHOWN = 8
"""Most addresses that a line has."""


def find_accelerators(placed: Iterable[tuple[NodeState, SubCluster]], by_host: GpuAddresses) -> Iterator[Finding]:
    """Compare the addresses of the GPUs of nodes with their subclusters, a finding for nodes of one kind.

    Addresses that are missing altogether are not judged here, nor is a subcluster whose hardware is not described.
    """
    kinds: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = defaultdict(list)
    without_gpus: dict[tuple[str, int], list[str]] = defaultdict(list)
    right = 0
    for node, sub in ((node, sub) for node, sub in placed if sub.hwthreads or sub.accelerators):
        addresses = list(filter(None, addresses_of(node.hostname, by_host)[: node.gpus]))
        wrong = sorted({*addresses} - {*sub.accelerators})
        missing = sorted({*sub.accelerators} - {*addresses}) if len(addresses) == node.gpus else []
        if sub.accelerators and not node.gpus:
            without_gpus[sub.name, len(sub.accelerators)].append(node.hostname)
        elif addresses and (wrong or missing):
            kinds[sub.name, tuple(wrong), tuple(missing)].append(node.hostname)
        elif addresses:
            right += 1
    for (name, others, left), nodes in kinds.items():
        yield _of_other_addresses(name, others, left, nodes)
    for (name, number), nodes in without_gpus.items():
        text = (
            f"cc-backend has {counted(number, 'accelerator')} for the subcluster {name}, but Slurm has no GPUs on"
            f" {shortened(nodes)}"
        )
        step = "add them to gres.conf, or set acceleratorGres if they are no GRES gpu, or correct cluster.json"
        yield Finding(logging.WARNING, SUBJECT, text, step)
    if right:
        text = f"gpuPciAddrs: the addresses of {counted(right, 'node')} are those of cc-backend's topology"
        yield Finding(logging.INFO, SUBJECT, text)


def find_surplus(nodes: Iterable[NodeState], by_host: GpuAddresses) -> Iterator[Finding]:
    """Find nodes that have fewer GPUs in Slurm than addresses."""
    kinds: dict[tuple[int, int], list[str]] = defaultdict(list)
    for node in nodes:
        listed = len(addresses_of(node.hostname, by_host))
        if 0 < node.gpus < listed:
            kinds[listed, node.gpus].append(node.hostname)
    for (listed, gpus), names in kinds.items():
        addresses = counted(listed, "address", "addresses")
        text = f"gpuPciAddrs has {addresses} for nodes that have {counted(gpus, 'GPU')} in Slurm: {shortened(names)}"
        step = "See that they are in Slurm's order, and remove the others; sinfo -N -O NodeList,Gres prints the numbers"
        yield Finding(logging.WARNING, SUBJECT, text, step)


def _of_other_addresses(name: str, wrong: Sequence[str], missing: Sequence[str], nodes: list[str]) -> Finding:
    parts = [f"{_listed(wrong)} of {shortened(nodes)} {_is(wrong)} not in it"] if wrong else []
    parts += [f"{_listed(missing)} of it {_is(missing)} not among those of {shortened(nodes)}"] if missing else []
    text = f"gpuPciAddrs differs from cc-backend's topology of the subcluster {name}: {', and '.join(parts)}"
    step = "correct gpuPciAddrs, then reload, or correct cluster.json"
    if wrong and set(map(_spelling, wrong)) <= set(map(_spelling, missing)):
        step = "they are the same addresses: write them in gpuPciAddrs as cluster.json does, then reload"
    return Finding(logging.WARNING, SUBJECT, text, step)


def _listed(addresses: Sequence[str]) -> str:
    more = f" and {len(addresses) - _SHOWN} more" if len(addresses) > _SHOWN else ""
    return ", ".join(addresses[:_SHOWN]) + more


def _is(addresses: Sequence[str]) -> str:
    return "is" if len(addresses) == 1 else "are"


def _spelling(address: str) -> tuple[str, ...]:
    """Return what is the same for `0000:C1:00.0` and `00000000:c1:00.0`."""
    return tuple(part.lstrip("0") for part in address.lower().split(":"))
