"""`-topology`: prints the value for hwthreadNumbering of the node that it runs on."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cc_slurm_adapter import lines
from cc_slurm_adapter.lines import log_line, print_line
from cc_slurm_adapter.sinks.hwthreads import numbering_for
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.local_node import LocalNode, read_local_node
from cc_slurm_adapter.slurm.topology import Machine, SlurmLayout, TopologyError, cpus_of_slurm, read_machine


@dataclass(frozen=True)
class TopologyReport:
    """The value for one node, and where it comes from."""

    node_name: str
    numbering: str | list[int] | None
    """A word or a list; None where nothing is known to be right."""
    cpus: int
    """How many CPUs the node has in Slurm's layout, and a list has as many; 0 where nothing is known."""
    read: tuple[str, ...]
    """The sources that were read."""
    notes: tuple[str, ...]
    """What to know before it is used, one line each."""
    checked: bool = False
    """Whether Slurm itself has said how it sees this node."""

    @property
    def is_known(self) -> bool:
        """Whether there is a value that is known to be right."""
        return self.checked and self.numbering is not None

    @property
    def pattern(self) -> str:
        """The node as a key of hwthreadNumbering."""
        return f"^{re.escape(self.node_name)}$"

    def as_setting(self) -> str:
        """Return a line for the configuration; '' where nothing is known to be right."""
        return "" if self.numbering is None else f'"hwthreadNumbering": {json.dumps({self.pattern: self.numbering})}'

    def as_json(self) -> str:
        """Return the report as one line, so that the lines of many nodes can be gathered."""
        return json.dumps(
            {
                "hostname": self.node_name,
                "cpus": self.cpus,
                "hwthreadNumbering": self.numbering,
                "checked": self.checked,
                "read": self.read,
                "notes": self.notes,
            }
        )


def print_topology(*, as_json: bool) -> bool:
    """Print the setting to standard output, and what is to be known about it to standard error.

    Returns whether the setting is known to be right.
    """
    report = read_topology()
    if as_json:
        print_line(report.as_json())
    elif report.numbering is not None:
        print_line(report.as_setting())
    if not as_json:
        for note in report.notes:
            log_line(f"cc-slurm-adapter: {report.node_name}: {note}", lines.NOTICE)
    return report.is_known


def read_topology(root: str = "/") -> TopologyReport:
    """Read /sys below `root`, and ask Slurm if it is there. Never raises because something is missing."""
    commands = Commands()
    try:
        # Inside a job the environment has the node's name in Slurm.
        local = read_local_node(commands, os.environ.get("SLURMD_NODENAME", ""), os.uname().nodename)
    finally:
        commands.close()
    try:
        machine = read_machine(root)
    except TopologyError as error:
        return TopologyReport(local.name, None, 0, (), (str(error),))
    return make_report(machine, local, str(Path(root, "sys")))


def make_report(machine: Machine, local: LocalNode, folder: str = "/sys") -> TopologyReport:
    """Return the report about what was read from the machine and from Slurm."""
    asked = {"slurmd -C": local.machine, "scontrol show node": local.configured}
    read = (folder, *(name for name, layout in asked.items() if layout))
    layout = local.configured or machine.layout
    try:
        _check_slurmd(machine, local.machine)
        cpus = cpus_of_slurm(machine, layout, local.release)
    except TopologyError as error:
        return TopologyReport(local.name, None, 0, read, (f"{error}: hwthreadNumbering must be written by hand",))
    numbering = numbering_for(cpus, layout.cores, layout.threads_per_core)
    notes = tuple(_notes(machine, local, layout, numbering))
    return TopologyReport(local.name, numbering, len(cpus), read, notes, checked=local.configured is not None)


def _check_slurmd(machine: Machine, seen: SlurmLayout | None) -> None:
    """Raise TopologyError if slurmd sees other CPUs. Its sockets may differ (SlurmdParameters)."""
    if seen and (seen.cpus, seen.threads_per_core) != (len(machine.cpus), machine.threads_per_core):
        raise TopologyError(f"slurmd sees {seen} where the system has {machine.layout}")


def _notes(machine: Machine, local: LocalNode, layout: SlurmLayout, numbering: str | list[int]) -> list[str]:
    notes = []
    if local.configured is None:
        why = "; ".join(local.failures) or "it does not tell"
        notes.append(f"Slurm's layout of this node is not known ({why}): this is right if it is {machine.layout}")
    elif layout.cpus != len(machine.cpus) or layout.threads_per_core != machine.threads_per_core:
        notes.append(f"Slurm has {layout} for this node, the machine {machine.layout}: this is for Slurm's layout")
    if machine.has_gaps:
        notes.append(
            f"the numbers of this machine's {len(machine.cpus)} CPUs go up to {max(machine.cpus)}, and slurmd then"
            " binds tasks to others than it means to: these are those that it means. Bring all CPUs online, if you can"
        )
    if numbering == "block":
        notes.append("block is what counts without a setting")
    return notes
