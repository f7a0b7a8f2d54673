"""Brings a state file of an older version to the present format.

A new file is written beside the old one, with the pending messages and the keys, but without texts that are not needed
any more. Then it replaces the old file in one step. Until then the old file is not changed: if the process is killed,
only the work so far is lost. The old file is kept if it is not too large, so that one can go back to the older version.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from cc_slurm_adapter.outbox import stored_messages
from cc_slurm_adapter.outbox.memory import copy_to_file
from cc_slurm_adapter.outbox.queries import MESSAGE_OF
from cc_slurm_adapter.outbox.schema import AFTER_PROBE, SCHEMA, SCHEMA_VERSION
from cc_slurm_adapter.sinks.base import Encoded, Text
from cc_slurm_adapter.system.outages import kind_of

log = logging.getLogger(__name__)

OLDER = range(1, SCHEMA_VERSION)
AT_ONCE = 200
"""How many rows one transaction copies."""
KEPT_BYTES = 256 * 1024 * 1024
"""An old file that is larger is not kept."""
STATES = {"owed": "pending", "shadowed": "conflict", "kept": "retained"}
STAGES = {"seen": "preparing", "live": "started"}
TEXTS = ("jobScript", "slurmInfo")
NO_ROOM = ("full", "disk I/O")
"""Parts of SQLite's errors if a disk has no room; the second one if a quota or a limit is reached."""
NEEDS_TEXTS = ("pending", "parked", "following")
_RUNS = "SELECT cluster, job_id, start_time, stage, hosts, details, changed FROM run"
_MESSAGES = "SELECT * FROM message ORDER BY id"
_ADD_RUN = "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?, '')"
_LIKE_NOW = 7
"""The first format with the tables of the present one: only columns are missing in it."""
_SAME_COLUMNS = {
    "message": "id, payload, texts_at, texts",
    "delivery": (
        "id, sink, cluster, job_id, start_time, kind, message, created, refusals, first_sent, next_try, state, reason,"
        " cuts, parkings, parked_since, why"
    ),
}
"""Tables that are copied as they are, with the columns that all formats from _LIKE_NOW on have."""
_TEXTS = """
SELECT u.message, u.hash, t.body FROM text_use AS u JOIN text AS t ON t.hash = u.hash ORDER BY u.message DESC
"""
_ADD_DELIVERY = """
INSERT INTO delivery (id, sink, cluster, job_id, start_time, kind, message, created, refusals, first_sent, next_try,
state, reason, parkings, parked_since, why)
VALUES (:id, :sink, :cluster, :job_id, :start_time, :kind, :number, :created, :refusals, :first_sent, :next_try,
:state, :reason, :parkings, :parked_since, :why)
"""


def new_database(database: sqlite3.Connection) -> None:
    """Make the tables in an empty file."""
    database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    database.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


def migrate(path: str, go_on: Callable[[], None], max_text_bytes: int) -> None:
    """Bring the file to the present format. Nothing else may use it meanwhile.

    `go_on` is called again and again, and may raise to end the work. Texts of pending starts are copied up to
    `max_text_bytes`, and none if the disk turns out to be full. If anything fails, the old file is as it was, and
    nothing is left beside it. Raises OSError and sqlite3.Error.
    """
    log.warning("the state file %s is of an older version and is converted to the present format", path)
    try:
        _rewrite(path, go_on, max_text_bytes)
    except sqlite3.OperationalError as error:
        if max_text_bytes <= 0 or not is_of_room(error):
            raise
        log.warning("there is no room for the texts of starts that wait (%s): once more, without them", error)
        _rewrite(path, go_on, 0)


def migrate_to_memory(path: str, memory: sqlite3.Connection, go_on: Callable[[], None]) -> None:
    """Copy everything except texts from an older file into an empty database in memory. Raises sqlite3.Error."""
    with closing(_open(path)) as old:
        new_database(memory)
        for _ in _Copy(old, memory, 0).steps():
            go_on()


def replace_older(path: str, memory: sqlite3.Connection) -> None:
    """Replace an older file by one of the present format, with what is in memory.

    `migrate_to_memory` has copied the older file into memory before. Raises OSError and sqlite3.Error.
    """
    with _replaced(path) as (_, target):
        copy_to_file(memory, target)


def is_of_room(error: sqlite3.Error) -> bool:
    """Return whether the disk has no room, as far as SQLite's error shows."""
    return any(word in str(error) for word in NO_ROOM)


def _rewrite(path: str, go_on: Callable[[], None], max_text_bytes: int) -> None:
    with _replaced(path) as (old, target):
        for _ in _Copy(old, target, max_text_bytes).steps():
            go_on()


@contextlib.contextmanager
def _replaced(path: str) -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
    """Yield the old file, and the new one that replaces it at the end. If anything fails, the new one is removed."""
    new = f"{path}.new"
    _remove(new)
    try:
        with closing(_open(path)) as old:
            version = old.execute("PRAGMA user_version").fetchone()[0]
            if old.execute("PRAGMA journal_mode = DELETE").fetchone()[0] != "delete":
                raise sqlite3.OperationalError("database is locked")  # else its log would be read as the new file's
            with closing(sqlite3.connect(new, isolation_level=None)) as target:
                new_database(target)
                target.execute("PRAGMA user_version = 0")
                yield old, target
                target.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        _put_in_place(path, new, version)
    except BaseException:
        _remove(new)
        raise


def _open(path: str) -> sqlite3.Connection:
    old = sqlite3.connect(path, timeout=5.0, isolation_level=None)
    old.row_factory = sqlite3.Row
    return old


def _remove(new: str) -> None:
    """Remove what this start, or one that was killed, has written so far."""
    for suffix in ("", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new + suffix)


class _Copy:
    """Copies an old file into a new one."""

    def __init__(self, old: sqlite3.Connection, new: sqlite3.Connection, max_text_bytes: int) -> None:
        self._old = old
        self._new = new
        self._text_bytes = max_text_bytes

    def steps(self) -> Iterator[None]:
        """Copy everything, in transactions of AT_ONCE rows. Yields after each."""
        self._new.execute("BEGIN")
        for number, copy in enumerate(self._rows(), 1):
            copy()
            if number % AT_ONCE == 0:
                self._new.execute("COMMIT")
                yield
                self._new.execute("BEGIN")
        self._new.execute("COMMIT")
        yield

    def _rows(self) -> Iterator[Callable[[], object]]:
        add = partial(self._new.execute, "INSERT INTO checkpoint VALUES (?, ?)")
        yield from (partial(add, tuple(row)) for row in self._old.execute("SELECT cluster, seen_until FROM checkpoint"))
        if self._old.execute("SELECT 1 FROM sqlite_master WHERE name = 'used_sink'").fetchone():
            add = partial(self._new.execute, "INSERT INTO used_sink VALUES (?)")
            yield from (partial(add, tuple(row)) for row in self._old.execute("SELECT sink FROM used_sink"))
        version = self._old.execute("PRAGMA user_version").fetchone()[0]
        yield from (partial(self._add_run, *row, is_first=version == 1) for row in self._old.execute(_RUNS))
        if version < _LIKE_NOW:
            yield from (partial(self._add_message, dict(row)) for row in self._old.execute(_MESSAGES))
        else:
            yield from self._same_rows()

    def _same_rows(self) -> Iterator[Callable[[], object]]:
        for table, columns in _SAME_COLUMNS.items():
            values = ", ".join("?" * (columns.count(",") + 1))
            add = partial(self._new.execute, f"INSERT INTO {table} ({columns}) VALUES ({values})")  # noqa: S608 - names
            rows = self._old.execute(f"SELECT {columns} FROM {table}")  # noqa: S608 - names
            yield from (partial(add, tuple(row)) for row in rows)
        if self._text_bytes > 0:
            yield from (partial(self._keep_text, *row) for row in self._old.execute(_TEXTS))

    def _keep_text(self, message: int, key: str, body: bytes) -> None:
        """Keep a text, unless there is no room for more."""
        if self._text_bytes > 0:
            self._text_bytes -= stored_messages.keep_stored(self._new, message, key, body)

    def _add_run(self, *row: Any, is_first: bool) -> None:
        """Add a run. In the first format a run that was left out may have no nodes, and others lack their threads."""
        cluster, job_id, start_time, stage, *rest = row
        if is_first and stage == "seen":
            return  # it is read from Slurm again
        stage = "done" if is_first and stage == "ignored" else STAGES.get(stage, stage)
        self._new.execute(_ADD_RUN, (cluster, job_id, start_time, stage, *rest))

    def _add_message(self, row: dict[str, Any]) -> None:
        row["state"] = STATES.get(row["outcome"], row["outcome"])
        is_parked = row["state"] == "parked"
        row.setdefault("parkings", int(is_parked))
        row.setdefault("parked_since", time.time() if is_parked else 0)
        row["next_try"] = AFTER_PROBE if is_parked else row["next_try"]
        row["why"] = row.get("why") or (kind_of(row["reason"]) if is_parked else "")
        place = (row["cluster"], row["job_id"], row["start_time"], row["kind"])
        known = self._new.execute(MESSAGE_OF, place).fetchone()
        encoded = _encoded(row["payload"]) if row["kind"] == "start" else Encoded(row["payload"])
        row["number"] = known[0] if known else stored_messages.add(self._new, encoded)
        if row["state"] in NEEDS_TEXTS and self._text_bytes > 0:
            for text in encoded.texts:
                self._text_bytes -= stored_messages.keep_text(self._new, row["number"], text)
        self._new.execute(_ADD_DELIVERY, row)


def _encoded(payload: bytes) -> Encoded:
    """Return a start of an older format with its texts separated, or as it is if they cannot be separated."""
    try:
        message = json.loads(payload)
        meta_data = message.pop("metaData")
        texts = {key: meta_data.pop(key) for key in TEXTS if key in meta_data}
        if not meta_data:
            return Encoded(payload)
        message["metaData"] = meta_data
        head = _json(message)[:-2]
        return Encoded(head, tuple(Text(f',"{key}":'.encode(), _json(texts[key])) for key in texts), b"}}")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return Encoded(payload)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", errors="replace")


def _put_in_place(path: str, new: str, version: int) -> None:
    size, before = os.path.getsize(path), f"{path}.format-{version}"
    kept = f"it has {size >> 20} MB and is not kept: the previous version would read everything from Slurm again"
    if size <= KEPT_BYTES:
        kept = f"kept as {before}: to go back, stop the daemon and move that to {path}"
        try:
            Path(before).unlink(missing_ok=True)
            os.link(path, before)
        except OSError as error:
            kept = f"it cannot be kept ({error.strerror})"
    os.replace(new, path)
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    log.warning("the state file %s has the present format now; the previous one: %s", path, kept)
