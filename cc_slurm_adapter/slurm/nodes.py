"""Nodes: their layout and their states, from one `sinfo -N`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.job import NodeState
from cc_slurm_adapter.slurm.gres import gpu_count, gpus_in_use

log = logging.getLogger(__name__)

# NodeList is the node's name, NodeHost the machine's.
COLUMNS = ("NodeList", "StateComplete", "CPUsState", "AllocMem", "Sockets", "Cores", "Threads", "Gres", "GresUsed")
CELL_END = "|"
# A cell of width 0 is printed whole, with what follows the width behind it. Any other width cuts and does not say so.
SINFO = ["sinfo", "-N", "-h", "-a", "-O", ",".join(f"{column}:0{CELL_END}" for column in COLUMNS)]

# StateComplete has a word for each flag. Slurm's shorter forms of a state (idle*) have these in place of words.
SUFFIXES = {
    "*": "not_responding",
    "~": "powered_down",
    "#": "powering_up",
    "!": "power_down",
    "%": "powering_down",
    "$": "maintenance",
    "@": "reboot_requested",
    "^": "reboot_issued",
    "-": "planned",
}
Row = Mapping[str, str]
"""The cells of a line of sinfo by column."""

_warned: dict[str, str] = {}


@dataclass(frozen=True)
class NodeLayout:
    """What a node is made of; needed to number its cores."""

    sockets: int
    cores_per_socket: int
    threads_per_core: int
    gpus: int
    cpus: int = 0
    """As Slurm counts them, which may be fewer than there are threads; 0 where nobody knows."""

    @property
    def cores(self) -> int:
        """Cores of all sockets together."""
        return self.sockets * self.cores_per_socket


def parse_sinfo(text: str) -> tuple[dict[str, NodeLayout], list[NodeState]]:
    """Layouts by node name, and states, from the output of SINFO.

    sinfo prints a row for each partition of a node: the first good one counts. A row that cannot be
    understood is logged and left out; the other nodes go on.
    """
    layouts: dict[str, NodeLayout] = {}
    states: list[NodeState] = []
    seen: set[str] = set()
    for line in filter(str.strip, text.split("\n")):
        name = line.partition(CELL_END)[0]
        if name in seen:
            continue
        try:
            row = _row(line)
            layouts[name] = layout = _layout(row)
            states.append(replace(_node_state(row), cpus=layout.cores * layout.threads_per_core))
            seen.add(name)
        except UnexpectedOutput as error:
            _warn(name, str(error))
    return layouts, states


def _warn(name: str, reason: str) -> None:
    """Say once what is wrong with a node, and again when it is something else."""
    if _warned.get(name) != reason:
        _warned[name] = reason
        log.warning("the node %.100r is left out of the node states: %s", name, reason)


def _row(line: str) -> Row:
    cells = line.split(CELL_END)
    if len(cells) != len(COLUMNS) + 1 or cells[-1]:
        raise UnexpectedOutput("sinfo", f"{line[:100]!r} has not the columns {','.join(COLUMNS)}")
    if not cells[0]:
        raise UnexpectedOutput("sinfo NodeList", "it is empty")
    return dict(zip(COLUMNS, cells))


def _layout(row: Row) -> NodeLayout:
    return NodeLayout(
        sockets=_number(row, "Sockets"),
        cores_per_socket=_number(row, "Cores"),
        threads_per_core=_number(row, "Threads"),
        gpus=gpu_count(row["Gres"]),
        cpus=_cpus(row["CPUsState"])[1],
    )


def _node_state(row: Row) -> NodeState:
    words = _state_words(row["StateComplete"])
    allocated, total = _cpus(row["CPUsState"])
    # Up to 23.02 a draining node is called allocated although CPUs are free.
    if words[0] == "allocated" and "drain" in words and 0 < allocated < total:
        words = ("mixed", *words[1:])
    return NodeState(
        hostname=row["NodeList"],
        states=words,
        cpus_allocated=allocated,
        memory_allocated=0 if row["AllocMem"] == "N/A" else _number(row, "AllocMem"),
        gpus_allocated=gpu_count(row["GresUsed"]),
        gpus_in_use=gpus_in_use(row["GresUsed"]),
    )


def _state_words(state: str) -> tuple[str, ...]:
    """The base state and the flags of `idle+drain` or `idle*`, in lower case."""
    words: list[str] = []
    for part in state.lower().split("+"):
        word = part.rstrip("".join(SUFFIXES))
        words += [word, *(SUFFIXES[suffix] for suffix in part[len(word) :])]
    if not all(words):
        raise UnexpectedOutput("sinfo StateComplete", f"{state[:40]!r} is no state")
    return tuple(words)


def _cpus(cpus: str) -> tuple[int, int]:
    """CPUs in use, and all of them, from `allocated/idle/other/total`."""
    counts = cpus.split("/")
    if len(counts) != 4 or not all(count.isdecimal() for count in counts):
        raise UnexpectedOutput("sinfo CPUsState", f"{cpus[:40]!r} is not allocated/idle/other/total")
    return int(counts[0]), int(counts[3])


def _number(row: Row, column: str) -> int:
    if not row[column].isdecimal():
        raise UnexpectedOutput(f"sinfo {column}", f"{row[column][:40]!r} is no number")
    return int(row[column])
