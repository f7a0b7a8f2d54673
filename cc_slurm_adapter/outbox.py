"""The durable state: which runs are known, and what is still owed to each destination (SQLite).

A row is durable before anything is sent, and leaves only on an answer. The delivered start of a
run stays until its stop is delivered, since a destination that has lost the run needs it again.

Durability: what a pass owes survives a power cut, what an answer settles survives a killed process. A settled row
that a power cut brings back is sent again, and the destination knows it.
"""

from __future__ import annotations

import enum
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cc_slurm_adapter.job import End, Run, RunKey
from cc_slurm_adapter.outbox_schema import (
    DELETE_FORGOTTEN_FOLLOWERS,
    DELIVERED_BEFORE,
    DUE,
    HURRY_ITS_START,
    LET_FOLLOW,
    MAY_GO,
    OWE_ITS_START,
    OWED,
    PUT_IN,
    PUT_OFF_ITS_STOP,
    SHADOW_FOLLOWERS,
    SHADOW_STOPS,
    WAITING,
)
from cc_slurm_adapter.outbox_sinks import USED_SINKS, use_sinks
from cc_slurm_adapter.run_json import run_from_json, run_to_json
from cc_slurm_adapter.sinks import Delivery, Kind
from cc_slurm_adapter.state_database import StateDatabase
from cc_slurm_adapter.withdrawals import (
    Room,
    forget_all,
    forget_old,
    forget_withdrawn,
    give_up,
    keep_or_forget,
    make_room,
    restore,
)

URGENT = -1
"""A next try before those of all rows that were never tried, which is 0."""
PARKED_RETRY = 3600.0
"""Seconds until a parked row is tried again."""
KEEP_DONE = 86400
"""Seconds for which a finished run is remembered longer than accounting is read back, which must not bring it again."""


class Stage(enum.Enum):
    """What has been done about a run."""

    SEEN = "seen"
    """It holds its nodes, but its start time may still move: nothing is owed yet."""
    LIVE = "live"
    """Its start is owed or delivered, its end is not known."""
    DONE = "done"
    """Its stop is owed or delivered."""
    IGNORED = "ignored"
    """It holds its nodes but is not reported: the configuration or an administrator leaves it out."""


class Outcome(enum.Enum):
    """Where a row stands."""

    OWED = "owed"
    PARKED = "parked"
    SHADOWED = "shadowed"
    FOLLOWING = "following"
    """Not owed before the sink that this one follows has the same message."""
    DELIVERED = "delivered"
    KEPT = "kept"
    """Delivered and over, or what would withdraw that: see `withdrawals`."""


class KnownRun(NamedTuple):
    """A run that is not over as far as this program knows. `details` only while it is SEEN."""

    key: RunKey
    stage: Stage
    hosts: str
    """Its nodes, separated by commas; '' when Slurm has lost it."""
    details: Run | None
    lost_since: int | None = None
    """Unix seconds at which a run that Slurm has lost was seen last; in the file that is `changed`."""


class Message(NamedTuple):
    """What one sink is to be told of a run."""

    sink: str
    key: RunKey
    kind: Kind
    payload: bytes


@dataclass
class Changes:
    """What a pass found out: written as a whole or not at all."""

    runs: dict[RunKey, KnownRun] = field(default_factory=dict)
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
        return sum(len(each.payload) for each in self.messages)

    def __bool__(self) -> bool:
        return bool(self.runs or self.dropped or self.messages or self.checkpoint is not None)


class Outbox:
    """Used by the watching thread and the senders at once: every call is one locked transaction.

    Raises StateError when the file cannot be read or written.
    """

    def __init__(self, path: str, sinks: Mapping[str, str] | None = None) -> None:
        """`sinks` are those in use, each with the one whose messages its own follow, or ''. None: all, on their own."""
        self._state = StateDatabase(path)
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

    def open_runs(self, cluster: str) -> list[KnownRun]:
        """All runs that hold nodes as far as is known: SEEN, LIVE and IGNORED ones."""
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

    def knows_job(self, cluster: str, job_id: int) -> bool:
        """Whether any run of a job is known, in any stage."""
        return bool(self._state.read("SELECT 1 FROM run WHERE cluster = ? AND job_id = ? LIMIT 1", (cluster, job_id)))

    def has_message(self, sinks: Iterable[str], key: RunKey, kind: Kind) -> bool:
        """Whether one of these sinks is still to be told this of the run."""
        question = (
            "SELECT 1 FROM message WHERE sink = ? AND cluster = ? AND job_id = ? AND start_time = ? AND kind = ?"
            " AND outcome NOT IN ('delivered', 'kept')"
        )
        return any(self._state.read(question, (sink, *key, kind.value)) for sink in sinks)

    def commit(self, cluster: str, changes: Changes) -> None:
        """Write what a pass found out. When this returns it survives a power cut."""
        self._state.write(lambda database: self._write_changes(database, cluster, changes))

    def _write_changes(self, database: sqlite3.Connection, cluster: str, changes: Changes) -> None:
        now, next_try = int(time.time()), URGENT if changes.urgent else 0
        for key in changes.dropped:
            database.execute("DELETE FROM run WHERE cluster = ? AND job_id = ? AND start_time = ?", key)
        database.executemany(
            "INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (*run.key, run.stage.value, run.hosts, _details(run), now if run.lost_since is None else run.lost_since)
                for run in changes.runs.values()
            ],
        )
        database.executemany(
            PUT_IN,
            [
                (each.sink, *each.key, each.kind.value, each.payload, now, next_try, self._first_outcome(each))
                for each in changes.messages
            ],
        )
        stops = [each for each in changes.messages if each.kind is Kind.STOP]
        if stops:
            database.execute(SHADOW_STOPS)
            self._shadow_followers(database)
        if changes.urgent:
            database.executemany(HURRY_ITS_START, [(URGENT, each.sink, *each.key) for each in stops])
        if changes.checkpoint is not None:
            database.execute("INSERT OR REPLACE INTO checkpoint VALUES (?, ?)", (cluster, changes.checkpoint))

    def _first_outcome(self, message: Message) -> str:
        if message.kind is Kind.WITHDRAW:
            return str(Outcome.KEPT.value)
        return str((Outcome.FOLLOWING if message.sink in self._leaders else Outcome.OWED).value)

    def _shadow_followers(self, database: sqlite3.Connection) -> None:
        """What is never told to a sink is not told to those that follow it either."""
        database.executemany(SHADOW_FOLLOWERS, self._leaders.items())

    def _let_follow(self, database: sqlite3.Connection, delivery: Delivery) -> None:
        """This was delivered: what follows it is owed now."""
        where = (*delivery.key, delivery.kind.value, delivery.row_id)
        database.executemany(LET_FOLLOW, [(follower, *where, leader) for follower, leader in self._leaders.items()])

    def due(self, sink: str, now: float, limit: int, busy: Collection[tuple[str, int]] = ()) -> list[Delivery]:
        """Rows that may be sent now, at most one of each job, without those of jobs that are `busy` (cluster, job id).

        Urgent ones come first, then the others, the oldest first, then those that failed. Which of a job's rows goes
        first is what the view `sendable` says.
        """
        values = {"sink": sink, "now": now, "limit": limit + len(busy)}
        with self._state.reading() as database:
            rows = database.execute(DUE, values).fetchall()
        fresh = [row for row in rows if (row[1], row[2]) not in busy][:limit]
        return [Delivery(row[0], RunKey(*row[1:4]), Kind(row[4]), row[5], row[6], row[7]) for row in fresh]

    def take(self, deliveries: Iterable[Delivery], now: float) -> list[Delivery]:
        """Those of some that were due that still may be sent; remembered, before anything leaves, as sent at `now`."""
        with self._state.writing() as database:
            taken = [each for each in deliveries if database.execute(MAY_GO, (each.row_id, now)).fetchone()]
            database.executemany(
                "UPDATE message SET first_sent = ? WHERE id = ? AND first_sent = 0",
                [(now, each.row_id) for each in taken if not each.first_sent],
            )
        return taken

    def next_due(self, sink: str, now: float) -> float | None:
        """The next Unix time after `now` at which a row may be sent; None when there is none.

        A row whose time has come and that is not `due` waits for another row: it is sent after that one's answer.
        """
        rows = self._state.read(
            f"SELECT MIN(next_try) FROM message WHERE sink = ? AND {WAITING} AND next_try > ?",
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
                self._let_follow(database, delivery)
                _set_delivered(database, delivery, "was there before" if delivery.row_id in had_before else "")

    def parked(self, delivery: Delivery, reason: str) -> list[RunKey]:
        """Refused for now: tried again in an hour, and with a start its stop.

        Returns runs that were withdrawn for the start and are owed again.
        """
        until = time.time() + PARKED_RETRY
        with self._state.writing() as database:
            _set_outcome(database, delivery.row_id, Outcome.PARKED, until, reason)
            database.execute(PUT_OFF_ITS_STOP, (until, *delivery.key, delivery.row_id))
            return restore(database, delivery) if delivery.kind is Kind.START else []

    def shadowed(self, delivery: Delivery, reason: str) -> list[RunKey]:
        """Refused because of another run: neither it nor its stop is sent again.

        Returns runs that were withdrawn for it and are owed again.
        """
        with self._state.writing() as database:
            return self._shadow(database, delivery, reason)

    def _shadow(self, database: sqlite3.Connection, delivery: Delivery, reason: str) -> list[RunKey]:
        _set_outcome(database, delivery.row_id, Outcome.SHADOWED, 0, reason)
        database.execute(SHADOW_STOPS)
        self._shadow_followers(database)
        return restore(database, delivery)

    def make_room(self, delivery: Delivery, retry_at: float) -> Room:
        """For a start that was refused because of another run of its job; it is sent again, LATER at a Unix time.

        An intention that would not survive a power cut is put off.
        """
        if not self.is_durable:
            room = Room.LATER
        else:
            with self._state.writing(durable=True) as database:
                room = make_room(database, delivery)
        if room is Room.LATER:
            with self._state.writing() as database:  # the answer said that it is not stored: nothing is unsure of it
                database.execute(
                    "UPDATE message SET next_try = ?, first_sent = 0 WHERE id = ?", (retry_at, delivery.row_id)
                )
        return room

    def not_withdrawn(self, delivery: Delivery, reason: str) -> tuple[RunKey | None, list[RunKey]]:
        """The destination does not remove a run: the start that waited for that is shadowed.

        Returns its run, and the runs that were withdrawn for it and are owed again.
        """
        with self._state.writing() as database:
            waiting = give_up(database, delivery)
            return (waiting.key, self._shadow(database, waiting, reason)) if waiting else (None, [])

    def withdraw_nothing(self) -> None:
        """Runs are not withdrawn any more, but for those that may be so already."""
        self._state.write(forget_all)

    def put_off(self, delivery: Delivery, until: float, reason: str, *, refused: bool = False) -> None:
        """Try again at a Unix time. `refused` counts against the row itself."""
        with self._state.writing() as database:
            _set_outcome(database, delivery.row_id, Outcome.OWED, until, reason)
            if refused:
                database.execute("UPDATE message SET refusals = refusals + 1 WHERE id = ?", (delivery.row_id,))

    def replace_payload(self, delivery: Delivery, payload: bytes) -> None:
        """Send something else instead, at once."""
        with self._state.writing() as database:
            database.execute("UPDATE message SET payload = ?, next_try = 0 WHERE id = ?", (payload, delivery.row_id))

    def start_first(self, delivery: Delivery) -> bool:
        """Send the start of this stop's run again, and the stop after it. False when there is no start to send."""
        with self._state.writing() as database:
            found = database.execute(OWE_ITS_START, (*delivery.key, delivery.row_id))
            return found.rowcount > 0

    def resend_starts(
        self, sink: str, cluster: str, is_lost: Callable[[RunKey], bool], sent_before: float
    ) -> list[RunKey]:
        """Owe the delivered starts of live runs again that the destination has lost.

        Only starts that were sent before a Unix time: younger ones it may not show yet.
        """
        with self._state.writing(durable=True) as database:
            rows = database.execute(DELIVERED_BEFORE, (sink, cluster, sent_before)).fetchall()
            lost = {row[0]: key for row in rows if is_lost(key := RunKey(cluster, row[1], row[2]))}
            database.executemany(
                "UPDATE message SET outcome = 'owed', next_try = 0, first_sent = 0 WHERE id = ?",
                [(row_id,) for row_id in lost],
            )
        return list(lost.values())

    def clock_was_set(self, sink: str, by: float) -> None:
        """A sink's waits go on as if the clock had always been so; `by` in seconds, negative when it was set back."""
        with self._state.writing() as database:
            for column in ("next_try", "first_sent"):
                where = f"sink = ? AND {column} > 0"
                database.execute(f"UPDATE message SET {column} = {column} + ? WHERE {where}", (by, sink))

    def retry_owed(self, sink: str) -> None:
        """Make all rows due at once that wait for another try."""
        now = time.time()  # not 0: what was never tried goes first
        with self._state.writing() as database:
            database.execute(
                f"UPDATE message SET next_try = ? WHERE sink = ? AND {OWED} AND next_try > ?", (now, sink, now)
            )

    def retry_all(self) -> int:
        """Make all rows due at once, parked ones and those that wait included; returns how many were parked.

        A state file that could not be written is tried again, too.
        """
        self._state.retry_file()
        return self._state.write(_make_all_due)

    def tidy(self, max_age: float) -> None:
        """Park rows that have been owed for longer than `max_age` seconds; forget what is long over."""
        now = time.time()
        with self._state.writing() as database:
            database.execute(
                "UPDATE message INDEXED BY message_next"
                " SET outcome = 'parked', next_try = ?, reason = 'not delivered for too long'"
                f" WHERE {OWED} AND created < ?",
                (now + PARKED_RETRY, now - max_age),
            )
            database.execute("DELETE FROM message WHERE outcome = 'shadowed' AND created < ?", (now - max_age,))
            forgotten = [(follower, leader, now - max_age) for follower, leader in self._leaders.items()]
            database.executemany(DELETE_FORGOTTEN_FOLLOWERS, forgotten)
            forget_old(database, now)
            database.execute("DELETE FROM run WHERE stage = 'done' AND changed < ?", (now - max_age - KEEP_DONE,))

    def waiting(self) -> int:
        """How many messages are still to be delivered, parked ones included; not those that follow others."""
        rows = self._state.read(f"SELECT COUNT(*) FROM message WHERE {WAITING}", ())
        return int(rows[0][0])

    def counts(self) -> dict[str, int]:
        """How many rows stand in each outcome."""
        return dict(self._state.read("SELECT outcome, COUNT(*) FROM message GROUP BY outcome", ()))


def _set_delivered(database: sqlite3.Connection, delivery: Delivery, reason: str) -> None:
    if delivery.kind is Kind.STOP:
        keep_or_forget(database, delivery)
        return
    _set_outcome(database, delivery.row_id, Outcome.DELIVERED, 0, reason)
    if delivery.kind is Kind.START:
        forget_withdrawn(database, delivery)
        if delivery.first_sent:  # it may have been parked before, and its stop with it
            database.execute(PUT_OFF_ITS_STOP, (0, *delivery.key, delivery.row_id))


def _make_all_due(database: sqlite3.Connection) -> int:
    """Returns how many were parked."""
    now = time.time()
    database.execute(f"UPDATE message INDEXED BY message_next SET next_try = 0 WHERE {OWED} AND next_try > 0")
    # A moment to come can only be from before the clock was set back.
    database.execute("UPDATE message SET first_sent = ? WHERE first_sent > ?", (now, now))
    return database.execute(
        f"UPDATE message INDEXED BY message_next SET next_try = 0 WHERE {WAITING} AND outcome = 'parked'"
    ).rowcount


def _set_outcome(database: sqlite3.Connection, row_id: int, outcome: Outcome, next_try: float, reason: str) -> None:
    database.execute(
        "UPDATE message SET outcome = ?, next_try = ?, reason = ? WHERE id = ?",
        (outcome.value, next_try, reason[:500], row_id),
    )


def _known_run(cluster: str, row: tuple[int, int, str, str, str | None, int]) -> KnownRun:
    job_id, start_time, stage, hosts, details, changed = row
    run = run_from_json(details) if details else None
    return KnownRun(RunKey(cluster, job_id, start_time), Stage(stage), hosts, run, None if hosts else changed)


def _details(run: KnownRun) -> str | None:
    return run_to_json(run.details) if run.details else None
