"""Which cores of each node a job holds, from the `job_resources` of squeue's and scontrol's JSON.

Indices are per socket in every version; the node's own number is socket * cores per socket + core.
22.05 and v0.0.40 list the allocated cores alone, so the node's layout must be known; from v0.0.41
on all cores of the node are listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.slurm.json_values import Json, get_list, get_object, get_text, need_number
from cc_slurm_adapter.slurm.nodes import NodeLayout

_HELD = ("allocated", "allocated_and_in_use")


def held_nodes(job: Json) -> str:
    """The host list of the nodes that were allocated; '' when Slurm no longer knows.

    Not the job's own `nodes`: while a job completes, Slurm takes its nodes out of that one by one.
    """
    resources = job.get("job_resources")
    nodes = resources.get("nodes") if isinstance(resources, dict) else None
    if isinstance(nodes, dict):
        return get_text(nodes, "list", "job_resources.nodes")
    return nodes if isinstance(nodes, str) else ""


def read_cores(job: Json, layouts: Mapping[str, NodeLayout]) -> dict[str, tuple[int, ...]]:
    """Core numbers by node name, ascending; a node whose layout nobody knows is left out."""
    resources = job.get("job_resources")
    if not isinstance(resources, dict):
        return {}
    if isinstance(resources.get("nodes"), dict):
        return dict(_from_allocation(resources["nodes"]))
    return dict(_from_allocated_nodes(resources, layouts))


def _from_allocation(nodes: Json) -> Iterator[tuple[str, tuple[int, ...]]]:
    path = "job_resources.nodes.allocation[]"
    for node in get_list(nodes, "allocation", "job_resources.nodes"):
        held: list[int] = []
        first = 0
        for socket in sorted(get_list(node, "sockets", path), key=lambda each: need_number(each, "index", path)):
            cores = get_list(socket, "cores", f"{path}.sockets[]")
            held += [first + need_number(core, "index", path) for core in cores if _is_held(core)]
            first += len(cores)
        yield get_text(node, "name", path), tuple(sorted(held))


def _is_held(core: Json) -> bool:
    return "ALLOCATED" in get_list(core, "status", "job_resources.nodes.allocation[].sockets[].cores[]")


def _from_allocated_nodes(resources: Json, layouts: Mapping[str, NodeLayout]) -> Iterator[tuple[str, tuple[int, ...]]]:
    path = "job_resources.allocated_nodes[]"
    for node in get_list(resources, "allocated_nodes", "job_resources"):
        name = get_text(node, "nodename", path)
        if name not in layouts:
            continue
        per_socket = layouts[name].cores_per_socket
        held: list[int] = []
        for socket, content in get_object(node, "sockets", path).items():
            cores = get_object(content, "cores", f"{path}.sockets.{socket}")
            held += [_index(socket) * per_socket + _index(core) for core, held_as in cores.items() if held_as in _HELD]
        yield name, tuple(sorted(held))


def _index(text: Any) -> int:
    if not str(text).isdigit():
        raise UnexpectedOutput("job_resources.allocated_nodes[].sockets", f"{str(text)[:40]!r} is no index")
    return int(text)
