"""State files as older versions of this program wrote them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from cc_slurm_adapter.outbox.stored_messages import Stored, texts_of, whole

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
CREATE INDEX message_by_job ON message (sink, cluster, job_id, id);
CREATE INDEX message_shadowed ON message (sink, cluster, job_id, start_time) WHERE outcome = 'shadowed';
"""
"""They have been so from the beginning."""
WAITING_INDEX = "CREATE INDEX message_waiting ON message (sink, id, next_try) WHERE outcome IN ('owed', 'parked');"
KEPT_INDEX = "CREATE INDEX message_kept ON message (id) WHERE outcome = 'kept';"
NEXT_INDEX = "CREATE INDEX message_next ON message (sink, next_try) WHERE outcome IN ('owed', 'parked');"
VIEW = """
-- A row waits for its own run's start, and for what is owed of earlier runs of its job but for what is parked there.
CREATE VIEW sendable AS
SELECT * FROM message AS m WHERE outcome IN ('owed', 'parked') AND NOT EXISTS (
    SELECT 1 FROM message AS e
    WHERE e.sink = m.sink AND e.cluster = m.cluster AND e.job_id = m.job_id AND e.id < m.id AND CASE
        WHEN e.start_time = m.start_time THEN e.outcome != 'delivered'
        WHEN e.outcome != 'owed' THEN 0
        WHEN e.kind = 'start' THEN 1
        ELSE NOT EXISTS (
            SELECT 1 FROM message AS s WHERE s.sink = e.sink AND s.cluster = e.cluster AND s.job_id = e.job_id
            AND s.start_time = e.start_time AND s.kind = 'start' AND s.outcome = 'parked')
        END);
"""
LATER_VIEW = """
-- A row waits for its own run's start. A start waits for what is owed of earlier runs of its job too, but for what is
-- parked there.
CREATE VIEW sendable AS
SELECT * FROM message AS m WHERE outcome IN ('owed', 'parked') AND NOT EXISTS (
    SELECT 1 FROM message AS e
    WHERE e.sink = m.sink AND e.cluster = m.cluster AND e.job_id = m.job_id AND e.id < m.id
    AND (m.kind = 'start' OR e.start_time = m.start_time) AND CASE
        WHEN e.start_time = m.start_time THEN e.outcome != 'delivered'
        WHEN e.outcome != 'owed' THEN 0
        WHEN e.kind = 'start' THEN 1
        ELSE NOT EXISTS (
            SELECT 1 FROM message AS s WHERE s.sink = e.sink AND s.cluster = e.cluster AND s.job_id = e.job_id
            AND s.start_time = e.start_time AND s.kind = 'start' AND s.outcome = 'parked')
        END);
"""
NEXT_VIEW = """
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
PARKING = """
ALTER TABLE message ADD COLUMN parkings INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN parked_since REAL NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN why TEXT NOT NULL DEFAULT '';
"""
USED_SINKS = """
-- To notice that the configuration names others.
CREATE TABLE IF NOT EXISTS used_sink (sink TEXT PRIMARY KEY) WITHOUT ROWID;
"""
SEVENTH = """
CREATE TABLE checkpoint (cluster TEXT PRIMARY KEY, seen_until INTEGER NOT NULL);
CREATE TABLE run (
    cluster TEXT NOT NULL, job_id INTEGER NOT NULL, start_time INTEGER NOT NULL,
    stage TEXT NOT NULL, hosts TEXT NOT NULL, details TEXT, changed INTEGER NOT NULL,
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
"""The whole of format 7: messages are apart from their deliveries."""
COPIED = {
    "checkpoint": "SELECT cluster, seen_until FROM present.checkpoint",
    "run": """
        SELECT cluster, job_id, start_time,
        CASE stage WHEN 'preparing' THEN 'seen' WHEN 'started' THEN 'live' ELSE stage END, hosts, details, changed
        FROM present.run""",
    "message": """
        SELECT d.id, d.sink, d.cluster, d.job_id, d.start_time, d.kind, payload_of(m.payload, m.texts_at, m.texts),
        d.created, d.refusals, d.first_sent, d.next_try, CASE d.state WHEN 'pending' THEN 'owed'
        WHEN 'conflict' THEN 'shadowed' WHEN 'retained' THEN 'kept' ELSE d.state END, d.reason
        FROM present.delivery AS d JOIN present.message AS m ON m.id = d.message""",
}
INTO = {
    "checkpoint": "cluster, seen_until",
    "run": "cluster, job_id, start_time, stage, hosts, details, changed",
    "message": (
        "id, sink, cluster, job_id, start_time, kind, payload, created, refusals, first_sent, next_try, outcome, reason"
    ),
}


class Format(NamedTuple):
    """One that some version wrote."""

    number: int
    """Its user_version."""
    schema: str


FORMATS = {
    "1, before it had a view": Format(1, TABLES + WAITING_INDEX),
    "1, with another index": Format(1, TABLES + WAITING_INDEX + VIEW),
    "1": Format(1, TABLES + NEXT_INDEX + VIEW),
    "2, with the view of 1": Format(2, TABLES + NEXT_INDEX + VIEW),
    "3": Format(3, TABLES + NEXT_INDEX + LATER_VIEW),
    "4": Format(4, TABLES + USED_SINKS + NEXT_INDEX + LATER_VIEW),
    "5": Format(5, TABLES + USED_SINKS + NEXT_INDEX + KEPT_INDEX + NEXT_VIEW),
    "6": Format(6, TABLES + USED_SINKS + PARKING + NEXT_INDEX + KEPT_INDEX + NEXT_VIEW),
    "7": Format(7, SEVENTH),
}


def make(path: Path, old: Format) -> None:
    """A new file without rows."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(f"BEGIN; {old.schema} PRAGMA user_version = {old.number}; COMMIT;")


def turn_into(path: Path, old: Format) -> None:
    """The same rows in a file of an older format. Nobody may use it meanwhile."""
    new = path.with_name("older.sqlite")
    make(new, old)
    with closing(sqlite3.connect(new)) as database:
        database.execute("ATTACH ? AS present", (str(path),))
        with closing(sqlite3.connect(path)) as present:

            def payload_of(payload: bytes, texts_at: int, texts: str) -> bytes:
                stored = Stored(payload, texts_at, texts)
                return whole(present, stored, texts_of(stored), 0)

            database.create_function("payload_of", 3, payload_of)
            with database:
                for table, question in COPIED.items():
                    database.execute(f"INSERT INTO {table} ({INTO[table]}) {question}")
    for left in path.parent.glob(f"{path.name}*"):
        left.unlink()
    new.rename(path)


def change(path: Path, statement: str, *values: object) -> None:
    """Change rows of a file that nobody uses."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement, values)


def number_of(path: Path) -> int:
    """The format that a file has now."""
    with closing(sqlite3.connect(path)) as database:
        found: int = database.execute("PRAGMA user_version").fetchone()[0]
        return found


def schema_of(path: Path) -> set[tuple[str, str, str]]:
    """Kind, name and text of all tables, indices and views."""
    with closing(sqlite3.connect(path)) as database:
        return set(database.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
