"""A node as the text of `scontrol show node` prints it."""

from __future__ import annotations

from examples.practice.slurm.model import MEMORY_PER_CPU, PARTITIONS
from examples.practice.slurm.sinfo import Line, complete_state, gres, gres_used


def node_text(line: Line, *, details: bool) -> str:
    """The lines of one node, with the blank line that ends it."""
    settings, used = line.settings, line.node.cpus
    lines = [
        f"NodeName={line.node.name} Arch=x86_64 CoresPerSocket={settings.cores_per_socket} ",
        f"CPUAlloc={used} CPUEfctv={settings.cpus_per_node} CPUTot={settings.cpus_per_node} CPULoad=0.00",
        "AvailableFeatures=(null)",
        "ActiveFeatures=(null)",
        f"Gres={gres(line)}",
        *(["GresDrain=N/A", f"GresUsed={gres_used(line)}"] if details else []),
        f"NodeAddr=127.0.0.1 NodeHostName={settings.machine} Version={settings.release}",
        "OS=Linux ",
        f"RealMemory={settings.memory_per_node} AllocMem={used * MEMORY_PER_CPU} FreeMem=N/A"
        f" Sockets={settings.sockets} Boards=1",
        f"State={complete_state(line).upper()} ThreadsPerCore={settings.threads_per_core} TmpDisk=0 Weight=1 Owner=N/A"
        " MCS_label=N/A",
        f"Partitions={','.join(PARTITIONS)} ",
        "BootTime=None SlurmdStartTime=None",
        "CurrentWatts=0 AveWatts=0",
    ]
    return "\n   ".join(lines) + "\n   \n\n"
