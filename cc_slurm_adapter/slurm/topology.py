"""Which of a machine's hardware threads Slurm's CPUs are: the order in which slurmd counts them.

slurmd gets the machine's hardware threads from hwloc and counts them by socket, core and thread
(`xcpuinfo_hwloc_topo_get` in Slurm's src/slurmd/common/xcpuinfo.c; its log has the result as "Block Map"). hwloc orders
sockets, cores and threads by the lowest number that the operating system gave to a thread in them, not by the ids of
sockets and cores. It keeps together what shares a die, a third-level cache or memory. That is the same on Slurm 22.05,
24.11 and 26.05 with hwloc 2.9 to 2.12. SlurmdParameters=l3cache_as_socket and numa_node_as_socket (24.11, 26.05) change
how many sockets there are, but not this order.

If slurm.conf has another layout than the machine, thread t of Slurm's core c is the machine's thread c * n + t. Here n
is the number of threads of a core of the machine; up to 23.02 it is the number in slurm.conf. In any release n is 1 if
slurm.conf says CPUs= alone, with all threads of the machine (src/plugins/task/affinity/dist_tasks.c, `_get_avail_map`;
seen in slurmd's log on the same three releases).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cc_slurm_adapter.errors import AdapterError

# Newer name, older name.
_PACKAGE = ("topology/package_cpus_list", "topology/core_siblings_list")
_DIE = ("topology/die_cpus_list",)
_CLUSTER = ("topology/cluster_cpus_list",)
_CORE = ("topology/core_cpus_list", "topology/thread_siblings_list")
_RANGES = re.compile(r"[0-9]{1,5}(?:-[0-9]{1,5})?(?:,[0-9]{1,5}(?:-[0-9]{1,5})?)*\Z")


class TopologyError(AdapterError):
    """The machine does not list its hardware, or Slurm cannot describe it."""


class SlurmLayout(NamedTuple):
    """A node's layout in Slurm."""

    cpus: int
    sockets: int
    cores_per_socket: int
    threads_per_core: int

    @property
    def cores(self) -> int:
        """Count the cores of all sockets."""
        return self.sockets * self.cores_per_socket

    def __str__(self) -> str:
        return (
            f"CPUs={self.cpus} Sockets={self.sockets} CoresPerSocket={self.cores_per_socket}"
            f" ThreadsPerCore={self.threads_per_core}"
        )


@dataclass(frozen=True)
class Machine:
    """The hardware threads of a machine that are online."""

    cpus: tuple[int, ...]
    """Their numbers in the operating system, in slurmd's order."""
    sockets: int
    threads_per_core: int

    @property
    def layout(self) -> SlurmLayout:
        """Return the layout as slurm.conf would have it."""
        cores = len(self.cpus) // self.threads_per_core
        return SlurmLayout(len(self.cpus), self.sockets, cores // self.sockets, self.threads_per_core)

    @property
    def has_gaps(self) -> bool:
        """Return whether numbers are missing.

        slurmd has no place for numbers beyond the count, and binds tasks wrongly.
        """
        return max(self.cpus) >= len(self.cpus)


def read_machine(root: str = "/") -> Machine:
    """Read the machine from the files in ROOT/sys. Raises TopologyError."""
    system = Path(root, "sys/devices/system")
    online = _online(system)
    nodes = [_numbers(path) & online for path in sorted(system.glob("node/node[0-9]*/cpulist"))]
    folders = {cpu: system / f"cpu/cpu{cpu}" for cpu in online}
    packages = {cpu: _first(folder, _PACKAGE, online) or online for cpu, folder in folders.items()}
    cores = {cpu: _first(folder, _CORE, online) or frozenset({cpu}) for cpu, folder in folders.items()}
    around = {
        cpu: [packages[cpu], *_shared(folder, online), *(node for node in nodes if cpu in node)]
        for cpu, folder in folders.items()
    }
    threads = {len(core) for core in cores.values()}
    if len(threads) > 1:
        listed = " and ".join(map(str, sorted(threads)))
        raise TopologyError(
            f"the cores of this machine have {listed} hardware threads, which Slurm cannot describe:"
            " hwthreadNumbering must be written by hand"
        )
    # Nested sets, the largest first: each by its lowest number, as hwloc orders them.
    order = {
        cpu: (*(min(each) for each in sorted(around[cpu], key=len, reverse=True)), min(cores[cpu]), cpu)
        for cpu in online
    }
    return Machine(tuple(sorted(online, key=order.__getitem__)), len(set(packages.values())), threads.pop())


def _online(system: Path) -> frozenset[int]:
    found = _numbers(system / "cpu/online")
    if not found:
        raise TopologyError(f"{system}/cpu/online does not list the CPUs of this machine")
    return found


def _shared(cpu_folder: Path, online: frozenset[int]) -> Iterator[frozenset[int]]:
    """Yield the sets of CPUs that share a CPU's die, cluster and third-level cache, as far as its files list them."""
    caches = (_numbers(index / "shared_cpu_list") & online for index in _third_level_caches(cpu_folder))
    yield from filter(None, [_first(cpu_folder, _DIE, online), _first(cpu_folder, _CLUSTER, online), *caches])


def _third_level_caches(cpu_folder: Path) -> Iterator[Path]:
    for index in sorted(cpu_folder.glob("cache/index*")):
        if _text(index / "level") == "3":
            yield index


def _first(folder: Path, names: Iterable[str], online: frozenset[int]) -> frozenset[int]:
    return next(filter(None, (_numbers(folder / name) & online for name in names)), frozenset())


def _numbers(path: Path) -> frozenset[int]:
    """Read the numbers in a file of the form `0-3,8`; none if there is no such file or it has another form."""
    text = _text(path)
    if not _RANGES.match(text):
        return frozenset()
    found: set[int] = set()
    for item in text.split(","):
        first, _, last = item.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="ascii", errors="replace").strip()
    return ""


def cpus_of_slurm(machine: Machine, layout: SlurmLayout, release: tuple[int, ...]) -> list[int]:
    """Return the operating system's number of each of Slurm's CPUs. Raises TopologyError if Slurm has too many.

    `release` is slurmd's, as (24, 11). An unknown one is () and counts as new.
    """
    threads = layout.threads_per_core
    spread = machine.threads_per_core
    if release and release < (23, 11):
        spread = threads
    if layout.sockets == layout.cpus == len(machine.cpus) and layout.cores_per_socket == threads == 1:
        spread = 1
    places = [core * spread + thread for core in range(layout.cores) for thread in range(threads)]
    if max(places) >= len(machine.cpus) or threads > spread:
        raise TopologyError(f"Slurm has more for this node, {layout}, than the machine, {machine.layout}")
    return [machine.cpus[place] for place in places]
