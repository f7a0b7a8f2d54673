"""The SQL statements with which the outbox reads and writes the state file.

Statements about parking, withdrawals, texts, other sinks and the copy in memory are in the modules that use them.
The placeholders of a key are always cluster, job id and start time, in this order. `{marks}` stands for the
placeholders of row numbers, as many as there are.
"""

from __future__ import annotations

from cc_slurm_adapter.outbox.schema import AFTER_PROBE, DROPPED_REASON, PENDING, WAITING

# --- runs

CHECKPOINT = "SELECT seen_until FROM checkpoint WHERE cluster = ?"
SET_CHECKPOINT = "INSERT OR REPLACE INTO checkpoint VALUES (?, ?)"
FORGOTTEN_UNTIL = "SELECT seen_until FROM checkpoint WHERE cluster = ''"
"""The row of no cluster is the time up to which runs that are over may be forgotten, of all clusters."""
SET_FORGOTTEN_UNTIL = """
INSERT INTO checkpoint VALUES ('', ?) ON CONFLICT (cluster) DO UPDATE SET seen_until = excluded.seen_until
WHERE seen_until < excluded.seen_until OR seen_until > ?
"""
"""It moves back only if it is later than the second value, the present time: then the clock was ahead."""
OPEN_RUNS = """
SELECT job_id, start_time, stage, hosts, details, changed, note FROM run WHERE cluster = ? AND stage != 'done'
"""
SET_RUN = f"""
INSERT INTO run (cluster, job_id, start_time, stage, hosts, details, changed, note)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (cluster, job_id, start_time) DO UPDATE SET stage = excluded.stage, hosts = excluded.hosts,
details = excluded.details, changed = excluded.changed,
note = CASE WHEN INSTR(note, '{DROPPED_REASON}') THEN note ELSE excluded.note END
"""
"""The note that a run was dropped stays: the main thread, which has the open runs in memory, does not know it."""
DELETE_RUN = "DELETE FROM run WHERE cluster = ? AND job_id = ? AND start_time = ?"
RUN_IS_KNOWN = "SELECT 1 FROM run WHERE cluster = ? AND job_id = ? AND start_time = ?"
RUN_IS_OVER = f"{RUN_IS_KNOWN} AND stage = 'done' AND changed >= ?"
"""Whether a run was found to be over, or its stop was delivered, at a Unix time or later."""
JOB_IS_KNOWN = "SELECT 1 FROM run WHERE cluster = ? AND job_id = ? LIMIT 1"
SET_STOP_DELIVERED = """
UPDATE run SET changed = ? WHERE +stage = 'done' AND (cluster, job_id, start_time) IN (
    SELECT cluster, job_id, start_time FROM delivery WHERE id IN ({marks}))
"""
"""A list of running jobs that was requested before may still contain the run. RUN_IS_OVER uses this time."""
FORGET_RUNS = "DELETE FROM run WHERE stage = 'done' AND changed < ?"
OTHER_CLUSTERS = "SELECT cluster, COUNT(*) FROM run WHERE cluster != ? AND stage != 'done' GROUP BY cluster"
_UNWATCHED = """
SELECT r.cluster FROM run AS r LEFT JOIN checkpoint AS c ON c.cluster = r.cluster
WHERE r.cluster != ? AND r.stage != 'done' GROUP BY r.cluster HAVING MAX(COALESCE(c.seen_until, r.changed)) < ?
"""
FORGET_CLUSTERS = (
    f"DELETE FROM delivery WHERE state = 'delivered' AND cluster IN ({_UNWATCHED})",
    f"DELETE FROM run WHERE stage != 'done' AND cluster IN ({_UNWATCHED})",
)
"""Delete open runs of clusters whose accounting was last read before a Unix time, and their starts. In this order."""

# --- what is put in

MESSAGE_OF = """
SELECT message FROM delivery WHERE cluster = ? AND job_id = ? AND start_time = ? AND kind = ? LIMIT 1
"""
"""The number of the message of this kind that a run already has."""
ADD_DELIVERY = """
INSERT INTO delivery (sink, cluster, job_id, start_time, kind, message, created, next_try, state)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (cluster, job_id, start_time, kind, sink) DO UPDATE SET first_sent = 0, cuts = 0,
created = excluded.created, next_try = excluded.next_try, state = excluded.state, refusals = 0,
parkings = 0, parked_since = 0, why = ''
WHERE state IN ('done', 'retained')
"""
"""A delivery that already exists is not changed, unless it is over."""
EXPEDITE_START_OF = """
UPDATE delivery SET next_try = ?
WHERE sink = ? AND cluster = ? AND job_id = ? AND start_time = ? AND kind = 'start'
AND state = 'pending' AND next_try = 0
"""
"""An urgent stop waits for its start, so the start is urgent, too. A start that failed before keeps its next try."""
CONFLICT_OF_STOPS = """
UPDATE delivery SET state = 'conflict' WHERE kind = 'stop' AND state IN ('pending', 'parked')
AND (sink, cluster, job_id, start_time) IN
(SELECT sink, cluster, job_id, start_time FROM delivery WHERE state = 'conflict' AND kind = 'start')
"""
"""If a run was refused because of another run, its stop is never sent: it would end the row of the other run."""
IS_UNDELIVERED = """
SELECT 1 FROM delivery WHERE sink = ? AND cluster = ? AND job_id = ? AND start_time = ? AND kind = ?
AND state NOT IN ('delivered', 'retained', 'done')
"""

# --- what is sent next

DUE = """
SELECT s.id, s.cluster, s.job_id, s.start_time, s.kind, s.refusals, s.first_sent, s.parkings, s.cuts,
m.id, m.payload, m.texts_at, m.texts
FROM sendable AS s JOIN message AS m ON m.id = s.message
WHERE s.sink = :sink AND s.next_try <= :now AND (s.yields_from IS NULL OR s.yields_from > :now)
ORDER BY s.next_try, s.id LIMIT :limit
"""
ARE_STILL_DUE = """
SELECT GROUP_CONCAT(id) FROM sendable WHERE (yields_from IS NULL OR yields_from > ?) AND id IN ({marks})
"""
"""An earlier row of a job may have become due since its row was read. One row, because a thread that shares the
interpreter with others waits for them at each."""
SET_FIRST_SENT = "UPDATE delivery SET first_sent = ? WHERE first_sent = 0 AND id IN ({marks})"
NOT_SENT = f"UPDATE delivery SET first_sent = 0 WHERE id = ? AND {WAITING}"
NEXT_DUE = f"SELECT MIN(next_try) FROM delivery WHERE sink = ? AND {WAITING} AND next_try > ?"

# --- what an answer does to its row

SET_STATE = "UPDATE delivery SET state = ?, next_try = ?, reason = ? WHERE id = ?"
SET_DELIVERED = """
UPDATE delivery SET state = 'delivered', next_try = ?, reason = ?, parkings = 0, parked_since = 0, why = ''
WHERE id IN ({marks})
"""
"""The `next_try` is when it was delivered, for `-job`. Refusals so far are forgotten: they have nothing to do with a
refusal after the sink has lost the run."""
DELETE_ROWS = "DELETE FROM delivery WHERE id IN ({marks})"
RELEASE_STOPS_OF = """
UPDATE delivery SET next_try = 0 WHERE id IN (
    SELECT s.id FROM delivery AS m JOIN delivery AS s ON s.cluster = m.cluster AND s.job_id = m.job_id
    AND s.start_time = m.start_time AND s.kind = 'stop' AND s.sink = m.sink
    WHERE m.id IN ({marks}) AND m.kind = 'start' AND s.state = 'pending' AND s.next_try > 0)
"""
"""For starts that were delivered. They may have been parked, even while they were under way, and their stops with
them."""
_OF_THE_SAME_RUNS = """
SELECT d.id FROM delivery AS m JOIN delivery AS d ON d.cluster = m.cluster AND d.job_id = m.job_id
AND d.start_time = m.start_time AND d.sink = m.sink WHERE m.id IN ({marks})
"""
"""All messages of the runs of these rows, to the same sink."""
SET_DONE_OF = f"""
UPDATE delivery SET state = 'done' WHERE (kind != 'start' OR state IN ('delivered', 'retained'))
AND id IN ({_OF_THE_SAME_RUNS})
"""
"""All messages of these runs are done, except a start that is on its way again."""
DELETE_DONE_OF = f"DELETE FROM delivery WHERE state = 'done' AND id IN ({_OF_THE_SAME_RUNS})"
RESEND_START_OF = """
UPDATE delivery SET state = 'pending', next_try = 0, first_sent = 0, created = ?
WHERE cluster = ? AND job_id = ? AND start_time = ? AND kind = 'start' AND state IN ('delivered', 'retained')
AND sink = (SELECT sink FROM delivery WHERE id = ?) AND message IN (SELECT id FROM message)
"""
"""While the state is in memory, most delivered messages are missing: they cannot be sent, so they stay delivered."""
RETRY_AT = "UPDATE delivery SET next_try = ?, first_sent = 0 WHERE id = ?"
COUNT_REFUSAL = "UPDATE delivery SET refusals = refusals + 1 WHERE id = ?"
CUT = "UPDATE delivery SET cuts = cuts + 1, next_try = 0 WHERE id = ? AND cuts < ?"
"""The message is sent again immediately, without its next text. Nothing changes if it has no text left."""

# --- a sink that follows

RELEASE_FOLLOWERS = """
UPDATE delivery SET state = 'pending' WHERE state = 'following' AND id IN (
    SELECT f.id FROM delivery AS m JOIN delivery AS f ON f.cluster = m.cluster AND f.job_id = m.job_id
    AND f.start_time = m.start_time AND f.kind = m.kind AND f.sink = ?
    WHERE m.sink = ? AND m.id IN ({marks}))
"""
"""Messages that the leading sink has may be sent to the following sink."""
CONFLICT_OF_FOLLOWERS = """
UPDATE delivery SET state = 'conflict'
WHERE sink = ? AND state = 'following' AND (cluster, job_id, start_time, kind) IN
(SELECT cluster, job_id, start_time, kind FROM delivery WHERE sink = ? AND state = 'conflict')
"""
"""A message that is never sent to a sink is not sent to the sinks that follow it either."""
FORGET_FOLLOWERS = """
DELETE FROM delivery WHERE sink = ? AND state = 'following' AND (cluster, job_id, start_time, kind) NOT IN
(SELECT cluster, job_id, start_time, kind FROM delivery WHERE sink = ?) AND created < ?
"""
"""A message that was given up for the leading sink never becomes pending for the following sink."""

# --- waits and ages

SHIFTED_TIMES = ("next_try", "first_sent", "created", "parked_since")
"""The columns of a delivery that are Unix times."""
SHIFT_TIME = f"""
UPDATE delivery SET {{column}} = {{column}} + ? WHERE sink = ? AND {{column}} > 0 AND {{column}} < {AFTER_PROBE}
"""
"""For a clock that was set. The values 0 and AFTER_PROBE are not times."""
RETRY_PENDING = f"""
UPDATE delivery SET next_try = ? WHERE sink = ? AND {PENDING} AND next_try > ? AND next_try < {AFTER_PROBE}
"""
RETRY_ALL_PENDING = f"""
UPDATE delivery INDEXED BY delivery_next SET next_try = 0
WHERE {PENDING} AND next_try > 0 AND next_try < {AFTER_PROBE}
"""
CORRECT_FIRST_SENT = "UPDATE delivery SET first_sent = ? WHERE first_sent > ?"
"""A time in the future can only be from before the clock was set back."""
DELIVERED_BEFORE = """
SELECT m.id, m.job_id, m.start_time FROM delivery AS m JOIN run AS r
ON r.cluster = m.cluster AND r.job_id = m.job_id AND r.start_time = m.start_time AND r.stage = 'started'
WHERE m.sink = ? AND m.cluster = ? AND m.kind = 'start' AND m.state = 'delivered' AND m.first_sent < ?
AND m.message IN (SELECT id FROM message)
"""
"""The starts of open runs that were first sent before a Unix time. In memory, only those whose messages are there."""
RESEND_START = "UPDATE delivery SET state = 'pending', next_try = 0, first_sent = 0, created = ? WHERE id = ?"
FORGET_CONFLICTS = """
DELETE FROM delivery WHERE state = 'conflict' AND created < ? AND NOT EXISTS (
    SELECT 1 FROM run AS r WHERE r.cluster = delivery.cluster AND r.job_id = delivery.job_id
    AND r.start_time = delivery.start_time AND r.stage != 'done')
"""
"""Not while the run is open: its stop is still to come, and must not be sent because of the start in conflict."""
DELETE_DONE = "DELETE FROM delivery WHERE state = 'done'"

# --- numbers

COUNT_PENDING = (
    f"SELECT sink, COUNT(*), MIN(created) FROM delivery WHERE {PENDING} AND next_try < {AFTER_PROBE} GROUP BY sink"
)
"""How many messages wait for each sink, and since when, without parked ones and the stops that wait for those."""
COUNT_CONFLICTS = "SELECT sink, COUNT(*) FROM delivery WHERE state = 'conflict' AND kind = 'start' GROUP BY sink"
COUNT_WAITING = f"SELECT COUNT(*) FROM delivery WHERE {WAITING}"
COUNT_PENDING_TO = f"SELECT COUNT(*) FROM (SELECT 1 FROM delivery WHERE {PENDING} AND next_try < {AFTER_PROBE} LIMIT ?)"
"""How many messages wait, without parked ones and the stops that wait for those. It counts only up to a limit."""
COUNT_STATES = "SELECT state, COUNT(*) FROM delivery WHERE state != 'done' GROUP BY state"
