"""Nodes: their layouts and states, from one `sinfo -N` and, for those it does not list, `scontrol show node`."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.slurm.parse.gres import GPU, Names, gpu_count, gpu_counts, gpu_types, gpus_in_use
from cc_slurm_adapter.system.outages import kind_of

log = logging.getLogger(__name__)

# NodeList is the node's name, NodeHost the machine's.
COLUMNS = ("NodeList", "StateComplete", "CPUsState", "AllocMem", "Sockets", "Cores", "Threads", "Gres", "GresUsed")
CELL_END = "|"
# A cell of width 0 is printed whole, and then the text after the width. Any other width cuts without showing it.
SINFO = ["sinfo", "-N", "-h", "-a", "-O", ",".join(f"{column}:0{CELL_END}" for column in COLUMNS)]

# sinfo lists nodes by partition, so it leaves out a node that is in none. -a is for hidden partitions, -d for GresUsed.
SCONTROL = ["scontrol", "-a", "-d", "show", "node"]
"""Followed by names with commas between them."""
SCONTROL_ALL = ["scontrol", "-a", "-o", "show", "node"]
_SAFE_LINES = ("NodeName=", "   CPUAlloc=", "   Gres=", "   GresUsed=", "   RealMemory=", "   State=")
"""The lines of scontrol that are read, the same from 22.05 to 26.05. Features and operating system are not read,
because the node sets them. Nothing after the state is read, because Reason, Comment and Extra may imitate other
lines."""
_FIELDS = {"AllocMem": "AllocMem", "Sockets": "Sockets", "Cores": "CoresPerSocket", "Threads": "ThreadsPerCore"}
_NODE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}\Z")
_NOT_FOUND = re.compile(r"Node (\S+) not found\Z")

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
Nodes = tuple[dict[str, "NodeLayout"], list[NodeState]]
"""Layouts by node name, and states."""

_warned: dict[str, str] = {}


@dataclass(frozen=True)
class NodeLayout:
    """The sockets, cores and GPUs of a node; needed to number its cores."""

    sockets: int
    cores_per_socket: int
    threads_per_core: int
    gpus: tuple[int, ...]
    """How many devices it has of each GRES that is an accelerator, in the configured order."""
    cpus: int = 0
    """CPUs as Slurm counts them, which may be fewer than there are threads; 0 if unknown."""

    @property
    def cores(self) -> int:
        """Count the cores of all sockets."""
        return self.sockets * self.cores_per_socket


class ShownNodes(NamedTuple):
    """The result of `scontrol show node NAMES`."""

    rows: dict[str, Callable[[], Row]]
    """Rows by the node's name. A row raises UnexpectedOutput if it cannot be understood."""
    absent: frozenset[str]
    """Names that scontrol does not know."""
    doubtful: frozenset[str]
    """Names that it prints more than once, because a comment imitates a node. They must be queried alone."""


class SinfoParser:
    """Parses the output of SINFO, again and again. A line that was in the last output is not parsed again."""

    def __init__(self, accelerators: Names = GPU) -> None:
        self._accelerators = accelerators
        self._nodes: dict[str, tuple[NodeLayout, NodeState]] = {}
        """What the lines of the last output say, by line."""

    def parse(self, text: str) -> Nodes:
        """Parse an output. Return layouts by node name, and states.

        sinfo prints a row for each partition of a node: the first good one counts. A row that cannot be understood is
        logged and left out. The other nodes are not affected.
        """
        before, self._nodes = self._nodes, {}
        layouts: dict[NodeLayout, NodeLayout] = {}

        def parse_line(line: str) -> tuple[NodeLayout, NodeState]:
            found = before.get(line)
            if found is None:
                layout, state = _node(_row(line), self._accelerators)
                found = layouts.setdefault(layout, layout), state  # thousands of nodes have the same
            self._nodes[line] = found
            return found

        lines = filter(str.strip, text.split("\n"))
        return _collect((line.partition(CELL_END)[0], partial(parse_line, line)) for line in lines)


def read_rows(rows: Iterable[tuple[str, Callable[[], Row]]], accelerators: Names = GPU) -> Nodes:
    """Read layouts by node name, and states, from rows with their nodes' names. A bad row affects no other."""

    def read(make_row: Callable[[], Row]) -> tuple[NodeLayout, NodeState]:
        return _node(make_row(), accelerators)

    return _collect((name, partial(read, make_row)) for name, make_row in rows)


def _collect(nodes: Iterable[tuple[str, Callable[[], tuple[NodeLayout, NodeState]]]]) -> Nodes:
    layouts: dict[str, NodeLayout] = {}
    states: list[NodeState] = []
    left_out: dict[str, list[str]] = {}
    for name, read in nodes:
        if name in layouts:
            continue
        try:
            layouts[name], state = read()
            states.append(state)
        except UnexpectedOutput as error:
            left_out.setdefault(str(error), []).append(name)
    _log_left_out(left_out)
    return layouts, states


def is_node_name(name: str) -> bool:
    """Return whether scontrol reads this as one name: brackets and commas would be lists, a dash an option."""
    return bool(_NODE_NAME.match(name))


def node_names(lines: Iterable[str]) -> Iterator[str]:
    """Yield the nodes' names in the output of SCONTROL_ALL. A comment may add names that belong to no node."""
    for line in lines:
        name = line.partition(" ")[0].partition("NodeName=")
        if not name[0] and is_node_name(name[2]):
            yield name[2]


def parse_scontrol(text: str, *, alone: bool = False) -> ShownNodes:
    """Parse the output of SCONTROL.

    `alone` tells that it was called for one name, so that only the beginning counts.
    """
    shown: list[dict[str, str]] = []
    absent: set[str] = set()
    is_open = False
    for line in text.split("\n"):
        not_found = _NOT_FOUND.match(line)
        if alone and (absent or (shown and not is_open)):
            break
        if not_found:
            absent.add(not_found.group(1))
        elif line.startswith("NodeName="):
            shown.append({})
            is_open = True
        if is_open and line.startswith(_SAFE_LINES):
            shown[-1].update(word.partition("=")[::2] for word in line.split())
            is_open = not line.startswith("   State=")
    times = Counter(fields["NodeName"] for fields in shown)
    times.update(absent)
    doubtful = frozenset(name for name, count in times.items() if count > 1)
    rows = {fields["NodeName"]: partial(_shown_row, fields) for fields in shown}
    return ShownNodes(
        {name: row for name, row in rows.items() if name not in doubtful}, frozenset(absent) - doubtful, doubtful
    )


def _shown_row(fields: Mapping[str, str]) -> Row:
    """Convert fields of scontrol to a row of sinfo."""
    missing = {"State", "CPUAlloc", "CPUTot", *_FIELDS.values()} - fields.keys()
    if missing:
        raise UnexpectedOutput("scontrol", f"it does not show {', '.join(sorted(missing))}")
    row = {column: fields[field] for column, field in _FIELDS.items()}
    gres = {"Gres": fields.get("Gres", ""), "GresUsed": fields.get("GresUsed", "")}
    cpus = f"{fields['CPUAlloc']}/0/0/{fields['CPUTot']}"
    return {**row, **gres, "NodeList": fields["NodeName"], "StateComplete": fields["State"], "CPUsState": cpus}


def _log_left_out(left_out: Mapping[str, Iterable[str]]) -> None:
    """Log once what is wrong with nodes, and again when something else is: a line for reasons of the same kind."""
    new: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    for reason, names in left_out.items():
        changed = [name for name in names if _warned.get(name) != reason]
        _warned.update(dict.fromkeys(changed, reason))
        if changed:
            new.setdefault(kind_of(reason), []).extend(changed)
            first.setdefault(kind_of(reason), reason)
    for kind, names in new.items():
        more = f", and {len(names) - 1} more nodes are for the same reason" if len(names) > 1 else ""
        log.warning("the node %.100r is left out of the node states: %s%s", names[0], first[kind], more)


def _row(line: str) -> Row:
    cells = line.split(CELL_END)
    if len(cells) != len(COLUMNS) + 1 or cells[-1]:
        raise UnexpectedOutput("sinfo", f"{line[:100]!r} does not have the columns {','.join(COLUMNS)}")
    if not cells[0]:
        raise UnexpectedOutput("sinfo NodeList", "it is empty")
    return dict(zip(COLUMNS, cells))


def _node(row: Row, accelerators: Names) -> tuple[NodeLayout, NodeState]:
    layout = _layout(row, accelerators)
    return layout, _node_state(row, layout, accelerators)


def _layout(row: Row, accelerators: Names) -> NodeLayout:
    return NodeLayout(
        sockets=_number(row, "Sockets"),
        cores_per_socket=_number(row, "Cores"),
        threads_per_core=_number(row, "Threads"),
        gpus=gpu_counts(row["Gres"], accelerators),
        cpus=_cpus(row["CPUsState"])[1],
    )


def _node_state(row: Row, layout: NodeLayout, accelerators: Names) -> NodeState:
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
        gpus_allocated=gpu_count(row["GresUsed"], accelerators),
        gpus_in_use=gpus_in_use(row["GresUsed"], accelerators, layout.gpus),
        cpus=layout.cores * layout.threads_per_core,
        gpus=sum(layout.gpus),
        gpu_types=gpu_types(row["Gres"], accelerators),
    )


@lru_cache(maxsize=1000)
def _state_words(state: str) -> tuple[str, ...]:
    """Return the base state and the flags of `idle+drain` or `idle*`, in lower case."""
    words: list[str] = []
    for part in state.lower().split("+"):
        word = part.rstrip("".join(SUFFIXES))
        words += [word, *(SUFFIXES[suffix] for suffix in part[len(word) :])]
    if not all(words):
        raise UnexpectedOutput("sinfo StateComplete", f"{state[:40]!r} is not a state")
    return tuple(words)


def _cpus(cpus: str) -> tuple[int, int]:
    """Parse `allocated/idle/other/total`. Return the allocated CPUs and the total."""
    counts = cpus.split("/")
    if len(counts) != 4 or not all(count.isdecimal() for count in counts):
        raise UnexpectedOutput("sinfo CPUsState", f"{cpus[:40]!r} is not allocated/idle/other/total")
    return int(counts[0]), int(counts[3])


def _number(row: Row, column: str) -> int:
    if not row[column].isdecimal():
        raise UnexpectedOutput(f"sinfo {column}", f"{row[column][:40]!r} is not a number")
    return int(row[column])
