"""A cluster of nodes as odd as real sites have them: its slurm.conf, gres.conf and topology.conf (Slurm 24.11).

The machines are not there. hwloc, with which slurmd looks at its machine, is told another one in the environment of
each slurmd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .slurm_conf import CGROUP_CONF, COMMON_CONF, SHIPPED_FILE, WITHOUT_SLURMDBD

if TYPE_CHECKING:
    from collections.abc import Iterator

RELEASE = "24.11"
ODD_CLUSTER = "lab"

# config_overrides would have slurmd believe slurm.conf; here slurm.conf and the machine differ.
ODD_CONF = (
    COMMON_CONF.replace("SlurmdParameters=config_overrides\n", "").replace("task/none", "task/affinity")
    + """\
ReturnToService=2
MinJobAge=120
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2
DefMemPerCPU=10
{accounting}
PrologSlurmctld={hook}
EpilogSlurmctld={hook}
GresTypes=gpu,dcu
# slurmctld then has the nodes by the switches of topology.conf, not by name. Text commands sort by name, JSON does not.
TopologyPlugin=topology/tree
TopologyParam=SwitchAsNodeRank
# Room for nodes that slurm.conf does not name.
MaxNodeCount=40
# The tests switch the machines on and off.
ResumeProgram=/bin/true
SuspendProgram=/bin/true
ResumeTimeout=120
SuspendTimeout=120
{nodes}
NodeSet=added Feature=added
PartitionName=main Nodes={main} Default=YES MaxTime=INFINITE State=UP
PartitionName=added Nodes=added MaxTime=INFINITE State=UP
PartitionName=across Nodes=types1,n[2,10],added MaxTime=INFINITE State=UP
# Its only node is taken out of it while a job runs there.
PartitionName=left Nodes=alone1 MaxTime=INFINITE State=UP
# Without a SuspendTime anywhere slurmctld does not power nodes up either.
PartitionName=cloud Nodes=cloud[1-2] MaxTime=INFINITE State=UP SuspendTime=86400
"""
)

NODES = """\
# CPUs alone, as many as the machine has hardware threads. Slurm makes them 16 sockets of one core: CPU i is the i-th
# thread of the machine, counted by socket, core and thread, and a job may get one thread of a core.
NodeName=cpus1 CPUs=16

# Two cores of each socket where the machine has four. Slurm's cores 0 to 3 are all on the machine's first socket.
NodeName=fewer1 Sockets=2 CoresPerSocket=2 ThreadsPerCore=2

# One thread of each core, on a machine that numbers the threads of a core next to each other: Slurm's CPU 1 is the
# system's 2.
NodeName=single1 Sockets=2 CoresPerSocket=4 ThreadsPerCore=1

# CPUs are cores, though threads are named. CPU_IDs count threads all the same, and a job of 3 CPUs gets 6 of them.
NodeName=halved1 CPUs=8 Sockets=2 CoresPerSocket=4 ThreadsPerCore=2

# Several boards. Sockets in scontrol and sinfo are those of all boards.
NodeName=boards1 Boards=2 SocketsPerBoard=1 CoresPerSocket=4 ThreadsPerCore=2

# A machine that numbers its sockets in turn.
NodeName=crossed1 Sockets=2 CoresPerSocket=4 ThreadsPerCore=2

# Slices of a card (MIG) beside a whole one.
NodeName=mig1 Sockets=2 CoresPerSocket=4 ThreadsPerCore=2 Gres=gpu:1g.10gb:2,gpu:3g.40gb:1,gpu:a100:1

# Accelerators that are not called gpu.
NodeName=dcu1 Sockets=2 CoresPerSocket=4 ThreadsPerCore=2 Gres=dcu:z100:4

# The types stand in another order than in gres.conf: that of slurm.conf counts.
NodeName=types1 Sockets=2 CoresPerSocket=4 ThreadsPerCore=2 Gres=gpu:b:2,gpu:a:2

# By their numbers 2 comes before 10, letter by letter after it, and in slurmctld 10 is on an earlier switch.
NodeName=n2 Sockets=2 CoresPerSocket=4 ThreadsPerCore=2 Gres=gpu:2
NodeName=n10 Sockets=2 CoresPerSocket=4 ThreadsPerCore=2 Gres=gpu:2

# Loses its only partition.
NodeName=alone1 Sockets=2 CoresPerSocket=4 ThreadsPerCore=2 Gres=gpu:2

# Off until a job wants them. The configuration of the daemon has no addresses of their GPUs.
NodeName=cloud1 Sockets=2 CoresPerSocket=4 ThreadsPerCore=2 Gres=gpu:2 State=CLOUD
NodeName=cloud2 Sockets=2 CoresPerSocket=4 ThreadsPerCore=2 Gres=gpu:2 State=CLOUD
"""
ADDED = "added1"
"""A node that slurm.conf does not name: first by name, last in slurmctld."""
ADDED_CONF = "Feature=added Gres=gpu:2"
ON_EVERY_NODE = "RealMemory=1000 NodeAddr=127.0.0.1 NodeHostname=lab Port={port}"

GRES_CONF = """\
AutoDetect=off
NodeName=mig1 Name=gpu Type=a100 File=/dev/gpu0
NodeName=mig1 Name=gpu Type=1g.10gb MultipleFiles=/dev/gpu1,/dev/mig1
NodeName=mig1 Name=gpu Type=1g.10gb MultipleFiles=/dev/gpu1,/dev/mig2
NodeName=mig1 Name=gpu Type=3g.40gb MultipleFiles=/dev/gpu2,/dev/mig3
NodeName=dcu1 Name=dcu Type=z100 File=/dev/dcu[0-3]
NodeName=types1 Name=gpu Type=a File=/dev/gpu[0-1]
NodeName=types1 Name=gpu Type=b File=/dev/gpu[2-3]
NodeName=n[2,10],alone1,cloud[1-2],added1 Name=gpu File=/dev/gpu[0-1]
"""
DEVICE_FILES = ("dcu0", "dcu1", "dcu2", "dcu3", "mig1", "mig2", "mig3")
"""Besides gpu0 to gpu3, which every cluster here has."""

# A node that is not yet there may be named; slurmctld finds it when it is reconfigured.
TOPOLOGY_CONF = """\
SwitchName=first Nodes=types1,n10
SwitchName=second Nodes=added1,alone1,boards1,cloud[1-2],cpus1,crossed1,dcu1,fewer1,halved1,mig1,n2,single1
SwitchName=top Switches=first,second
"""


class Machine(NamedTuple):
    """How an operating system would number the hardware threads of a machine."""

    numbers: tuple[int, ...]
    """By socket, core and thread."""
    sockets: int = 2
    boards: int = 1
    threads: int = 2

    @property
    def synthetic(self) -> str:
        """In the words of hwloc's HWLOC_SYNTHETIC. Groups at the top are boards to slurmd."""
        boards = f"group:{self.boards} " if self.boards > 1 else ""
        cores = len(self.numbers) // self.sockets // self.threads
        indexes = ",".join(map(str, self.numbers))
        return f"{boards}pack:{self.sockets // self.boards} core:{cores} pu:{self.threads}(indexes={indexes})"

    def files(self) -> Iterator[tuple[str, str]]:
        """What is needed of its /sys/devices/system: paths and contents."""
        yield "cpu/online", f"0-{len(self.numbers) - 1}\n"
        for kind, size in (("core", self.threads), ("package", len(self.numbers) // self.sockets)):
            for first in range(0, len(self.numbers), size):
                together = self.numbers[first : first + size]
                for cpu in together:
                    yield f"cpu/cpu{cpu}/topology/{kind}_cpus_list", ",".join(map(str, sorted(together))) + "\n"


BLOCK = Machine((0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15))
INTERLEAVED = Machine(tuple(range(16)))
IN_TURN = Machine((0, 8, 2, 10, 4, 12, 6, 14, 1, 9, 3, 11, 5, 13, 7, 15))
MACHINES = {"single1": INTERLEAVED, "boards1": BLOCK._replace(boards=2), "crossed1": IN_TURN}
"""By node; all others are BLOCK."""

NUMBERING: dict[str, str | list[int]] = {
    "^cpus": [0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15],
    "^fewer": [0, 8, 1, 9, 2, 10, 3, 11],
    "^single": [0, 2, 4, 6, 8, 10, 12, 14],
    "^crossed": [0, 8, 2, 10, 4, 12, 6, 14, 1, 9, 3, 11, 5, 13, 7, 15],
    ".": "block",
}
"""For hwthreadNumbering, written by hand."""

CARDS = [f"00000000:{bus}:00.0" for bus in ("3B", "5E", "86", "AF")]
"""The addresses of /dev/gpu0 to /dev/gpu3 and of /dev/dcu0 to /dev/dcu3."""
DEVICES_OF = {
    "mig1": ["/dev/gpu1,/dev/mig1", "/dev/gpu1,/dev/mig2", "/dev/gpu2,/dev/mig3", "/dev/gpu0"],
    "dcu1": ["/dev/dcu[0-3]"],
    "types1": ["/dev/gpu[2-3]", "/dev/gpu[0-1]"],
}
"""What `slurmd -G` must print of them, in its order."""
ADDRESSES = {
    "mig1": [CARDS[1], CARDS[1], CARDS[2], CARDS[0]],
    "dcu1": CARDS,
    "types1": [CARDS[2], CARDS[3], CARDS[0], CARDS[1]],
    **dict.fromkeys(["n2", "n10", "alone1", ADDED], CARDS[:2]),
}
"""For gpuPciAddrs, in the order of `slurmd -G`."""


def node_in(line: str) -> str:
    """The node that a line of slurm.conf is about; '' for a comment."""
    return line.split()[0].partition("=")[2] if line.startswith("NodeName=") else ""


NODE_NAMES = tuple(filter(None, map(node_in, NODES.splitlines())))
CLOUD_NODES = ("cloud1", "cloud2")
ALL_NODES = (*NODE_NAMES, ADDED)
UP_AT_FIRST = tuple(name for name in ALL_NODES if name not in CLOUD_NODES)
MAIN_NODES = tuple(name for name in NODE_NAMES if name not in (*CLOUD_NODES, "alone1"))
PORTS = 1 + len(ALL_NODES)


def port_of(node: str, first_port: int) -> int:
    """slurmctld has the first."""
    return first_port + 1 + ALL_NODES.index(node)


def odd_files(first_port: int) -> dict[str, str]:
    """The files of /etc/slurm by name, for a cluster that uses PORTS neighbouring ports."""
    values = {"cluster": ODD_CLUSTER, "hook": SHIPPED_FILE, "port": first_port, "accounting": WITHOUT_SLURMDBD}
    return {
        "slurm.conf": ODD_CONF.format(**values, nodes=node_lines(first_port), main=",".join(MAIN_NODES)),
        "gres.conf": GRES_CONF,
        "topology.conf": TOPOLOGY_CONF,
        "cgroup.conf": CGROUP_CONF.get(RELEASE, "CgroupPlugin=disabled\n"),
    }


def node_lines(first_port: int) -> str:
    return "\n".join(with_port(line, first_port) for line in NODES.splitlines())


def with_port(line: str, first_port: int) -> str:
    name = node_in(line)
    return f"{line} {ON_EVERY_NODE.format(port=port_of(name, first_port))}" if name else line
