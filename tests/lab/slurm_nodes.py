"""What Slurm itself says of the lab's nodes: the right answers of the tests on node states."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from .slurm_conf import NODES
from .slurm_jobs import field

if TYPE_CHECKING:
    from .installation import Installation
    from .slurm_lab import SlurmLab

FIGURES = ("cpusAllocated", "memoryAllocated", "gpusAllocated", "jobsRunning")
CC_BACKEND_WORDS = {"allocated", "reserved", "idle", "down", "mixed"}
"""cc-backend takes one of these and ignores all other states that it is given."""


class NodeNow(NamedTuple):
    """CPUs are hardware threads, memory is in MB."""

    state: str
    """Slurm's words, for example MIXED+DRAIN."""
    figures: tuple[int, ...]
    """In the order of FIGURES."""


def nodes_now(lab: SlurmLab) -> dict[str, NodeNow]:
    return {node: node_now(lab, node) for node in NODES}


def node_now(lab: SlurmLab, node: str) -> NodeNow:
    text = lab.output("scontrol", "show", "node", "-d", node)
    jobs = lab.output("squeue", "-h", "-a", "-r", "-t", "R,S", "-w", node, "-o", "%A").split()
    gpus = re.search(r"GresUsed=gpu:h100:(\d+)", text)
    assert gpus
    numbers = (int(field(text, "CPUAlloc", r"(\d+)")), int(field(text, "AllocMem", r"(\d+)")), int(gpus[1]), len(jobs))
    return NodeNow(field(text, "State", r"(\S+)"), numbers)


def reported_figures(installed: Installation) -> dict[str, tuple[int, ...]]:
    """By node, in the order of FIGURES."""
    reports = {node: report.payload for (_, node), report in installed.backend.node_states.items()}
    return {node: tuple(report[name] for name in FIGURES) for node, report in reports.items()}


def reported_words(installed: Installation, node: str) -> set[str]:
    """Those states of a node that cc-backend understands; it compares them in lower or upper case."""
    (report,) = (report for (_, name), report in installed.backend.node_states.items() if name == node)
    return {state.lower() for state in report.payload["states"]} & CC_BACKEND_WORDS
