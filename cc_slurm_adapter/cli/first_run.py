"""What a call without arguments shows on a terminal: what this program is, and what to do next."""

from __future__ import annotations

from cc_slurm_adapter.config.file import DEFAULT_CONFIG_PATH
from cc_slurm_adapter.daemon.screen_text import wrapped
from cc_slurm_adapter.lines import print_line

WIDTH = 79
"""Columns of a line: every terminal has them."""
FIRST_STEPS = f"""\
Without a flag there is nothing to do. The first three things to do:

1. Write a configuration, {DEFAULT_CONFIG_PATH}.
   cc-slurm-adapter -install prints it, with the user, the unit and the hooks
   that this host lacks. Two keys are enough:
     {{"ccRestUrl": "https://cc-backend.example.org",
      "ccRestJwtFile": "/etc/cc-slurm-adapter/token"}}
   cc-slurm-adapter -settings lists all keys; docs/install.md has every step.
2. Check it, with Slurm and cc-backend:
     cc-slurm-adapter -check
3. Run the daemon, first in this terminal, then from its systemd unit:
     cc-slurm-adapter -daemon

cc-slurm-adapter -help shows all flags. -status shows how a running daemon is."""


def print_first_steps(description: str) -> None:
    """Print what this program is, in the words of `description`, and the first steps."""
    for line in (*wrapped(description, WIDTH), "", *FIRST_STEPS.splitlines()):
        print_line(line)
