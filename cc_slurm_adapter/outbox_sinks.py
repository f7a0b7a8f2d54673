"""What becomes of messages when the configuration names other sinks than those that they were written for.

The messages are the same for all sinks. What a sink that led is still owed goes to the one that leads now, which may
so be told something twice. What a sink that followed is owed has been taken by the one that it followed.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Mapping

log = logging.getLogger(__name__)

RANK = ("cc_rest", "cc_nats")
"""Where both are in use, the second one follows the first."""
KNOWN_SINKS = "SELECT sink FROM message GROUP BY sink"
_COLUMNS = "cluster, job_id, start_time, kind, payload, created, refusals, first_sent, next_try, reason"
_TAKE_OVER = f"""
INSERT OR IGNORE INTO message (sink, {_COLUMNS}, outcome)
SELECT ?, {_COLUMNS}, CASE outcome WHEN 'following' THEN 'owed' ELSE outcome END
FROM message WHERE sink = ? ORDER BY id
"""  # noqa: S608 - made of the columns' names


def are_other_sinks(sinks: Mapping[str, str], known: Collection[str]) -> bool:
    """Whether the sinks in use, the leading one first, differ from those that there are messages for."""
    return bool(known) and (not set(known) <= set(sinks) or next(iter(sinks)) not in known)


def use_sinks(database: sqlite3.Connection, sinks: Mapping[str, str]) -> None:
    """Bring the messages to the sinks in use, each given with the one that it follows or ''."""
    known = [sink for (sink,) in database.execute(KNOWN_SINKS)]
    leading = next(iter(sinks))
    for sink in known:
        has_led = leading not in known or RANK.index(sink) < RANK.index(leading)
        if sink != leading and has_led:
            database.execute(_TAKE_OVER, (leading, sink))
        if sink not in sinks:
            gone = database.execute("DELETE FROM message WHERE sink = ?", (sink,)).rowcount
            what = f"go to {leading}" if has_led else f"are dropped: {leading} has them or gets them"
            log.warning("jobs are not reported to %s any more: its %d messages %s", sink, gone, what)
    database.execute("UPDATE message SET outcome = 'owed' WHERE sink = ? AND outcome = 'following'", (leading,))
