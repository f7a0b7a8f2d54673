"""Destinations. One file a destination; each gives the same few methods and judges its own answers."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cc_slurm_adapter.model import End, NodeState, Run, RunKey

CC_REST, CC_NATS = "cc_rest", "cc_nats"
"""The sinks' names. Where both are in use, the messages of the second one follow those of the first."""


class Kind(enum.Enum):
    """What a row of the outbox tells."""

    START = "start"
    STOP = "stop"
    WITHDRAW = "withdraw"
    """The run is removed from the destination again, so that it takes a later run of the same job."""


class Text(NamedTuple):
    """A text of a message that is stored once, however many messages have it."""

    before: bytes
    """What precedes it in the message."""
    body: bytes
    """A JSON string: another one may take its place."""


class Encoded(NamedTuple):
    """A message for all sinks, with its texts apart from the rest, in the order in which they may be left out."""

    head: bytes
    texts: tuple[Text, ...] = ()
    tail: bytes = b""

    @property
    def size(self) -> int:
        """Bytes of the whole message."""
        return len(self.head) + len(self.tail) + sum(len(each.before) + len(each.body) for each in self.texts)

    def whole(self) -> bytes:
        """As it is sent."""
        return b"".join([self.head, *(part for text in self.texts for part in text), self.tail])


class Encoder(Protocol):
    """Makes the messages that are told of a run: the same for all sinks."""

    def encode_start(self, run: Run) -> Encoded:
        """It began."""
        ...

    def encode_stop(self, key: RunKey, end: End) -> Encoded:
        """It ended."""
        ...

    def encode_withdrawal(self, key: RunKey) -> Encoded:
        """It is to be removed."""
        ...


class Verdict(enum.Enum):
    """What an answer means for the row that was sent."""

    DELIVERED = enum.auto()
    REJECTED = enum.auto()
    """Refused; it may be accepted later, after somebody acted."""
    CONFLICT = enum.auto()
    """Refused because of another run of the same job: never sent again, and neither is its stop."""
    UNKNOWN_RUN = enum.auto()
    """The stop of a run that the destination does not know: its start goes first."""
    TOO_LARGE = enum.auto()
    """Cut the texts and send it again; parked when there is nothing left to cut."""
    FAILED = enum.auto()
    """This row alone waits; after some tries while others succeed it is parked."""
    NOT_YET = enum.auto()
    """Nothing is concluded, not even that the destination is there: again after `retry_after`, however often."""
    UNAVAILABLE = enum.auto()
    """The destination is away or busy: everything for it waits."""
    MISCONFIGURED = enum.auto()
    """The destination refuses us as such (token, address): everything for it waits, and somebody must act."""


class Answer(NamedTuple):
    """A verdict with the words for the log. `retry_after` is in seconds, when the destination names a time."""

    verdict: Verdict
    reason: str = ""
    retry_after: float | None = None
    had_it: bool = False
    """Delivered, but it was there before this request."""
    broke_off: bool = False
    """UNAVAILABLE, and the connection was broken off by the other side: if only for this row, it is too large."""


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
    parkings: int = 0
    """How often it was parked."""
    message: int = 0
    """The number of its message in the outbox."""
    texts: int = 0
    """How many texts its payload has."""


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

    def connect(self, progress: Callable[[], None]) -> Connection:
        """A connection for one thread; opens nothing yet. `progress` is called after each of many requests."""
        ...


class AskableSink(Sink, Protocol):
    """A destination that tells what it knows."""

    def connect(self, progress: Callable[[], None]) -> AskableConnection:
        """A connection for one thread; opens nothing yet. `progress` is called after each of many requests."""
        ...
