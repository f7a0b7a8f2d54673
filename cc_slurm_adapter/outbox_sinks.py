"""What becomes of messages when the configuration names other sinks than those that they were written for.

The messages are the same for all sinks. What the sink that led is still owed goes to the one that leads now, which may
so be told something twice. What a sink that followed is owed has been taken by the one that it followed.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping

from cc_slurm_adapter.sinks import CC_NATS, CC_REST

log = logging.getLogger(__name__)

RANK = (CC_REST, CC_NATS)
USED_SINKS = "SELECT sink FROM used_sink"
_SINKS_OF_ROWS = "SELECT sink FROM message GROUP BY sink"
_COLUMNS = "cluster, job_id, start_time, kind, payload, created, refusals, first_sent, next_try, outcome, reason"
_OWE_AGAIN = """
UPDATE message SET outcome = 'owed', next_try = 0, first_sent = 0
WHERE sink = ? AND outcome = 'delivered' AND (cluster, job_id, start_time, kind) IN
(SELECT cluster, job_id, start_time, kind FROM message WHERE sink = ? AND outcome IN ('owed', 'parked'))
"""
"""What is owed again, after it was taken once, is owed to the other one too."""
_OWE_WITHDRAWN = """
UPDATE message SET outcome = 'owed', next_try = 0, first_sent = 0
WHERE sink = ? AND outcome = 'kept' AND kind != 'withdraw' AND (cluster, job_id, start_time) IN (
    SELECT cluster, job_id, start_time FROM message AS w WHERE w.sink = message.sink AND w.kind = 'withdraw'
    AND (w.outcome = 'delivered' OR w.first_sent > 0))
"""
"""What may have been withdrawn from the sink that led is owed again."""
_FORGET_KEPT = "DELETE FROM message WHERE sink = ? AND (outcome = 'kept' OR kind = 'withdraw')"
_MOVE = "UPDATE OR IGNORE message SET sink = ? WHERE sink = ?"
"""The rows keep their numbers, and so their order."""
_COPY = f"""
INSERT OR IGNORE INTO message (sink, {_COLUMNS}) SELECT ?, {_COLUMNS} FROM message WHERE sink = ? ORDER BY id
"""  # noqa: S608 - made of the columns' names


def use_sinks(database: sqlite3.Connection, sinks: Mapping[str, str]) -> None:
    """Bring the messages to the sinks in use, each given with the one that it follows or '', and note these sinks."""
    before = {sink for question in (USED_SINKS, _SINKS_OF_ROWS) for (sink,) in database.execute(question)}
    leading = next(iter(sinks))
    has_led = next((sink for sink in RANK if sink in before), leading)
    if has_led != leading:
        for statement in (_OWE_WITHDRAWN, _FORGET_KEPT):  # whoever leads now withdraws nothing of it
            database.execute(statement, (has_led,))
        database.execute(_OWE_AGAIN, (leading, has_led))
        database.execute(_COPY if has_led in sinks else _MOVE, (leading, has_led))
    for sink in before - set(sinks):
        gone = database.execute("DELETE FROM message WHERE sink = ?", (sink,)).rowcount
        what = f"what waited goes to {leading}" if sink == has_led else f"{gone} messages that followed are dropped"
        log.warning("jobs are not reported to %s any more: %s", sink, what)
    database.execute("UPDATE message SET outcome = 'owed' WHERE sink = ? AND outcome = 'following'", (leading,))
    database.execute("DELETE FROM used_sink")
    database.executemany("INSERT INTO used_sink VALUES (?)", [(sink,) for sink in sinks])
