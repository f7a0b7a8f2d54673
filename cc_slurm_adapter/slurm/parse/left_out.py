"""Logs lines of Slurm's output that cannot be understood: one line for all of them, less and less often."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cc_slurm_adapter.log import Repeated

log = logging.getLogger(__name__)

_repeated = Repeated()
"""A release that prints something new does so at every poll."""


def log_left_out(command: str, lines: Sequence[str]) -> None:
    """Log how many lines of a command were left out, and the first of them. `lines` are described for the log."""
    if not lines or not _repeated.is_due(command):
        return
    if len(lines) == 1:
        log.error("a line of %s cannot be understood and is left out: %s%s", command, lines[0], _repeated.note)
    else:
        text = "%d lines of %s cannot be understood and are left out, the first is %s%s"
        log.error(text, len(lines), command, lines[0], _repeated.note)


def forget() -> None:
    """Let the next lines be logged immediately."""
    _repeated.forget()
