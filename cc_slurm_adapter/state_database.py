"""The state file (SQLite): opened, checked, set aside if damaged, and held in memory while it cannot be written.

Durability: the file is in WAL mode. What is written as durable is committed with synchronous=FULL, so that it survives
a power cut; all else with NORMAL, which survives a killed process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.log import Reminder
from cc_slurm_adapter.outbox_schema import MIGRATIONS, SCHEMA, SCHEMA_VERSION

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
IN_MEMORY = ":memory:"
MAX_IN_MEMORY = 32 * 1024 * 1024
"""Bytes of state that are held in memory at most."""
BUSY_OR_LOCKED = (5, 6)
"""SQLITE_BUSY and SQLITE_LOCKED; the names come with Python 3.11 only."""
RETRY_FILE = 30.0
"""Seconds until a file that could not be written is tried again."""
WAL_PAGES, WAL_BYTES = 256, 1024 * 1024
"""The write-ahead log stays small, since a state folder may be: SQLite's own default is 4 MB and more."""
BUSY, BUSY_BRIEFLY = 5.0, 0.3
"""Seconds that somebody else's lock on the file is waited for; the second while all others wait for us."""
UNWRITABLE = ("full", "readonly", "disk I/O", "unable to open")
"""Words of SQLite's errors that speak of the disk, not of the data. (Error codes come with Python 3.11 only.)"""


class StateDatabase:
    """Used from several threads: every use is one locked transaction. Raises StateError."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._is_synchronous: bool | None = None
        """How the connection was told to commit; None: not yet."""
        self._in_memory = False
        self._retry_at = 0.0
        self._reminder = Reminder()
        self.is_rebuilt = False
        """A damaged file was set aside: what had been owed must be found out again."""
        with self._translated():
            try:
                self._database = self._opened()
            except sqlite3.OperationalError:  # no permission, locked, disk full: the file itself may be sound
                raise
            except sqlite3.DatabaseError as error:
                self._set_aside(error)
                self._database = self._opened()

    @property
    def is_durable(self) -> bool:
        """Whether what was written last is in the file."""
        return not self._in_memory

    def retry_file(self) -> None:
        """Try a file that could not be written with the next write, and say if it still cannot be."""
        self._retry_at = 0.0
        self._reminder.forget()

    def close(self) -> None:
        """Close the file, with all in it if that can be."""
        with self._lock:
            if self._in_memory:
                with contextlib.suppress(StateError), self._translated():
                    self._return_to_file()
            self._database.close()

    def read(self, question: str, values: tuple[object, ...]) -> list[Any]:
        """All rows of an answer."""
        with self.reading() as database:
            return database.execute(question, values).fetchall()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For several questions."""
        with self._translated(), self._lock:
            yield self._database

    def write(self, action: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """One durable transaction: in the file, or at once in memory where the disk does not take it."""
        was_durable = self.is_durable
        try:
            with self.writing(durable=True) as database:
                return action(database)
        except StateError:
            if self.is_durable or not was_durable:
                raise
        with self.writing() as database:
            return action(database)

    @contextlib.contextmanager
    def writing(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction.

        Where the disk does not take it, it fails and the state moves to memory: the next one succeeds there. The
        file stays as it was, until it can be written again and gets everything.
        """
        with self._translated(), self._lock:
            if self._in_memory and time.monotonic() >= self._retry_at:
                self._try_file()
            try:
                with self._transaction(durable) as database:
                    yield database
            except sqlite3.OperationalError as error:
                if not self._in_memory and _is_of_disk(error):
                    self._move_to_memory(error)
                raise

    @contextlib.contextmanager
    def _transaction(self, durable: bool) -> Iterator[sqlite3.Connection]:
        database = self._database
        if durable is not self._is_synchronous:
            database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._is_synchronous = durable
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:  # a full disk has rolled back by itself
                database.execute("ROLLBACK")
            raise

    def _move_to_memory(self, error: sqlite3.Error) -> None:
        """Reading still works on a full or read-only disk. Raises sqlite3.Error where it does not."""
        (pages,), (page_size,) = (self._database.execute(f"PRAGMA {n}").fetchone() for n in ("page_count", "page_size"))
        if pages * page_size > MAX_IN_MEMORY:
            return  # everything waits until there is room
        memory = self._connect(IN_MEMORY)
        try:
            _copy(self._database, memory)
            memory.execute(f"PRAGMA max_page_count = {MAX_IN_MEMORY // page_size}")
        except BaseException:
            memory.close()
            raise
        self._database.close()
        self._database, self._in_memory, self._is_synchronous = memory, True, None
        self._say_unwritable(error)

    def _try_file(self) -> None:
        try:
            self._return_to_file()
        except sqlite3.Error as error:
            self._say_unwritable(error)

    def _return_to_file(self) -> None:
        """All that is in memory replaces what is in the file, as a whole."""
        file = self._connect(self._path, BUSY_BRIEFLY)
        try:
            _copy(self._database, file)
            _tune(file)
            file.execute(f"PRAGMA busy_timeout = {BUSY * 1000:.0f}")
        except BaseException:
            file.close()
            raise
        self._database.close()
        self._database, self._in_memory, self._is_synchronous = file, False, None
        if self._reminder.over():
            log.warning("the state file %s can be written again and has everything", self._path)

    def _say_unwritable(self, error: sqlite3.Error) -> None:
        self._retry_at = time.monotonic() + RETRY_FILE
        if self._reminder.is_due():
            log.error(
                "the state file %s cannot be written (%s): going on from memory, and the file is tried again every"
                " %.0f s; make room or make it writable (after a crash all since then is found out from Slurm again)",
                self._path,
                error,
                RETRY_FILE,
            )

    def _opened(self) -> sqlite3.Connection:
        database = self._connect(self._path)
        try:
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        return database

    def _connect(self, path: str, busy: float = BUSY) -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=busy, isolation_level=None, check_same_thread=False)

    def _set_aside(self, error: sqlite3.Error) -> None:
        aside = f"{self._path}.damaged-{int(time.time())}"
        log.error("the state file %s is damaged (%s): moved to %s, rebuilt from Slurm", self._path, error, aside)
        try:
            os.replace(self._path, aside)
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path + suffix)
        except OSError as problem:
            raise StateError(f"the damaged state file {self._path} cannot be moved: {problem}") from problem
        self.is_rebuilt = True

    def _prepare(self, database: sqlite3.Connection) -> None:
        _tune(database)
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            database.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version in MIGRATIONS:
            database.executescript(f"BEGIN; {MIGRATIONS[version]} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise StateError(
                f"the state file {self._path} has the format {version}, this version knows {SCHEMA_VERSION}:"
                " use the version that wrote it, or move the file away (jobs are then read from Slurm again)"
            )
        found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OverflowError) as error:  # OverflowError: a number beyond 64 bits
            why = f"{error}: is the disk full or read-only?" if _is_of_disk(error) else str(error)
            raise StateError(f"the state file {self._path} cannot be used: {why}") from error


def _is_of_disk(error: Exception) -> bool:
    return any(word in str(error) for word in UNWRITABLE)


def _copy(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """All of it. By itself `backup` would try for ever while somebody else has a lock."""

    def fail(status: int, _remaining: int, _total: int) -> None:
        if status in BUSY_OR_LOCKED:
            raise sqlite3.OperationalError("database is locked")

    source.backup(target, progress=fail, sleep=0.01)


def _tune(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA cache_size = -2048")
    database.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    database.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
