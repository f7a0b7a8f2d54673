"""Runs that a destination is to remove again, so that it accepts a later run of the same job.

cc-backend accepts one run of a job in 24 hours. A requeued run that was delivered is `retained` for a day, with the
message that would withdraw it. When a later start of the job is refused, that message becomes pending. The pending row
records the intention, and the order of a job's rows makes sure that it is sent before the start. A withdrawn run is
forgotten when the start is accepted, and sent again when the start is refused after all. So after a kill at any moment
the work can be continued from what is stored.

All functions are steps of one transaction of the outbox.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox.queries import SET_DONE_OF
from cc_slurm_adapter.outbox.stored_messages import marks
from cc_slurm_adapter.sinks.base import Delivery, Kind

DAY = 86400
"""If the starts of two runs of a job are this many seconds apart, cc-backend accepts both."""
RETAINED_BYTES = 64 * 1024 * 1024
"""The most bytes of all retained messages. Above that the oldest are forgotten."""
START, STOP, WITHDRAW = Kind.START.value, Kind.STOP.value, Kind.WITHDRAW.value
_ROWS = """
SELECT m.id, m.start_time, m.kind, m.state, m.reason, r.stage IS 'started' FROM delivery AS m LEFT JOIN run AS r
ON r.cluster = m.cluster AND r.job_id = m.job_id AND r.start_time = m.start_time
WHERE m.sink = (SELECT sink FROM delivery WHERE id = ?) AND m.cluster = ? AND m.job_id = ?
"""
"""All messages of a job to the sink of a row, with the fields of `_Row`."""
_WITHDRAWALS = """
WITH job (cluster, job_id) AS (VALUES {jobs}) SELECT cluster, job_id FROM job WHERE EXISTS (
    SELECT 1 FROM delivery AS d WHERE d.cluster = job.cluster AND d.job_id = job.job_id AND d.kind = 'withdraw')
"""
"""The jobs among some that have any."""
_FORGET = "DELETE FROM delivery WHERE id = ?"
_DONE = "UPDATE delivery SET state = 'done' WHERE id = ?"
_RETAIN = """
UPDATE delivery SET state = 'retained', next_try = 0, first_sent = 0, refusals = 0, reason = '', parkings = 0,
parked_since = 0, why = '' WHERE id = ?
"""
_SEND_AGAIN = """
UPDATE delivery SET state = 'pending', next_try = 0, first_sent = 0, refusals = 0, reason = '', created = ? WHERE id = ?
"""
_IDLE_WITHDRAWALS = (
    "SELECT sink, cluster, job_id, start_time FROM delivery WHERE kind = 'withdraw' AND state = 'retained'"
)
"""The withdrawals of runs that may be withdrawn, but are not."""
_FORGET_RETAINED = "DELETE FROM delivery WHERE state = 'retained' AND (sink, cluster, job_id, start_time) IN"
_FORGET_OLD = f"{_FORGET_RETAINED} ({_IDLE_WITHDRAWALS} AND created < ?)"
_FORGET_ALL = f"{_FORGET_RETAINED} ({_IDLE_WITHDRAWALS})"
_FORGET_MUCH = f"""
{_FORGET_ALL} AND (sink, cluster, job_id, start_time) IN (
    SELECT sink, cluster, job_id, start_time FROM (
        SELECT sink, cluster, job_id, start_time, SUM(LENGTH(m.payload)) OVER (ORDER BY d.id DESC) AS bytes
        FROM delivery AS d JOIN message AS m ON m.id = d.message WHERE d.state = 'retained')
    WHERE bytes > ?)
"""  # noqa: S608 - made of the texts above
"""Forgets the oldest of the retained messages that have more bytes than that together."""
_DROP_INTENTIONS = """
UPDATE delivery SET state = 'retained' WHERE kind = 'withdraw' AND state IN ('pending', 'parked') AND first_sent = 0
"""
"""A withdrawal that was sent may have been carried out, so it stays as it is."""


_WAS_SENT = "SELECT first_sent > 0 FROM delivery WHERE id = ?"
_NEXT_NUMBER = "UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'delivery'"
_RENUMBER = "UPDATE delivery SET id = (SELECT seq FROM sqlite_sequence WHERE name = 'delivery') WHERE id = ?"


class Room(enum.Enum):
    """Whether there may be room for a start that was refused because of another run of its job."""

    MADE = "an earlier run is withdrawn first"
    LATER = "it is tried again when an earlier run has ended"
    NONE = "no earlier run may be withdrawn"


class _Row(NamedTuple):
    """A message about the same job and to the same sink as a delivery."""

    row_id: int
    start_time: int
    kind: str
    state: str
    reason: str
    is_live: bool


def keep_or_forget(database: sqlite3.Connection, stop: Delivery) -> None:
    """Retain the messages of a run whose stop was delivered, if the run may be withdrawn; else they are done.

    This is for jobs `with_withdrawals`, and `set_runs_done` for others. Only runs that this program itself has sent
    are ever withdrawn. If the destination had a start before, the row of the start has a `reason`.
    """
    rows = [row for row in _rows(database, stop) if row.start_time == stop.key.start_time]
    may_go = any(row.kind == WITHDRAW for row in rows)
    is_ours = any(row.kind == START and row.state in ("delivered", "retained") and not row.reason for row in rows)
    if may_go and is_ours:
        _change(database, _RETAIN, (row for row in rows if row.kind != WITHDRAW))
    else:
        _change(database, _DONE, (row for row in rows if row.kind != START or row.state in ("delivered", "retained")))


def forget_withdrawn(database: sqlite3.Connection, start: Delivery) -> None:
    """Forget the runs that were withdrawn for a start that was accepted: they stay withdrawn.

    A job that is not `with_withdrawals` has none.
    """
    rows = _rows(database, start)
    withdrawn = _withdrawn(rows, start)
    _change(database, _FORGET, (row for row in rows if row.start_time in withdrawn))


def make_room(database: sqlite3.Connection, start: Delivery, now: float) -> Room:
    """Withdraw the newest run that may be withdrawn, for a start that was refused because of another run.

    The start waits meanwhile. If a later run of the job is stored, the start was refused because of that one, which
    must stay.
    """
    begin = start.key.start_time
    all_rows = _rows(database, start)
    if any(row.start_time > begin and row.kind == START and row.state in ("delivered", "retained") for row in all_rows):
        return Room.NONE
    rows = [row for row in all_rows if begin - DAY < row.start_time < begin]
    ending = {row.start_time for row in rows if row.is_live or (row.kind == STOP and row.state == "pending")}
    if any(row.kind == START and row.state == "delivered" and row.start_time in ending for row in rows):
        return Room.LATER
    kept = {row.start_time for row in rows if row.kind == START and row.state == "retained"}
    found = [row for row in rows if row.kind == WITHDRAW and row.state == "retained" and row.start_time in kept]
    if not found:
        return Room.NONE
    _send_again(database, [max(found, key=lambda row: row.start_time).row_id, start.row_id], now)
    return Room.MADE


def restore(database: sqlite3.Connection, start: Delivery, now: float) -> list[RunKey]:
    """Send the runs again that were withdrawn for a start that was refused after all. Return these runs."""
    rows = _rows(database, start)
    withdrawn = _withdrawn(rows, start)
    pending = [row.row_id for row in rows if row.start_time in withdrawn and row.state == "retained"]
    _send_again(database, pending, now)
    _change(database, _RETAIN, (row for row in rows if row.start_time in withdrawn and row.kind == WITHDRAW))
    return [start.key._replace(start_time=each) for each in sorted(withdrawn)]


def undo_room(database: sqlite3.Connection, start: Delivery, now: float) -> list[RunKey]:
    """Undo what was done to make room for a start that is not sent any more. Return the runs that are sent again.

    A withdrawal that was sent may have been carried out, or may be under way right now. Its run is sent again, and it
    gets another number, so that the answer to it changes nothing.
    """
    if not _has_withdrawals(database, start):
        return []
    restored = restore(database, start, now)
    rows = [row for row in _rows(database, start) if row.start_time < start.key.start_time]
    for intention in [row for row in rows if row.kind == WITHDRAW and row.state in ("pending", "parked")]:
        (was_sent,) = database.execute(_WAS_SENT, (intention.row_id,)).fetchone()
        _change(database, _RETAIN, [intention])
        if was_sent:
            renumber(database, intention.row_id)
            of_run = [row for row in rows if row.start_time == intention.start_time and row.state == "retained"]
            _send_again(database, [row.row_id for row in of_run], now)
            restored.append(start.key._replace(start_time=intention.start_time))
    return restored


def renumber(database: sqlite3.Connection, row_id: int) -> None:
    """Give a row another number. If the row is under way, the answer finds no row and changes nothing."""
    database.execute(_NEXT_NUMBER)
    database.execute(_RENUMBER, (row_id,))


def give_up(database: sqlite3.Connection, withdrawal: Delivery) -> Delivery | None:
    """Forget a run that the destination does not remove. Return the start that waited for that, if there is one."""
    rows = _rows(database, withdrawal)
    begin = withdrawal.key.start_time
    _change(database, _FORGET, (row for row in rows if row.start_time == begin))
    waiting = [
        row for row in rows if row.kind == START and row.start_time > begin and row.state in ("pending", "parked")
    ]
    if not waiting:
        return None
    first = min(waiting, key=lambda row: row.start_time)
    return Delivery(first.row_id, withdrawal.key._replace(start_time=first.start_time), Kind.START, b"", 0, 0)


def forget_old(database: sqlite3.Connection, now: float) -> None:
    """Forget messages that were retained for a day and not withdrawn, and the oldest if there are too many bytes."""
    database.execute(_FORGET_OLD, (now - DAY,))
    database.execute(_FORGET_MUCH, (RETAINED_BYTES,))


def forget_all(database: sqlite3.Connection) -> None:
    """Let no run be withdrawn any more, except runs that may have been withdrawn already."""
    database.execute(_DROP_INTENTIONS)
    database.execute(_FORGET_ALL)


def with_withdrawals(database: sqlite3.Connection, deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Return those deliveries whose jobs have any withdrawals. Most jobs have none."""
    if not deliveries:
        return []
    jobs = [value for each in deliveries for value in each.key[:2]]
    rows = database.execute(_WITHDRAWALS.format(jobs=marks(len(deliveries), "(?, ?)")), jobs)
    found = set(rows.fetchall())
    return [each for each in deliveries if each.key[:2] in found]


def set_runs_done(database: sqlite3.Connection, stops: Iterable[Delivery]) -> None:
    """Record that all messages of these runs, whose stops were delivered, are done."""
    row_ids = [each.row_id for each in stops]
    database.execute(SET_DONE_OF.format(marks=marks(len(row_ids))), row_ids)


def _has_withdrawals(database: sqlite3.Connection, delivery: Delivery) -> bool:
    return bool(with_withdrawals(database, [delivery]))


def _rows(database: sqlite3.Connection, delivery: Delivery) -> list[_Row]:
    values = (delivery.row_id, delivery.key.cluster, delivery.key.job_id)
    return [_Row(*row) for row in database.execute(_ROWS, values)]


def _withdrawn(rows: Iterable[_Row], start: Delivery) -> set[int]:
    """Return the start times of earlier runs of its job that are withdrawn: they were withdrawn for this start."""
    earlier = (row for row in rows if row.start_time < start.key.start_time)
    return {row.start_time for row in earlier if row.kind == WITHDRAW and row.state == "delivered"}


def _send_again(database: sqlite3.Connection, row_ids: Iterable[int], now: float) -> None:
    """Make rows pending, with `now` (Unix seconds) as the time from which their age counts."""
    database.executemany(_SEND_AGAIN, [(int(now), row_id) for row_id in row_ids])


def _change(database: sqlite3.Connection, statement: str, rows: Iterable[_Row]) -> None:
    database.executemany(statement, [(row.row_id,) for row in rows])
