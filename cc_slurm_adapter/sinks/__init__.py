"""Destinations. One file a destination; each gives the same few methods and judges its own answers."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cc_slurm_adapter.job import End, NodeState, Run, RunKey

CC_REST, CC_NATS = "cc_rest", "cc_nats"
"""The sinks' names. Where both are in use, the messages of the second one follow those of the first."""


class Kind(enum.Enum):
    """What a row of the outbox tells."""

    START = "start"
    STOP = "stop"
    WITHDRAW = "withdraw"
    """The run is removed from the destination again, so that it takes a later run of the same job."""


class Verdict(enum.Enum):
    """What an answer means for the row that was sent."""

    DELIVERED = enum.auto()
    PARKED = enum.auto()
    """Refused; it may be accepted later, after somebody acted."""
    SHADOWED = enum.auto()
    """Refused because of another run of the same job: never sent again, and neither is its stop."""
    START_FIRST = enum.auto()
    """The stop of a run that the destination does not know: its start goes first."""
    TOO_LARGE = enum.auto()
    """Cut the texts and send it again; parked when there is nothing left to cut."""
    ROW_TROUBLE = enum.auto()
    """This row alone waits; after some tries while others succeed it is parked."""
    LATER = enum.auto()
    """Nothing is concluded, not even that the destination is there: again after `retry_after`, however often."""
    SINK_TROUBLE = enum.auto()
    """The destination is away or busy: everything for it waits."""
    HELD = enum.auto()
    """The destination refuses us as such (token, address): everything for it waits, and somebody must act."""


class Answer(NamedTuple):
    """A verdict with the words for the log. `retry_after` is in seconds, when the destination names a time."""

    verdict: Verdict
    reason: str = ""
    retry_after: float | None = None
    had_it: bool = False
    """Delivered, but it was there before this request."""


@dataclass(frozen=True)
class Delivery:
    """One row on its way."""

    row_id: int
    key: RunKey
    kind: Kind
    payload: bytes
    refusals: int
    """How often the destination refused this very row."""
    first_sent: float
    """Unix time at which it first left, whatever came of that; 0 before."""


class RunningRow(NamedTuple):
    """A run that the destination believes to be running."""

    job_id: int
    start_time: int


class RunningRows(NamedTuple):
    """All runs that a destination believed to be running at some moment."""

    sink: str
    rows: list[RunningRow]
    asked: float
    """Unix time at which the question went out."""


class Connection(Protocol):
    """One way to a destination, used by one thread."""

    def deliver_all(self, deliveries: Sequence[Delivery]) -> Sequence[Answer]:
        """Send rows of different jobs and judge the answer to each. Never raises for what a destination can do."""
        ...

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> Answer:
        """Send the states of all nodes."""
        ...

    def abort(self) -> None:
        """End whatever is under way; called from another thread when the daemon stops."""
        ...

    def break_off(self) -> None:
        """End a request that hangs, for another try; called from another thread."""
        ...

    def close(self) -> None:
        """Close it; called by the thread that used it."""
        ...


class AskableConnection(Connection, Protocol):
    """One to a destination that tells what it knows."""

    def running_rows(self, cluster: str) -> Iterable[RunningRow]:
        """All runs that the destination believes to be running. Raises SinkError."""
        ...

    def cluster_names(self) -> list[str]:
        """The clusters that the destination knows. Raises SinkError."""
        ...


class Sink(Protocol):
    """A destination."""

    @property
    def name(self) -> str:
        """Names its rows in the outbox: never changes."""
        ...

    @property
    def label(self) -> str:
        """Names it in the log."""
        ...

    @property
    def counted_as(self) -> str:
        """Begins the names under which its answers are counted."""
        ...

    @property
    def connections(self) -> int:
        """How many are used at the same time."""
        ...

    @property
    def at_once(self) -> int:
        """How many rows a connection is given at once, at most."""
        ...

    @property
    def withdraws(self) -> bool:
        """Whether a run is removed when the destination refuses a later run of its job because of it."""
        ...

    def encode_start(self, run: Run) -> bytes:
        """The message that a run began: the same for all sinks."""
        ...

    def encode_stop(self, key: RunKey, end: End) -> bytes:
        """The message that a run ended: the same for all sinks."""
        ...

    def encode_withdrawal(self, key: RunKey) -> bytes:
        """The message that removes a run."""
        ...

    def cut(self, payload: bytes) -> bytes | None:
        """A start without its longest text; None when there is none left."""
        ...

    def connect(self) -> Connection:
        """A connection for one thread; opens nothing yet."""
        ...


class AskableSink(Sink, Protocol):
    """A destination that tells what it knows."""

    def connect(self) -> AskableConnection:
        """A connection for one thread; opens nothing yet."""
        ...
