"""The PCI addresses of GPUs from the configuration, and which nodes lack some."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from cc_slurm_adapter.model import NodeState

log = logging.getLogger(__name__)

GpuAddresses = tuple[tuple["re.Pattern[str]", tuple[str, ...]], ...]
"""Pairs of a regular expression on host names and PCI addresses in Slurm's order; '' for a GPU without an address."""
NAMED = 3
"""Most nodes of one kind that the log names."""


class _Kind(NamedTuple):
    """Nodes that lack addresses in the same way."""

    gpu_types: str
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
    return replace(node, gpus_allocated=node.gpus_allocated - further) if further else node


class MissingAddresses:
    """Logs which nodes have GPUs without an address in gpuPciAddrs, once for each kind of node."""

    def __init__(self, addresses: GpuAddresses) -> None:
        self._addresses = addresses
        self._logged: set[_Kind] = set()

    def check(self, nodes: Iterable[NodeState]) -> None:
        """Log which kinds of nodes lack addresses among the nodes that a poll has read."""
        for kind, names in self._kinds(nodes).items():
            if kind not in self._logged:
                self._logged.add(kind)
                log.warning(
                    "%s (%s) with %s%s, for which gpuPciAddrs has %d addresses: cc-backend hears how many GPUs a job"
                    " has there, but not all of them by address. Complete gpuPciAddrs, then restart",
                    "1 node" if len(names) == 1 else f"{len(names)} nodes",
                    _some(names),
                    kind.gpu_types,
                    " each" if len(names) > 1 else "",
                    kind.addresses,
                )

    def _kinds(self, nodes: Iterable[NodeState]) -> Mapping[_Kind, list[str]]:
        kinds: dict[_Kind, list[str]] = {}
        for node in nodes:
            known = sum(map(bool, addresses_of(node.hostname, self._addresses)[: node.gpus]))
            if known < node.gpus:
                kinds.setdefault(_Kind(node.gpu_types, known), []).append(node.hostname)
        return kinds


def _some(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
