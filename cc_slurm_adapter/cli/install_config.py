"""The configuration that `-install` prints: what was found, and what only a person or a node can know.

JSON has no comments, so what is to be known about a value is said beside the file.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cc_slurm_adapter.cli.install_cc_backend import Described
from cc_slurm_adapter.cli.install_host import TOKEN, Host, instance_settings
from cc_slurm_adapter.cli.node_patterns import pattern_for
from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.sinks.gpu_addresses import addresses_of
from cc_slurm_adapter.system.quantities import counted

NO_URL = "WRITE THE ADDRESS OF CC-BACKEND HERE"
"""It is no URL, so that no daemon starts with it."""
NO_ADDRESS = ""
"""A GPU with this is left out of what is sent, and -check names it. Another placeholder would be sent."""
MOST_KINDS = 20
"""Most kinds of nodes that are named as examples."""


class GpuKind(NamedTuple):
    """Nodes with the same GPUs, some of which have no address in the configuration."""

    gpu_types: str
    """As `4 gpu:h100`."""
    gpus: int
    names: Sequence[str]
    pattern: str
    """It matches these nodes and no others."""

    @property
    def line(self) -> str:
        """Return the entry of gpuPciAddrs."""
        return f"{json.dumps(self.pattern)}: {json.dumps([NO_ADDRESS] * self.gpus)}"


def gpu_kinds(nodes: Sequence[NodeState], config: Config) -> list[GpuKind]:
    """Return the kinds of nodes that have more GPUs than gpuPciAddrs has places for."""
    return _kinds(nodes, lambda node: node.gpus > len(addresses_of(node.hostname, config.gpu_pci_addrs)))


def unfilled_kinds(nodes: Sequence[NodeState], config: Config) -> list[GpuKind]:
    """Return the kinds of nodes whose GPUs all have places in gpuPciAddrs, and some of them no address there."""

    def is_wanted(node: NodeState) -> bool:
        addresses = addresses_of(node.hostname, config.gpu_pci_addrs)
        return node.gpus <= len(addresses) and NO_ADDRESS in addresses[: node.gpus]

    return _kinds(nodes, is_wanted)


def _kinds(nodes: Sequence[NodeState], is_wanted: Callable[[NodeState], bool]) -> list[GpuKind]:
    kinds: dict[tuple[str, int], list[str]] = defaultdict(list)
    for node in filter(is_wanted, nodes):
        kinds[node.gpu_types, node.gpus].append(node.hostname)
    all_names = {node.hostname for node in nodes}
    return [
        GpuKind(types, gpus, names, pattern_for(names, all_names - set(names)))
        for (types, gpus), names in sorted(kinds.items())
    ]


def new_config(host: Host) -> list[str]:
    """Return the lines of a new configuration."""
    settings = {"ccRestUrl": NO_URL, "ccRestJwtFile": TOKEN}
    if host.instance:
        settings = {**instance_settings(host.instance, host.slurm_conf), **settings}
    elif host.slurm_conf:
        settings["slurmConf"] = host.slurm_conf
    entries = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in settings.items()]
    kinds = gpu_kinds(host.slurm.nodes, host.config)
    if kinds:
        entries.append("\n".join(gpu_setting(kinds)))
    return ["{", *"\n".join(f"  {each}" for each in ",\n".join(entries).split("\n")).split("\n"), "}"]


def gpu_setting(kinds: Sequence[GpuKind]) -> list[str]:
    """Return the lines of gpuPciAddrs."""
    lines = [f"  {kind.line}" for kind in kinds]
    return ['"gpuPciAddrs": {', *(f"{line}," for line in lines[:-1]), lines[-1], "}"]


def gpu_notes(kinds: Sequence[GpuKind], accelerators: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what to know about gpuPciAddrs. `accelerators` are the addresses that cc-backend has, by node."""
    if not kinds:
        return []
    return [
        "gpuPciAddrs: addresses can only be seen on the nodes. An empty text stands for one that is not known yet: its",
        "  GPU is left out of what is sent, and -check names it. The addresses must be in Slurm's order of the device",
        "  files. On one node of each kind, slurmd -G prints this order, and this prints which address is /dev/nvidia0",
        "  and so on: grep -H 'Device Minor' /proc/driver/nvidia/gpus/*/information",
        "  Write them as in cc-backend's cluster.json. For MIG, repeat the card's address for each instance.",
        *(
            f"    {_counted_nodes(kind.names)} with {kind.gpu_types}{_known(accelerators.get(kind.names[0], ()))}"
            for kind in kinds[:MOST_KINDS]
        ),
        *([f"    and {len(kinds) - MOST_KINDS} more kinds"] if len(kinds) > MOST_KINDS else []),
    ]


def topology_notes(described: Described) -> list[str]:
    """Return what cc-backend says about hwthreadNumbering, or why that is not known."""
    if described.failure:
        return [f"cc-backend's topology is not known: {described.failure}"]
    return list(described.numbering)


def numbering_notes(nodes: Sequence[NodeState]) -> list[str]:
    """Return how to find out hwthreadNumbering: only a node itself can tell."""
    kinds: dict[tuple[int, str], list[str]] = defaultdict(list)
    for node in nodes:
        kinds[node.cpus, node.gpu_types].append(node.hostname)
    shown = sorted(kinds.items())[:MOST_KINDS]
    return [
        "hwthreadNumbering: most machines need none. Copy this file to one node of each kind, and see what it prints:",
        "    cc-slurm-adapter -topology",
        *(f"    {_counted_nodes(names)} with {counted(cpus, 'CPU')}" for (cpus, _), names in shown),
    ]


def _known(addresses: Sequence[str]) -> str:
    return f": cluster.json has {', '.join(addresses)}" if addresses else ""


def _counted_nodes(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {counted(len(names) - 1, 'other')}"
