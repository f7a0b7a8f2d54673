"""Runs that an administrator has dropped for a sink: nothing of them is sent to it any more.

All rows of the run for the sink are deleted. But while the run is open, its stop is still to come, and must not be sent
without its start. So the start stays in the state `dropped` until the run ends. What is added then is deleted in the
same transaction, for the sinks that have such a start and for their followers.

When the run is over, no rows are left of it. If the destination has the run nevertheless, because the start was under
way when it was dropped, it lists the run as running, and the next comparison sends the stop.

The note of the run says for which sink it was dropped, as long as the run is known: of what was delivered no rows are
left either.

All functions are steps of one transaction of the outbox.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox.schema import DROPPED_REASON
from cc_slurm_adapter.outbox.selection import STATES
from cc_slurm_adapter.outbox.withdrawals import renumber, undo_room
from cc_slurm_adapter.sinks.base import Delivery, Kind, label_of

NOTE = f"{DROPPED_REASON} for "
"""Followed by the sink for people. It is in the note of the run, after what that had before."""
_ADD_NOTE = """
UPDATE run SET note = CASE note WHEN '' THEN ? ELSE note || '; ' || ? END
WHERE cluster = ? AND job_id = ? AND start_time = ? AND INSTR(note, ?) = 0
"""
_DROPPED_SINKS = """
SELECT sink FROM delivery WHERE cluster = ? AND job_id = ? AND start_time = ? AND kind = 'start' AND state = 'dropped'
"""
FORGET_DROPPED = """
DELETE FROM delivery WHERE state = 'dropped' AND NOT EXISTS (
    SELECT 1 FROM run AS r WHERE r.cluster = delivery.cluster AND r.job_id = delivery.job_id
    AND r.start_time = delivery.start_time AND r.stage != 'done')
"""
"""For runs that were forgotten without an end, as those of another cluster."""
_IS_OPEN = "SELECT 1 FROM run WHERE cluster = ? AND job_id = ? AND start_time = ? AND stage != 'done'"
_DELETE_ALL = "DELETE FROM delivery WHERE cluster = ? AND job_id = ? AND start_time = ? AND sink = ?"
_DELETE = "DELETE FROM delivery WHERE id = ?"
_MARK = f"""
UPDATE delivery SET state = 'dropped', reason = '{DROPPED_REASON}', next_try = 0, first_sent = 0,
refusals = 0, cuts = 0, parkings = 0, parked_since = 0, why = '' WHERE id = ?
"""  # noqa: S608 - made of a constant
_UNNEEDED = """
SELECT message FROM delivery WHERE cluster = ? AND job_id = ? AND start_time = ? AND kind = 'start'
GROUP BY message HAVING MIN(state = 'dropped')
"""
"""The message of a start, if it is dropped for all its sinks."""
_EMPTY = (
    "DELETE FROM text_use WHERE message = ?",
    "INSERT OR IGNORE INTO message (id, payload) VALUES (?, x'')",
    "UPDATE message SET payload = x'', texts_at = 0, texts = '' WHERE id = ?",
)
"""A dropped start is never sent, and its message has names. While the state is in memory the message may be missing:
then it is added, since a row without a message does not return to the file."""


class Row(NamedTuple):
    """A row of a run, for one sink."""

    row_id: int
    sink: str
    kind: str
    state: str
    why: str
    is_selected: int = 0
    """Whether it is one that the administrator means: 0 or 1."""

    @property
    def waits(self) -> bool:
        """Whether it is a message that is not delivered."""
        return self.state in STATES


def note_for(sink: str) -> str:
    """Return what the note of a run says that was dropped for a sink."""
    return NOTE + label_of(sink)


def drop(database: sqlite3.Connection, key: RunKey, sink: str, rows: Sequence[Row], now: float) -> list[RunKey]:
    """Drop a run for a sink. `rows` are all rows that the run has for this sink.

    Returns the earlier runs of the job that are sent again, since they need not make room any more.
    """
    waiting = [row for row in rows if row.waits]
    starts = [row for row in waiting if row.kind == Kind.START.value]
    if any(row.kind != Kind.WITHDRAW.value for row in waiting):
        _note(database, key, sink)
    restored: list[RunKey] = []
    for row in starts:
        restored += undo_room(database, Delivery(row.row_id, key, Kind.START, b"", 0, 0), now)
    if database.execute(_IS_OPEN, key).fetchone() is None:
        database.execute(_DELETE_ALL, (*key, sink))
        return restored
    database.executemany(_DELETE, [(row.row_id,) for row in waiting if row not in starts])
    for row in starts:
        database.execute(_MARK, (row.row_id,))
        renumber(database, row.row_id)
    for unneeded in database.execute(_UNNEEDED, key).fetchall():
        for statement in _EMPTY:
            database.execute(statement, unneeded)
    return restored


def forget_ended(database: sqlite3.Connection, keys: Iterable[RunKey], leaders: Mapping[str, str]) -> None:
    """Forget the dropped ones of these runs, with the stops that were just added, for the sinks that get nothing.

    `leaders` has each sink that follows, with the sink that it follows: it gets only what that one has.
    """
    for key in keys:
        sinks = {sink for (sink,) in database.execute(_DROPPED_SINKS, key)}
        sinks |= {follower for follower, leader in leaders.items() if leader in sinks}
        for sink in sorted(sinks):
            database.execute(_DELETE_ALL, (*key, sink))
            _note(database, key, sink)


def _note(database: sqlite3.Connection, key: RunKey, sink: str) -> None:
    note = note_for(sink)
    database.execute(_ADD_NOTE, (note, note, *key, note))
