"""The durable state (SQLite): which runs are known, and what is still to be reported about them to each destination.

A row is durable before anything is sent, and only an answer settles it: see `deliveries`, the senders' side. The
delivered start of a run stays until its stop is delivered, since a destination that has lost the run needs it again.
"""

from __future__ import annotations

import enum
import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from sys import intern
from typing import NamedTuple

from cc_slurm_adapter.model import End, Run, RunKey
from cc_slurm_adapter.outbox import dropped_runs, parking, queries, stored_messages
from cc_slurm_adapter.outbox.admin import QueueAdmin
from cc_slurm_adapter.outbox.database import Briefly, StateDatabase
from cc_slurm_adapter.outbox.deliveries import Deliveries
from cc_slurm_adapter.outbox.parking import Tidied
from cc_slurm_adapter.outbox.queue_watch import QueueWatch
from cc_slurm_adapter.outbox.report import Parked
from cc_slurm_adapter.outbox.rerouting import USED_SINKS, use_sinks
from cc_slurm_adapter.outbox.resends import Resends
from cc_slurm_adapter.outbox.run_json import run_from_json, run_to_json
from cc_slurm_adapter.outbox.schema import URGENT, RowState
from cc_slurm_adapter.outbox.state_file import MAX_TEXT_BYTES, TIMING, Timing
from cc_slurm_adapter.outbox.text_limit import NewStart, TextLimit
from cc_slurm_adapter.outbox.withdrawals import forget_all, forget_old
from cc_slurm_adapter.sinks.base import Encoded, Kind
from cc_slurm_adapter.system.outages import Outages

KEEP_DONE = 86400
"""A finished run is remembered this many seconds longer than accounting is read back, so that it is not reported again
when accounting shows it."""


class Stage(enum.Enum):
    """What was done about a run so far; `schema` has the table."""

    PREPARING = "preparing"
    """It holds its nodes, but its start time may still move: nothing is reported yet."""
    STARTED = "started"
    """Its start is pending or delivered, its end is not known."""
    DONE = "done"
    """Its stop is pending or delivered."""
    IGNORED = "ignored"
    """It holds its nodes but is not reported: the configuration or an administrator leaves it out."""


class OpenRun(NamedTuple):
    """A run that is not over as far as this program knows. It has `details` only while it is PREPARING."""

    key: RunKey
    stage: Stage
    hosts: str
    """Its nodes, separated by commas; '' when Slurm has lost it. Runs on the same nodes share the text."""
    details: Run | None
    lost_since: int | None = None
    """The Unix time when a run that Slurm has lost was last seen; in the file that is `changed`."""
    note: str = ""
    """What is exceptional about it, for example why it is not reported; '' for nearly all runs."""


class Message(NamedTuple):
    """What is to be reported about a run, and to which sinks."""

    sinks: tuple[str, ...]
    key: RunKey
    kind: Kind
    body: Encoded


@dataclass
class Batch:
    """What a poll, a lookup or a catch-up found out. It is written as a whole or not at all."""

    runs: dict[RunKey, OpenRun] = field(default_factory=dict)
    dropped: list[RunKey] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    over: list[tuple[RunKey, End]] = field(default_factory=list)
    """Runs whose stop is among the messages, for the log."""
    checkpoint: int | None = None
    """Unix seconds up to which accounting has been read."""
    urgent: bool = False
    """Whether its messages are sent before all that already wait, except those of the same jobs."""
    size: int = 0
    """Bytes of the messages that were added."""

    def add(self, message: Message) -> None:
        """Add a message, for all its sinks."""
        self.messages.append(message)
        self.size += message.body.size

    def __bool__(self) -> bool:
        return bool(self.runs or self.dropped or self.messages or self.checkpoint is not None)


class Outbox:
    """The state file. The main thread uses it; the senders use `deliveries` at the same time.

    Every call is one locked transaction. Raises StateError when the file cannot be read or written.
    """

    def __init__(
        self,
        path: str,
        sinks: Mapping[str, str] | None = None,
        go_on: Callable[[], None] = lambda: None,
        max_text_bytes: int = MAX_TEXT_BYTES,
        *,
        timing: Timing = TIMING,
    ) -> None:
        """`sinks` are the sinks in use, each with the sink that it follows, or ''.

        None means that all sinks may be used, and that no sink follows another. `go_on` is called again and again while
        the file is brought to the present format or checked, and may raise to end that. If the file has more than
        `max_text_bytes`, texts are left out.
        """
        self.outages = Outages()
        """Failures of the state file, as far as they are logged by those who use it."""
        self._state = StateDatabase(path, go_on, max_text_bytes, timing=timing)
        self._texts = TextLimit(self._state, max_text_bytes)
        self.watch = QueueWatch(self._state, max_text_bytes)
        self._leaders = {sink: leader for sink, leader in (sinks or {}).items() if leader}
        self.deliveries = Deliveries(self._state, self._leaders)
        self.resends = Resends(self._state, self._texts)
        self.admin = QueueAdmin(Briefly(self._state), self._leaders)
        if sinks and {sink for (sink,) in self._state.read(USED_SINKS, ())} != set(sinks):
            self._state.write(lambda database: use_sinks(database, sinks))

    @property
    def is_rebuilt(self) -> bool:
        """Whether a damaged file was set aside, so that what was pending must be found out again."""
        return self._state.is_rebuilt

    @property
    def is_durable(self) -> bool:
        """Whether all of the state is in the file, which is not so while the file cannot be written."""
        return self._state.is_durable

    def close(self) -> None:
        """Close the file."""
        self._state.close()

    def checkpoint(self, cluster: str) -> int | None:
        """Return the Unix time up to which accounting has been read; None at the first start."""
        rows = self._state.read(queries.CHECKPOINT, (cluster,))
        return rows[0][0] if rows else None

    def forgotten_until(self) -> int:
        """Return the Unix time up to which runs that are over may be forgotten; 0 if none is.

        A run that accounting shows to have ended before that is not new because no such run is known.
        """
        rows = self._state.read(queries.FORGOTTEN_UNTIL, ())
        return rows[0][0] if rows else 0

    def open_runs(self, cluster: str) -> list[OpenRun]:
        """Return all runs that are known to hold nodes: PREPARING, STARTED and IGNORED ones."""
        with self._state.reading() as database:
            return [_open_run(cluster, row) for row in database.execute(queries.OPEN_RUNS, (cluster,))]

    def unknown(self, keys: Iterable[RunKey]) -> list[RunKey]:
        """Return those keys for which no run is known in any stage, in their order."""
        with self._state.reading() as database:
            return [key for key in keys if database.execute(queries.RUN_IS_KNOWN, key).fetchone() is None]

    def settled_since(self, keys: Iterable[RunKey], when: float) -> set[RunKey]:
        """Return those runs that were found to be over, or whose stop was delivered, at `when` (Unix time) or later."""
        with self._state.reading() as database:
            return {key for key in keys if database.execute(queries.RUN_IS_OVER, (*key, int(when))).fetchone()}

    def knows_job(self, cluster: str, job_id: int) -> bool:
        """Return whether any run of a job is known, in any stage."""
        return bool(self._state.read(queries.JOB_IS_KNOWN, (cluster, job_id)))

    def has_message(self, sinks: Iterable[str], key: RunKey, kind: Kind) -> bool:
        """Return whether this message of the run is still to be delivered to one of these sinks."""
        return any(self._state.read(queries.IS_UNDELIVERED, (sink, *key, kind.value)) for sink in sinks)

    def commit(self, cluster: str, batch: Batch) -> None:
        """Write what was found out. When this returns, it survives a power cut."""
        self._state.write(lambda database: self._write_batch(database, cluster, batch))

    def _write_batch(self, database: sqlite3.Connection, cluster: str, batch: Batch) -> None:
        now = int(time.time())
        database.executemany(queries.DELETE_RUN, batch.dropped)
        database.executemany(queries.SET_RUN, [_row_of(run, now) for run in batch.runs.values()])
        added = [(self._add(database, message, now, batch.urgent), message) for message in batch.messages]
        starts = [NewStart(number, each.key, each.body.texts) for number, each in added if number and each.body.texts]
        self._texts.store(database, starts)
        self._add_stops(database, [each for each in batch.messages if each.kind is Kind.STOP], batch.urgent)
        ended = [each.key for each in batch.messages if each.kind is Kind.STOP]
        dropped_runs.forget_ended(database, ended, self._leaders)
        if batch.checkpoint is not None:
            database.execute(queries.SET_CHECKPOINT, (cluster, batch.checkpoint))

    def _add(self, database: sqlite3.Connection, message: Message, now: int, urgent: bool) -> int:
        """Add a message. Return its number if it was written, else 0.

        A message that already exists is not changed, unless it is over.
        """
        place = (*message.key, message.kind.value)
        known = database.execute(queries.MESSAGE_OF, place).fetchone()
        number = known[0] if known else stored_messages.add(database, message.body)
        next_try, changed = URGENT if urgent else 0, 0
        for sink in message.sinks:
            state = self._first_state(sink, message.kind)
            values = (sink, *place, number, now, next_try, state.value)
            changed += database.execute(queries.ADD_DELIVERY, values).rowcount
        if known and changed:
            stored_messages.replace(database, number, message.body)
        return number if changed else 0

    def _first_state(self, sink: str, kind: Kind) -> RowState:
        if kind is Kind.WITHDRAW:
            return RowState.RETAINED
        return RowState.FOLLOWING if sink in self._leaders else RowState.PENDING

    def _add_stops(self, database: sqlite3.Connection, stops: list[Message], urgent: bool) -> None:
        """Let stops that were just added wait for their starts, whatever state those are in. Expedite urgent ones."""
        if not stops:
            return
        database.execute(queries.CONFLICT_OF_STOPS)
        parking.delay_stops(database, [each.key for each in stops])
        database.executemany(queries.CONFLICT_OF_FOLLOWERS, self._leaders.items())
        if urgent:
            starts = [(URGENT, sink, *each.key) for each in stops for sink in each.sinks]
            database.executemany(queries.EXPEDITE_START_OF, starts)

    def resend_starts(
        self, sink: str, cluster: str, is_lost: Callable[[RunKey], bool], sent_before: float
    ) -> list[RunKey]:
        """Make the delivered starts of running runs pending again if the destination has lost them. Return their keys.

        Only starts that were sent before `sent_before` (Unix time): the destination may not show younger ones yet. From
        then on their age counts from now.
        """
        now = int(time.time())
        with self._state.writing(durable=True) as database:
            rows = database.execute(queries.DELIVERED_BEFORE, (sink, cluster, sent_before))
            lost = {row[0]: key for row in rows if is_lost(key := RunKey(cluster, row[1], row[2]))}
            database.executemany(queries.RESEND_START, [(now, row_id) for row_id in lost])
        return list(lost.values())

    def withdraw_nothing(self) -> None:
        """Let no run be withdrawn any more, except runs that may have been withdrawn already."""
        self._state.write(forget_all)

    def retry_all(self) -> int:
        """Make all waiting rows due immediately, and one parked row of each reason. Return how many rows are parked.

        If the state file could not be written, that is tried again, too.
        """
        self._state.retry_file()
        return self._state.write(_make_all_due)

    def tidy(self, max_age: float, parked_max_age: float = parking.MAX_AGE, *, ages_are_right: bool = True) -> Tidied:
        """Park rows that have been pending for longer than `max_age` seconds, and forget what was over long ago.

        Rows that have been parked for longer than `parked_max_age` seconds are forgotten, too. A run that is open keeps
        its rows. If the clock makes ages wrong, nothing counts as too old.
        """
        now = time.time()
        aged_until = now if ages_are_right else -math.inf
        before = aged_until - max_age
        with self._state.writing() as database:
            tidied = parking.tidy(database, now, before, aged_until - parked_max_age)
            database.execute(queries.FORGET_CONFLICTS, (before,))
            forgotten = [(follower, leader, before) for follower, leader in self._leaders.items()]
            database.executemany(queries.FORGET_FOLLOWERS, forgotten)
            database.execute(dropped_runs.FORGET_DROPPED)
            forget_old(database, aged_until)
            _forget_runs(database, before - KEEP_DONE, now)
            self.deliveries.forget_done(database)
        self._state.shrink()
        return tidied

    def other_clusters(self, cluster: str) -> dict[str, int]:
        """Return how many runs of each other cluster are open. They are not followed."""
        return dict(self._state.read(queries.OTHER_CLUSTERS, (cluster,)))

    def forget_other_clusters(self, cluster: str, max_age: float) -> None:
        """Forget open runs of other clusters that were not watched for `max_age` seconds, and their starts."""
        with self._state.writing() as database:
            for statement in queries.FORGET_CLUSTERS:
                database.execute(statement, (cluster, time.time() - max_age))

    def parked_by_reason(self) -> list[Parked]:
        """Return all reasons for which messages are parked, the one with most messages first."""
        with self._state.reading() as database:
            return parking.parked_by_reason(database)

    def waiting(self) -> int:
        """Return how many messages are still to be delivered, also parked ones, but not those that follow others."""
        return int(self._state.read(queries.COUNT_WAITING, ())[0][0])

    def has_waiting(self, *, more_than: int) -> bool:
        """Return whether more than `more_than` messages wait, without parked ones and the stops that wait for those."""
        return int(self._state.read(queries.COUNT_PENDING_TO, (more_than + 1,))[0][0]) > more_than

    def counts(self) -> dict[str, int]:
        """Return how many rows are in each state."""
        return dict(self._state.read(queries.COUNT_STATES, ()))


def _forget_runs(database: sqlite3.Connection, before: float, now: float) -> None:
    """Forget the runs that were over before a Unix time, or -inf, and that such runs are not known any more."""
    database.execute(queries.FORGET_RUNS, (before,))
    if before > 0:
        database.execute(queries.SET_FORGOTTEN_UNTIL, (int(before), now))


def _make_all_due(database: sqlite3.Connection) -> int:
    """Make all waiting rows due, and a probe of each reason. Return how many rows are parked."""
    now = time.time()
    database.execute(queries.RETRY_ALL_PENDING)
    database.execute(queries.CORRECT_FIRST_SENT, (now, now))
    return parking.make_probes_due(database)


def _open_run(cluster: str, row: tuple[int, int, str, str, str | None, int, str]) -> OpenRun:
    job_id, start_time, stage, hosts, details, changed, note = row
    run = run_from_json(details) if details else None
    return OpenRun(
        RunKey(cluster, job_id, start_time), Stage(stage), intern(hosts), run, None if hosts else changed, note
    )


def _row_of(run: OpenRun, now: int) -> tuple[object, ...]:
    details = run_to_json(run.details) if run.details else None
    changed = now if run.lost_since is None else run.lost_since
    return (*run.key, run.stage.value, run.hosts, details, changed, run.note)
