"""Assigns messages to other sinks when the configuration no longer names those that they were written for.

The messages are the same for all sinks. Messages that are pending for the former leading sink are sent to the new one,
which may receive some of them twice. Messages that are pending for a sink that followed were accepted by the former
leading sink.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping

from cc_slurm_adapter.sinks.base import CC_NATS, CC_REST, label_of
from cc_slurm_adapter.system.quantities import counted

log = logging.getLogger(__name__)

RANK = (CC_REST, CC_NATS)
USED_SINKS = "SELECT sink FROM used_sink"
_SINKS_OF_ROWS = "SELECT sink FROM delivery GROUP BY sink"
_COLUMNS = (
    "cluster, job_id, start_time, kind, message, created, refusals, first_sent, next_try, state, reason, cuts,"
    " parkings, parked_since, why"
)
"""All columns of a delivery except the number of the row and its sink."""
_SEND_AGAIN = """
UPDATE delivery SET state = 'pending', next_try = 0, first_sent = 0
WHERE sink = ? AND state = 'delivered' AND (cluster, job_id, start_time, kind) IN
(SELECT cluster, job_id, start_time, kind FROM delivery WHERE sink = ? AND state IN ('pending', 'parked'))
"""
"""A message that is sent again to one sink, after it was delivered once, is sent again to the other sink, too."""
_SEND_WITHDRAWN = """
UPDATE delivery SET state = 'pending', next_try = 0, first_sent = 0
WHERE sink = ? AND state = 'retained' AND kind != 'withdraw' AND (cluster, job_id, start_time) IN (
    SELECT cluster, job_id, start_time FROM delivery AS w WHERE w.sink = delivery.sink AND w.kind = 'withdraw'
    AND (w.state = 'delivered' OR w.first_sent > 0))
"""
"""Messages that may have been withdrawn from the former leading sink are sent again."""
_FORGET_RETAINED = "DELETE FROM delivery WHERE sink = ? AND (state = 'retained' OR kind IN ('withdraw', 'remove'))"
_MOVE = "UPDATE OR IGNORE delivery SET sink = ? WHERE sink = ?"
"""The rows keep their numbers, and so their order."""
_COPY = f"""
INSERT OR IGNORE INTO delivery (sink, {_COLUMNS}) SELECT ?, {_COLUMNS} FROM delivery WHERE sink = ? ORDER BY id
"""  # noqa: S608 - made of the columns' names


def use_sinks(database: sqlite3.Connection, sinks: Mapping[str, str]) -> None:
    """Assign the messages to the sinks in use, and record these. Each is given with the sink that it follows, or ''."""
    database.execute("DELETE FROM delivery WHERE state = 'done'")
    before = {sink for query in (USED_SINKS, _SINKS_OF_ROWS) for (sink,) in database.execute(query)}
    leading = next(iter(sinks))
    has_led = next((sink for sink in RANK if sink in before), leading)
    if has_led != leading:
        for statement in (_SEND_WITHDRAWN, _FORGET_RETAINED):  # the sink that leads now removes nothing
            database.execute(statement, (has_led,))
        database.execute(_SEND_AGAIN, (leading, has_led))
        database.execute(_COPY if has_led in sinks else _MOVE, (leading, has_led))
    for sink in before - set(sinks):
        gone = database.execute("DELETE FROM delivery WHERE sink = ?", (sink,)).rowcount
        what = f"{counted(gone, 'message')} that followed dropped"
        if sink == has_led:
            what = f"what waited goes to {label_of(leading)}"
        log.warning("jobs are not reported to %s any more: %s", label_of(sink), what)
    database.execute("UPDATE delivery SET state = 'pending' WHERE sink = ? AND state = 'following'", (leading,))
    database.execute("DELETE FROM used_sink")
    database.executemany("INSERT INTO used_sink VALUES (?)", [(sink,) for sink in sinks])
