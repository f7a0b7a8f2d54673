"""Runs that a destination is to remove again, so that it takes a later run of the same job.

cc-backend takes one run of a job in 24 hours. A requeued run that was delivered is `kept` for a day, with the message
that would withdraw it. When a later start of the job is refused, that message is owed: being written down is the
intention, and by the order of a job it leaves before the start. What was withdrawn is forgotten when the start is
accepted, and owed again when it is refused after all. So a kill at any moment leaves a state from which it goes on.

All are steps of one transaction of the outbox.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from cc_slurm_adapter.job import RunKey
from cc_slurm_adapter.sinks import Delivery, Kind

DAY = 86400
"""Seconds between the starts of two runs of a job of which cc-backend takes both."""
KEPT_BYTES = 64 * 1024 * 1024
"""Of all messages that are kept: the oldest are forgotten before."""
START, STOP, WITHDRAW = Kind.START.value, Kind.STOP.value, Kind.WITHDRAW.value
_ROWS = """
SELECT m.id, m.start_time, m.kind, m.outcome, m.reason, r.stage IS 'live' FROM message AS m LEFT JOIN run AS r
ON r.cluster = m.cluster AND r.job_id = m.job_id AND r.start_time = m.start_time
WHERE m.sink = (SELECT sink FROM message WHERE id = ?) AND m.cluster = ? AND m.job_id = ?
"""
_FORGET = "DELETE FROM message WHERE id = ?"
_KEEP = "UPDATE message SET outcome = 'kept', next_try = 0, first_sent = 0, refusals = 0, reason = '' WHERE id = ?"
_OWE = "UPDATE message SET outcome = 'owed', next_try = 0, first_sent = 0, refusals = 0, reason = '' WHERE id = ?"
_IDLE_WITHDRAWALS = "SELECT sink, cluster, job_id, start_time FROM message WHERE kind = 'withdraw' AND outcome = 'kept'"
_FORGET_KEPT = "DELETE FROM message WHERE outcome = 'kept' AND (sink, cluster, job_id, start_time) IN"
_FORGET_OLD = f"{_FORGET_KEPT} ({_IDLE_WITHDRAWALS} AND created < ?)"
_FORGET_ALL = f"{_FORGET_KEPT} ({_IDLE_WITHDRAWALS})"
_FORGET_MUCH = f"""
{_FORGET_ALL} AND (sink, cluster, job_id, start_time) IN (
    SELECT sink, cluster, job_id, start_time FROM (
        SELECT sink, cluster, job_id, start_time, SUM(LENGTH(payload)) OVER (ORDER BY id DESC) AS bytes
        FROM message WHERE outcome = 'kept')
    WHERE bytes > ?)
"""  # noqa: S608 - made of the texts above
_DROP_INTENTIONS = """
UPDATE message SET outcome = 'kept' WHERE kind = 'withdraw' AND outcome IN ('owed', 'parked') AND first_sent = 0
"""


class Room(enum.Enum):
    """Whether there may be room for a start that was refused because of another run of its job."""

    MADE = "an earlier run is withdrawn first"
    LATER = "it is tried again when an earlier run has ended"
    NONE = "no earlier run may be withdrawn"


class _Row(NamedTuple):
    """A message of the job that a delivery is of, to the same sink."""

    row_id: int
    start_time: int
    kind: str
    outcome: str
    reason: str
    is_live: bool


def keep_or_forget(database: sqlite3.Connection, stop: Delivery) -> None:
    """A stop was delivered: what was told of its run is kept if it may be withdrawn, and else not needed any more.

    Only what this program itself has told is ever withdrawn: a start that the destination had before has a reason.
    """
    rows = [row for row in _rows(database, stop) if row.start_time == stop.key.start_time]
    may_go = any(row.kind == WITHDRAW for row in rows)
    is_ours = any(row.kind == START and row.outcome in ("delivered", "kept") and not row.reason for row in rows)
    if may_go and is_ours:
        _change(database, _KEEP, (row for row in rows if row.kind != WITHDRAW))
    else:
        _change(database, _FORGET, (row for row in rows if row.kind != START or row.outcome in ("delivered", "kept")))


def forget_withdrawn(database: sqlite3.Connection, start: Delivery) -> None:
    """A start was accepted: what was withdrawn for it stays so."""
    rows = _rows(database, start)
    withdrawn = _withdrawn(rows, start)
    _change(database, _FORGET, (row for row in rows if row.start_time in withdrawn))


def make_room(database: sqlite3.Connection, start: Delivery) -> Room:
    """A start was refused because of another run: the newest of those that may be withdrawn is. The start waits.

    Where a later run is stored, that is why: it is to stay.
    """
    begin = start.key.start_time
    all_rows = _rows(database, start)
    if any(row.start_time > begin and row.kind == START and row.outcome in ("delivered", "kept") for row in all_rows):
        return Room.NONE
    rows = [row for row in all_rows if begin - DAY < row.start_time < begin]
    ending = {row.start_time for row in rows if row.is_live or (row.kind == STOP and row.outcome == "owed")}
    if any(row.kind == START and row.outcome == "delivered" and row.start_time in ending for row in rows):
        return Room.LATER
    kept = {row.start_time for row in rows if row.kind == START and row.outcome == "kept"}
    found = [row for row in rows if row.kind == WITHDRAW and row.outcome == "kept" and row.start_time in kept]
    if not found:
        return Room.NONE
    _change(database, _OWE, [max(found, key=lambda row: row.start_time)])
    database.execute(_OWE, (start.row_id,))
    return Room.MADE


def restore(database: sqlite3.Connection, start: Delivery) -> list[RunKey]:
    """A start was refused after all: what was withdrawn for it is owed again. These runs are returned."""
    rows = _rows(database, start)
    withdrawn = _withdrawn(rows, start)
    _change(database, _OWE, (row for row in rows if row.start_time in withdrawn and row.outcome == "kept"))
    _change(database, _KEEP, (row for row in rows if row.start_time in withdrawn and row.kind == WITHDRAW))
    return [start.key._replace(start_time=each) for each in sorted(withdrawn)]


def give_up(database: sqlite3.Connection, withdrawal: Delivery) -> Delivery | None:
    """A run is not removed: nothing of it is kept. Returns the start that waited for it."""
    rows = _rows(database, withdrawal)
    begin = withdrawal.key.start_time
    _change(database, _FORGET, (row for row in rows if row.start_time == begin))
    waiting = [
        row for row in rows if row.kind == START and row.start_time > begin and row.outcome in ("owed", "parked")
    ]
    if not waiting:
        return None
    first = min(waiting, key=lambda row: row.start_time)
    return Delivery(first.row_id, withdrawal.key._replace(start_time=first.start_time), Kind.START, b"", 0, 0)


def forget_old(database: sqlite3.Connection, now: float) -> None:
    """What nobody has withdrawn for a day, and the oldest of what is too much."""
    database.execute(_FORGET_OLD, (now - DAY,))
    database.execute(_FORGET_MUCH, (KEPT_BYTES,))


def forget_all(database: sqlite3.Connection) -> None:
    """Nothing is to be withdrawn any more, but for what may be so already."""
    database.execute(_DROP_INTENTIONS)
    database.execute(_FORGET_ALL)


def _rows(database: sqlite3.Connection, delivery: Delivery) -> list[_Row]:
    values = (delivery.row_id, delivery.key.cluster, delivery.key.job_id)
    return [_Row(*row) for row in database.execute(_ROWS, values)]


def _withdrawn(rows: Iterable[_Row], start: Delivery) -> set[int]:
    """The starts of earlier runs of its job that are withdrawn, which they are only for its sake."""
    earlier = (row for row in rows if row.start_time < start.key.start_time)
    return {row.start_time for row in earlier if row.kind == WITHDRAW and row.outcome == "delivered"}


def _change(database: sqlite3.Connection, statement: str, rows: Iterable[_Row]) -> None:
    database.executemany(statement, [(row.row_id,) for row in rows])
