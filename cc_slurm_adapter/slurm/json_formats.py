"""Which JSON formats the Slurm commands on this host offer, and which one is used.

A JSON format does not change once it is released. So the program asks for one by name and never for the default. The
commands of 22.05 and 23.02 know one format only and accept no name.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cc_slurm_adapter.errors import SlurmError
from cc_slurm_adapter.log import log_findings
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.slurm.commands import Commands

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JsonFormat:
    """A JSON format. `option` requests it from squeue, scontrol and sacct."""

    name: str
    option: str
    lists_all_jobs: bool = False
    """Whether squeue prints every job in memory whatever -j is, and scontrol has no JSON."""
    filters_by_user_only: bool = False
    """Whether squeue prints every job in memory if -j has several ids, although -u filters (23.02 and 23.11)."""
    lacks_sharing: bool = False
    """Whether it does not distinguish --exclusive from --exclusive=user. `sharing_command` does."""
    finding: Finding | None = field(default=None, compare=False)
    """What the administrator should know about this choice."""


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
"""The newest format of 23.11. Later releases, whose squeue filters by ids, also have newer formats."""
_FILTERS_SINCE = "24.05"
_TAKES_NO_NAME = "doesn't allow an argument"

FORMAT_SECONDS = 600.0
"""Seconds for which a format is used before it is looked up again: Slurm may be upgraded while this program runs."""


class CurrentFormat:
    """The format that is in use now.

    `report` is called with what the administrator should know about it, once for each different finding.
    """

    def __init__(self, commands: Commands, report: Callable[[Finding], None] = log_findings) -> None:
        self._commands = commands
        self._report = report
        self._known: JsonFormat | None = None
        self._until = 0.0

    def find(self) -> JsonFormat:
        """Return the format, looked up again every FORMAT_SECONDS. Raises SlurmError."""
        if self._known is not None and time.monotonic() < self._until:
            return self._known
        found = find_format(self._commands)
        if found != self._known:
            log.info("asking Slurm with %s", found.option)
        if found.finding is not None and (self._known is None or found.finding != self._known.finding):
            self._report(found.finding)
        self._known, self._until = found, time.monotonic() + FORMAT_SECONDS
        return found

    def is_unchanged(self) -> bool:
        """Look the format up now, after a failure. Return whether it is still the same. Raises SlurmError."""
        before, self._until = self._known, 0.0
        return self.find() == before

    @property
    def name(self) -> str:
        """The format that was used last; '' before the first query."""
        return self._known.name if self._known else ""

    @property
    def lists_all_jobs(self) -> bool:
        """Return whether the format is known to make squeue print every job."""
        return self._known is not None and self._known.lists_all_jobs


def find_format(commands: Commands) -> JsonFormat:
    """Return the best format that this Slurm and this program share. Raises SlurmError."""
    finished = commands.run(["squeue", "--json=list"])
    # 23.11 and 24.05 print the list on standard error.
    text = finished.output.decode("ascii", errors="replace") + finished.errors
    offered = sorted(set(re.findall(r"data_parser/(v\d+\.\d+\.\d+)\b", text)), key=_age)
    if offered:
        best = _best_of(offered)
        may_lack_filter = _age(offered[-1]) <= _age(_LAST_WITHOUT_FILTER)
        return replace(best, filters_by_user_only=may_lack_filter and _release(commands) < _FILTERS_SINCE)
    if _TAKES_NO_NAME in finished.errors:
        return _unnamed(commands)
    raise SlurmError(f"squeue --json=list does not say which JSON formats there are: {finished.last_error()}")


def _best_of(offered: list[str]) -> JsonFormat:
    shared = [each for each in FORMATS if each.name in offered]
    if not shared:
        unknown = JsonFormat(offered[-1], f"--json={offered[-1]}")
        return replace(unknown, finding=_outdated(offered, unknown.name, "which this version does not know"))
    if _age(offered[-1]) <= _age(_NEWEST.name):
        return shared[0]
    # For a newer Slurm than this version knows, the newest of the shared formats will last longest.
    newest = shared[-1]
    return replace(newest, finding=_outdated(offered, newest.name, "the newest that this version knows"))


def _unnamed(commands: Commands) -> JsonFormat:
    """Return the only format of commands that accept no name."""
    return ONLY_V39 if _release(commands) >= "23.02" else PLAIN


def _release(commands: Commands) -> str:
    """Return the release as 23.11, from `slurm 23.11.11` or `slurm-wlm 22.05.8`; '' if it is not found."""
    finished = commands.run(["squeue", "--version"])
    version = re.search(r"\b(\d\d\.\d\d)\b", finished.output.decode("ascii", errors="replace") + finished.errors)
    return version[1] if version else ""


def _age(name: str) -> list[int]:
    return [int(part) for part in name[1:].split(".")]


def _outdated(offered: list[str], used: str, what: str) -> Finding:
    text = f"this Slurm offers the JSON formats {', '.join(offered)}: using {used}, {what}; update this program"
    return Finding(logging.WARNING, "JSON format", text)
