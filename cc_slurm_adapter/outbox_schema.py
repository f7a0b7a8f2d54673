"""The tables of the state file, and the longer questions to them."""

SCHEMA_VERSION = 5
TABLES = """
CREATE TABLE checkpoint (cluster TEXT PRIMARY KEY, seen_until INTEGER NOT NULL);
CREATE TABLE run (
    cluster TEXT NOT NULL, job_id INTEGER NOT NULL, start_time INTEGER NOT NULL,
    stage TEXT NOT NULL, hosts TEXT NOT NULL, details TEXT, changed INTEGER NOT NULL,
    PRIMARY KEY (cluster, job_id, start_time)
) WITHOUT ROWID;
CREATE INDEX run_by_stage ON run (stage, changed);
CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT, sink TEXT NOT NULL,
    cluster TEXT NOT NULL, job_id INTEGER NOT NULL, start_time INTEGER NOT NULL,
    kind TEXT NOT NULL, payload BLOB NOT NULL, created INTEGER NOT NULL,
    refusals INTEGER NOT NULL DEFAULT 0, first_sent REAL NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0,
    outcome TEXT NOT NULL DEFAULT 'owed', reason TEXT NOT NULL DEFAULT '',
    UNIQUE (sink, cluster, job_id, start_time, kind)
);
CREATE INDEX message_shadowed ON message (sink, cluster, job_id, start_time) WHERE outcome = 'shadowed';
"""
_USED_SINKS = """
-- To notice that the configuration names others.
CREATE TABLE IF NOT EXISTS used_sink (sink TEXT PRIMARY KEY) WITHOUT ROWID;
"""
WAYS_IN = """
CREATE INDEX message_next ON message (sink, next_try) WHERE outcome IN ('owed', 'parked');
CREATE INDEX message_kept ON message (id) WHERE outcome = 'kept';
-- The one definition of order: of a job the oldest run goes first, of a run the kinds in the order of the alphabet.
-- A row waits for what its own run is to be told before. It yields to what waits of earlier runs of its job from the
-- time on at which that may be sent. A start yields always to what is owed there: only what is parked may wait long.
CREATE VIEW sendable AS
SELECT m.*, (
    SELECT MIN(CASE WHEN m.kind = 'start' AND e.outcome = 'owed' THEN -2 ELSE e.next_try END) FROM message AS e
    WHERE e.sink = m.sink AND e.cluster = m.cluster AND e.job_id = m.job_id AND e.start_time < m.start_time
    AND e.outcome IN ('owed', 'parked') AND NOT EXISTS (
        SELECT 1 FROM message AS s WHERE s.sink = e.sink AND s.cluster = e.cluster AND s.job_id = e.job_id
        AND s.start_time = e.start_time AND s.kind < e.kind AND s.outcome IN ('owed', 'parked'))
) AS yields_from
FROM message AS m WHERE m.outcome IN ('owed', 'parked') AND NOT EXISTS (
    SELECT 1 FROM message AS s WHERE s.sink = m.sink AND s.cluster = m.cluster AND s.job_id = m.job_id
    AND s.start_time = m.start_time AND s.kind < m.kind AND s.outcome NOT IN ('delivered', 'kept'));
"""
SCHEMA = TABLES + _USED_SINKS + WAYS_IN
_NO_WAYS_IN = """
DROP VIEW IF EXISTS sendable;
DROP INDEX IF EXISTS message_waiting;
DROP INDEX IF EXISTS message_next;
DROP INDEX IF EXISTS message_by_job;
DROP INDEX IF EXISTS message_kept;
"""
# A run that never held nodes is done; one whose nodes are made ready is read from Slurm again, with its threads.
_FROM_1 = """
UPDATE run SET stage = 'done' WHERE stage = 'ignored';
DELETE FROM run WHERE stage = 'seen';
"""
MIGRATIONS = {
    1: _FROM_1 + _NO_WAYS_IN + WAYS_IN + _USED_SINKS,
    2: _NO_WAYS_IN + WAYS_IN + _USED_SINKS,
    3: _NO_WAYS_IN + WAYS_IN + _USED_SINKS,
    4: _NO_WAYS_IN + WAYS_IN,
}
"""From an older format to the present one; what they change is found out again from Slurm."""
WAITING = "outcome IN ('owed', 'parked')"
"""In these very words: so SQLite sees that the index message_next has all that is asked for."""
OWED = f"{WAITING} AND outcome = 'owed'"
DUE = """
SELECT id, cluster, job_id, start_time, kind, payload, refusals, first_sent FROM sendable
WHERE sink = :sink AND next_try <= :now AND (yields_from IS NULL OR yields_from > :now)
ORDER BY next_try, id LIMIT :limit
"""
MAY_GO = "SELECT 1 FROM sendable WHERE id = ? AND (yields_from IS NULL OR yields_from > ?)"
"""Whether a row that was due still is: something earlier of its job may have become due meanwhile."""
OWE_ITS_START = """
UPDATE message SET outcome = 'owed', next_try = 0, first_sent = 0
WHERE cluster = ? AND job_id = ? AND start_time = ? AND kind = 'start' AND outcome IN ('delivered', 'kept')
AND sink = (SELECT sink FROM message WHERE id = ?)
"""
DELIVERED_BEFORE = """
SELECT m.id, m.job_id, m.start_time FROM message AS m JOIN run AS r
ON r.cluster = m.cluster AND r.job_id = m.job_id AND r.start_time = m.start_time AND r.stage = 'live'
WHERE m.sink = ? AND m.cluster = ? AND m.kind = 'start' AND m.outcome = 'delivered' AND m.first_sent < ?
"""
"""The starts of runs that hold their nodes, by the time at which they first left."""
PUT_OFF_ITS_STOP = """
UPDATE message SET next_try = ?
WHERE cluster = ? AND job_id = ? AND start_time = ? AND kind = 'stop' AND outcome = 'owed'
AND sink = (SELECT sink FROM message WHERE id = ? AND kind = 'start')
"""
"""A stop that waits for a parked start is not even looked at before its time."""
HURRY_ITS_START = """
UPDATE message SET next_try = ?
WHERE sink = ? AND cluster = ? AND job_id = ? AND start_time = ? AND kind = 'start'
AND outcome = 'owed' AND next_try = 0
"""
"""An urgent stop waits for its start; one that failed before has a time of its own."""
PUT_IN = """
INSERT INTO message (sink, cluster, job_id, start_time, kind, payload, created, next_try, outcome)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (sink, cluster, job_id, start_time, kind) DO UPDATE SET payload = excluded.payload, first_sent = 0,
created = excluded.created, next_try = excluded.next_try, outcome = excluded.outcome, refusals = 0
WHERE outcome = 'kept'
"""
"""What is there already stays, but for what was done and is only kept."""
SHADOW_STOPS = """
UPDATE message SET outcome = 'shadowed' WHERE kind = 'stop' AND outcome IN ('owed', 'parked')
AND (sink, cluster, job_id, start_time) IN
(SELECT sink, cluster, job_id, start_time FROM message WHERE outcome = 'shadowed' AND kind = 'start')
"""
"""The stop of a shadowed run would end the other run's row: it is never sent."""
LET_FOLLOW = """
UPDATE message SET outcome = 'owed'
WHERE sink = ? AND cluster = ? AND job_id = ? AND start_time = ? AND kind = ? AND outcome = 'following'
AND EXISTS (SELECT 1 FROM message WHERE id = ? AND sink = ?)
"""
SHADOW_FOLLOWERS = """
UPDATE message SET outcome = 'shadowed'
WHERE sink = ? AND outcome = 'following' AND (cluster, job_id, start_time, kind) IN
(SELECT cluster, job_id, start_time, kind FROM message WHERE sink = ? AND outcome = 'shadowed')
"""
DELETE_FORGOTTEN_FOLLOWERS = """
DELETE FROM message WHERE sink = ? AND outcome = 'following' AND (cluster, job_id, start_time, kind) NOT IN
(SELECT cluster, job_id, start_time, kind FROM message WHERE sink = ?) AND created < ?
"""
