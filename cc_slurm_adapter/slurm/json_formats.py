"""What the Slurm commands on this host offer, found out once and pinned.

Each JSON format is frozen once it is released, so the program asks for one by name and never for
the default. The commands of 22.05 and 23.02 know one format only and take no name.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace

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
    filters_by_user_only: bool = False
    """squeue prints every job in memory when it is asked for several ids, but -u filters (23.02 and 23.11)."""
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
# 24.05 has it too, beside v0.0.40; 23.11 lists it and prints nothing for it.
ONLY_V39 = JsonFormat("v0.0.39", "--json", filters_by_user_only=True)  # 23.02
PLAIN = JsonFormat("plain", "--json", lists_all_jobs=True)  # 22.05

_NEWEST = FORMATS[-1]
_LAST_WITHOUT_FILTER = "v0.0.40"
"""The newest format of 23.11; later releases, whose squeue filters by ids, have newer ones beside it."""
_FILTERS_SINCE = "24.05"
_TAKES_NO_NAME = "doesn't allow an argument"
_warned: set[str] = set()


def find_format(commands: Commands) -> JsonFormat:
    """The best format that this Slurm and this program share. Raises SlurmError."""
    answer = commands.run(["squeue", "--json=list"])
    # 23.11 and 24.05 print the list on standard error.
    said = answer.output.decode("ascii", errors="replace") + answer.errors
    offered = sorted(set(re.findall(r"data_parser/(v\d+\.\d+\.\d+)\b", said)), key=_age)
    if offered:
        best = _best_of(offered)
        may_lack_filter = _age(offered[-1]) <= _age(_LAST_WITHOUT_FILTER)
        return replace(best, filters_by_user_only=may_lack_filter and _release(commands) < _FILTERS_SINCE)
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
    return ONLY_V39 if _release(commands) >= "23.02" else PLAIN


def _release(commands: Commands) -> str:
    """As in 23.11, from `slurm 23.11.11` or `slurm-wlm 22.05.8`; '' when the commands do not say."""
    answer = commands.run(["squeue", "--version"])
    version = re.search(r"\b(\d\d\.\d\d)\b", answer.output.decode("ascii", errors="replace") + answer.errors)
    return version[1] if version else ""


def _age(name: str) -> list[int]:
    return [int(part) for part in name[1:].split(".")]


def _warn_once(offered: list[str], used: str, what: str) -> None:
    """The formats are looked up again after every failure: the log is told once."""
    offer = ", ".join(offered)
    if offer not in _warned:
        _warned.add(offer)
        log.warning("this Slurm offers the JSON formats %s: using %s, %s; update this program", offer, used, what)
