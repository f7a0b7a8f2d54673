"""The state file (SQLite): opened, checked, set aside if damaged, brought to the present format, or refused.

This is also where it is decided whether the file had better not grow, because its file system has hardly any room left,
or because somebody reads it for so long that its write-ahead log cannot be emptied; and what an error of SQLite means.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cc_slurm_adapter.errors import AdapterError, StateError
from cc_slurm_adapter.outbox.foreign_state import foreign, is_ours_or_new, refuse_foreign
from cc_slurm_adapter.outbox.memory import copy_to_file, new_memory
from cc_slurm_adapter.outbox.migration import OLDER, is_of_room, migrate, migrate_to_memory, new_database, replace_older
from cc_slurm_adapter.outbox.schema import SCHEMA_VERSION
from cc_slurm_adapter.system.file_systems import NOT_LOCAL, belongs_to_another, file_system_type

log = logging.getLogger(__name__)

MAX_TEXT_BYTES = 256 * 1024 * 1024
"""Bytes of the state file above which texts are left out, if the configuration does not say otherwise."""
MAX_WAL_BYTES = 64 * 1024 * 1024
"""The log is emptied again and again, but not while somebody else reads the file in one long transaction."""
RESERVE_SHARE, RESERVE_LEAST, RESERVE_MOST = 0.05, 200 * 1024 * 1024, 1024 * 1024 * 1024
"""Free space that is left to others: a share of the file system, in bytes, and of a small one a quarter at most."""
PROGRESS_STEPS = 100_000
"""Of SQLite's machine, some milliseconds: so often a long check asks whether to go on."""
WAL_PAGES, WAL_BYTES = 400, 1638400
"""The write-ahead log stays small, since a state folder may be: SQLite's own default is 4 MB and more."""
BUSY = 5.0
"""Seconds that somebody else's lock on the file is waited for; `Timing.busy_briefly` while all others wait for us."""
STORAGE_ERRORS = (sqlite3.Error, OverflowError, OSError)
"""What SQLite and its file raise; OverflowError for a number beyond 64 bits."""
NO_LOCK = ("locked", "locking protocol")
DAMAGED = ("malformed", "not a database", "disk image")
UNWRITABLE = ("full", "readonly", "disk I/O", "unable to open")
"""Parts of SQLite's errors that are about the disk, not of the data. (Error codes come with Python 3.11 only.)"""


class Timing(NamedTuple):
    """How long the state waits, in seconds."""

    check_room_every: float = 1.0
    """Between two checks of the room that there is."""
    retry_file: float = 30.0
    """Until a file that could not be written is tried again."""
    busy_briefly: float = 0.3
    """For somebody else's lock on the file, while all others wait for us."""
    clock: Callable[[], float] = time.monotonic


TIMING = Timing()


class Opened(NamedTuple):
    """The state as a start finds it."""

    database: sqlite3.Connection
    why_in_memory: sqlite3.OperationalError | None = None
    """Why the file cannot be written, where the database is in memory; None where it is the file."""


class StateFile:
    """The file by its path. It keeps no connection: whoever opens it does."""

    def __init__(self, path: str, go_on: Callable[[], None], max_text_bytes: int, *, timing: Timing = TIMING) -> None:
        """`go_on` is called again and again while the file is checked or brought to the present format.

        It may raise to end that. Texts of an older file are copied up to `max_text_bytes`.
        """
        self.path = path
        self._go_on = go_on
        self._max_text_bytes = max_text_bytes
        self._timing = timing
        self._is_suspect = False
        """Damage was met: the next start is to check the file."""
        self.is_rebuilt = False
        """A damaged file was set aside: what had been pending must be found out again."""

    def open(self) -> Opened:
        """Open the file, whatever state it is in. Raises StateError where it cannot be used, or is somebody else's."""
        try:
            refuse_foreign(self.path)
            try:
                return self._open()
            except sqlite3.OperationalError:  # no permission, locked, disk full: the file itself may be sound
                raise
            except sqlite3.DatabaseError as error:
                _set_aside(self.path, error)
                self.is_rebuilt = True
                return self._open()
        except STORAGE_ERRORS as error:
            raise self.error_of(error) from error

    def demand_room(self, database: sqlite3.Connection) -> None:
        """Raises sqlite3.OperationalError where the file had better not grow."""
        free, reserve = room(self.path)
        if free < reserve:
            raise sqlite3.OperationalError(
                f"its file system has {free / 2**20:.0f} MB left, and the last {reserve / 2**20:.0f} MB are not used"
            )
        if _wal_bytes(self.path) > MAX_WAL_BYTES:
            database.execute(f"PRAGMA busy_timeout = {self._timing.busy_briefly * 1000:.0f}")
            is_busy = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            database.execute(f"PRAGMA busy_timeout = {BUSY * 1000:.0f}")
            if is_busy:
                raise sqlite3.OperationalError(
                    "another program reads it, in a transaction that does not end, and its log grows: end that"
                    " (sqlite3?)"
                )

    def write_back(self, memory: sqlite3.Connection, *, to_the_last: bool) -> sqlite3.Connection:
        """Bring all that is in memory into the file, as a whole; `to_the_last` also where it had better not grow.

        Returns the file's connection. Raises StateError and what is among STORAGE_ERRORS.
        """
        file = _connect(self.path, self._timing.busy_briefly)
        try:
            if not to_the_last:
                self.demand_room(file)
            if self._version(file) in OLDER:
                file.close()
                replace_older(self.path, memory)
                file = _connect(self.path, self._timing.busy_briefly)
            self._prepare(file)
            copy_to_file(memory, file)
            file.execute(f"PRAGMA busy_timeout = {BUSY * 1000:.0f}")
        except BaseException:
            file.close()
            raise
        return file

    def mark_if_damaged(self) -> None:
        """Let the next start check the file where damage was met; called once its connection is closed."""
        if self._is_suspect:
            with contextlib.suppress(OSError):
                Path(f"{self.path}-wal").touch()  # as after an unclean end

    def error_of(self, error: Exception) -> StateError:
        """Return what an error of SQLite means for the administrator; damage is remembered until the end."""
        if isinstance(error, sqlite3.DatabaseError) and any(word in str(error) for word in DAMAGED):
            self._is_suspect = True
        return StateError(f"the state file {self.path} cannot be used: {_why(self.path, error)}")

    def _open(self) -> Opened:
        ended_uncleanly = os.path.exists(f"{self.path}-wal")
        in_memory = self._migrate()
        if in_memory is not None:
            return in_memory
        database = _connect(self.path)
        try:
            self._prepare(database)
            if ended_uncleanly:
                _check(database, self._go_on)
        except BaseException:
            database.close()
            raise
        return Opened(database)

    def _prepare(self, database: sqlite3.Connection) -> None:
        version = self._version(database)
        if version == 0:
            new_database(database)
        elif version != SCHEMA_VERSION:
            raise StateError(
                f"the state file {self.path} has the format {version}, this version knows {SCHEMA_VERSION}:"
                " use the version that wrote it, or move the file away (jobs are then read from Slurm again)"
            )
        _tune(database)

    def _version(self, database: sqlite3.Connection) -> int:
        """Return the number of the file's format; 0 of a new one. Raises StateError when it is somebody else's."""
        if not is_ours_or_new(database):
            raise foreign(self.path)
        found: int = database.execute("PRAGMA user_version").fetchone()[0]
        return found

    def _migrate(self) -> Opened | None:
        """Bring an older file to the present format. Where there is no room for that, return what it has, in memory."""
        if not os.path.isfile(self.path):
            return None
        with contextlib.closing(_connect(self.path)) as database:
            if self._version(database) not in OLDER:
                return None
        free, reserve = room(self.path)
        needed = f"the file in the present format needs {(os.path.getsize(self.path) >> 20) + 1} MB at most"
        if free < reserve:
            with contextlib.suppress(sqlite3.OperationalError):  # more than memory is to hold: the file grows
                return self._migrate_to_memory(
                    f"it is of an older version, and its file system is nearly full: {needed}"
                )
        try:
            migrate(self.path, self._go_on, int(min(self._max_text_bytes, max(free - reserve, 0))))
        except sqlite3.OperationalError as error:
            if not is_of_room(error):
                raise
            return self._migrate_to_memory_or_fail(f"it is of an older version, and {error}: {needed}")
        return None

    def _migrate_to_memory_or_fail(self, why: str) -> Opened:
        try:
            return self._migrate_to_memory(why)
        except sqlite3.OperationalError as error:
            folder = os.path.dirname(self.path) or "."
            raise StateError(
                f"the state file {self.path} cannot be used: {why}, and it cannot be kept in memory ({error}): free"
                f" that much on the file system of {folder}, or set statePath to another"
            ) from error

    def _migrate_to_memory(self, why: str) -> Opened:
        """Leave an older file as it is until there is room for a new one."""
        memory = new_memory()
        try:
            migrate_to_memory(self.path, memory, self._go_on)
        except BaseException:
            memory.close()
            raise
        return Opened(memory, sqlite3.OperationalError(why))


def is_of_disk(error: Exception) -> bool:
    """Tell whether an error of SQLite is about the disk: the same may succeed in memory."""
    return any(word in str(error) for word in UNWRITABLE)


def _connect(path: str, busy: float = BUSY) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=busy, isolation_level=None, check_same_thread=False)


def _tune(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA cache_size = -2048")
    database.execute("PRAGMA secure_delete = OFF")  # Debian's SQLite would write over every page that is given up
    database.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    database.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    database.execute("SELECT 1 FROM checkpoint").fetchone()  # makes the files beside it, while there is room


def _check(database: sqlite3.Connection, go_on: Callable[[], None]) -> None:
    """Read all of it, after an end that may have left anything. Raises what `go_on` raises."""
    stopped: list[AdapterError] = []

    def tick() -> int:
        try:
            go_on()
        except AdapterError as error:  # SQLite would only report an interruption
            stopped.append(error)
        return len(stopped)

    database.set_progress_handler(tick, PROGRESS_STEPS)
    try:
        found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError:
        if stopped:
            raise stopped[0] from None
        raise
    finally:
        database.set_progress_handler(None, 0)
    if found != "ok":
        raise sqlite3.DatabaseError(found)


def _set_aside(path: str, error: sqlite3.Error) -> None:
    aside = f"{path}.damaged-{int(time.time())}"
    log.error("the state file %s is damaged (%s): moved to %s, rebuilt from Slurm", path, error, aside)
    try:
        os.replace(path, aside)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + suffix)
        _keep_newest(path, aside)
    except OSError as problem:
        raise StateError(f"the damaged state file {path} cannot be moved: {problem}") from problem


def _keep_newest(path: str, aside: str) -> None:
    """Remove the damaged files that were set aside before."""
    name = re.compile(re.escape(os.path.basename(path)) + r"\.damaged-\d+")
    for other in Path(path).parent.iterdir():
        if name.fullmatch(other.name) and other.name != os.path.basename(aside) and other.is_file():
            other.unlink()


def room(path: str) -> tuple[float, float]:
    """Return the free bytes of the file system, and those of them that are left to others."""
    try:
        system = os.statvfs(os.path.dirname(path) or ".")
    except OSError:
        return float("inf"), 0  # the write that fails reports what is wrong
    total, free = system.f_blocks * system.f_frsize, system.f_bavail * system.f_frsize
    return free, min(max(RESERVE_SHARE * total, RESERVE_LEAST), RESERVE_MOST, total / 4)


def _wal_bytes(path: str) -> int:
    try:
        return os.path.getsize(f"{path}-wal")
    except OSError:
        return 0


def _why(path: str, error: Exception) -> str:
    if any(word in str(error) for word in NO_LOCK):
        kind = file_system_type(path)
        if kind in NOT_LOCAL:
            return f"{error}: it is on {kind}, but must be on a local file system: set statePath to a path on one"
        return f"{error}: another program has it open; end that (if its file system is not a local one, set statePath)"
    if is_of_disk(error):
        return f"{error}: {belongs_to_another(path) or 'is the disk full or read-only?'}"
    return str(error)
