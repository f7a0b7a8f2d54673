"""What a destination is, and what the outbox's senders may expect of one.

A destination, or sink, is where messages about runs are sent: cc-backend's REST interface, or NATS. It is one module,
or a package of its own, with two classes. They have what `Sink` and `Connection` name here, without inheriting from
them:

- A `Sink` is the destination as such: its name, how many connections it has, how many rows one of them gets in a batch.
  It opens nothing. `connect` makes a connection for one thread.
- A `Connection` sends. `deliver_all` gets rows of different jobs and returns an `Answer` for each, in their order;
  `post_nodes` sends the states of the nodes.

To add a destination, write its module or package here and a name for it below. These places outside sinks/ know the
names:

- `daemon/destinations.py` makes the sinks that the configuration asks for, and tells which one follows which.
- `outbox/rerouting.py` (`RANK`) has their order, for a start with other sinks than before.
- `config/keys.py` has the keys of each, with a common prefix (`ccRest`, `nats`).
- `counters.py` has the prefixes in the names of counters: none for `cc_rest`, for others the name without `cc_`.

The sinks in use have an order. The first one leads: its rows are sent as soon as they are stored. Another one may
follow it: a row of the follower is sent only after the leading sink has accepted the same message. A sink itself does
not know whether it leads or follows.

A sink sends bytes and decides only what an answer means:

- The messages are the same for all sinks. An `Encoder` makes each of them once, before it is stored. A sink may wrap a
  message, as NATS needs it, but does not change it.
- The sender decides when which row is sent: a start before its stop, one row of a job at a time, retries and their
  waits, giving up in the end.
- What an answer means is decided by the sink alone, because only it knows the other side's words. It answers with a
  `Verdict`: either the row is settled (DELIVERED, REJECTED, CONFLICT), or something else is needed first (UNKNOWN_RUN,
  TOO_LARGE), or this row waits (FAILED, NOT_YET), or everything for this destination waits, unless other rows succeed
  meanwhile (UNAVAILABLE, MISCONFIGURED).
- An answer that nobody understands must not lose a row: it is never DELIVERED.
- Whatever a destination can do to us is an answer. Exceptions of libraries are translated inside the sink. What still
  leaves `deliver_all` is an error of this program.

One thread uses a connection and closes it. Two methods are called by other threads while a request is under way:
`abort` when the daemon stops, and `break_off` when a request hangs and is to be sent again.

Some destinations also tell what they know (`AskableSink`): which runs they believe to be running, and which clusters
they have. Reconciliation needs that. NATS cannot tell it.
"""

from __future__ import annotations

import enum
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cc_slurm_adapter.model import End, NodeState, Run, RunKey
from cc_slurm_adapter.sinks.allocation import Allocation as Allocation  # noqa: PLC0414 - jobs/ has it from here
from cc_slurm_adapter.sinks.clusters import ClusterList

CC_REST, CC_NATS = "cc_rest", "cc_nats"
"""The sinks' names. If both are in use, the messages of the second follow those of the first."""
LABELS = {CC_REST: "cc-backend", CC_NATS: "NATS"}
"""The sinks' names for people."""


def label_of(sink: str) -> str:
    """Return the name of a sink for people; of one that this version does not know, the name in the state file."""
    return LABELS.get(sink, sink)


class Kind(enum.Enum):
    """What a row of the outbox reports about a run."""

    START = "start"
    STOP = "stop"
    WITHDRAW = "withdraw"
    """Removes the run from the destination again, so that it accepts a later run of the same job."""
    REMOVE = "remove"
    """Removes the run from the destination, so that its own start can be sent anew. It is sent before the start."""


REMOVALS = (Kind.WITHDRAW, Kind.REMOVE)
"""The kinds that remove a run from a destination."""


class Text(NamedTuple):
    """A text of a message. It is stored once, however many messages contain it."""

    before: bytes
    """What precedes it in the message."""
    body: bytes
    """The text itself as a JSON string. Another one may take its place."""


class Encoded(NamedTuple):
    """A message for all sinks. Its texts are kept apart from the rest, in the order in which they may be cut."""

    head: bytes
    texts: tuple[Text, ...] = ()
    tail: bytes = b""

    @property
    def size(self) -> int:
        """Count the bytes of the whole message."""
        return len(self.head) + len(self.tail) + sum(len(each.before) + len(each.body) for each in self.texts)

    def whole(self) -> bytes:
        """Return the message as it is sent."""
        return b"".join([self.head, *(part for text in self.texts for part in text), self.tail])


class Encoder(Protocol):
    """Makes the messages about a run, which are the same for all sinks."""

    def encode_start(self, run: Run) -> Encoded:
        """Encode that a run has begun."""
        ...

    def encode_stop(self, key: RunKey, end: End) -> Encoded:
        """Encode that a run has ended."""
        ...

    def encode_withdrawal(self, key: RunKey) -> Encoded:
        """Encode that a run is to be removed."""
        ...

    def allocation_of(self, run: Run) -> Allocation:
        """Return what the start of a run says about its nodes."""
        ...


class Verdict(enum.Enum):
    """What an answer means for the row that was sent."""

    DELIVERED = enum.auto()
    REJECTED = enum.auto()
    """Refused. The row may be accepted later, after an administrator has acted."""
    CONFLICT = enum.auto()
    """Refused because of another run of the same job. Neither this start nor its stop is sent again."""
    UNKNOWN_RUN = enum.auto()
    """The destination does not know the run of this stop. The start is sent first."""
    TOO_LARGE = enum.auto()
    """The message is too large. Its texts are cut and it is sent again. If nothing is left to cut, it is parked."""
    FAILED = enum.auto()
    """This row alone waits. It is parked after some tries if other rows succeed meanwhile."""
    NOT_YET = enum.auto()
    """Nothing is concluded, not even that the destination is there. Sent again after `retry_after`, without a limit on
    tries."""
    UNAVAILABLE = enum.auto()
    """The destination is away or busy: everything for it waits. If other rows succeed meanwhile, only this row
    waits."""
    MISCONFIGURED = enum.auto()
    """The destination refuses us as such (token, address), and an administrator must act: everything for it waits. If
    other rows succeed meanwhile, only this row waits, and it is parked after some tries."""


class Answer(NamedTuple):
    """A verdict, and its reason for the log."""

    verdict: Verdict
    reason: str = ""
    retry_after: float | None = None
    """Seconds to wait, if the destination names a time. With UNAVAILABLE, MISCONFIGURED and FAILED everything for it
    waits then."""
    had_it: bool = False
    """Whether the destination had the message before this request. The verdict is then DELIVERED."""
    broke_off: bool = False
    """Whether the other side broke the connection off. The verdict is then UNAVAILABLE. If that happens for this row
    only, the row is too large."""


@dataclass(frozen=True)
class Delivery:
    """One row that is being sent."""

    row_id: int
    key: RunKey
    kind: Kind
    payload: bytes
    refusals: int
    """How often the destination has refused this row itself."""
    first_sent: float
    """Unix time at which the row was first sent, whatever the result; 0 before that."""
    parkings: int = 0
    """How often the row was parked."""
    message: int = 0
    """The number of its message in the outbox."""
    texts: int = 0
    """How many texts its payload has."""


class RunningRow(NamedTuple):
    """A run that the destination believes to be running."""

    job_id: int
    start_time: int


class StoredRun(NamedTuple):
    """A run that the destination has stored."""

    job_id: int
    start_time: int
    """Unix seconds."""
    state: str
    """`running`, or how it ended, in its words."""
    duration: int = 0
    """Seconds."""
    user: str = ""
    nodes: int = 0


class AllocatedRow(NamedTuple):
    """What is stored of the nodes of a run."""

    job_id: int
    start_time: int
    """Unix seconds."""
    allocation: Allocation


class PackedRows(Collection[RunningRow]):
    """Rows of a long list, which take a tenth of the memory of a list of tuples."""

    def __init__(self, rows: Iterable[RunningRow] = ()) -> None:
        self._job_ids, self._starts = array("q"), array("q")
        for row in rows:
            self.add(*row)

    def __len__(self) -> int:
        return len(self._job_ids)

    def __contains__(self, row: object) -> bool:
        return isinstance(row, RunningRow) and bool(self.among([row]))

    def __iter__(self) -> Iterator[RunningRow]:
        return map(RunningRow, self._job_ids, self._starts)

    def add(self, job_id: int, start_time: int) -> None:
        """Append a row. Raises OverflowError for a number of more than 63 bits."""
        self._job_ids.append(job_id)
        self._starts.append(start_time)

    def among(self, rows: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
        """Return those of these rows that it has."""
        return set(rows).intersection(zip(self._job_ids, self._starts))


class RunningRows(NamedTuple):
    """All runs that a destination believed to be running at one moment."""

    sink: str
    rows: Collection[RunningRow]
    asked: float
    """Unix time at which the request was sent."""


class Connection(Protocol):
    """One connection to a destination, used by one thread."""

    def deliver_all(self, deliveries: Sequence[Delivery]) -> Sequence[Answer]:
        """Send rows of different jobs. Return an answer for each. Nothing that a destination can do makes it raise."""
        ...

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> Answer:
        """Send the states of all nodes."""
        ...

    def abort(self) -> None:
        """End the request under way and refuse later ones. Another thread calls this when the daemon stops."""
        ...

    def break_off(self) -> None:
        """End a request that hangs, so that it is sent again. Another thread calls this."""
        ...

    def close(self) -> None:
        """Close the connection. The thread that used it calls this."""
        ...


class AskableConnection(Connection, Protocol):
    """One connection to a destination that tells what it knows."""

    def running_rows(self, cluster: str) -> Iterable[RunningRow]:
        """Read all runs that the destination believes to be running. Raises SinkError."""
        ...

    def stored_runs(self, cluster: str, job_id: int, first: int, last: int) -> list[StoredRun]:
        """Read the runs of a job that began between two moments (Unix seconds, both included). Raises SinkError."""
        ...

    def allocations(self, cluster: str, first: int, last: int) -> Iterable[AllocatedRow]:
        """Read what is stored of the nodes of all runs that began between two moments (Unix seconds, both included).

        Raises SinkError.
        """
        ...

    def clusters(self) -> ClusterList:
        """Read which clusters the destination knows, and what they consist of. Raises SinkError."""
        ...


class Sink(Protocol):
    """A destination. Any thread may use it."""

    @property
    def name(self) -> str:
        """Return the sink's name in the outbox, which never changes."""
        ...

    @property
    def label(self) -> str:
        """Return the sink's name for people, as in LABELS."""
        ...

    @property
    def connections(self) -> int:
        """Return how many connections are used at the same time."""
        ...

    @property
    def batch_size(self) -> int:
        """Return how many rows one `deliver_all` gets at most."""
        ...

    @property
    def withdraws(self) -> bool:
        """Return whether a run is removed when the destination refuses a later run of its job because of it."""
        ...

    def connect(self, progress: Callable[[], None]) -> Connection:
        """Make a connection for one thread; it opens nothing yet. `progress` is called after each of many requests."""
        ...


class DescribableSink(Sink, Protocol):
    """A destination that shows what it would send."""

    def describe(self, delivery: Delivery) -> dict[str, object]:
        """Return what is sent for a row, for people and as JSON. It has no secret."""
        ...

    def describe_nodes(self, cluster: str, nodes: list[NodeState]) -> list[dict[str, object]]:
        """Return what is sent for the states of all nodes, in the same form; nothing if they are not sent."""
        ...


class AskableSink(Sink, Protocol):
    """A destination that tells what it knows."""

    def connect(self, progress: Callable[[], None]) -> AskableConnection:
        """Make a connection for one thread; it opens nothing yet. `progress` is called after each of many requests."""
        ...
