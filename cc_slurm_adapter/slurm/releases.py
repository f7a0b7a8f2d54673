"""Which release of Slurm each command on this host is. No daemon of Slurm is asked for it."""

from __future__ import annotations

import re

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.output import read_text

NEEDED = ("squeue", "scontrol", "sinfo", "sdiag", "sacct", "sacctmgr")
"""The commands that this program calls; the last two ask slurmdbd."""
OF_SLURMDBD = NEEDED[4:]


def read_release(commands: Commands, command: str) -> str:
    """Return the release of a command, as `24.11.5`. Raises SlurmError."""
    text = read_text(commands, [command, "--version"])
    found = re.search(r"\b(\d\d\.\d\d(?:\.[\w-]+)?)", text)  # `slurm 23.11.11`, `slurm-wlm 22.05.8`
    if found is None:
        raise UnexpectedOutput(f"{command} --version", "it prints no release")
    return found[1]


def series(release: str) -> str:
    """Return the year and month of a release: `24.11` of `24.11.5`. They are in order as texts."""
    return ".".join(release.split(".")[:2])
