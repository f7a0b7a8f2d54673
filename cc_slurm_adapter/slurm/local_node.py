"""The node that this program runs on: the machine as slurmd detects it, and its layout in slurm.conf."""

from __future__ import annotations

import re
from typing import NamedTuple

from cc_slurm_adapter.errors import CommandMissing, SlurmError
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.topology import SlurmLayout


class LocalNode(NamedTuple):
    """What is known about the node; None and () stand for what is not known."""

    name: str
    """Slurm's NodeName, or the most likely one."""
    release: tuple[int, ...] = ()
    """The release of slurmd, as (24, 11, 5)."""
    machine: SlurmLayout | None = None
    """The layout that `slurmd -C` prints."""
    configured: SlurmLayout | None = None
    """The layout that `scontrol show node` prints."""
    failures: tuple[str, ...] = ()


def read_local_node(commands: Commands, node_name: str, hostname: str) -> LocalNode:
    """Query slurmd and slurmctld, as far as they are available. `node_name` is '' if it is not known."""
    failures: list[str] = []
    detected = _query(commands, ["slurmd", "-C"], failures)
    name = node_name or _word(detected, "NodeName") or hostname.partition(".")[0]
    version = _query(commands, ["slurmd", "-V"], failures) if detected else ""
    node = _query(commands, ["scontrol", "-o", "show", "node", name], failures)
    release = parse_release(version) or parse_release(f" {_word(node, 'Version')}")
    return LocalNode(name, release, parse_slurmd(detected), parse_node(node), tuple(failures))


def _query(commands: Commands, argv: list[str], failures: list[str]) -> str:
    try:
        finished = commands.run(argv)
    except CommandMissing:
        failures.append(f"there is no {argv[0]} in PATH")
        return ""
    except SlurmError as error:
        failures.append(str(error))
        return ""
    if finished.exit_code != 0:
        failures.append(f"{' '.join(argv)}: {finished.last_error()}")
        return ""
    return finished.output.decode("utf-8", errors="replace")


def parse_slurmd(text: str) -> SlurmLayout | None:
    """Parse `NodeName=n1 CPUs=16 Boards=1 SocketsPerBoard=2 CoresPerSocket=4 ThreadsPerCore=2 RealMemory=...`."""
    return _layout(text, "CPUs", _number(text, "SocketsPerBoard") * (_number(text, "Boards") or 1))


def parse_node(text: str) -> SlurmLayout | None:
    """Parse `scontrol -o show node`, whose Sockets are those of all boards."""
    return _layout(text, "CPUTot", _number(text, "Sockets"))


def parse_release(text: str) -> tuple[int, ...]:
    """Parse `slurm 24.11.5` or `slurm-wlm 22.05.8`; () for anything else."""
    match = re.search(r"\s([0-9]{1,3}(?:\.[0-9]{1,3})+)", text)
    return tuple(map(int, match[1].split("."))) if match else ()


def _layout(text: str, cpus: str, sockets: int) -> SlurmLayout | None:
    layout = SlurmLayout(_number(text, cpus), sockets, _number(text, "CoresPerSocket"), _number(text, "ThreadsPerCore"))
    return layout if all(layout) else None


def _number(text: str, field: str) -> int:
    word = _word(text, field)
    return int(word) if re.fullmatch(r"[0-9]{1,6}", word) else 0


def _word(text: str, field: str) -> str:
    match = re.search(rf"(?:\A|\s){field}=(\S+)", text)
    return match[1] if match else ""
