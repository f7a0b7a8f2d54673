"""The tables of the state file, the stages of a run, and the states of a delivery.

A run is a job from one start to one end; a requeued job has several. A message is what is reported about a run: its
start, its stop, or its removal, if it must make room for the next run of its job (`withdraw`) or is sent anew
(`remove`, see resends.py). A message is stored once, however many sinks it is sent to. Each sink has a delivery of it:
a small row without payload, so that a change of its state writes little. Job scripts and Slurm's texts are not part of
a message. They are stored once by their hash, and are deleted as soon as no start that is still to be delivered needs
them.

    run 1 ──── 1..4 message 1 ──── 1..n delivery (one for each sink)
                    message n ──── n text, through text_use while it is needed

Stages of a run
---------------
Stage      Meaning                                        Next
preparing  It holds its nodes, but its start time may     started: it runs
           still move. `details` has all that was read    done: it is over already
           about it.                                      deleted: it never began
started    Its start is pending or delivered, its end     done: Slurm says that it is over
           is not known.
ignored    It holds its nodes and is not reported: the    done: Slurm says that it is over
           configuration or an administrator leaves it
           out.
done       Its stop is pending or delivered, or there is  deleted: after slurmQueryMaxSpan and a day
           nothing to report.

States of a delivery
--------------------
State      Sent     Meaning                               Next
pending    yes      To be sent from `next_try` on.        delivered, parked, conflict: by the answer
                                                          parked: not delivered for slurmQueryMaxSpan
following  not yet  The sink that leads does not have     pending: the sink that leads has it
                    this message yet.                     conflict: the sink that leads never gets it
                                                          deleted: the sink that leads has given it up
parked     rarely   Refused. A probe of each reason is    delivered, parked, conflict: by the answer
                    sent again, see parking.py.           deleted: after parkedMaxAge
conflict   never    The sink has another run of this      deleted: the run is done, and slurmQueryMaxSpan
                    job.                                  is over
delivered  no       A start that the sink has, of a run   pending: the sink has lost it
                    whose stop is still to come.          done, retained: its stop is delivered
retained   no       Delivered and over, or the message    pending: the run is withdrawn, or sent again
                    that would withdraw that, see         deleted: after a day
                    withdrawals.py.
done       no       Delivered and over.                   deleted: with others
dropped    never    A start that an administrator has     deleted: its run is over
                    dropped while its run is open.

A stop waits for the start of its own run. It is sent when the start is delivered, and never while the start is parked
or in conflict: a stop without its start is refused, and the stop of a run in conflict would end the row of the other
run.

A delivered start stays until its stop is delivered, because a sink that has lost the run needs it again before the
stop. From then on both are done, or retained if cc-backend may refuse the next run of the job because of this one.
Rows that are done are deleted together, 200 at a time, since that writes less than a deletion for each answer.

A `remove` is deleted as soon as the sink has carried it out, or refuses it for good. Until then the start waits for it.

A row in conflict stays although it is never sent. While its run is open the stop is still to come, and the start in
conflict prevents the stop from being sent.

A dropped start is what is left of a run that an administrator has dropped: its other rows are deleted, and when the
run ends no stop of it is added. See dropped_runs.py.

A sink that follows is sent only what was delivered to the sink that leads. So NATS gets only what cc-backend has
stored, and whatever cc-backend never stores is never published.

`next_try` is a Unix time, or one of three values: URGENT, 0 for a row that was never tried, and AFTER_PROBE for a row
that waits for another row. In a delivered start it is when that was delivered. Rows that are due are sent in this
order: first urgent rows, then rows that were never tried (the oldest first), then rows that failed. Within a job the
view `sendable` says which row is sent first.
"""

from __future__ import annotations

import enum


class RowState(enum.Enum):
    """The state of a delivery, as in the table above."""

    PENDING = "pending"
    FOLLOWING = "following"
    PARKED = "parked"
    CONFLICT = "conflict"
    DELIVERED = "delivered"
    RETAINED = "retained"
    DONE = "done"
    DROPPED = "dropped"


URGENT = -1
"""The `next_try` of an urgent row. It is before 0, the value of all rows that were never tried."""
AFTER_PROBE = 1e15
"""The `next_try` of a row that waits until the probe of its reason, or its own start, is delivered: a time that never
comes."""
DROPPED_REASON = "dropped by an administrator"
"""The `reason` of a dropped start. The note of a run that was dropped contains it, too."""
SCHEMA_VERSION = 8
_TABLES = """
-- Up to when accounting was read. The row of no cluster, '', is up to when runs that are over may be forgotten.
CREATE TABLE checkpoint (cluster TEXT PRIMARY KEY, seen_until INTEGER NOT NULL);
-- `note` says what is exceptional about a run, for example why it is not reported. It is '' for nearly all runs.
CREATE TABLE run (
    cluster TEXT NOT NULL, job_id INTEGER NOT NULL, start_time INTEGER NOT NULL,
    stage TEXT NOT NULL, hosts TEXT NOT NULL, details TEXT, changed INTEGER NOT NULL,
    note TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (cluster, job_id, start_time)
) WITHOUT ROWID;
CREATE INDEX run_by_stage ON run (stage, changed);
-- The texts are inserted into the payload at the byte `texts_at`. `texts` is JSON: what precedes each, and its hash.
CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT, payload BLOB NOT NULL, texts_at INTEGER NOT NULL DEFAULT 0,
    texts TEXT NOT NULL DEFAULT ''
);
CREATE TABLE text (hash TEXT PRIMARY KEY, body BLOB NOT NULL);
-- Starts that are still to be delivered, with the texts that they need.
CREATE TABLE text_use (message INTEGER NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (message, hash)) WITHOUT ROWID;
CREATE INDEX text_use_by_hash ON text_use (hash);
-- `created` is the Unix time at which it became pending, or became so again.
-- `cuts` is how many of its texts are left out for this sink, because the message was too large for it.
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
-- The sinks in use, to notice that the configuration names others.
CREATE TABLE used_sink (sink TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_SENDABLE = """
-- The one definition of order. The oldest run of a job is sent first, and within a run the kinds in alphabetical order.
-- A row waits for earlier kinds of its own run that are not delivered. It yields to waiting rows of earlier runs of its
-- job from the time on at which those may be sent. A start always yields to pending rows of those: only parked rows may
-- wait long.
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
"""In exactly these words: so SQLite sees that the index delivery_next has all rows that are asked for."""
PENDING = f"{WAITING} AND state = 'pending'"
