"""How many runs are known and in which state: a frozen value for whoever asks. Nothing heavy is imported here."""

from __future__ import annotations

from typing import NamedTuple


class JobNotes(NamedTuple):
    """What only a running daemon knows about one job."""

    not_understood: str = ""
    """Why it could not be understood; '' if it could, or was not read."""
    awaiting_layout: tuple[int, ...] = ()
    """The start times of its runs that wait until sinfo lists their nodes."""


class SyncRequest(NamedTuple):
    """What somebody wants to be brought from accounting: what ended in a span (Unix seconds), all of it or of a job."""

    since: int
    until: int
    job: int = 0
    """The id of the only job; 0 for all."""


COMPLETE, STOPPED = "complete", "stopped"
"""How a sync ended."""


class SyncReport(NamedTuple):
    """The sync that is under way, or the last one. Times are in Unix seconds."""

    began: float = 0.0
    """When it was accepted, which is also its name; 0 if there was none since the start."""
    ended: float = 0.0
    """0 while it is under way."""
    result: str = ""
    """How it ended: COMPLETE or STOPPED; '' while it is under way."""
    since: int = 0
    until: int = 0
    job: int = 0
    reached: int = 0
    """Up to which time everything was read."""
    found: int = 0
    """Runs that Slurm has."""
    enqueued: int = 0
    """Those of them that were not known before and are reported now."""
    unread: int = 0
    """Those that could not be read."""
    waits_for: str = ""
    """Why it reads nothing just now; '' while it does."""
    failing_since: float = 0.0
    """When the failures began that still last; 0 if the last query had a result."""
    why: str = ""
    """The reason of the last failure."""

    @property
    def is_under_way(self) -> bool:
        """Return whether it is not over yet."""
        return self.began > 0 and not self.ended


class RunsReport(NamedTuple):
    """Runs that hold nodes now, and jobs that are not understood."""

    started: int = 0
    preparing: int = 0
    """Their start time may still move."""
    ignored: int = 0
    """Left out by the configuration."""
    not_understood: int = 0
    """Jobs that could not be understood, so that they are not reported."""
    awaiting_layout: int = 0
    """Runs whose cores cannot be numbered before Slurm has listed their nodes."""

    @property
    def open(self) -> int:
        """How many runs hold nodes."""
        return self.started + self.preparing + self.ignored
