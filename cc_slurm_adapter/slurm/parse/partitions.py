"""How partitions share their nodes among jobs, from `scontrol show partition`: accounting does not record it.

A job's CPUs alone do not prove whether it shares its nodes. With OverSubscribe=YES or FORCE several jobs may have the
same CPUs, and each job all CPUs of the node.
"""

from __future__ import annotations

import re
from typing import NamedTuple

COMMAND = ["scontrol", "--all", "--oneliner", "show", "partition"]
_NAME = re.compile(r"PartitionName=(\S+) ")
_WORDS = re.compile(r" (OverSubscribe|Exclusive)=(\S+)")


class Partition(NamedTuple):
    """How the jobs of a partition share its nodes."""

    gives_whole_nodes: bool
    """Whether it has OverSubscribe=EXCLUSIVE or, from 26.05 on, Exclusive=NODE."""
    shares_cores: bool
    """Whether several jobs may have the same cores."""


def parse_partitions(text: str) -> dict[str, Partition]:
    """Parse the output of COMMAND, a line for each partition. A partition without OverSubscribe is left out."""
    found = {}
    for line in text.splitlines():
        name, words = _NAME.match(line), dict(_WORDS.findall(line))
        if name and "OverSubscribe" in words:
            sharing = words["OverSubscribe"]
            whole = sharing == "EXCLUSIVE" or words.get("Exclusive") == "NODE"
            found[name.group(1)] = Partition(whole, shares_cores=sharing not in ("NO", "EXCLUSIVE"))
    return found
