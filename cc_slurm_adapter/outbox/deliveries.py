"""What is to be sent to each sink, and what the answers make of it: the senders' side of the outbox.

What an answer settles survives a killed process. A settled row that a power cut brings back is sent again, and the
sink knows it.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox import parking, queries, stored_messages
from cc_slurm_adapter.outbox.database import StateDatabase
from cc_slurm_adapter.outbox.schema import RowState
from cc_slurm_adapter.outbox.stored_messages import Delivered, Stored
from cc_slurm_adapter.outbox.withdrawals import Room, forget_withdrawn, give_up, keep_or_forget, make_room, restore
from cc_slurm_adapter.sinks.base import Delivery, Kind

FORGET_AT_ONCE, FORGET_BYTES = 100, 128 * 1024
"""After so many delivered messages, or one so large, what is not needed any more is deleted."""


class Deliveries:
    """Used by the senders of all sinks: every call is one locked transaction. Raises StateError."""

    def __init__(self, state: StateDatabase, leaders: Mapping[str, str]) -> None:
        """`leaders` are the sinks that follow, each with the one that it follows."""
        self._state = state
        self._leaders = leaders
        self._delivered_starts: list[Delivered] = []
        self._delivered_stops: list[tuple[str, int, int, int]] = []
        """To be forgotten together; what a crash leaves of them is found by the next `forget_done`."""

    def due(self, sink: str, now: float, limit: int, busy: Collection[tuple[str, int]] = ()) -> list[Delivery]:
        """Rows that may be sent now, at most one of each job, without those of jobs that are `busy` (cluster, job id).

        Urgent ones come first, then the others, the oldest first, then those that failed. Which of a job's rows goes
        first is what the view `sendable` says.
        """
        values = {"sink": sink, "now": now, "limit": limit + len(busy)}
        with self._state.reading() as database:
            rows = database.execute(queries.DUE, values)
            idle = itertools.islice((row for row in rows if (row[1], row[2]) not in busy), limit)
            return [_delivery(database, *row) for row in idle]

    def begin(self, deliveries: Iterable[Delivery], now: float) -> list[Delivery]:
        """Those of some that were due that still may be sent.

        They are noted as sent at `now` before anything leaves.
        """
        with self._state.writing() as database:
            begun = [
                each for each in deliveries if database.execute(queries.IS_STILL_DUE, (each.row_id, now)).fetchone()
            ]
            database.executemany(queries.SET_FIRST_SENT, [(now, each.row_id) for each in begun if not each.first_sent])
        return begun

    def next_due(self, sink: str, now: float) -> float | None:
        """The next Unix time after `now` at which a row may be sent; None when there is none.

        A row whose time has come and that is not `due` waits for another row: it is sent after that one's answer.
        """
        found: float | None = self._state.read(queries.NEXT_DUE, (sink, now))[0][0]
        return found

    def delivered(self, *deliveries: Delivery, had_before: Collection[int] = ()) -> None:
        """Note that the sink has them. With a stop its start is no longer needed either, unless it may be withdrawn.

        `had_before` are the numbers of rows that it had before they were sent.
        """
        with self._state.writing() as database:
            for delivery in deliveries:
                if delivery.parkings:
                    parking.accepted(database, delivery, time.time())
                self._release_followers(database, delivery)
                _set_delivered(database, delivery, "was there before" if delivery.row_id in had_before else "")
            self._forget(database, deliveries)

    def _release_followers(self, database: sqlite3.Connection, delivery: Delivery) -> None:
        where = (*delivery.key, delivery.kind.value, delivery.row_id)
        database.executemany(
            queries.RELEASE_FOLLOWERS, [(follower, *where, leader) for follower, leader in self._leaders.items()]
        )

    def _forget(self, database: sqlite3.Connection, deliveries: Sequence[Delivery]) -> None:
        """Forget what is not needed any more of these, once there are many: that writes less."""
        self._delivered_starts += [Delivered(each.message, each.row_id) for each in deliveries if each.texts]
        self._delivered_stops += [(*each.key, each.row_id) for each in deliveries if each.kind is Kind.STOP]
        is_large = sum(len(each.payload) for each in deliveries) >= FORGET_BYTES
        if is_large or len(self._delivered_starts) + len(self._delivered_stops) >= FORGET_AT_ONCE:
            stored_messages.release_texts(database, self._delivered_starts)
            database.executemany(queries.DELETE_DONE_OF, self._delivered_stops)
            self._delivered_starts, self._delivered_stops = [], []

    def forget_done(self, database: sqlite3.Connection) -> None:
        """Forget all that is done, and all texts that no start needs any more. A step of a transaction."""
        database.execute(queries.DELETE_DONE)
        stored_messages.sweep(database)
        self._delivered_starts, self._delivered_stops = [], []

    def parked(self, delivery: Delivery, reason: str) -> list[RunKey]:
        """Note that it was refused for now: it is tried again with others of its reason, see `parking`.

        Returns runs that were withdrawn for the start and are pending again.
        """
        with self._state.writing() as database:
            parking.park(database, delivery, reason, time.time())
            return restore(database, delivery, time.time()) if delivery.kind is Kind.START else []

    def conflict(self, delivery: Delivery, reason: str) -> list[RunKey]:
        """Note that it was refused because of another run: neither it nor its stop is sent again.

        Returns runs that were withdrawn for it and are pending again.
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

        The start is sent again, LATER at the Unix time `retry_at`. An intention that a power cut would undo is put off.
        """
        if not self._state.is_durable:
            room = Room.LATER
        else:
            with self._state.writing(durable=True) as database:
                room = make_room(database, delivery, time.time())
        if room is Room.LATER:
            with self._state.writing() as database:  # the answer said that it is not stored: nothing is unsure of it
                database.execute(queries.RETRY_AT, (retry_at, delivery.row_id))
        return room

    def not_withdrawn(self, delivery: Delivery, reason: str) -> tuple[RunKey | None, list[RunKey]]:
        """Note that the sink does not remove a run: the start that waited for that is refused for good.

        Returns its run, and the runs that were withdrawn for it and are pending again.
        """
        with self._state.writing() as database:
            waiting = give_up(database, delivery)
            return (waiting.key, self._set_conflict(database, waiting, reason)) if waiting else (None, [])

    def put_off(self, delivery: Delivery, until: float, reason: str, *, refused: bool = False) -> None:
        """Try again at a Unix time. `refused` counts against the row itself."""
        with self._state.writing() as database:
            _set_state(database, delivery.row_id, RowState.PENDING, until, reason)
            if refused:
                database.execute(queries.COUNT_REFUSAL, (delivery.row_id,))

    def cut(self, delivery: Delivery) -> bool:
        """Send it without its next text, immediately. False when there is none left to leave out."""
        with self._state.writing() as database:
            return database.execute(queries.CUT, (delivery.row_id, delivery.texts)).rowcount > 0

    def start_first(self, delivery: Delivery) -> bool:
        """Send the start of this stop's run again, and the stop after it. False when there is no start to send."""
        with self._state.writing() as database:
            found = database.execute(queries.RESEND_START_OF, (int(time.time()), *delivery.key, delivery.row_id))
            return found.rowcount > 0

    def retry_pending(self, sink: str) -> None:
        """Make all rows due immediately that wait for another try."""
        now = time.time()  # not 0: what was never tried goes first
        with self._state.writing() as database:
            database.execute(queries.RETRY_PENDING, (now, sink, now))

    def shift_times(self, sink: str, step: float) -> None:
        """Shift all times of a sink by which the clock was set: `step` in seconds, negative when it was set back."""
        with self._state.writing() as database:
            for column in queries.SHIFTED_TIMES:
                database.execute(queries.SHIFT_TIME.format(column=column), (step, sink))


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
        database.execute(queries.SET_STOP_DELIVERED, (int(time.time()), *delivery.key))
        return
    database.execute(queries.SET_DELIVERED, (reason[:500], delivery.row_id))
    if delivery.kind is Kind.START:
        forget_withdrawn(database, delivery)
        database.execute(queries.RELEASE_STOP_OF, (*delivery.key, delivery.row_id))


def _set_state(database: sqlite3.Connection, row_id: int, state: RowState, next_try: float, reason: str) -> None:
    database.execute(queries.SET_STATE, (state.value, next_try, reason[:500], row_id))
