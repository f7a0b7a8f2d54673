"""How the queue and the destinations are: frozen values for whoever asks. Nothing heavy is imported here.

All times are in Unix seconds.
"""

from __future__ import annotations

from typing import NamedTuple

from cc_slurm_adapter.model import RunKey


class Parked(NamedTuple):
    """Messages for a sink that were refused for one reason. `reason` is the text for the first of them."""

    sink: str
    messages: int
    first: RunKey
    reason: str

    def __str__(self) -> str:
        return f"{self.messages} for {self.sink}, the first of {self.first}: {self.reason}"


class QueueReport(NamedTuple):
    """How many messages wait for a sink."""

    sink: str
    pending: int = 0
    parked: int = 0
    conflicts: int = 0
    """Starts of runs that the sink does not store, because it has another run of the job."""
    oldest_pending: float = 0.0
    """When the oldest of the pending ones became pending; 0 if there is none."""


class SinkReport(NamedTuple):
    """Whether a destination answers, as its senders have found out."""

    name: str
    """As in the state file: `cc_rest` or `cc_nats`."""
    label: str
    """As in the log: `cc-backend` or `NATS`."""
    last_answer: float = 0.0
    """When it last answered to a message, or accepted node states; 0 if it never did since the start."""
    failing_since: float = 0.0
    """When the failures began that still last; 0 while it answers."""
    failed_at: float = 0.0
    """When it failed last; 0 if it never did since the start."""
    refuses_all: bool = False
    """Whether it refuses everything, so that an administrator must act; else it cannot be reached."""
    why: str = ""
    """Why it is failing."""
    withdraws: bool = False
    """Whether an earlier run of a job makes room for a later one (requeuedRuns). Then conflicts are not expected."""
    nodes_why: str = ""
    """Why it does not accept the node states; '' if it does."""

    @property
    def trouble(self) -> str:
        """What is wrong with a destination that is failing, for people."""
        return "refuses everything" if self.refuses_all else "cannot be reached"


class StateReport(NamedTuple):
    """The state file."""

    path: str
    is_durable: bool
    """Whether all of the state is in the file; else it is in memory, because the file cannot be written."""
    bytes: int
    """Of the file with its write-ahead log."""
    max_bytes: int
    """stateMaxBytes: above it texts are left out."""
    taken_at: float
    """When the numbers of messages were counted. They are older than the report while a disk does not answer."""
