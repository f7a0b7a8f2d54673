"""Decides which runs are left out: by host, partition or user, or because an administrator has opted them out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from cc_slurm_adapter.model import Run

Pattern = Optional["re.Pattern[str]"]
OPTED_OUT = "its AdminComment has disable_cc_submission"


@dataclass(frozen=True)
class IgnoreRules:
    """The patterns of the configuration, which are searched in the names; None matches nothing."""

    hosts: Pattern = None
    partitions: Pattern = None
    users: Pattern = None

    def ignores_host(self, hostname: str) -> bool:
        """Return whether the state of this host is not reported. Runs are left out when all their hosts are ignored."""
        return bool(self.hosts and self.hosts.search(hostname))

    def reason(self, run: Run) -> str:
        """Return why a run is left out, for the log; '' if it is reported."""
        if run.opted_out:
            return OPTED_OUT
        if self.partitions and self.partitions.search(run.partition):
            return "ignorePartitions"
        if self.users and self.users.search(run.user):
            return "ignoreUsers"
        if run.resources and all(self.ignores_host(each.hostname) for each in run.resources):
            return "ignoreHosts"
        return ""
