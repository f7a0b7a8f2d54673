"""What the state file has about jobs, as frozen values: runs, and messages with what became of them.

`-queue` lists messages, and shows those of one job; `-job` explains that job. Both read the same rows.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cc_slurm_adapter.outbox.schema import AFTER_PROBE
from cc_slurm_adapter.sinks.base import REMOVALS, Kind, label_of
from cc_slurm_adapter.system.quantities import full_moment

MOST_RUNS, MOST_ROWS = 50, 200
"""Of one job, the latest ones."""
PAYLOAD_BYTES, ALL_PAYLOADS = 256 * 1024, 2 * 1024 * 1024
"""A message with more bytes is left out, and so are others when those that are shown have so many."""
NEVER, AFTER_START, AFTER_REMOVAL, AFTER_LEADING = "never", "after its start", "after its removal", "after cc-backend"
AFTER_THE_PROBE, NOW = "after the probe", "now"
REMOVAL_KINDS = {kind.value for kind in REMOVALS}
FIELDS = """
d.id, d.sink, d.cluster, d.job_id, d.start_time, d.kind, d.state, d.created, d.first_sent, d.refusals, d.parkings,
d.parked_since, d.reason, d.why, d.cuts, COALESCE(LENGTH(m.payload), 0), (
    SELECT COALESCE(SUM(LENGTH(t.body)), 0) FROM text_use AS u JOIN text AS t ON t.hash = u.hash
    WHERE u.message = d.message),
d.next_try, (
    SELECT MAX(s.kind) FROM delivery AS s WHERE s.sink = d.sink AND s.cluster = d.cluster AND s.job_id = d.job_id
    AND s.start_time = d.start_time AND s.kind < d.kind AND s.kind IN ('remove', 'start')
    AND s.state NOT IN ('delivered', 'retained', 'done'))
"""
"""What `row_of` needs of a delivery `d` and its message `m`."""
SOURCE = "FROM delivery AS d LEFT JOIN message AS m ON m.id = d.message"
_CLUSTERS = """
WITH RECURSIVE known (cluster) AS (
    SELECT MIN(cluster) FROM {table} UNION ALL
    SELECT (SELECT MIN(cluster) FROM {table} WHERE cluster > known.cluster) FROM known WHERE cluster IS NOT NULL)
"""
"""The clusters in a table whose index begins with them: that reads a row for each, not the whole table."""
_RUNS = f"""
{_CLUSTERS.format(table="run")}
SELECT cluster, start_time, stage, hosts, changed, note FROM run
WHERE cluster IN (SELECT cluster FROM known) AND job_id = ? ORDER BY start_time DESC LIMIT ?
"""  # noqa: S608 - made of the text above
_ROWS = f"""
{_CLUSTERS.format(table="delivery")}
SELECT {FIELDS} {SOURCE} WHERE d.cluster IN (SELECT cluster FROM known) AND d.job_id = ?
ORDER BY d.start_time DESC, d.kind, d.sink LIMIT ?
"""  # noqa: S608 - made of the texts above
_PAYLOAD = "SELECT m.payload FROM delivery AS d JOIN message AS m ON m.id = d.message WHERE d.id = ?"
_CHECKPOINTS = "SELECT cluster, seen_until FROM checkpoint WHERE cluster != ''"


class RunRow(NamedTuple):
    """A run in the state file. Times are Unix seconds."""

    cluster: str
    start_time: int
    stage: str
    """`preparing`, `started`, `ignored` or `done`, as in `schema`."""
    hosts: str
    """Its nodes, separated by commas, while it holds them."""
    changed: int
    """When its stage was set, or its stop was delivered, or Slurm was found to have lost it."""
    note: str
    """What is exceptional about it, see `jobs/notes.py`."""


class MessageRow(NamedTuple):
    """A message for a sink and what became of it. Times are Unix seconds, 0 for none."""

    id: int
    sink: str
    cluster: str
    job_id: int
    start_time: int
    kind: str
    """`start`, `stop`, or what removes the run: `withdraw` or `remove`."""
    state: str
    """A `RowState`."""
    created: int
    """When it became pending, or became so again."""
    first_sent: float
    refusals: int
    parkings: int
    parked_since: float
    """When it was first refused; 0 if it is not parked."""
    reason: str
    """Why it was not accepted the last time, in full."""
    why: str
    """By what it was parked: the reason without what differs from job to job."""
    cuts: int
    """How many of its texts are left out for the sink, because it was too large."""
    message_bytes: int
    """Of its message without the texts."""
    text_bytes: int
    """Of the texts that are stored for its message."""
    next_try: float | None
    """When it is sent, 0 for now; None if that is at no time that is known, and `next` says why."""
    next: str
    """When it is sent, in words: a time, or what it waits for; '' if it is delivered."""
    message: dict[str, Any] | None = None
    """What it contains without the texts; None in a list, and if it is too large or was deleted."""
    delivered: float = 0
    """When a start was delivered, as long as its stop is not."""

    @property
    def what(self) -> str:
        """The kind for people: `start`, `stop` or `removal`."""
        return "removal" if self.kind in REMOVAL_KINDS else self.kind

    @property
    def to(self) -> str:
        """The sink for people."""
        return label_of(self.sink)


class JobRows(NamedTuple):
    """All that the state file has about a job, the latest run first."""

    runs: tuple[RunRow, ...]
    rows: tuple[MessageRow, ...]
    checkpoints: dict[str, int]
    """By cluster: the Unix time up to which accounting was read."""


def row_of(values: Sequence[Any], now: float) -> MessageRow:
    """Return a row from its FIELDS, as it is at a Unix time."""
    *before, next_try, waits_for = values
    row = MessageRow._make([*before, None, "", None, 0.0])
    if row.state == "delivered":
        return row._replace(delivered=next_try)
    word = _what_it_waits_for(row.state, next_try, waits_for)
    if word is not None:
        return row._replace(next=word)
    return row._replace(next_try=max(next_try, 0), next=NOW if next_try <= now else full_moment(next_try))


def _what_it_waits_for(state: str, next_try: float, kind: str | None) -> str | None:
    """Return what a row waits for; '' if for nothing, None if it is sent at a time.

    `kind` is that of the row of its own run that is sent before it, if there is one.
    """
    if state == "conflict":
        return NEVER
    if state == "following":
        return AFTER_LEADING
    if state not in ("pending", "parked"):
        return ""
    if kind is not None:
        return AFTER_START if kind == Kind.START.value else AFTER_REMOVAL
    return AFTER_THE_PROBE if next_try >= AFTER_PROBE else None


def read_job(database: sqlite3.Connection, job_id: int) -> JobRows:
    """Read the latest runs and rows of a job, in whatever cluster. It reads little. Raises sqlite3.Error."""
    now = time.time()
    runs = tuple(RunRow(*row) for row in database.execute(_RUNS, (job_id, MOST_RUNS)))
    rows = [row_of(row, now) for row in database.execute(_ROWS, (job_id, MOST_ROWS))]
    return JobRows(runs, tuple(_with_messages(database, rows)), dict(database.execute(_CHECKPOINTS)))


def _with_messages(database: sqlite3.Connection, rows: list[MessageRow]) -> Iterator[MessageRow]:
    room = ALL_PAYLOADS
    for row in rows:
        if 0 < row.message_bytes <= min(PAYLOAD_BYTES, room):
            room -= row.message_bytes
            found = database.execute(_PAYLOAD, (row.id,)).fetchone()
            yield row._replace(message=_parsed(found[0]) if found else None)
        else:
            yield row


def _parsed(payload: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
