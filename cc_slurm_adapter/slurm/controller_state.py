"""What slurmctld says about itself: its clock, and the messages that slurmdbd has not taken yet.

sdiag prints the time at which slurmctld has answered, in Unix seconds, in every release from 22.05 to 26.05 and in
whatever time zone. (`scontrol show config` has that time too, but as local time, and sacctmgr prints no time of
slurmdbd at all: that of `sacctmgr show stats` is its own.)
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import NamedTuple

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.output import read_text
from cc_slurm_adapter.slurm.parse.accounting import parse_backlog

_TIME = re.compile(r"^sdiag output at .*\((\d{1,12})\)$", re.MULTILINE | re.ASCII)


class ControllerState(NamedTuple):
    """slurmctld at a moment."""

    time: int
    """Its clock when it answered, in whole Unix seconds."""
    asked: float
    """The clock of this host before it was asked, in Unix seconds ..."""
    answered: float
    """... and when the answer had arrived."""
    backlog: int
    """Messages for slurmdbd that are still with slurmctld."""

    @property
    def least_ahead(self) -> float:
        """The least number of seconds by which its clock can be ahead of ours; negative if it may be behind."""
        return self.time - self.answered

    @property
    def most_ahead(self) -> float:
        """The largest number of seconds by which its clock can be ahead of ours; it shows whole seconds only."""
        return self.time + 1 - self.asked

    @property
    def difference(self) -> float:
        """How many seconds the clocks differ at least, in whichever direction; 0 if they may be the same."""
        return max(self.least_ahead, -self.most_ahead, 0.0)


def read_controller_state(commands: Commands, clock: Callable[[], float] = time.time) -> ControllerState:
    """Ask slurmctld. Raises SlurmError."""
    asked = clock()
    text = read_text(commands, ["sdiag"])
    return parse_controller_state(text, asked, clock())


def parse_controller_state(text: str, asked: float, answered: float) -> ControllerState:
    """Parse the output of sdiag. Raises UnexpectedOutput."""
    found = _TIME.search(text)
    if found is None:
        raise UnexpectedOutput("sdiag", "it has no line `sdiag output at`")
    return ControllerState(int(found[1]), asked, answered, parse_backlog(text))
