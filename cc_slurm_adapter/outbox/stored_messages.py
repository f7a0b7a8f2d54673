"""Messages and their texts in the state file: each is stored once, and put together when it is sent.

All functions are steps of one transaction of the outbox.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
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
WITH start (message, cluster, job_id, start_time) AS (VALUES {starts})
DELETE FROM text_use WHERE message IN (SELECT message FROM start WHERE NOT EXISTS (
    SELECT 1 FROM delivery AS d WHERE d.cluster = start.cluster AND d.job_id = start.job_id
    AND d.start_time = start.start_time AND d.kind = 'start' AND d.state IN ('pending', 'parked', 'following')))
"""
"""By the run, not by the row that was delivered: that may be gone, and the message may be new in the same place."""
_BY_AGE = """
SELECT t.hash, LENGTH(t.body) FROM text AS t JOIN text_use AS u ON u.hash = t.hash
GROUP BY t.hash ORDER BY MIN(u.message)
"""
_USED = "SELECT DISTINCT hash FROM text_use WHERE message IN ({messages})"
_FORGET_TEXTS = """
DELETE FROM text WHERE hash IN ({hashes}) AND NOT EXISTS (SELECT 1 FROM text_use WHERE text_use.hash = text.hash)
"""
VALUES_AT_ONCE = 900
"""Most placeholders of a statement. Before version 3.32 SQLite takes 999."""
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


def release_texts(database: sqlite3.Connection, starts: Sequence[Delivered]) -> None:
    """Forget the texts of starts that were delivered, if nothing else needs them."""
    at_once = VALUES_AT_ONCE // 4
    for at in range(0, len(starts), at_once):
        some = starts[at : at + at_once]
        used = _USED.format(messages=marks(len(some)))
        hashes = [row[0] for row in database.execute(used, [start.message for start in some])]
        values = [value for start in some for value in (start.message, *start.key)]
        database.execute(_RELEASE.format(starts=marks(len(some), "(?, ?, ?, ?)")), values)
        for first in range(0, len(hashes), VALUES_AT_ONCE):
            part = hashes[first : first + VALUES_AT_ONCE]
            database.execute(_FORGET_TEXTS.format(hashes=marks(len(part))), part)


def marks(count: int, mark: str = "?") -> str:
    """Return so many placeholders for a statement."""
    return ", ".join([mark] * count)


def sweep(database: sqlite3.Connection) -> None:
    """Forget all texts except those of starts that are still to be delivered."""
    database.execute(_RELEASE_ALL)
    database.execute(_FORGET_UNUSED)


def _hash(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()
