"""A job of thousands of nodes as Slurm prints it, in pieces, so that nobody must hold it whole.

Run as a program it reads such a job as the daemon does, and prints its cores and the memory that this took.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cc_slurm_adapter.model import Run
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.slurm.parse.jobs import parse_job
from cc_slurm_adapter.slurm.parse.json_stream import JobSplitter
from cc_slurm_adapter.slurm.parse.json_values import Json
from cc_slurm_adapter.slurm.parse.nodes import NodeLayout

SOCKETS = 2
PATTERNS = 50
"""So many nodes differ in the cores that the job holds."""
PIECE = 256 * 1024
"""What the daemon reads of a command's output at once."""


def held_cores(node: int, per_socket: int) -> list[int]:
    """Cores of a node that the job holds, numbered through all sockets."""
    return [core for core in range(SOCKETS * per_socket) if (core * (node % PATTERNS + 1)) % 7 != 3]


def host(node: int) -> str:
    return f"node{node:05d}"


def with_nodes(job: Json, nodes: int) -> Json:
    """The recorded job on as many nodes, with an empty list of them."""
    job = json.loads(json.dumps(job))
    names = f"node[00000-{nodes - 1:05d}]"
    resources = job["job_resources"]
    if isinstance(resources["nodes"], dict):
        resources["nodes"].update({"list": names, "count": nodes, "allocation": []})
    else:
        resources.update({"nodes": names, "allocated_nodes": []})
    return {**job, "nodes": names, "gres_detail": [], "tres_alloc_str": f"cpu={nodes},node={nodes}"}


def node_object(job: Json, node: int, per_socket: int) -> Json:
    """A node in the shape that the recorded job has."""
    held = held_cores(node, per_socket)
    resources = job["job_resources"]
    if not isinstance(resources["nodes"], dict):
        recorded = resources["allocated_nodes"][0]
        sockets = {
            str(socket): {
                "cores": {str(core % per_socket): "allocated" for core in held if core // per_socket == socket}
            }
            for socket in range(SOCKETS)
        }
        return {**recorded, "nodename": host(node), "sockets": sockets}
    recorded = resources["nodes"]["allocation"][0]
    taken = set(held)
    sockets_listed = [
        {
            "index": socket,
            "cores": [
                {"index": core, "status": ["ALLOCATED" if socket * per_socket + core in taken else "UNALLOCATED"]}
                for core in range(per_socket)
            ],
        }
        for socket in range(SOCKETS)
    ]
    return {**recorded, "index": node, "name": host(node), "sockets": sockets_listed}


def document(job: Json, nodes: int, per_socket: int) -> Iterator[bytes]:
    """The whole document with this job alone, node by node, indented as Slurm does it."""
    text = json.dumps({"jobs": [with_nodes(job, nodes)], "warnings": [], "errors": []}, indent=2)
    before, name, after = re.split(r'("allocated_nodes"|"allocation"): \[\]', text)
    indent = re.findall(r"( *)\Z", before)[0]
    yield f"{before}{name}: [".encode()
    patterns = [_lines(node_object(job, node, per_socket), indent) for node in range(PATTERNS)]
    for node in range(nodes):
        inner = patterns[node % PATTERNS].replace(host(node % PATTERNS), host(node))
        yield f"{',' if node else ''}{inner}".encode()
    yield f"\n{indent}]{after}\n".encode()


def _lines(node: Json, indent: str) -> str:
    return "".join(f"\n{indent}  {line}" for line in json.dumps(node, indent=2).split("\n"))


def in_pieces(parts: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of a size."""
    waiting = bytearray()
    for part in parts:
        waiting += part
        while len(waiting) >= size:
            yield bytes(waiting[:size])
            del waiting[:size]
    yield bytes(waiting)


def recorded_job(file: Path) -> Json:
    """The last job of a recorded document."""
    jobs: list[Json] = json.loads(file.read_bytes())["jobs"]
    return jobs[-1]


def read_run(job: Json, nodes: int, per_socket: int) -> Run:
    """The job as the daemon reads it."""
    layouts = {host(node): NodeLayout(SOCKETS, per_socket, 1, (0,)) for node in range(nodes)}
    runs: list[Run] = []
    splitter = JobSplitter("squeue", lambda each: runs.append(parse_job(each, "lab", layouts)))
    for piece in in_pieces(document(job, nodes, per_socket), PIECE):
        splitter.feed(piece)
    splitter.finish()
    (run,) = runs
    return run


def peak_memory() -> int:
    """Bytes that this process ever held (VmHWM)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


def main(file: str, nodes: str, per_socket: str) -> None:
    """Read such a job and make its message; prints what came of it."""
    before = peak_memory()
    run = read_run(recorded_job(Path(file)), int(nodes), int(per_socket))
    read = peak_memory()
    size = len(CcMessages(()).encode_start(run).whole())
    told: dict[str, Any] = {"cores": sum(len(each.cores) for each in run.resources), "before": before}
    told.update({"read": read, "sent": peak_memory(), "message": size})
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
