"""Messages that a destination has refused: when they are tried again, and when they are given up.

Refused messages are counted by their reason. One message of each reason, the probe, is tried again after an hour, two
hours and so on, a day at most. If it is refused again, another message of the reason is the next probe, so that each
gets its turn. If it is accepted, all the others are sent, too.

Only a probe has a time as its `next_try`. The other refused messages, and the stops of parked starts, have AFTER_PROBE
there, a time that never comes: they wait until the probe, or their own start, was accepted. So the probe of a reason is
the row whose `next_try` is less than AFTER_PROBE.

All functions are steps of one transaction of the outbox.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox.report import Parked
from cc_slurm_adapter.outbox.schema import AFTER_PROBE, PENDING
from cc_slurm_adapter.sinks.base import Delivery
from cc_slurm_adapter.system.outages import kind_of

FIRST_RETRY, LONGEST_RETRY = 3600.0, 86400.0
"""Seconds until a probe is tried again: the first wait, doubled with each refusal, and the longest wait."""
MAX_AGE = 30 * 86400
"""Seconds after which a parked message is given up, if the configuration does not say otherwise."""
TOO_LONG = "not delivered for too long"
_PARKED_SINCE = "parked_since = CASE parked_since WHEN 0 THEN :now ELSE parked_since END"
_PARK = f"""
UPDATE delivery SET state = 'parked', next_try = :next_try, reason = :reason, why = :why, parkings = parkings + 1,
{_PARKED_SINCE} WHERE id = :id
"""
"""For a probe that is refused again, `parked_since` stays the time of the first refusal."""
_DELAY_STOP_OF = """
UPDATE delivery SET next_try = ?
WHERE cluster = ? AND job_id = ? AND start_time = ? AND kind = 'stop' AND state = 'pending'
AND sink = (SELECT sink FROM delivery WHERE id = ? AND kind = 'start')
"""
_DELAY_STOP_OF_PARKED = f"""
UPDATE delivery SET next_try = {AFTER_PROBE}
WHERE cluster = ? AND job_id = ? AND start_time = ? AND kind = 'stop' AND state = 'pending' AND EXISTS (
    SELECT 1 FROM delivery AS s WHERE s.sink = delivery.sink AND s.cluster = delivery.cluster
    AND s.job_id = delivery.job_id AND s.start_time = delivery.start_time AND s.kind = 'start' AND s.state = 'parked')
"""
"""AFTER_PROBE makes the stop of a run whose start is parked wait until the start is delivered or given up."""
_BEFORE = "SELECT sink, parkings, why FROM delivery WHERE id = ?"
_HAS_PROBE = (
    "SELECT 1 FROM sendable WHERE state = 'parked' AND sink = ? AND why = ? AND id != ?"
    f" AND next_try < {AFTER_PROBE} LIMIT 1"
)
"""Whether another row is the probe of a reason. Its `next_try` is a time, not AFTER_PROBE; and by the view `sendable`
it does not wait for a row of its run."""
_NEXT_PROBE = "SELECT id FROM sendable WHERE state = 'parked' AND sink = ? AND why = ? ORDER BY id <= ?, id LIMIT 1"
"""The first row of a reason after a given row, or else the first of all its rows."""
_MAKE_PROBE = "UPDATE delivery SET next_try = ?, parkings = ? WHERE id = ?"
_RELEASE = "UPDATE delivery SET next_try = ? WHERE state = 'parked' AND sink = ? AND why = ?"
"""All rows of a reason get a time in place of AFTER_PROBE, so that they are sent."""
_REASONS = "SELECT sink, why, COUNT(*), MIN(id) FROM delivery WHERE state = 'parked' GROUP BY sink, why"
_NAMED = "SELECT cluster, job_id, start_time, reason FROM delivery WHERE id = ?"
_PARK_OLD = f"""
UPDATE delivery INDEXED BY delivery_next SET state = 'parked', next_try = {AFTER_PROBE}, reason = '{TOO_LONG}',
why = '{TOO_LONG}', parkings = MAX(parkings, 1), {_PARKED_SINCE} WHERE {PENDING} AND created < :before
"""
"""Messages that could not be sent for too long are parked, although they were not refused. AFTER_PROBE makes them wait
for a probe, which is chosen afterwards."""
_LOST_STOPS = f"""
UPDATE delivery INDEXED BY delivery_next SET next_try = 0 WHERE {PENDING} AND next_try >= {AFTER_PROBE} AND NOT EXISTS (
    SELECT 1 FROM delivery AS s WHERE s.sink = delivery.sink AND s.cluster = delivery.cluster
    AND s.job_id = delivery.job_id AND s.start_time = delivery.start_time AND s.kind = 'start' AND s.state = 'parked')
"""
"""Stops with AFTER_PROBE wait for a parked start. If there is no such start any more, they are due."""
_TOO_OLD = """
SELECT m.id, m.sink, m.cluster, m.job_id, m.start_time, m.reason, m.why FROM delivery AS m
WHERE m.state = 'parked' AND m.parked_since < ? AND NOT EXISTS (
    SELECT 1 FROM run AS r WHERE r.cluster = m.cluster AND r.job_id = m.job_id AND r.start_time = m.start_time
    AND r.stage != 'done')
ORDER BY m.id
"""
"""Messages that have been parked since before a Unix time, except those of open runs."""
_GIVE_UP = "DELETE FROM delivery WHERE sink = ? AND cluster = ? AND job_id = ? AND start_time = ?"


class Tidied(NamedTuple):
    """What happened to messages that are too old."""

    parked: int
    """How many messages were parked because they could not be delivered for too long."""
    given_up: list[Parked]


def park(database: sqlite3.Connection, delivery: Delivery, reason: str, now: float) -> None:
    """Park a message that was refused: it waits for the probe of its reason, or becomes the probe.

    AFTER_PROBE is its `next_try` while it waits, and also that of the stop if it is a start. If a probe is refused for
    another reason than before, the former reason gets another probe.
    """
    row = database.execute(_BEFORE, (delivery.row_id,)).fetchone()
    if row is None:
        return  # it was given up while it was under way
    sink, parkings, why_before = row
    why = kind_of(reason)
    values = {"id": delivery.row_id, "next_try": AFTER_PROBE, "reason": reason[:500], "why": why, "now": now}
    database.execute(_PARK, values)
    database.execute(_DELAY_STOP_OF, (AFTER_PROBE, *delivery.key, delivery.row_id))
    if database.execute(_HAS_PROBE, (sink, why, delivery.row_id)).fetchone() is None:
        _choose_probe(database, sink, why, now, parkings + 1, delivery.row_id)
    if parkings and why_before != why and not database.execute(_HAS_PROBE, (sink, why_before, 0)).fetchone():
        _choose_probe(database, sink, why_before, now, parkings, delivery.row_id)


def delay_stops(database: sqlite3.Connection, keys: Iterable[RunKey]) -> None:
    """Let the stops of these runs, which were just added, wait with their starts if those are parked."""
    database.executemany(_DELAY_STOP_OF_PARKED, keys)


def _choose_probe(  # noqa: PLR0913 - what names a reason, and from where on
    database: sqlite3.Connection, sink: str, why: str, now: float, refusals: int, after: int
) -> None:
    """Make the next row of the reason after a given row the probe. The more refusals, the later it is tried again."""
    row = database.execute(_NEXT_PROBE, (sink, why, after)).fetchone()
    if row is not None:
        wait = min(FIRST_RETRY * 2 ** min(refusals - 1, 10), LONGEST_RETRY)
        database.execute(_MAKE_PROBE, (now + wait, refusals, *row))


def accepted(database: sqlite3.Connection, delivery: Delivery, now: float) -> None:
    """Release all messages of a reason if this was its probe. Another parked message that is accepted releases none."""
    row = database.execute("SELECT sink, why FROM delivery WHERE id = ?", (delivery.row_id,)).fetchone()
    if row is None:
        return  # it was given up while it was under way
    sink, why = row
    if database.execute(_HAS_PROBE, (sink, why, delivery.row_id)).fetchone() is None:
        database.execute(_RELEASE, (now, sink, why))


def make_probes_due(database: sqlite3.Connection) -> int:
    """Let one message of each reason be tried now. Return how many messages are parked."""
    reasons = database.execute(_REASONS).fetchall()
    see_that_there_are_probes(database, [reason[:2] for reason in reasons], 0)
    database.execute(
        f"UPDATE delivery SET next_try = 0, parkings = 1 WHERE state = 'parked' AND next_try < {AFTER_PROBE}"
    )
    return sum(reason[2] for reason in reasons)


def see_that_there_are_probes(database: sqlite3.Connection, reasons: Iterable[tuple[str, str]], now: float) -> None:
    """Choose a probe for each reason (sink, why) that has none.

    Its probe may be deleted, or may wait for another row of its run.
    """
    for sink, why in reasons:
        if database.execute(_HAS_PROBE, (sink, why, 0)).fetchone() is None:
            _choose_probe(database, sink, why, now, 1, 0)


def parked_by_reason(database: sqlite3.Connection) -> list[Parked]:
    """Return all reasons for which messages are parked, the one with most messages first."""
    found = [
        _parked(sink, count, database.execute(_NAMED, (first,)).fetchone())
        for sink, _, count, first in database.execute(_REASONS).fetchall()
    ]
    return sorted(found, key=lambda parked: -parked.messages)


def _parked(sink: str, count: int, named: tuple[str, int, int, str]) -> Parked:
    return Parked(sink, count, RunKey(*named[:3]), named[3])


def tidy(database: sqlite3.Connection, now: float, pending_before: float, parked_before: float) -> Tidied:
    """Park what has been pending for too long, and give up what has been parked for too long.

    That is since before `pending_before` or `parked_before` (Unix times). With a message all others of its run are
    given up, but not while the run is open. Afterwards every reason has a probe.
    """
    parked = database.execute(_PARK_OLD, {"now": now, "before": pending_before}).rowcount
    given_up = _give_up(database, database.execute(_TOO_OLD, (parked_before,)).fetchall())
    database.execute(_LOST_STOPS)
    see_that_there_are_probes(database, [row[:2] for row in database.execute(_REASONS).fetchall()], now)
    return Tidied(parked, given_up)


def _give_up(database: sqlite3.Connection, rows: Iterable[tuple[int, str, str, int, int, str, str]]) -> list[Parked]:
    reasons: dict[tuple[str, str], Parked] = {}
    for _, sink, cluster, job_id, start_time, reason, why in rows:
        key = RunKey(cluster, job_id, start_time)
        known = reasons.get((sink, why), Parked(sink, 0, key, reason))
        reasons[sink, why] = known._replace(messages=known.messages + 1)
        database.execute(_GIVE_UP, (sink, *key))
    return list(reasons.values())
