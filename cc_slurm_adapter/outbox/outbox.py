"""The durable state: which runs are known, and what is still owed to each destination (SQLite).

A row is durable before anything is sent, and leaves only on an answer. The delivered start of a
run stays until its stop is delivered, since a destination that has lost the run needs it again.

Durability: what a pass owes survives a power cut, what an answer settles survives a killed process. A settled row
that a power cut brings back is sent again, and the destination knows it.
"""

from __future__ import annotations

import enum
import itertools
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cc_slurm_adapter.log import Reminder
from cc_slurm_adapter.model import End, Run, RunKey
from cc_slurm_adapter.outbox import parking, stored_messages
from cc_slurm_adapter.outbox.database import MAX_TEXT_BYTES, StateDatabase
from cc_slurm_adapter.outbox.parking import AFTER_PROBE, Parked, Tidied
from cc_slurm_adapter.outbox.rerouting import USED_SINKS, use_sinks
from cc_slurm_adapter.outbox.run_json import run_from_json, run_to_json
from cc_slurm_adapter.outbox.schema import (
    ADD_DELIVERY,
    CONFLICT_OF_FOLLOWERS,
    CONFLICT_OF_STOPS,
    DELETE_DONE,
    DELETE_FORGOTTEN_FOLLOWERS,
    DELIVERED_BEFORE,
    DUE,
    EXPEDITE_ITS_START,
    FORGET_CLUSTERS,
    FORGET_CONFLICTS,
    KNOWN_MESSAGE,
    MAY_GO,
    PENDING,
    RELEASE_FOLLOWERS,
    RELEASE_ITS_STOP,
    SEND_ITS_START_AGAIN,
    SET_DELIVERED,
    SETTLE_RUN,
    WAITING,
)
from cc_slurm_adapter.outbox.stored_messages import Delivered, Stored
from cc_slurm_adapter.outbox.withdrawals import (
    Room,
    forget_all,
    forget_old,
    forget_withdrawn,
    give_up,
    keep_or_forget,
    make_room,
    restore,
)
from cc_slurm_adapter.sinks.base import Delivery, Encoded, Kind

log = logging.getLogger(__name__)

URGENT = -1
"""A next try before those of all rows that were never tried, which is 0."""
FORGET_AT_ONCE, FORGET_BYTES = 100, 128 * 1024
"""After so many delivered messages, or one so large, what is not needed any more is deleted."""
TEXT_BYTES_IN_MEMORY = 16 * 1024 * 1024
"""Bytes of the state above which texts are left out while it is held in memory."""
KEEP_DONE = 86400
"""Seconds for which a finished run is remembered longer than accounting is read back, which must not bring it again."""


class Stage(enum.Enum):
    """What has been done about a run."""

    PREPARING = "preparing"
    """It holds its nodes, but its start time may still move: nothing is told yet."""
    STARTED = "started"
    """Its start is pending or delivered, its end is not known."""
    DONE = "done"
    """Its stop is pending or delivered."""
    IGNORED = "ignored"
    """It holds its nodes but is not reported: the configuration or an administrator leaves it out."""


class RowState(enum.Enum):
    """The state of a delivery: `outbox_schema` has the table."""

    PENDING = "pending"
    PARKED = "parked"
    CONFLICT = "conflict"
    FOLLOWING = "following"
    DELIVERED = "delivered"
    DONE = "done"
    RETAINED = "retained"


class OpenRun(NamedTuple):
    """A run that is not over as far as this program knows. `details` only while it is PREPARING."""

    key: RunKey
    stage: Stage
    hosts: str
    """Its nodes, separated by commas; '' when Slurm has lost it."""
    details: Run | None
    lost_since: int | None = None
    """Unix seconds at which a run that Slurm has lost was seen last; in the file that is `changed`."""


class Message(NamedTuple):
    """What sinks are to be told of a run."""

    sinks: tuple[str, ...]
    key: RunKey
    kind: Kind
    body: Encoded


@dataclass
class Batch:
    """What a pass found out: written as a whole or not at all."""

    runs: dict[RunKey, OpenRun] = field(default_factory=dict)
    dropped: list[RunKey] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    over: list[tuple[RunKey, End]] = field(default_factory=list)
    """Runs whose stop is among the messages, for the log."""
    checkpoint: int | None = None
    """Unix seconds up to which accounting has been read."""
    urgent: bool = False
    """Its messages are sent before all that wait already, but for those of the same jobs."""

    @property
    def size(self) -> int:
        """Bytes of its messages."""
        return sum(each.body.size for each in self.messages)

    def __bool__(self) -> bool:
        return bool(self.runs or self.dropped or self.messages or self.checkpoint is not None)


class Outbox:
    """Used by the watching thread and the senders at once: every call is one locked transaction.

    Raises StateError when the file cannot be read or written.
    """

    def __init__(
        self,
        path: str,
        sinks: Mapping[str, str] | None = None,
        go_on: Callable[[], None] = lambda: None,
        max_text_bytes: int = MAX_TEXT_BYTES,
    ) -> None:
        """`sinks` are those in use, each with the one whose messages its own follow, or ''. None: all, on their own.

        `go_on` is called again and again while the file is brought to the present format or checked, and may raise to
        end that. Where the file has more than `max_text_bytes` texts are left out.
        """
        self._state = StateDatabase(path, go_on, max_text_bytes)
        self._max_text_bytes = max_text_bytes
        self._starts_without_texts = 0
        self._leaving_out, self._dropping = Reminder(), Reminder()
        self._told_starts: list[Delivered] = []
        self._told_stops: list[tuple[str, int, int, int]] = []
        """Delivered, and to be forgotten together; what a crash leaves of them is found by the next `tidy`."""
        self._leaders = {sink: leader for sink, leader in (sinks or {}).items() if leader}
        if sinks and {sink for (sink,) in self._state.read(USED_SINKS, ())} != set(sinks):
            self._state.write(lambda database: use_sinks(database, sinks))

    @property
    def is_rebuilt(self) -> bool:
        """A damaged file was set aside: what had been owed must be found out again."""
        return self._state.is_rebuilt

    @property
    def is_durable(self) -> bool:
        """Whether all of it is in the file; not so while that cannot be written."""
        return self._state.is_durable

    def close(self) -> None:
        """Close the file."""
        self._state.close()

    def checkpoint(self, cluster: str) -> int | None:
        """Unix seconds up to which accounting has been read; None at the first start."""
        rows = self._state.read("SELECT seen_until FROM checkpoint WHERE cluster = ?", (cluster,))
        return rows[0][0] if rows else None

    def open_runs(self, cluster: str) -> list[OpenRun]:
        """All runs that hold nodes as far as is known: PREPARING, STARTED and IGNORED ones."""
        rows = self._state.read(
            "SELECT job_id, start_time, stage, hosts, details, changed FROM run WHERE cluster = ? AND stage != 'done'",
            (cluster,),
        )
        return [_known_run(cluster, row) for row in rows]

    def unknown(self, keys: Iterable[RunKey]) -> list[RunKey]:
        """Those of the keys that name no run in any stage, in their order."""
        question = "SELECT 1 FROM run WHERE cluster = ? AND job_id = ? AND start_time = ?"
        with self._state.reading() as database:
            return [key for key in keys if database.execute(question, key).fetchone() is None]

    def settled_since(self, keys: Iterable[RunKey], when: float) -> set[RunKey]:
        """Those of the runs that were found to be over, or whose stop was delivered, at a Unix time or later."""
        question = (
            "SELECT 1 FROM run WHERE cluster = ? AND job_id = ? AND start_time = ? AND stage = 'done' AND changed >= ?"
        )
        with self._state.reading() as database:
            return {key for key in keys if database.execute(question, (*key, int(when))).fetchone()}

    def knows_job(self, cluster: str, job_id: int) -> bool:
        """Whether any run of a job is known, in any stage."""
        return bool(self._state.read("SELECT 1 FROM run WHERE cluster = ? AND job_id = ? LIMIT 1", (cluster, job_id)))

    def has_message(self, sinks: Iterable[str], key: RunKey, kind: Kind) -> bool:
        """Whether one of these sinks is still to be told this of the run."""
        question = (
            "SELECT 1 FROM delivery WHERE sink = ? AND cluster = ? AND job_id = ? AND start_time = ? AND kind = ?"
            " AND state NOT IN ('delivered', 'retained', 'done')"
        )
        return any(self._state.read(question, (sink, *key, kind.value)) for sink in sinks)

    def commit(self, cluster: str, batch: Batch) -> None:
        """Write what a pass found out. When this returns it survives a power cut."""
        self._state.write(lambda database: self._write_changes(database, cluster, batch))

    def _write_changes(self, database: sqlite3.Connection, cluster: str, batch: Batch) -> None:
        now, next_try = int(time.time()), URGENT if batch.urgent else 0
        for key in batch.dropped:
            database.execute("DELETE FROM run WHERE cluster = ? AND job_id = ? AND start_time = ?", key)
        database.executemany(
            "INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (*run.key, run.stage.value, run.hosts, _details(run), now if run.lost_since is None else run.lost_since)
                for run in batch.runs.values()
            ],
        )
        added = [(self._add(database, message, now, next_try), message) for message in batch.messages]
        self._keep_texts(database, [(row_id, message) for row_id, message in added if row_id and message.body.texts])
        stops = [each for each in batch.messages if each.kind is Kind.STOP]
        if stops:
            database.execute(CONFLICT_OF_STOPS)
            parking.hold_stops(database, [each.key for each in stops])
            self._refuse_followers(database)
        if batch.urgent:
            hurried = [(URGENT, sink, *each.key) for each in stops for sink in each.sinks]
            database.executemany(EXPEDITE_ITS_START, hurried)
        if batch.checkpoint is not None:
            database.execute("INSERT OR REPLACE INTO checkpoint VALUES (?, ?)", (cluster, batch.checkpoint))

    def _keep_texts(self, database: sqlite3.Connection, starts: Sequence[tuple[int, Message]]) -> None:
        """As far as there is room. All first ones, then all second ones: texts of one size fill pages better."""
        room = self._text_room(database) if starts else 0
        left_out = {}
        for place in range(max((len(message.body.texts) for _, message in starts), default=0)):
            for row_id, message in starts:
                if place < len(message.body.texts):
                    if room <= 0:
                        left_out[row_id] = message
                    else:
                        room -= stored_messages.keep_text(database, row_id, message.body.texts[place])
        for message in left_out.values():
            self._leave_out_texts(message)

    def _text_room(self, database: sqlite3.Connection) -> int:
        """Bytes of texts that may be added. Where there are too many already the oldest go."""
        most = self._max_text_bytes if self.is_durable else min(self._max_text_bytes, TEXT_BYTES_IN_MEMORY)
        room = most - self._state.used_bytes(database)
        if room < -most // 8:
            dropped = stored_messages.drop_oldest_texts(database, -room)
            if dropped and self._dropping.is_due():
                log.warning("above stateMaxBytes: %d texts of starts that wait are dropped", dropped)
        return room

    def _leave_out_texts(self, message: Message) -> None:
        self._starts_without_texts += 1
        if self._leaving_out.is_due():
            log.warning(
                "the state file has stateMaxBytes (%d MB): starts are stored without job script and slurmInfo, %d until"
                " now, this one of %s; see what keeps messages from being delivered",
                self._max_text_bytes >> 20,
                self._starts_without_texts,
                message.key,
            )

    def _add(self, database: sqlite3.Connection, message: Message, now: int, next_try: int) -> int:
        """A message that is there already stays, but for one that is over. Returns its number if it was written."""
        place = (*message.key, message.kind.value)
        known = database.execute(KNOWN_MESSAGE, place).fetchone()
        row_id = known[0] if known else stored_messages.add(database, message.body)
        changed = 0
        for sink in message.sinks:
            state = self._first_state(sink, message.kind)
            changed += database.execute(ADD_DELIVERY, (sink, *place, row_id, now, next_try, state)).rowcount
        if known and changed:
            stored_messages.replace(database, row_id, message.body)
        return row_id if changed else 0

    def _first_state(self, sink: str, kind: Kind) -> str:
        if kind is Kind.WITHDRAW:
            return str(RowState.RETAINED.value)
        return str((RowState.FOLLOWING if sink in self._leaders else RowState.PENDING).value)

    def _refuse_followers(self, database: sqlite3.Connection) -> None:
        """What is never told to a sink is not told to those that follow it either."""
        database.executemany(CONFLICT_OF_FOLLOWERS, self._leaders.items())

    def _release_followers(self, database: sqlite3.Connection, delivery: Delivery) -> None:
        """This was delivered: what follows it is owed now."""
        where = (*delivery.key, delivery.kind.value, delivery.row_id)
        database.executemany(
            RELEASE_FOLLOWERS, [(follower, *where, leader) for follower, leader in self._leaders.items()]
        )

    def due(self, sink: str, now: float, limit: int, busy: Collection[tuple[str, int]] = ()) -> list[Delivery]:
        """Rows that may be sent now, at most one of each job, without those of jobs that are `busy` (cluster, job id).

        Urgent ones come first, then the others, the oldest first, then those that failed. Which of a job's rows goes
        first is what the view `sendable` says.
        """
        values = {"sink": sink, "now": now, "limit": limit + len(busy)}
        with self._state.reading() as database:
            rows = database.execute(DUE, values)
            fresh = itertools.islice((row for row in rows if (row[1], row[2]) not in busy), limit)
            return [_delivery(database, *row) for row in fresh]

    def take(self, deliveries: Iterable[Delivery], now: float) -> list[Delivery]:
        """Those of some that were due that still may be sent; remembered, before anything leaves, as sent at `now`."""
        with self._state.writing() as database:
            taken = [each for each in deliveries if database.execute(MAY_GO, (each.row_id, now)).fetchone()]
            database.executemany(
                "UPDATE delivery SET first_sent = ? WHERE id = ? AND first_sent = 0",
                [(now, each.row_id) for each in taken if not each.first_sent],
            )
        return taken

    def next_due(self, sink: str, now: float) -> float | None:
        """The next Unix time after `now` at which a row may be sent; None when there is none.

        A row whose time has come and that is not `due` waits for another row: it is sent after that one's answer.
        """
        rows = self._state.read(
            f"SELECT MIN(next_try) FROM delivery WHERE sink = ? AND {WAITING} AND next_try > ?",
            (sink, now),
        )
        found: float | None = rows[0][0]
        return found

    def delivered(self, *deliveries: Delivery, had_before: Collection[int] = ()) -> None:
        """The destination has them. With a stop, its start is no longer needed either, unless it may be withdrawn.

        `had_before` are the numbers of rows that it had before they were sent.
        """
        with self._state.writing() as database:
            for delivery in deliveries:
                if delivery.parkings:
                    parking.passed(database, delivery, time.time())
                self._release_followers(database, delivery)
                _set_delivered(database, delivery, "was there before" if delivery.row_id in had_before else "")
            self._forget(database, deliveries)

    def _forget(self, database: sqlite3.Connection, deliveries: Sequence[Delivery]) -> None:
        """What is not needed any more of these: of many together, since that writes less."""
        self._told_starts += [Delivered(each.message, each.row_id) for each in deliveries if each.texts]
        self._told_stops += [(*each.key, each.row_id) for each in deliveries if each.kind is Kind.STOP]
        is_large = sum(len(each.payload) for each in deliveries) >= FORGET_BYTES
        if is_large or len(self._told_starts) + len(self._told_stops) >= FORGET_AT_ONCE:
            stored_messages.release_texts(database, self._told_starts)
            database.executemany(DELETE_DONE, self._told_stops)
            self._told_starts, self._told_stops = [], []

    def parked(self, delivery: Delivery, reason: str) -> list[RunKey]:
        """Refused for now: tried again with others of its reason, see `parking`.

        Returns runs that were withdrawn for the start and are owed again.
        """
        with self._state.writing() as database:
            parking.park(database, delivery, reason, time.time())
            return restore(database, delivery, time.time()) if delivery.kind is Kind.START else []

    def conflict(self, delivery: Delivery, reason: str) -> list[RunKey]:
        """Refused because of another run: neither it nor its stop is sent again.

        Returns runs that were withdrawn for it and are owed again.
        """
        with self._state.writing() as database:
            return self._set_conflict(database, delivery, reason)

    def _set_conflict(self, database: sqlite3.Connection, delivery: Delivery, reason: str) -> list[RunKey]:
        _set_state(database, delivery.row_id, RowState.CONFLICT, 0, reason)
        database.execute(CONFLICT_OF_STOPS)
        self._refuse_followers(database)
        return restore(database, delivery, time.time())

    def make_room(self, delivery: Delivery, retry_at: float) -> Room:
        """For a start that was refused because of another run of its job; it is sent again, LATER at a Unix time.

        An intention that would not survive a power cut is put off.
        """
        if not self.is_durable:
            room = Room.LATER
        else:
            with self._state.writing(durable=True) as database:
                room = make_room(database, delivery, time.time())
        if room is Room.LATER:
            with self._state.writing() as database:  # the answer said that it is not stored: nothing is unsure of it
                database.execute(
                    "UPDATE delivery SET next_try = ?, first_sent = 0 WHERE id = ?", (retry_at, delivery.row_id)
                )
        return room

    def not_withdrawn(self, delivery: Delivery, reason: str) -> tuple[RunKey | None, list[RunKey]]:
        """The destination does not remove a run: the start that waited for that is refused for good.

        Returns its run, and the runs that were withdrawn for it and are owed again.
        """
        with self._state.writing() as database:
            waiting = give_up(database, delivery)
            return (waiting.key, self._set_conflict(database, waiting, reason)) if waiting else (None, [])

    def withdraw_nothing(self) -> None:
        """Runs are not withdrawn any more, but for those that may be so already."""
        self._state.write(forget_all)

    def put_off(self, delivery: Delivery, until: float, reason: str, *, refused: bool = False) -> None:
        """Try again at a Unix time. `refused` counts against the row itself."""
        with self._state.writing() as database:
            _set_state(database, delivery.row_id, RowState.PENDING, until, reason)
            if refused:
                database.execute("UPDATE delivery SET refusals = refusals + 1 WHERE id = ?", (delivery.row_id,))

    def cut(self, delivery: Delivery) -> bool:
        """Send it without its next text, at once. False when there is none left to leave out."""
        with self._state.writing() as database:
            cut = "UPDATE delivery SET cuts = cuts + 1, next_try = 0 WHERE id = ? AND cuts < ?"
            return database.execute(cut, (delivery.row_id, delivery.texts)).rowcount > 0

    def start_first(self, delivery: Delivery) -> bool:
        """Send the start of this stop's run again, and the stop after it. False when there is no start to send."""
        with self._state.writing() as database:
            found = database.execute(SEND_ITS_START_AGAIN, (int(time.time()), *delivery.key, delivery.row_id))
            return found.rowcount > 0

    def resend_starts(
        self, sink: str, cluster: str, is_lost: Callable[[RunKey], bool], sent_before: float
    ) -> list[RunKey]:
        """Owe the delivered starts of live runs again that the destination has lost.

        Only starts that were sent before a Unix time: younger ones it may not show yet. They count as owed from now on.
        """
        now = int(time.time())
        with self._state.writing(durable=True) as database:
            rows = database.execute(DELIVERED_BEFORE, (sink, cluster, sent_before)).fetchall()
            lost = {row[0]: key for row in rows if is_lost(key := RunKey(cluster, row[1], row[2]))}
            database.executemany(
                "UPDATE delivery SET state = 'pending', next_try = 0, first_sent = 0, created = ? WHERE id = ?",
                [(now, row_id) for row_id in lost],
            )
        return list(lost.values())

    def clock_was_set(self, sink: str, by: float) -> None:
        """A sink's waits go on as if the clock had always been so; `by` in seconds, negative when it was set back."""
        with self._state.writing() as database:
            for column in ("next_try", "first_sent", "created", "parked_since"):
                where = f"sink = ? AND {column} > 0 AND {column} < {AFTER_PROBE}"
                database.execute(f"UPDATE delivery SET {column} = {column} + ? WHERE {where}", (by, sink))

    def retry_owed(self, sink: str) -> None:
        """Make all rows due at once that wait for another try."""
        now = time.time()  # not 0: what was never tried goes first
        with self._state.writing() as database:
            database.execute(
                f"UPDATE delivery SET next_try = ? WHERE sink = ? AND {PENDING} AND next_try > ? AND next_try < ?",
                (now, sink, now, AFTER_PROBE),
            )

    def retry_all(self) -> int:
        """Make all rows due at once that wait, and one parked row of each reason; returns how many are parked.

        A state file that could not be written is tried again, too.
        """
        self._state.retry_file()
        return self._state.write(_make_all_due)

    def tidy(self, max_age: float, parked_max_age: float = parking.MAX_AGE, *, ages_are_right: bool = True) -> Tidied:
        """Park rows that have been owed for longer than `max_age` seconds; forget what is long over.

        That is what is parked for longer than `parked_max_age` seconds, too. A run that is open keeps its rows. Where
        the clock makes ages wrong nothing is older than any age.
        """
        now = time.time()
        aged_until = now if ages_are_right else -math.inf
        before = aged_until - max_age
        with self._state.writing() as database:
            tidied = parking.tidy(database, now, before, aged_until - parked_max_age)
            database.execute(FORGET_CONFLICTS, (before,))
            forgotten = [(follower, leader, before) for follower, leader in self._leaders.items()]
            database.executemany(DELETE_FORGOTTEN_FOLLOWERS, forgotten)
            forget_old(database, aged_until)
            database.execute("DELETE FROM run WHERE stage = 'done' AND changed < ?", (before - KEEP_DONE,))
            database.execute("DELETE FROM delivery WHERE state = 'done'")
            stored_messages.sweep(database)
            self._told_starts, self._told_stops = [], []
        self._state.shrink()
        return tidied

    def other_clusters(self, cluster: str) -> dict[str, int]:
        """How many runs of other clusters are open: nobody follows them."""
        question = "SELECT cluster, COUNT(*) FROM run WHERE cluster != ? AND stage != 'done' GROUP BY cluster"
        return dict(self._state.read(question, (cluster,)))

    def forget_other_clusters(self, cluster: str, max_age: float) -> None:
        """Forget open runs of other clusters, which nobody has watched for so many seconds, and that they were told."""
        with self._state.writing() as database:
            for statement in FORGET_CLUSTERS:
                database.execute(statement, (cluster, time.time() - max_age))

    def parked_by_reason(self) -> list[Parked]:
        """What is parked, the reason of most messages first."""
        with self._state.reading() as database:
            return parking.parked_by_reason(database)

    def waiting(self) -> int:
        """How many messages are still to be delivered, parked ones included; not those that follow others."""
        rows = self._state.read(f"SELECT COUNT(*) FROM delivery WHERE {WAITING}", ())
        return int(rows[0][0])

    def has_waiting(self, *, more_than: int) -> bool:
        """Whether so many messages and more wait, without what is parked and the stops of that; counted no further."""
        question = f"SELECT COUNT(*) FROM (SELECT 1 FROM delivery WHERE {PENDING} AND next_try < ? LIMIT ?)"
        rows = self._state.read(question, (AFTER_PROBE, more_than + 1))
        return int(rows[0][0]) > more_than

    def counts(self) -> dict[str, int]:
        """How many rows stand in each state."""
        return dict(self._state.read("SELECT state, COUNT(*) FROM delivery WHERE state != 'done' GROUP BY state", ()))


def _delivery(  # noqa: PLR0913 - the columns of DUE
    database: sqlite3.Connection,
    row_id: int,
    cluster: str,
    job_id: int,
    start_time: int,
    kind: str,
    refusals: int,
    first_sent: float,
    parkings: int,
    cuts: int,
    message: int,
    *stored: Any,
) -> Delivery:
    texts = stored_messages.texts_of(Stored(*stored))
    payload = stored_messages.whole(database, Stored(*stored), texts, cuts)
    key = RunKey(cluster, job_id, start_time)
    return Delivery(row_id, key, Kind(kind), payload, refusals, first_sent, parkings, message, len(texts))


def _set_delivered(database: sqlite3.Connection, delivery: Delivery, reason: str) -> None:
    if delivery.kind is Kind.STOP:
        keep_or_forget(database, delivery)
        database.execute(SETTLE_RUN, (int(time.time()), *delivery.key))
        return
    database.execute(SET_DELIVERED, (reason[:500], delivery.row_id))
    if delivery.kind is Kind.START:
        forget_withdrawn(database, delivery)
        database.execute(RELEASE_ITS_STOP, (*delivery.key, delivery.row_id))


def _make_all_due(database: sqlite3.Connection) -> int:
    """Returns how many were parked."""
    now = time.time()
    database.execute(
        f"UPDATE delivery INDEXED BY delivery_next SET next_try = 0 WHERE {PENDING} AND next_try > 0 AND next_try < ?",
        (AFTER_PROBE,),
    )
    # A moment to come can only be from before the clock was set back.
    database.execute("UPDATE delivery SET first_sent = ? WHERE first_sent > ?", (now, now))
    return parking.make_probes_due(database)


def _set_state(database: sqlite3.Connection, row_id: int, state: RowState, next_try: float, reason: str) -> None:
    database.execute(
        "UPDATE delivery SET state = ?, next_try = ?, reason = ? WHERE id = ?",
        (state.value, next_try, reason[:500], row_id),
    )


def _known_run(cluster: str, row: tuple[int, int, str, str, str | None, int]) -> OpenRun:
    job_id, start_time, stage, hosts, details, changed = row
    run = run_from_json(details) if details else None
    return OpenRun(RunKey(cluster, job_id, start_time), Stage(stage), hosts, run, None if hosts else changed)


def _details(run: OpenRun) -> str | None:
    return run_to_json(run.details) if run.details else None
