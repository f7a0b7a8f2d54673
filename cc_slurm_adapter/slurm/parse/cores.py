"""The cores that are allocated to a job on each node, from `job_resources` in the JSON of squeue and scontrol.

Indices are per socket in every version; the node's own number is socket * cores per socket + core. Up to v0.0.40 only
the allocated cores are listed, so the node's layout must be known. From v0.0.41 on all cores of the node are listed.
(v0.0.39 is like 22.05 and v0.0.40.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Optional

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.slurm.parse.json_values import (
    Json,
    get_list,
    get_object,
    get_objects,
    get_text,
    need_number,
    need_text,
    read_digits,
)
from cc_slurm_adapter.slurm.parse.nodes import NodeLayout

_PATH = "jobs[].job_resources"
_CORE = f"{_PATH}.nodes.allocation[].sockets[].cores[]"
_ALLOCATED = ("allocated", "allocated_and_in_use")
_FREE = ["UNALLOCATED"]
_Allocated = tuple[str, Optional[tuple[int, ...]]]
"""A node's name, and its cores if the layout is known."""


def allocated_nodes_of(job: Json) -> str:
    """Return the host list of the allocated nodes; '' if Slurm no longer knows them.

    This is not the job's own `nodes`, from which Slurm removes node by node while a job completes.
    """
    resources = _job_resources(job)
    if not resources:
        return ""
    if isinstance(resources.get("nodes"), dict):
        return get_text(resources["nodes"], "list", f"{_PATH}.nodes")
    return get_text(resources, "nodes", _PATH)


def has_whole_nodes(job: Json) -> bool:
    """Return whether the nodes were allocated whole. Up to v0.0.40 Slurm does not say, and the result is False."""
    nodes = _job_resources(job).get("nodes")
    if not isinstance(nodes, dict):
        return False
    if not isinstance(nodes.get("whole"), bool):
        raise UnexpectedOutput(f"{_PATH}.nodes.whole", "expected true or false")
    return bool(nodes["whole"])


def read_cores(job: Json, layouts: Mapping[str, NodeLayout], hosts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return core numbers by node name, ascending. A node of unknown layout is left out.

    `hosts` are the allocated nodes. The result is empty if Slurm lists no node: then it no longer knows the cores.
    """
    resources = _job_resources(job)
    if not resources:
        return {}
    is_complete = isinstance(resources.get("nodes"), dict)
    allocated = list(_from_allocation(resources["nodes"]) if is_complete else _from_allocated_nodes(resources, layouts))
    names = [name for name, _ in allocated]
    if names and sorted(names) != sorted(hosts):
        raise UnexpectedOutput(f"{_PATH}.nodes", "it does not name the nodes whose cores are listed")
    return {name: cores for name, cores in allocated if cores is not None}


def _job_resources(job: Json) -> Json:
    """Return `job_resources`. If there are none, it is missing (22.05), empty (up to v0.0.40) or null."""
    resources = job.get("job_resources")
    if resources is None:
        return {}
    return get_object(job, "job_resources", "jobs[]")


def _from_allocation(nodes: Json) -> Iterator[_Allocated]:
    path = f"{_PATH}.nodes.allocation"
    for node in get_objects(nodes, "allocation", f"{_PATH}.nodes"):
        allocated: list[int] = []
        first = 0
        for socket in _by_index(node, "sockets", f"{path}[]"):
            cores = _by_index(socket, "cores", f"{path}[].sockets[]")
            allocated += [first + at for at, core in enumerate(cores) if _is_allocated(core)]
            first += len(cores)
        yield need_text(node, "name", f"{path}[]"), tuple(allocated)


def _by_index(value: Json, key: str, path: str) -> list[Json]:
    """Return the objects in the order of their `index`, which must count from 0 without gaps."""
    found = get_objects(value, key, path)
    where = f"{path}.{key}[]"
    indices = [each.get("index") for each in found]
    if indices == list(range(len(found))) and set(map(type, indices)) <= {int}:  # neither true nor 1.0
        return found  # as all releases print them
    numbered = {need_number(each, "index", where): each for each in found}
    if sorted(numbered) != list(range(len(found))):
        raise UnexpectedOutput(f"{where}.index", "the indices have gaps")
    return [numbered[index] for index in range(len(numbered))]


def _is_allocated(core: Json) -> bool:
    status = core.get("status")
    if status == _FREE:  # as most are
        return False
    status = get_list(core, "status", _CORE)
    if ("ALLOCATED" in status) == ("UNALLOCATED" in status):
        raise UnexpectedOutput(f"{_CORE}.status", "expected either ALLOCATED or UNALLOCATED")
    return "ALLOCATED" in status


def _from_allocated_nodes(resources: Json, layouts: Mapping[str, NodeLayout]) -> Iterator[_Allocated]:
    path = f"{_PATH}.allocated_nodes[]"
    for node in get_objects(resources, "allocated_nodes", _PATH):
        name = need_text(node, "nodename", path)
        layout = layouts.get(name)
        yield name, None if layout is None else tuple(sorted(_numbered(node, layout, path)))


def _numbered(node: Json, layout: NodeLayout, path: str) -> Iterator[int]:
    sockets = get_object(node, "sockets", path)
    for socket in sockets:
        first = _index(socket, layout.sockets, f"{path}.sockets") * layout.cores_per_socket
        cores = get_object(get_object(sockets, socket, f"{path}.sockets"), "cores", f"{path}.sockets.{socket}")
        for core, status in cores.items():
            where = f"{path}.sockets.{socket}.cores"
            if status not in _ALLOCATED:
                raise UnexpectedOutput(f"{where}.{core}"[:200], f"expected one of {', '.join(_ALLOCATED)}")
            yield first + _index(core, layout.cores_per_socket, where)


def _index(text: str, count: int, path: str) -> int:
    index = read_digits(text)
    if index is None or index >= count:
        raise UnexpectedOutput(path, f"{text[:40]!r} is not an index below {count}, as sinfo counts them")
    return index
