"""The stand-in for sinfo: the node table of -N -O, and the short summary without options."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from examples.practice.slurm.call import (
    VALUE,
    Call,
    CommandError,
    Option,
    parse_options,
    print_version,
    require_controller,
)
from examples.practice.slurm.hostlist import compress_hosts, parse_numbers
from examples.practice.slurm.model import MEMORY_PER_CPU, PARTITIONS, Settings
from examples.practice.slurm.store import Node

OPTIONS = (
    Option("Node", "N"),
    Option("noheader", "h"),
    Option("all", "a"),
    Option("Format", "O", VALUE),
    Option("version", "V"),
)
DEFAULT_WIDTH = "20"
WIDTH = re.compile(r"(\.?)(\d*)(.*)", re.DOTALL)
"""A dot for right-justified, the width, and what is printed behind the cell."""
SUMMARY = "{:<9} {:>5} {:>10} {:>6} {:>6} {}\n"
COMPACT = {
    "idle": "idle",
    "mixed": "mix",
    "allocated": "alloc",
    "drained": "drain",
    "draining": "drng",
}


class Line(NamedTuple):
    """A node in one of its partitions."""

    node: Node
    partition: str
    """With a star behind the default one."""
    settings: Settings


class Column(NamedTuple):
    title: str
    text: Callable[[Line], str]


class Cell(NamedTuple):
    """A column as -O asks for it."""

    column: Column
    width: int
    """A text that is longer is cut; 0 is as wide as the text."""
    right: bool
    end: str
    """Printed behind it."""

    def show(self, text: str) -> str:
        if self.width:
            text = text[: self.width]
        return (text.rjust(self.width) if self.right else text.ljust(self.width)) + self.end


def main(call: Call) -> int:
    """Run sinfo and return its exit status."""
    options, rest = parse_options(call, OPTIONS)
    if rest:
        raise CommandError(f"sinfo: error: Unrecognized option: {rest[0]}")
    if "version" in options:
        return print_version(call)
    require_controller(call, "slurm_load_partitions")
    header = "noheader" not in options
    if "Format" not in options:
        return _print_summary(call, header=header)
    if "Node" not in options:
        raise CommandError("sinfo: error: -O is only known together with -N here")
    return _print_nodes(call, _parse_format(call, options["Format"]), header=header)


def base_state(line: Line) -> str:
    """idle, mixed or allocated, by the CPUs in use."""
    if not line.node.cpus:
        return "idle"
    return "allocated" if line.node.cpus == line.settings.cpus_per_node else "mixed"


def long_state(line: Line) -> str:
    if line.node.drained:
        return "draining" if line.node.cpus else "drained"
    return base_state(line)


def complete_state(line: Line) -> str:
    """The state with its flags, such as mixed+drain."""
    return base_state(line) + ("+drain" if line.node.drained else "")


def cpus_state(line: Line) -> str:
    """Allocated, idle, other and all CPUs: those of a drained node are other once they are free."""
    total, used = line.settings.cpus_per_node, line.node.cpus
    free = total - used
    return f"{used}/0/{free}/{total}" if line.node.drained else f"{used}/{free}/0/{total}"


def gres(line: Line) -> str:
    """The node's GPUs."""
    settings = line.settings
    return f"gpu:{settings.gpu_type}:{settings.gpus_per_node}" if settings.gpus_per_node else "(null)"


def gres_used(line: Line) -> str:
    """Those in use."""
    if not line.settings.gpus_per_node:
        return "gpu:0"
    used = len(parse_numbers(line.node.gpus))
    return f"gpu:{line.settings.gpu_type}:{used}(IDX:{line.node.gpus or 'N/A'})"


COLUMNS = {
    "nodelist": Column("NODELIST", lambda line: line.node.name),
    "nodehost": Column("HOSTNAMES", lambda line: line.settings.machine),
    "nodeaddr": Column("NODE_ADDR", lambda line: "127.0.0.1"),
    "partition": Column("PARTITION", lambda line: line.partition),
    "statecomplete": Column("STATECOMPLETE", complete_state),
    "statelong": Column("STATE", long_state),
    "statecompact": Column("STATE", lambda line: COMPACT[long_state(line)]),
    "cpusstate": Column("CPUS(A/I/O/T)", cpus_state),
    "cpus": Column("CPUS", lambda line: str(line.settings.cpus_per_node)),
    "sockets": Column("SOCKETS", lambda line: str(line.settings.sockets)),
    "cores": Column("CORES", lambda line: str(line.settings.cores_per_socket)),
    "threads": Column("THREADS", lambda line: str(line.settings.threads_per_core)),
    "memory": Column("MEMORY", lambda line: str(line.settings.memory_per_node)),
    "allocmem": Column("ALLOCMEM", lambda line: str(line.node.cpus * MEMORY_PER_CPU)),
    "gres": Column("GRES", gres),
    "gresused": Column("GRES_USED", gres_used),
}


def _parse_format(call: Call, text: str) -> list[Cell]:
    """The cells of -O. A column that nobody knows is complained about; only what stands behind it is printed."""
    cells = []
    for word in text.split(","):
        name, colon, rest = word.partition(":")
        dot, width, end = WIDTH.findall(rest if colon else DEFAULT_WIDTH)[0]
        column = COLUMNS.get(name.lower())
        if column is None:
            call.complain(f"sinfo: error: Invalid job format specification: {name}")
            cells.append(Cell(Column("", lambda line: ""), 0, right=False, end=end))
        else:
            cells.append(Cell(column, int(width or 0), bool(dot), end))
    return cells


def _print_nodes(call: Call, cells: Sequence[Cell], *, header: bool) -> int:
    settings = call.settings()
    if header:
        call.out.write("".join(cell.show(cell.column.title) for cell in cells) + "\n")
    for node in call.store.nodes():
        for partition in _partition_names():
            line = Line(node, partition, settings)
            call.out.write("".join(cell.show(cell.column.text(line)) for cell in cells) + "\n")
    return 0


def _partition_names() -> list[str]:
    first, *others = PARTITIONS
    return [f"{first}*", *others]


def _print_summary(call: Call, *, header: bool) -> int:
    settings = call.settings()
    by_state: dict[str, list[str]] = {}
    for node in call.store.nodes():
        state = COMPACT[long_state(Line(node, "", settings))]
        by_state.setdefault(state, []).append(node.name)
    if header:
        call.out.write(SUMMARY.format("PARTITION", "AVAIL", "TIMELIMIT", "NODES", "STATE", "NODELIST"))
    for partition in _partition_names():
        for state, names in by_state.items():
            call.out.write(SUMMARY.format(partition, "up", "infinite", len(names), state, compress_hosts(names)))
    return 0
