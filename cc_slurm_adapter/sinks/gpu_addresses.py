"""The PCI addresses of GPUs from the configuration, and which nodes lack some."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cc_slurm_adapter.log import log_findings
from cc_slurm_adapter.model import Finding, NodeState
from cc_slurm_adapter.system.quantities import counted, ranges

GpuAddresses = tuple[tuple["re.Pattern[str]", tuple[str, ...]], ...]
"""Pairs of a regular expression on host names and PCI addresses in Slurm's order; '' for a GPU without an address."""
NAMED = 3
"""Most nodes of one kind that the log names."""


class _Kind(NamedTuple):
    """Nodes that lack addresses in the same way."""

    gpu_types: str
    lacking: tuple[int, ...]
    """The indices of their GPUs without one, as Slurm counts them."""
    addresses: int
    """How many of their GPUs have one."""


def addresses_of(hostname: str, addresses: GpuAddresses) -> tuple[str, ...]:
    """Return the addresses of the first regular expression that matches a part of the name; () if none does."""
    return next((found for regex, found in addresses if regex.search(hostname)), ())


def further_parts(gpus: Iterable[int], addresses: Sequence[str]) -> int:
    """Count the devices beyond the first one of each card: parts of a card (MIG) share its address.

    A device without an address counts as a card of its own.
    """
    known = [addresses[index] for index in gpus if index < len(addresses) and addresses[index]]
    return len(known) - len(set(known))


def count_cards(node: NodeState, by_host: GpuAddresses) -> NodeState:
    """Return the node with each allocated card counted once, however many of its parts Slurm names."""
    further = further_parts(node.gpus_in_use, addresses_of(node.hostname, by_host))
    return node._replace(gpus_allocated=node.gpus_allocated - further) if further else node


class MissingAddresses:
    """Logs which nodes have GPUs without an address in gpuPciAddrs, once for each kind of node."""

    def __init__(self, addresses: GpuAddresses) -> None:
        self._addresses = addresses
        self._logged: set[_Kind] = set()

    def check(self, nodes: Iterable[NodeState]) -> None:
        """Log which kinds of nodes lack addresses among the nodes that a poll has read."""
        for kind, finding in _find_kinds(nodes, self._addresses).items():
            if kind not in self._logged:
                self._logged.add(kind)
                log_findings(finding)


def find_missing_addresses(nodes: Iterable[NodeState], by_host: GpuAddresses) -> list[Finding]:
    """Find nodes with GPUs without an address in gpuPciAddrs: a finding for each kind of node."""
    return list(_find_kinds(nodes, by_host).values())


def _find_kinds(nodes: Iterable[NodeState], by_host: GpuAddresses) -> dict[_Kind, Finding]:
    equal: dict[tuple[str, int, tuple[str, ...]], list[str]] = {}
    for node in nodes:
        if node.gpus:
            addresses = addresses_of(node.hostname, by_host)[: node.gpus]
            equal.setdefault((node.gpu_types, node.gpus, addresses), []).append(node.hostname)
    kinds: dict[_Kind, list[str]] = {}
    for (gpu_types, gpus, addresses), names in equal.items():
        known = {index for index, each in enumerate(addresses) if each}
        if len(known) < gpus:
            lacking = tuple(index for index in range(gpus) if index not in known)
            kinds.setdefault(_Kind(gpu_types, lacking, len(known)), []).extend(names)
    return {kind: _missing(kind, names) for kind, names in kinds.items()}


def _missing(kind: _Kind, names: list[str]) -> Finding:
    which = f"{'index' if len(kind.lacking) == 1 else 'indices'} {ranges(kind.lacking)}"
    text = (
        f"{counted(len(names), 'node')} ({_some(names)}) with {kind.gpu_types}{' each' if len(names) > 1 else ''}, for"
        f" which gpuPciAddrs has {counted(kind.addresses, 'address', 'addresses')}, none for the GPU {which}:"
        " cc-backend gets the number of GPUs that a job has there, but not the addresses of all of them"
    )
    return Finding(logging.WARNING, "gpuPciAddrs", text, "Complete gpuPciAddrs, then reload")


def _some(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
