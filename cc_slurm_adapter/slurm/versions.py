"""What the Slurm commands on this host offer, found out once and pinned.

Each JSON format is frozen once it is released, so the program asks for one by name and never for
the default. The commands of 22.05 and 23.02 know one format only and take no name.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from cc_slurm_adapter.errors import SlurmError
from cc_slurm_adapter.slurm.commands import Commands

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JsonFormat:
    """How to ask for JSON: `option` for squeue, scontrol and sacct."""

    name: str
    option: str
    lists_all_jobs: bool = False
    """squeue prints every job in memory whatever -j says, and scontrol has no JSON."""
    one_at_a_time: bool = False
    """squeue prints every job in memory when it is asked for several: details come from scontrol, job by job."""
    lacks_sharing: bool = False
    """It cannot tell --exclusive from --exclusive=user: `sharing_command` asks."""


# The best one first: v0.0.40 is four times smaller than its successors.
FORMATS = (
    JsonFormat("v0.0.40", "--json=v0.0.40"),  # 23.11 to 25.05
    JsonFormat("v0.0.41", "--json=v0.0.41"),  # 24.05 to 25.11
    JsonFormat("v0.0.42", "--json=v0.0.42"),  # 24.11 to 26.05
    JsonFormat("v0.0.43", "--json=v0.0.43"),  # 25.05 to 26.05
    JsonFormat("v0.0.44", "--json=v0.0.44"),  # 25.11 and 26.05
    JsonFormat("v0.0.45", "--json=v0.0.45", lacks_sharing=True),  # 26.05
)
# Read in Slurm's source and never run here. 23.11 and 24.05 have it too, beside v0.0.40.
ONLY_V39 = JsonFormat("v0.0.39", "--json", one_at_a_time=True)  # 23.02
PLAIN = JsonFormat("plain", "--json", lists_all_jobs=True)  # 22.05

_NEWEST = FORMATS[-1]
_TAKES_NO_NAME = "doesn't allow an argument"
_warned: set[str] = set()


def find_format(commands: Commands) -> JsonFormat:
    """The best format that this Slurm and this program share. Raises SlurmError."""
    answer = commands.run(["squeue", "--json=list"])
    offered = re.findall(r"data_parser/(v\d+\.\d+\.\d+)\b", answer.output.decode("ascii", errors="replace"))
    if offered:
        return _best_of(sorted(set(offered), key=_age))
    if _TAKES_NO_NAME in answer.errors:
        return _unnamed(commands)
    raise SlurmError(f"squeue --json=list does not say which JSON formats there are: {answer.complaint()}")


def _best_of(offered: list[str]) -> JsonFormat:
    shared = [each for each in FORMATS if each.name in offered]
    if not shared:
        _warn_once(offered, offered[-1], "which this version does not know")
        return JsonFormat(offered[-1], f"--json={offered[-1]}")
    if _age(offered[-1]) <= _age(_NEWEST.name):
        return shared[0]
    # Of a Slurm that nobody has seen yet, the newest format is the one that will last longest.
    newest = shared[-1]
    _warn_once(offered, newest.name, "the newest that this version knows")
    return newest


def _unnamed(commands: Commands) -> JsonFormat:
    """The one format of commands that take no name."""
    answer = commands.run(["squeue", "--version"])
    version = re.search(r"\b(\d\d\.\d\d)\b", answer.output.decode("ascii", errors="replace"))
    return ONLY_V39 if version and version.group(1) >= "23.02" else PLAIN


def _age(name: str) -> list[int]:
    return [int(part) for part in name[1:].split(".")]


def _warn_once(offered: list[str], used: str, what: str) -> None:
    """The formats are looked up again after every failure: the log is told once."""
    offer = ", ".join(offered)
    if offer not in _warned:
        _warned.add(offer)
        log.warning("this Slurm offers the JSON formats %s: using %s, %s; update this program", offer, used, what)
