"""The senders' side of the outbox: what is to be sent to each sink, and what an answer changes.

What an answer settles survives a killed process. After a power cut a settled row may be pending again: then it is sent
again, and the sink recognizes it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox import parking, queries, stored_messages
from cc_slurm_adapter.outbox.database import StateDatabase
from cc_slurm_adapter.outbox.schema import RowState
from cc_slurm_adapter.outbox.stored_messages import Delivered, Stored
from cc_slurm_adapter.outbox.withdrawals import (
    Room,
    forget_withdrawn,
    give_up,
    keep_or_forget,
    make_room,
    restore,
    set_runs_done,
    with_withdrawals,
)
from cc_slurm_adapter.sinks.base import Delivery, Kind

FORGET_AT_ONCE, FORGET_BYTES = 200, 128 * 1024
"""After this many delivered messages, or this many bytes delivered together, what is not needed any more is deleted."""

DUE_BYTES = 4 * 1024 * 1024
"""After this many bytes no more rows are returned: each may carry a script of a megabyte."""


class Deliveries:
    """Used by the senders of all sinks: every call is one locked transaction. Raises StateError."""

    def __init__(self, state: StateDatabase, leaders: Mapping[str, str]) -> None:
        """`leaders` has each sink that follows, with the sink that it follows."""
        self._state = state
        self._leaders = leaders
        self._delivered_starts: list[Delivered] = []
        self._delivered_stops: list[int] = []
        """They are forgotten together. The next `forget_done` finds what a crash leaves of them."""

    def due(self, sink: str, now: float, limit: int, busy: Collection[tuple[str, int]] = ()) -> list[Delivery]:
        """Return rows that may be sent now: at most one for each job, none of jobs that are `busy` (cluster, job id).

        Urgent rows come first, then the others, the oldest first, then those that failed. The view `sendable` says
        which row of a job is sent first. Rows with much text are fewer than `limit`.
        """
        values = {"sink": sink, "now": now, "limit": limit + len(busy)}
        found: list[Delivery] = []
        size = 0
        with self._state.reading() as database:
            for row in database.execute(queries.DUE, values):
                if (row[1], row[2]) not in busy:
                    found.append(_delivery(database, *row))
                    size += len(found[-1].payload)
                if len(found) >= limit or size >= DUE_BYTES:
                    break
        return found

    def begin(self, deliveries: Iterable[Delivery], now: float) -> list[Delivery]:
        """Return those of these rows, which were due, that may still be sent.

        They are recorded as sent at `now` before anything is sent.
        """
        with self._state.writing() as database:
            begun = _still_due(database, list(deliveries), now)
            _of_rows(database, queries.SET_FIRST_SENT, begun, now)
        return begun

    def not_sent(self, row_ids: Iterable[int]) -> None:
        """Record that rows that had begun for the first time were not sent after all."""
        with self._state.writing() as database:
            database.executemany(queries.NOT_SENT, [(row_id,) for row_id in row_ids])

    def next_due(self, sink: str, now: float) -> float | None:
        """Return the next Unix time after `now` at which a row may be sent; None if there is none.

        A row whose time has come but that is not `due` waits for another row: it is sent after the answer to that row.
        """
        found: float | None = self._state.read(queries.NEXT_DUE, (sink, now))[0][0]
        return found

    def delivered(self, *deliveries: Delivery, had_before: Collection[int] = ()) -> None:
        """Record that the sink has them. After a stop its start is not needed either, unless the run may be withdrawn.

        `had_before` are the numbers of the rows that the sink had before they were sent.
        """
        with self._state.writing() as database:
            for delivery in deliveries:
                if delivery.parkings:
                    parking.accepted(database, delivery, time.time())
            self._release_followers(database, deliveries)
            _set_delivered(database, [each for each in deliveries if each.kind is not Kind.STOP], had_before)
            _set_starts_delivered(database, [each for each in deliveries if each.kind is Kind.START])
            _set_stops_delivered(database, [each for each in deliveries if each.kind is Kind.STOP])
            self._forget(database, deliveries)

    def _release_followers(self, database: sqlite3.Connection, deliveries: Sequence[Delivery]) -> None:
        for follower, leader in self._leaders.items():
            _of_rows(database, queries.RELEASE_FOLLOWERS, deliveries, follower, leader)

    def _forget(self, database: sqlite3.Connection, deliveries: Sequence[Delivery]) -> None:
        """Forget what is not needed any more of these deliveries, once there are many: that writes less."""
        self._delivered_starts += [Delivered(each.message, each.key) for each in deliveries if each.texts]
        self._delivered_stops += [each.row_id for each in deliveries if each.kind is Kind.STOP]
        is_large = sum(len(each.payload) for each in deliveries) >= FORGET_BYTES
        if is_large or len(self._delivered_starts) + len(self._delivered_stops) >= FORGET_AT_ONCE:
            starts, stops = self._delivered_starts, self._delivered_stops
            self._delivered_starts, self._delivered_stops = [], []  # also if that fails: they must not grow
            stored_messages.release_texts(database, starts)
            _of_ids(database, queries.DELETE_DONE_OF, stops)

    def forget_done(self, database: sqlite3.Connection) -> None:
        """Forget all that is done, and all texts that no start needs any more. This is a step of a transaction."""
        database.execute(queries.DELETE_DONE)
        stored_messages.sweep(database)
        self._delivered_starts, self._delivered_stops = [], []

    def parked(self, delivery: Delivery, reason: str) -> list[RunKey]:
        """Record that it was refused for now: it is tried again with others of the same reason, see `parking`.

        Returns the runs that were withdrawn for this start and are pending again.
        """
        with self._state.writing() as database:
            parking.park(database, delivery, reason, time.time())
            return restore(database, delivery, time.time()) if delivery.kind is Kind.START else []

    def conflict(self, delivery: Delivery, reason: str) -> list[RunKey]:
        """Record that it was refused because of another run: neither it nor its stop is sent again.

        Returns the runs that were withdrawn for it and are pending again.
        """
        with self._state.writing() as database:
            return self._set_conflict(database, delivery, reason)

    def _set_conflict(self, database: sqlite3.Connection, delivery: Delivery, reason: str) -> list[RunKey]:
        _set_state(database, delivery.row_id, RowState.CONFLICT, 0, reason)
        database.execute(queries.CONFLICT_OF_STOPS)
        database.executemany(queries.CONFLICT_OF_FOLLOWERS, self._leaders.items())
        return restore(database, delivery, time.time())

    def make_room(self, delivery: Delivery, retry_at: float) -> Room:
        """Make room for a start that was refused because of another run of its job.

        The start is sent again; if this returns LATER, at `retry_at` (Unix time). It returns LATER, too, while a power
        cut would undo the intention to withdraw a run.
        """
        if not self._state.is_durable:
            room = Room.LATER
        else:
            with self._state.writing(durable=True) as database:
                room = make_room(database, delivery, time.time())
        if room is Room.LATER:
            with self._state.writing() as database:  # the answer said that it is not stored, so that is certain
                database.execute(queries.RETRY_AT, (retry_at, delivery.row_id))
        return room

    def not_withdrawn(self, delivery: Delivery, reason: str) -> tuple[RunKey | None, list[RunKey]]:
        """Record that the sink does not remove a run: the refusal of the start that waited for that is final.

        Returns the run of that start, and the runs that were withdrawn for it and are pending again.
        """
        with self._state.writing() as database:
            waiting = give_up(database, delivery)
            return (waiting.key, self._set_conflict(database, waiting, reason)) if waiting else (None, [])

    def not_removed(self, delivery: Delivery) -> None:
        """Record that the sink does not remove a run that is to be sent anew.

        Its start is sent all the same: the sink then says that it has the run.
        """
        with self._state.writing() as database:
            _of_rows(database, queries.DELETE_ROWS, [delivery])

    def put_off(self, delivery: Delivery, until: float, reason: str, *, refused: bool = False) -> None:
        """Try it again at `until` (Unix time). `refused` says that the row itself was refused, which is counted."""
        with self._state.writing() as database:
            _set_state(database, delivery.row_id, RowState.PENDING, until, reason)
            if refused:
                database.execute(queries.COUNT_REFUSAL, (delivery.row_id,))

    def cut(self, delivery: Delivery) -> bool:
        """Send it again immediately without its next text. Return False if it has no text left."""
        with self._state.writing() as database:
            return database.execute(queries.CUT, (delivery.row_id, delivery.texts)).rowcount > 0

    def start_first(self, delivery: Delivery) -> bool:
        """Send the start of this stop's run again, and the stop after it. Return False if there is no start to send."""
        with self._state.writing() as database:
            found = database.execute(queries.RESEND_START_OF, (int(time.time()), *delivery.key, delivery.row_id))
            return found.rowcount > 0

    def retry_pending(self, sink: str) -> None:
        """Make all rows that wait for another try due immediately."""
        now = time.time()  # not 0: rows that were never tried are sent first
        with self._state.writing() as database:
            database.execute(queries.RETRY_PENDING, (now, sink, now))

    def shift_times(self, sink: str, step: float) -> None:
        """Shift all times of a sink after the clock was set by `step` seconds, which is negative if it was set back."""
        with self._state.writing() as database:
            for column in queries.SHIFTED_TIMES:
                database.execute(queries.SHIFT_TIME.format(column=column), (step, sink))


def _of_rows(database: sqlite3.Connection, statement: str, rows: Sequence[Delivery], *values: object) -> sqlite3.Cursor:
    """Execute a statement for all these rows at once, with its other values before their numbers."""
    return _of_ids(database, statement, [each.row_id for each in rows], *values)


def _of_ids(database: sqlite3.Connection, statement: str, row_ids: Sequence[int], *values: object) -> sqlite3.Cursor:
    if not row_ids:
        return database.cursor()
    return database.execute(statement.format(marks=stored_messages.marks(len(row_ids))), (*values, *row_ids))


def _still_due(database: sqlite3.Connection, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
    if not deliveries:
        return []
    (found,) = _of_rows(database, queries.ARE_STILL_DUE, deliveries, now).fetchone()
    row_ids = set(map(int, found.split(","))) if found else set()
    return [each for each in deliveries if each.row_id in row_ids]


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


def _set_delivered(database: sqlite3.Connection, rows: Sequence[Delivery], had_before: Collection[int]) -> None:
    now = time.time()
    _of_rows(database, queries.SET_DELIVERED, [each for each in rows if each.row_id not in had_before], now, "")
    known = [each for each in rows if each.row_id in had_before]
    _of_rows(database, queries.SET_DELIVERED, known, now, "was there before")
    removed = [each for each in rows if each.kind is Kind.REMOVE]  # nothing but its start depended on it
    _of_rows(database, queries.DELETE_ROWS, removed)


def _set_starts_delivered(database: sqlite3.Connection, starts: Sequence[Delivery]) -> None:
    for start in with_withdrawals(database, starts):
        forget_withdrawn(database, start)
    _of_rows(database, queries.RELEASE_STOPS_OF, starts)


def _set_stops_delivered(database: sqlite3.Connection, stops: Sequence[Delivery]) -> None:
    withdrawable = with_withdrawals(database, stops)
    for stop in withdrawable:
        keep_or_forget(database, stop)
    set_runs_done(database, [each for each in stops if each not in withdrawable])
    _of_rows(database, queries.SET_STOP_DELIVERED, stops, int(time.time()))


def _set_state(database: sqlite3.Connection, row_id: int, state: RowState, next_try: float, reason: str) -> None:
    database.execute(queries.SET_STATE, (state.value, next_try, reason[:500], row_id))
