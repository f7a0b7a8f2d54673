"""Nodes: their layout and their states, from one `sinfo -N`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.job import NodeState
from cc_slurm_adapter.slurm.gres import gpu_count

log = logging.getLogger(__name__)

# Wide columns, because sinfo cuts what does not fit; NodeList is the node's name, NodeHost the machine's.
COLUMNS = (
    ("NodeList", 128),
    ("StateComplete", 256),
    ("CPUsState", 64),
    ("AllocMem", 32),
    ("Sockets", 12),
    ("Cores", 12),
    ("Threads", 12),
    ("Gres", 1024),
    ("GresUsed", 1024),
)
SINFO = ["sinfo", "-N", "-h", "-a", "-O", ",".join(f"{name}:{width}" for name, width in COLUMNS)]


@dataclass(frozen=True)
class NodeLayout:
    """What a node is made of; needed to number its cores."""

    sockets: int
    cores_per_socket: int
    threads_per_core: int
    gpus: int

    @property
    def cores(self) -> int:
        """Cores of all sockets together."""
        return self.sockets * self.cores_per_socket


def parse_sinfo(text: str) -> tuple[dict[str, NodeLayout], list[NodeState]]:
    """Layouts by node name, and states, from the output of SINFO.

    sinfo prints a row for each partition of a node: the first one counts. A row that cannot be
    understood is logged and left out; the other nodes go on.
    """
    layouts: dict[str, NodeLayout] = {}
    states: list[NodeState] = []
    for row in _rows(text):
        name = row["NodeList"]
        if name in layouts:
            continue
        try:
            layouts[name] = _layout(row)
            state = _node_state(row)
        except UnexpectedOutput as error:
            log.warning("the node %r is left out of the node states: %s", name, error)
            continue
        states.append(state)
    return layouts, states


def _layout(row: dict[str, str]) -> NodeLayout:
    return NodeLayout(
        sockets=_number(row, "Sockets"),
        cores_per_socket=_number(row, "Cores"),
        threads_per_core=_number(row, "Threads"),
        gpus=gpu_count(row["Gres"]),
    )


def _rows(text: str) -> Iterator[dict[str, str]]:
    for line in text.splitlines():
        row, at = {}, 0
        for name, width in COLUMNS:
            row[name] = line[at : at + width].strip()
            at += width
        if row["NodeList"]:
            yield row


def _node_state(row: dict[str, str]) -> NodeState:
    return NodeState(
        hostname=row["NodeList"],
        states=tuple(row["StateComplete"].rstrip("*~#!%$@^-").split("+")),
        cpus_allocated=_allocated(row["CPUsState"]),
        memory_allocated=0 if row["AllocMem"] == "N/A" else _number(row, "AllocMem"),
        gpus_allocated=gpu_count(row["GresUsed"]),
    )


def _allocated(cpus: str) -> int:
    """CPUs in use from `allocated/idle/other/total`."""
    allocated = cpus.split("/")[0]
    if not allocated.isdigit():
        raise UnexpectedOutput("sinfo CPUsState", f"{cpus[:40]!r} is not allocated/idle/other/total")
    return int(allocated)


def _number(row: dict[str, str], column: str) -> int:
    if not row[column].isdigit():
        raise UnexpectedOutput(f"sinfo {column}", f"{row[column][:40]!r} is no number")
    return int(row[column])
