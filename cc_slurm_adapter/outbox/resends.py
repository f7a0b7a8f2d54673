"""Runs that an administrator sends anew: what a sink has of them is removed, and their start and stop are sent again.

In one transaction, before anything is sent, a run gets a removal, a start and, if it is over, a stop, all pending. The
order of the rows of a run (see `schema`) makes sure that the removal is sent first, then the start, then the stop. So
after a kill at any moment the work is continued from what is stored, and ends with one row at the sink:

Killed          What the next start finds               What it does
------          -------------------------               ------------
before it       the removal is pending                  removes the row
was removed
before that     the removal is pending, and was sent    removes it again: the sink finds no row, and that counts as
was recorded                                            removed, since it was sent before
before the      the start is pending, and was sent      sends it again: the sink says that it has it
start was
recorded

If the sink has not committed a row yet, it does not find it. A removal that was never sent before waits then until the
sink has certainly committed, and is tried again (`sinks/rest.py`).

If the sink refuses the new start, that is parked like every other and shown as such; the row that was there is gone. If
it refuses to remove the row, the removal is deleted, and the start finds that the run is there. If a row of the run was
under way when it was to be sent anew, its number is gone, so that the answer changes nothing.

A sink that follows is sent nothing again: nothing can be removed there. Only a message that still waits for the leading
sink is the new one.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox import parking, queries, stored_messages
from cc_slurm_adapter.outbox.database import StateDatabase
from cc_slurm_adapter.outbox.dropped_runs import note_for
from cc_slurm_adapter.outbox.text_limit import NewStart, TextLimit
from cc_slurm_adapter.outbox.withdrawals import renumber
from cc_slurm_adapter.sinks.base import Encoded, Kind

RUNS_AT_ONCE = 500
"""The most runs that are looked at together. slurmctld may print all its jobs for each such step."""
_SELECTED = """
r.cluster = :cluster AND r.stage IN ('started', 'done') AND (:job = 0 OR r.job_id = :job)
AND (r.start_time >= :since OR (r.stage = 'done' AND r.changed >= :since))
"""
"""A run that is over was changed when it ended, or after that."""
_COUNT = f"SELECT COUNT(*), COUNT(DISTINCT r.job_id) FROM run AS r WHERE {_SELECTED}"  # noqa: S608 - the text above
_RUNS = f"""
SELECT r.job_id, r.start_time, r.stage, r.note, s.state, m.texts = '', EXISTS (
    SELECT 1 FROM delivery AS e WHERE e.cluster = r.cluster AND e.job_id = r.job_id AND e.start_time = r.start_time
    AND e.kind = 'remove' AND e.sink = :sink)
FROM run AS r LEFT JOIN delivery AS s ON s.cluster = r.cluster AND s.job_id = r.job_id
AND s.start_time = r.start_time AND s.kind = 'start' AND s.sink = :sink
LEFT JOIN message AS m ON m.id = s.message
WHERE {_SELECTED} AND (r.job_id, r.start_time) > (:after_job, :after_start)
ORDER BY r.job_id, r.start_time LIMIT :limit
"""  # noqa: S608 - made of the text above
_STARTS = "SELECT start_time FROM run WHERE cluster = ? AND job_id = ?"
_STAGE = "SELECT stage, note FROM run WHERE cluster = ? AND job_id = ? AND start_time = ?"
_OTHER_START = """
SELECT 1 FROM delivery WHERE cluster = ? AND job_id = ? AND start_time != ? AND kind = 'start' AND sink = ?
AND state IN ('pending', 'parked')
"""
"""A start of another run of the job that may be accepted while this run is removed, or refused because of it."""
_ROW = """
SELECT id, state, why FROM delivery WHERE cluster = ? AND job_id = ? AND start_time = ? AND kind = ? AND sink = ?
"""
_ANSWER = """
SELECT state, reason FROM delivery WHERE cluster = ? AND job_id = ? AND start_time = ? AND kind = 'start' AND sink = ?
"""
_DELETE = "DELETE FROM delivery WHERE id = ?"
_ADD = """
INSERT INTO delivery (cluster, job_id, start_time, kind, sink, message, created) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_MAKES_ROOM = """
SELECT 1 FROM delivery WHERE cluster = ? AND job_id = ? AND start_time = ? AND kind = 'withdraw' AND sink = ?
AND state != 'retained'
"""
_SEND = """
UPDATE delivery SET state = 'pending', next_try = 0, first_sent = 0, refusals = 0, reason = '', parkings = 0,
parked_since = 0, why = '', created = ? WHERE id = ?
"""
ROW_BYTES = 32 * 1024
"""The most that a run takes in the state file beside the bytes of its messages: rows, and pages that are not full."""
UNDER_WAY = "is being sent anew already"
_NOT_NOW = {
    "pending": "its start is still to be sent: ask again when cc-backend has it",
    "following": "its start is still to be sent: ask again when it was",
    "conflict": "another run of its job is stored in its place",
    "dropped": "an administrator has dropped it",
}
"""Why a run is not sent anew, by the state of its start."""
CHANGED = "it has changed just now: ask again"
OTHER_WAITS = "the start of another run of its job is still to be sent: ask again when cc-backend has it"


class Wanted(NamedTuple):
    """Which runs an administrator means: those of a job, and those that began or ended since a time, or both."""

    job_id: int = 0
    """0 means every job."""
    since: int = 0
    """Unix seconds."""

    def __str__(self) -> str:
        words = [f"job {self.job_id}"] if self.job_id else []
        return ", ".join([*words, *([f"since {self.since}"] if self.since else [])])


class KnownRun(NamedTuple):
    """A run that has begun, as the state file knows it."""

    key: RunKey
    is_over: bool
    start_state: str
    """The state of its start; '' if nothing is left of that."""
    why_not: str
    """Why it cannot be sent anew now; '' if it can."""
    is_bare: bool = False
    """Whether its start has neither job script nor slurmInfo. It is False if nothing is left of that."""


class Again(NamedTuple):
    """A run that is to be sent anew."""

    key: RunKey
    removal: Encoded
    start: Encoded
    stop: Encoded | None
    """None while it runs."""

    @property
    def size(self) -> int:
        """The most bytes that it takes in the state file."""
        return ROW_BYTES + self.removal.size + self.start.size + (self.stop.size if self.stop else 0)


class Resends:
    """The runs that may be sent anew to a sink. The main thread uses it. Raises StateError."""

    def __init__(self, state: StateDatabase, texts: TextLimit) -> None:
        self._state = state
        self._texts = texts

    def runs(self, sink: str, cluster: str, wanted: Wanted, after: tuple[int, int] = (0, 0)) -> list[KnownRun]:
        """Return the next runs after a job id and start time, one more than RUNS_AT_ONCE at most."""
        values = {"sink": sink, "after_job": after[0], "after_start": after[1], "limit": RUNS_AT_ONCE + 1}
        with self._state.reading() as database:
            rows = database.execute(_RUNS, {**values, **_values(cluster, wanted)}).fetchall()
        return [
            KnownRun(
                RunKey(cluster, job_id, start),
                stage == "done",
                state or "",
                _why_not(sink, note, state, has_removal=bool(removal)),
                bool(is_bare),
            )
            for job_id, start, stage, note, state, is_bare, removal in rows
        ]

    def starts_of(self, cluster: str, job_ids: Iterable[int]) -> list[RunKey]:
        """Return all runs of these jobs that are known, in whatever stage."""
        with self._state.reading() as database:
            found = [(job, start) for job in job_ids for (start,) in database.execute(_STARTS, (cluster, job))]
        return [RunKey(cluster, *each) for each in found]

    def answers(self, sink: str, keys: Iterable[RunKey]) -> tuple[list[RunKey], dict[RunKey, str]]:
        """Return which of these starts have no answer yet, and which are refused, with the reason."""
        with self._state.reading() as database:
            rows = {key: database.execute(_ANSWER, (*key, sink)).fetchone() or ("", "") for key in keys}
        waiting = [key for key, (state, _) in rows.items() if state == "pending"]
        return waiting, {key: reason for key, (state, reason) in rows.items() if state in ("parked", "conflict")}

    def kept(self, sink: str, keys: Iterable[RunKey]) -> list[RunKey]:
        """Return which of these runs the sink has not removed: it had them when their starts came."""
        with self._state.reading() as database:
            rows = {key: database.execute(_ANSWER, (*key, sink)).fetchone() or ("", "") for key in keys}
        return [key for key, (state, reason) in rows.items() if reason and state in ("delivered", "retained", "done")]

    def send(self, sink: str, runs: Sequence[Again]) -> dict[RunKey, str]:
        """Send these runs anew, as one durable transaction. Return why that was not done for some of them.

        Nothing is done while the state file cannot be written: a crash would undo the intention. Nor is it while there
        is no room for texts: cc-backend would lose those that it has.
        """
        refused: dict[RunKey, str] = {}
        starts: list[NewStart] = []
        reasons: set[tuple[str, str]] = set()
        now = time.time()
        with self._state.writing(durable=True) as database:
            if not self._state.is_durable:
                raise StateError(
                    "the state file cannot be written now, nothing is sent anew: make room, then ask again"
                )
            if not self._texts.has_room(database, sum(run.size for run in runs)):
                raise StateError(
                    "the state file has stateMaxBytes, without room for more job scripts: nothing is sent anew; see"
                    " what keeps messages from being delivered, then ask again"
                )
            for run in runs:
                why_not = _why_not_now(database, sink, run)
                if why_not:
                    refused[run.key] = why_not
                else:
                    starts += _send(database, sink, run, int(now), reasons)
            self._texts.store(database, starts)
            parking.see_that_there_are_probes(database, reasons, now)
        return refused


def count(database: sqlite3.Connection, cluster: str, wanted: Wanted) -> tuple[int, int]:
    """Return how many runs, and of how many jobs, are meant."""
    runs, jobs = database.execute(_COUNT, _values(cluster, wanted)).fetchone()
    return int(runs), int(jobs)


def _values(cluster: str, wanted: Wanted) -> dict[str, object]:
    return {"cluster": cluster, "job": wanted.job_id, "since": wanted.since}


def _why_not(sink: str, note: str, state: str | None, *, has_removal: bool) -> str:
    if has_removal:
        return UNDER_WAY
    return _NOT_NOW["dropped"] if note_for(sink) in note else _NOT_NOW.get(state or "", "")


def _why_not_now(database: sqlite3.Connection, sink: str, run: Again) -> str:
    """Return why a run cannot be sent anew in this moment: it may have changed since it was read."""
    if database.execute(_ROW, (*run.key, Kind.REMOVE.value, sink)).fetchone():
        return UNDER_WAY
    if database.execute(_MAKES_ROOM, (*run.key, sink)).fetchone():
        return "it makes room for a later run of its job"
    if database.execute(_OTHER_START, (*run.key, sink)).fetchone():
        return OTHER_WAITS
    stage, note = database.execute(_STAGE, run.key).fetchone() or ("", "")
    start = database.execute(_ROW, (*run.key, Kind.START.value, sink)).fetchone()
    why_not = _why_not(sink, note, start[1] if start else None, has_removal=False)
    if why_not:
        return why_not
    is_running = stage == "started" and start is not None
    is_over = stage == "done" and (run.stop is not None or _waiting_stop(database, sink, run.key) is not None)
    return "" if is_running or is_over else CHANGED


def _send(
    database: sqlite3.Connection, sink: str, run: Again, now: int, reasons: set[tuple[str, str]]
) -> list[NewStart]:
    """Make all messages of a run pending, in place of those that there are. Return the start if it has texts."""
    start = database.execute(_ROW, (*run.key, Kind.START.value, sink)).fetchone()
    stop = _waiting_stop(database, sink, run.key)
    if start and start[1] == "parked":
        reasons.add((sink, start[2]))
    _add(database, sink, run.key, Kind.REMOVE, run.removal, now)
    number = _replace(database, sink, run.key, Kind.START, run.start, now, start)
    if stop is not None:
        database.execute(_SEND, (now, stop[0]))
        renumber(database, stop[0])
        if stop[1] == "parked":
            reasons.add((sink, stop[2]))
    elif run.stop is not None and database.execute(_STAGE, run.key).fetchone()[0] == "done":
        before = database.execute(_ROW, (*run.key, Kind.STOP.value, sink)).fetchone()
        _replace(database, sink, run.key, Kind.STOP, run.stop, now, before)
    return [NewStart(number, run.key, run.start.texts)] if run.start.texts else []


def _waiting_stop(database: sqlite3.Connection, sink: str, key: RunKey) -> tuple[int, str, str] | None:
    """Return the row of a run's stop if it is still to be delivered."""
    found: tuple[int, str, str] | None = database.execute(_ROW, (*key, Kind.STOP.value, sink)).fetchone()
    return found if found is not None and found[1] in ("pending", "parked") else None


def _replace(  # noqa: PLR0913 - what a row is, and the one before
    database: sqlite3.Connection,
    sink: str,
    key: RunKey,
    kind: Kind,
    body: Encoded,
    now: int,
    before: tuple[int, str, str] | None,
) -> int:
    """Put a row with another message in the place of one. Return the number of the message."""
    if before is not None:
        database.execute(_DELETE, before[:1])
    return _add(database, sink, key, kind, body, now)


def _add(  # noqa: PLR0913 - what a row is
    database: sqlite3.Connection, sink: str, key: RunKey, kind: Kind, body: Encoded, now: int
) -> int:
    """Add a pending row. A sink that follows may have a row with the same message, which then is the new one, too."""
    place = (*key, kind.value)
    known = database.execute(queries.MESSAGE_OF, place).fetchone()
    number: int = known[0] if known else stored_messages.add(database, body)
    if known:
        stored_messages.replace(database, number, body)
    database.execute(_ADD, (*place, sink, number, now))
    return number
