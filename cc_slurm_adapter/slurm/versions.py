"""What the Slurm commands on this host offer, found out once and pinned.

Each JSON format is frozen once it is released, so the program asks for one by name and never for
the default. v0.0.40 comes first: it is four times smaller than its successors.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from cc_slurm_adapter.errors import SlurmError
from cc_slurm_adapter.slurm.commands import Commands

log = logging.getLogger(__name__)

KNOWN = ("v0.0.40", "v0.0.41", "v0.0.42")


@dataclass(frozen=True)
class JsonFormat:
    """How to ask for JSON: `option` for squeue and sacct."""

    option: str
    lists_all_jobs: bool
    """22.05 ignores -j and prints every job in memory."""


PLAIN = JsonFormat("--json", lists_all_jobs=True)


def find_format(commands: Commands) -> JsonFormat:
    """The best format that this Slurm and this program share. Raises SlurmError."""
    answer = commands.run(["squeue", "--json=list"])
    offered = re.findall(r"data_parser/(v\d+\.\d+\.\d+)\b", answer.output.decode("ascii", errors="replace"))
    if not offered:
        if "doesn't allow an argument" in answer.errors:
            return PLAIN
        raise SlurmError(f"squeue --json=list names no format: {answer.complaint()}")
    for name in KNOWN:
        if name in offered:
            return JsonFormat(f"--json={name}", lists_all_jobs=False)
    newest = max(offered, key=lambda name: [int(part) for part in name[1:].split(".")])
    log.warning("this Slurm offers the JSON formats %s, this version knows %s: trying %s", offered, KNOWN, newest)
    return JsonFormat(f"--json={newest}", lists_all_jobs=False)
