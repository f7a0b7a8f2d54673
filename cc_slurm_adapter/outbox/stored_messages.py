"""Messages and their texts in the state file: each is stored once, and put together when it is sent.

All functions are steps of one transaction of the outbox.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.sinks.base import Encoded, Text

LEFT_OUT = b'"[left out by cc-slurm-adapter: %s]"'
TOO_LARGE = LEFT_OUT % b"the whole message was too large"
NOT_KEPT = LEFT_OUT % b"texts are not kept once they were delivered, nor above stateMaxBytes"
_ADD = "INSERT INTO message (payload, texts_at, texts) VALUES (?, ?, ?)"
_REPLACE = """
INSERT INTO message (payload, texts_at, texts, id) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE
SET payload = excluded.payload, texts_at = excluded.texts_at, texts = excluded.texts
"""
_KEEP_TEXT = "INSERT OR IGNORE INTO text VALUES (?, ?)"
_USE_TEXT = "INSERT OR IGNORE INTO text_use VALUES (?, ?)"
_TEXT = "SELECT body FROM text WHERE hash = ?"
_RELEASE = """
DELETE FROM text_use WHERE message = ? AND NOT EXISTS (
    SELECT 1 FROM delivery WHERE cluster = ? AND job_id = ? AND start_time = ? AND kind = 'start'
    AND state IN ('pending', 'parked', 'following'))
"""
"""By the run, not by the row that was delivered: that may be gone, and the message may be new in the same place."""
_BY_AGE = """
SELECT t.hash, LENGTH(t.body) FROM text AS t JOIN text_use AS u ON u.hash = t.hash
GROUP BY t.hash ORDER BY MIN(u.message)
"""
_USED = "SELECT hash FROM text_use WHERE message = ?"
_FORGET_TEXT = "DELETE FROM text WHERE hash = :hash AND NOT EXISTS (SELECT 1 FROM text_use WHERE hash = :hash)"
_RELEASE_ALL = """
DELETE FROM text_use WHERE message NOT IN (
    SELECT message FROM delivery WHERE kind = 'start' AND state IN ('pending', 'parked', 'following'))
"""
_FORGET_UNUSED = "DELETE FROM text WHERE NOT EXISTS (SELECT 1 FROM text_use WHERE text_use.hash = text.hash)"


class Stored(NamedTuple):
    """A message as it is in the file."""

    payload: bytes
    texts_at: int
    texts: str


class Delivered(NamedTuple):
    """A start that a sink has. Its texts may be deleted if the start of the run is not to be delivered (again)."""

    message: int
    key: RunKey


def stored(encoded: Encoded) -> Stored:
    """Return the message without its texts, but with the hashes by which they are found."""
    texts = json.dumps([(text.before.decode(), _hash(text.body)) for text in encoded.texts]) if encoded.texts else ""
    return Stored(encoded.head + encoded.tail, len(encoded.head), texts)


def add(database: sqlite3.Connection, encoded: Encoded) -> int:
    """Store a message without its texts, which `keep_text` adds. Return its number."""
    return database.execute(_ADD, stored(encoded)).lastrowid or 0


def replace(database: sqlite3.Connection, row_id: int, encoded: Encoded) -> None:
    """Store another message in place of one that is over. While the state is in memory, that one may be missing."""
    database.execute(_REPLACE, (*stored(encoded), row_id))


def keep_text(database: sqlite3.Connection, row_id: int, text: Text) -> int:
    """Store a text of a message until its start is delivered. Return its bytes if it was new, else 0."""
    return keep_stored(database, row_id, _hash(text.body), text.body)


def keep_stored(database: sqlite3.Connection, row_id: int, key: str, body: bytes) -> int:
    """Store a text whose hash is known. Return its bytes if it was new, else 0."""
    database.execute(_USE_TEXT, (row_id, key))
    return database.execute(_KEEP_TEXT, (key, body)).rowcount * len(body)


def drop_oldest_texts(database: sqlite3.Connection, size: int) -> int:
    """Forget texts of pending starts, at least `size` bytes, those that wait longest first. Return how many texts."""
    dropped = []
    for key, length in database.execute(_BY_AGE):
        if size <= 0:
            break
        dropped.append((key,))
        size -= length
    for statement in ("DELETE FROM text WHERE hash = ?", "DELETE FROM text_use WHERE hash = ?"):
        database.executemany(statement, dropped)
    return len(dropped)


def texts_of(message: Stored) -> list[tuple[str, str]]:
    """Return what precedes each of its texts, and their hashes."""
    return json.loads(message.texts) if message.texts else []


def whole(database: sqlite3.Connection, message: Stored, texts: Sequence[tuple[str, str]], cuts: int) -> bytes:
    """Return the message with its texts. The first `cuts` texts, and those that are missing, are marked as left out."""
    if not texts:
        return message.payload
    parts = [message.payload[: message.texts_at]]
    for place, (before, key) in enumerate(texts):
        row = None if place < cuts else database.execute(_TEXT, (key,)).fetchone()
        parts += [before.encode(), TOO_LARGE if place < cuts else row[0] if row else NOT_KEPT]
    return b"".join([*parts, message.payload[message.texts_at :]])


def release_texts(database: sqlite3.Connection, starts: Iterable[Delivered]) -> None:
    """Forget the texts of starts that were delivered, if nothing else needs them."""
    for start in starts:
        hashes = database.execute(_USED, (start.message,)).fetchall()
        if hashes and database.execute(_RELEASE, (start.message, *start.key)).rowcount:
            database.executemany(_FORGET_TEXT, [{"hash": each} for (each,) in hashes])


def sweep(database: sqlite3.Connection) -> None:
    """Forget all texts except those of starts that are still to be delivered."""
    database.execute(_RELEASE_ALL)
    database.execute(_FORGET_UNUSED)


def _hash(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()
