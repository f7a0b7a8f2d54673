"""Copies a part of the state into memory while the file cannot be written, and back into the file.

That part is the pending messages, those that are sent again if another run is refused, and the keys: which runs are
known, and the state of every delivery. Other delivered messages stay only in the file, and so do most texts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from cc_slurm_adapter.outbox.schema import SCHEMA

IN_MEMORY = ":memory:"
MAX_IN_MEMORY = 32 * 1024 * 1024
"""Bytes of state that are kept in memory at most."""
DONE_RUNS = 50_000
"""The most runs that are over and known in memory: the latest ones."""
TEXT_BYTES = 4 * 1024 * 1024
"""The most bytes of texts of pending starts in memory: the latest ones."""
_RUN = "SELECT cluster, job_id, start_time, stage, hosts, details, changed, note FROM run"
_ADD_RUN = "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_TO_MEMORY = {
    "INSERT INTO checkpoint VALUES (?, ?)": "SELECT cluster, seen_until FROM checkpoint",
    "INSERT INTO used_sink VALUES (?)": "SELECT sink FROM used_sink",
    _ADD_RUN: f"{_RUN} WHERE stage != 'done'",
    "INSERT INTO message VALUES (?, ?, ?, ?)": """
        SELECT id, payload, texts_at, texts FROM message WHERE id IN (
            SELECT message FROM delivery WHERE state IN ('pending', 'parked', 'following') OR kind = 'withdraw'
            UNION SELECT d.message FROM delivery AS d JOIN delivery AS w ON w.cluster = d.cluster
            AND w.job_id = d.job_id AND w.start_time = d.start_time AND w.kind = 'withdraw' AND w.sink = d.sink
            WHERE d.state = 'retained' AND (w.state != 'retained' OR w.first_sent > 0))""",
}
_DONE_TO_MEMORY = f"{_RUN} WHERE stage = 'done' ORDER BY changed DESC LIMIT {DONE_RUNS}"
_TEXTS = """
SELECT u.message, u.hash, t.body FROM text_use AS u JOIN text AS t ON t.hash = u.hash ORDER BY u.message DESC
"""
_TO_FILE = {
    "INSERT OR REPLACE INTO checkpoint VALUES (?, ?)": "SELECT cluster, seen_until FROM checkpoint",
    "INSERT OR REPLACE INTO used_sink VALUES (?)": "SELECT sink FROM used_sink",
    "INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?)": _RUN,
    "INSERT OR REPLACE INTO message VALUES (?, ?, ?, ?)": "SELECT id, payload, texts_at, texts FROM message",
    "INSERT OR IGNORE INTO text VALUES (?, ?)": "SELECT hash, body FROM text",
    "INSERT OR IGNORE INTO text_use VALUES (?, ?)": "SELECT message, hash FROM text_use",
}


def new_memory() -> sqlite3.Connection:
    """Return an empty database that cannot grow above MAX_IN_MEMORY."""
    memory = sqlite3.connect(IN_MEMORY, isolation_level=None, check_same_thread=False)
    page_size = memory.execute("PRAGMA page_size").fetchone()[0]
    memory.execute(f"PRAGMA max_page_count = {MAX_IN_MEMORY // page_size}")
    return memory


def copy_to_memory(file: sqlite3.Connection, memory: sqlite3.Connection) -> None:
    """Copy what is needed into an empty database. Raises sqlite3.Error, also if there is no room for it there."""
    file.execute("PRAGMA shrink_memory")  # frees the memory that it uses for the file, for what is copied
    memory.executescript(SCHEMA)
    memory.execute("BEGIN")
    for statement, query in _TO_MEMORY.items():
        memory.executemany(statement, file.execute(query))
    memory.executemany(_ADD_RUN, file.execute(_DONE_TO_MEMORY))
    _copy_deliveries(file, memory)
    for message, key, body in _some_texts(file):
        memory.execute("INSERT OR IGNORE INTO text VALUES (?, ?)", (key, body))
        memory.execute("INSERT INTO text_use VALUES (?, ?)", (message, key))
    # So that numbers that only the file has are not used again.
    memory.execute("DELETE FROM sqlite_sequence")
    memory.executemany(
        "INSERT INTO sqlite_sequence VALUES (?, ?)", file.execute("SELECT name, seq FROM sqlite_sequence")
    )
    memory.execute("COMMIT")


def copy_to_file(memory: sqlite3.Connection, file: sqlite3.Connection) -> None:
    """Copy all that is in memory, as one transaction; what only the file has stays there. Raises sqlite3.Error."""
    file.execute("BEGIN IMMEDIATE")
    try:
        file.execute("DELETE FROM used_sink")
        file.execute("DELETE FROM run WHERE stage != 'done'")
        known = {row_id for (row_id,) in memory.execute("SELECT id FROM delivery")}
        gone = [(row_id,) for (row_id,) in file.execute("SELECT id FROM delivery") if row_id not in known]
        file.executemany("DELETE FROM delivery WHERE id = ?", gone)
        for statement, query in _TO_FILE.items():
            file.executemany(statement, memory.execute(query))
        _copy_deliveries(memory, file)
        # If the file was lost meanwhile, the messages that only it had are lost, too.
        file.execute("DELETE FROM delivery WHERE message NOT IN (SELECT id FROM message)")
        file.execute("COMMIT")
    except BaseException:
        if file.in_transaction:
            file.execute("ROLLBACK")
        raise


def _copy_deliveries(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    rows = source.execute("SELECT * FROM delivery")
    places = ", ".join("?" * len(rows.description))
    target.executemany(f"INSERT OR REPLACE INTO delivery VALUES ({places})", rows)  # noqa: S608 - only places


def _some_texts(file: sqlite3.Connection) -> Iterator[tuple[int, str, bytes]]:
    size = 0
    for message, key, body in file.execute(_TEXTS):
        size += len(body)
        if size > TEXT_BYTES:
            return
        yield message, key, body
