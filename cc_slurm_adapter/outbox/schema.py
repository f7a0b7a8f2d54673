"""The tables of the state file, and the longer queries on them.

A run is what Slurm has: one stay of a job on its nodes. What is told of it is a message: its start, its stop, or, where
it must make room for the next run of its job, that it is to be removed. A message is stored once, however many sinks
are told of it; each of them has a delivery, a small row without payload, so that a change of its state writes little.
Job scripts and Slurm's texts are no part of a message: they are stored once by their hash, and go as soon as no start
that is still to be delivered needs them.

    run 1 ──── 1..3 message 1 ──── 1..n delivery (one for each sink)
                    message n ──── n text, through text_use while it is needed

Stages of a run, what they mean, and what follows:

preparing   It holds its nodes, but its start time may still move; `details` has all that was read of it.
            -> started: it runs   -> done: it ended at once   -> gone: it never began
started     Its start is pending or delivered, its end is not known.
            -> done: Slurm says that it is over
ignored     It holds its nodes and is not reported: the configuration or an administrator leaves it out.
            -> done
done        Its stop is pending or delivered, or there is nothing to tell. Remembered so that nothing is told twice.
            -> gone: after slurmQueryMaxSpan and a day

States of a delivery, what they mean, and what follows:

pending     To be sent, from `next_try` on.
            -> delivered, parked, conflict: by the answer   -> parked: it could not be sent for slurmQueryMaxSpan
following   To be sent when the sink that leads has taken the same message.
            -> pending
parked      Refused. Tried again at `next_try`, or when the probe of its reason was taken: see parking.py.
            -> delivered, parked, conflict   -> gone: after parkedMaxAge
conflict    Not sent (any more), as the sink has another run of this job. A start keeps the run's stop back.
            -> gone: the run is done, and slurmQueryMaxSpan is over
delivered   A start that the sink has. A sink that loses the run needs it again.
            -> pending: the sink has lost it   -> done: with its stop
            -> retained: with its stop, if its run may be withdrawn
done        Delivered and over: like gone. Such rows are deleted together, since that writes less.
            -> gone
retained    Delivered and over, or what would withdraw that: see withdrawals.py.
            -> pending   -> gone: after a day

A stop that is delivered goes with its start, and with both the messages.
"""

SCHEMA_VERSION = 7
_TABLES = """
CREATE TABLE checkpoint (cluster TEXT PRIMARY KEY, seen_until INTEGER NOT NULL);
CREATE TABLE run (
    cluster TEXT NOT NULL, job_id INTEGER NOT NULL, start_time INTEGER NOT NULL,
    stage TEXT NOT NULL, hosts TEXT NOT NULL, details TEXT, changed INTEGER NOT NULL,
    PRIMARY KEY (cluster, job_id, start_time)
) WITHOUT ROWID;
CREATE INDEX run_by_stage ON run (stage, changed);
-- The texts stand in the payload at the byte `texts_at`; `texts` says which, as JSON: what precedes each, and its hash.
CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT, payload BLOB NOT NULL, texts_at INTEGER NOT NULL DEFAULT 0,
    texts TEXT NOT NULL DEFAULT ''
);
CREATE TABLE text (hash TEXT PRIMARY KEY, body BLOB NOT NULL);
-- Starts that are still to be delivered, with the texts that they need.
CREATE TABLE text_use (message INTEGER NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (message, hash)) WITHOUT ROWID;
CREATE INDEX text_use_by_hash ON text_use (hash);
-- `created` is the Unix time at which it was owed, or owed again.
-- `cuts` is how many of its texts this sink is not told, as the message was too large for it.
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY AUTOINCREMENT, sink TEXT NOT NULL,
    cluster TEXT NOT NULL, job_id INTEGER NOT NULL, start_time INTEGER NOT NULL, kind TEXT NOT NULL,
    message INTEGER NOT NULL, created INTEGER NOT NULL,
    refusals INTEGER NOT NULL DEFAULT 0, first_sent REAL NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'pending', reason TEXT NOT NULL DEFAULT '', cuts INTEGER NOT NULL DEFAULT 0,
    parkings INTEGER NOT NULL DEFAULT 0, parked_since REAL NOT NULL DEFAULT 0, why TEXT NOT NULL DEFAULT '',
    UNIQUE (cluster, job_id, start_time, kind, sink)
);
CREATE INDEX delivery_next ON delivery (sink, next_try) WHERE state IN ('pending', 'parked');
CREATE INDEX delivery_conflict ON delivery (sink, cluster, job_id, start_time) WHERE state = 'conflict';
CREATE INDEX delivery_retained ON delivery (id) WHERE state = 'retained';
CREATE INDEX delivery_parked ON delivery (sink, why, id) WHERE state = 'parked';
CREATE TRIGGER message_goes_with_its_deliveries AFTER DELETE ON delivery BEGIN
    DELETE FROM message WHERE id = OLD.message AND NOT EXISTS (
        SELECT 1 FROM delivery AS d WHERE d.cluster = OLD.cluster AND d.job_id = OLD.job_id
        AND d.start_time = OLD.start_time AND d.kind = OLD.kind);
END;
CREATE TRIGGER text_use_goes_with_its_message AFTER DELETE ON message BEGIN
    DELETE FROM text_use WHERE message = OLD.id;
END;
-- To notice that the configuration names others.
CREATE TABLE used_sink (sink TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_SENDABLE = """
-- The one definition of order: of a job the oldest run goes first, of a run the kinds in the order of the alphabet.
-- A row waits for what its own run is to be told before. It yields to what waits of earlier runs of its job from the
-- time on at which that may be sent. A start yields always to what is pending there: only what is parked may wait long.
CREATE VIEW sendable AS
SELECT m.*, (
    SELECT MIN(CASE WHEN m.kind = 'start' AND e.state = 'pending' THEN -2 ELSE e.next_try END) FROM delivery AS e
    WHERE e.sink = m.sink AND e.cluster = m.cluster AND e.job_id = m.job_id AND e.start_time < m.start_time
    AND e.state IN ('pending', 'parked') AND NOT EXISTS (
        SELECT 1 FROM delivery AS s WHERE s.sink = e.sink AND s.cluster = e.cluster AND s.job_id = e.job_id
        AND s.start_time = e.start_time AND s.kind < e.kind AND s.state IN ('pending', 'parked'))
) AS yields_from
FROM delivery AS m WHERE m.state IN ('pending', 'parked') AND NOT EXISTS (
    SELECT 1 FROM delivery AS s WHERE s.sink = m.sink AND s.cluster = m.cluster AND s.job_id = m.job_id
    AND s.start_time = m.start_time AND s.kind < m.kind AND s.state NOT IN ('delivered', 'retained', 'done'));
"""
SCHEMA = _TABLES + _SENDABLE
WAITING = "state IN ('pending', 'parked')"
"""In these very words: so SQLite sees that the index delivery_next has all that is asked for."""
PENDING = f"{WAITING} AND state = 'pending'"
DUE = """
SELECT s.id, s.cluster, s.job_id, s.start_time, s.kind, s.refusals, s.first_sent, s.parkings, s.cuts,
m.id, m.payload, m.texts_at, m.texts
FROM sendable AS s JOIN message AS m ON m.id = s.message
WHERE s.sink = :sink AND s.next_try <= :now AND (s.yields_from IS NULL OR s.yields_from > :now)
ORDER BY s.next_try, s.id LIMIT :limit
"""
MAY_GO = "SELECT 1 FROM sendable WHERE id = ? AND (yields_from IS NULL OR yields_from > ?)"
"""Whether a row that was due still is: something earlier of its job may have become due meanwhile."""
SEND_ITS_START_AGAIN = """
UPDATE delivery SET state = 'pending', next_try = 0, first_sent = 0, created = ?
WHERE cluster = ? AND job_id = ? AND start_time = ? AND kind = 'start' AND state IN ('delivered', 'retained')
AND sink = (SELECT sink FROM delivery WHERE id = ?) AND message IN (SELECT id FROM message)
"""
"""In memory most messages that are delivered are missing: nothing can be sent of them, so they stay delivered."""
DELIVERED_BEFORE = """
SELECT m.id, m.job_id, m.start_time FROM delivery AS m JOIN run AS r
ON r.cluster = m.cluster AND r.job_id = m.job_id AND r.start_time = m.start_time AND r.stage = 'started'
WHERE m.sink = ? AND m.cluster = ? AND m.kind = 'start' AND m.state = 'delivered' AND m.first_sent < ?
AND m.message IN (SELECT id FROM message)
"""
"""The starts of runs that hold their nodes, by the time at which they first left; in memory those that are there."""
SET_DELIVERED = """
UPDATE delivery SET state = 'delivered', next_try = 0, reason = ?, parkings = 0, parked_since = 0, why = '' WHERE id = ?
"""
"""When it is lost and refused later, that is another matter than before."""
RELEASE_ITS_STOP = """
UPDATE delivery SET next_try = 0
WHERE cluster = ? AND job_id = ? AND start_time = ? AND kind = 'stop' AND state = 'pending' AND next_try > 0
AND sink = (SELECT sink FROM delivery WHERE id = ? AND kind = 'start')
"""
"""A start was delivered that may have been parked, also while it was under way, and its stop with it."""
SETTLE_RUN = """
UPDATE run SET changed = ? WHERE cluster = ? AND job_id = ? AND start_time = ? AND stage = 'done'
"""
"""Its stop was delivered: a list that was asked for before may still have it."""
EXPEDITE_ITS_START = """
UPDATE delivery SET next_try = ?
WHERE sink = ? AND cluster = ? AND job_id = ? AND start_time = ? AND kind = 'start'
AND state = 'pending' AND next_try = 0
"""
"""An urgent stop waits for its start; one that failed before has a time of its own."""
KNOWN_MESSAGE = """
SELECT message FROM delivery WHERE cluster = ? AND job_id = ? AND start_time = ? AND kind = ? LIMIT 1
"""
ADD_DELIVERY = """
INSERT INTO delivery (sink, cluster, job_id, start_time, kind, message, created, next_try, state)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (cluster, job_id, start_time, kind, sink) DO UPDATE SET first_sent = 0, cuts = 0,
created = excluded.created, next_try = excluded.next_try, state = excluded.state, refusals = 0,
parkings = 0, parked_since = 0, why = ''
WHERE state IN ('done', 'retained')
"""
"""What is there already stays, but for what is over."""
DELETE_DONE = """
DELETE FROM delivery
WHERE cluster = ? AND job_id = ? AND start_time = ? AND state = 'done' AND sink = (
    SELECT sink FROM delivery WHERE id = ?)
"""
CONFLICT_OF_STOPS = """
UPDATE delivery SET state = 'conflict' WHERE kind = 'stop' AND state IN ('pending', 'parked')
AND (sink, cluster, job_id, start_time) IN
(SELECT sink, cluster, job_id, start_time FROM delivery WHERE state = 'conflict' AND kind = 'start')
"""
"""The stop of a run that was refused because of another one would end the other's row: it is never sent."""
FORGET_CONFLICTS = """
DELETE FROM delivery WHERE state = 'conflict' AND created < ? AND NOT EXISTS (
    SELECT 1 FROM run AS r WHERE r.cluster = delivery.cluster AND r.job_id = delivery.job_id
    AND r.start_time = delivery.start_time AND r.stage != 'done')
"""
"""While a run is open its stop is still to come, which its start keeps back."""
_UNWATCHED = """
SELECT r.cluster FROM run AS r LEFT JOIN checkpoint AS c ON c.cluster = r.cluster
WHERE r.cluster != ? AND r.stage != 'done' GROUP BY r.cluster HAVING MAX(COALESCE(c.seen_until, r.changed)) < ?
"""
FORGET_CLUSTERS = (
    f"DELETE FROM delivery WHERE state = 'delivered' AND cluster IN ({_UNWATCHED})",  # noqa: S608 - its own text
    f"DELETE FROM run WHERE stage != 'done' AND cluster IN ({_UNWATCHED})",  # noqa: S608 - its own text
)
"""Open runs of clusters whose accounting was read last before a moment."""
RELEASE_FOLLOWERS = """
UPDATE delivery SET state = 'pending'
WHERE sink = ? AND cluster = ? AND job_id = ? AND start_time = ? AND kind = ? AND state = 'following'
AND EXISTS (SELECT 1 FROM delivery WHERE id = ? AND sink = ?)
"""
CONFLICT_OF_FOLLOWERS = """
UPDATE delivery SET state = 'conflict'
WHERE sink = ? AND state = 'following' AND (cluster, job_id, start_time, kind) IN
(SELECT cluster, job_id, start_time, kind FROM delivery WHERE sink = ? AND state = 'conflict')
"""
DELETE_FORGOTTEN_FOLLOWERS = """
DELETE FROM delivery WHERE sink = ? AND state = 'following' AND (cluster, job_id, start_time, kind) NOT IN
(SELECT cluster, job_id, start_time, kind FROM delivery WHERE sink = ?) AND created < ?
"""
