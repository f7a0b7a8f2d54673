"""The state file (SQLite): opened, checked, set aside if damaged, and kept in memory while it cannot be written.

It counts as one that cannot be written, too, when its file system has hardly any room left, or when somebody reads it
for so long that its write-ahead log cannot be emptied.

Durability: the file is in WAL mode. What is written as durable is committed with synchronous=FULL, so that it survives
a power cut; all else with NORMAL, which survives a killed process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from cc_slurm_adapter.errors import AdapterError, StateError
from cc_slurm_adapter.log import NOTICE, Reminder
from cc_slurm_adapter.outbox.foreign_state import foreign, is_ours_or_new, refuse_foreign
from cc_slurm_adapter.outbox.memory import copy_to_file, copy_to_memory
from cc_slurm_adapter.outbox.migration import OLDER, is_of_room, migrate, migrate_to_memory, new_database, replace_older
from cc_slurm_adapter.outbox.schema import SCHEMA_VERSION
from cc_slurm_adapter.system.file_systems import NOT_LOCAL, belongs_to_another, file_system_type

log = logging.getLogger(__name__)

Result = TypeVar("Result")
IN_MEMORY = ":memory:"
MAX_IN_MEMORY = 32 * 1024 * 1024
"""Bytes of state that are kept in memory at most."""
MAX_TEXT_BYTES = 256 * 1024 * 1024
"""Bytes of the state file above which texts are left out, if the configuration does not say otherwise."""
MAX_WAL_BYTES = 64 * 1024 * 1024
"""The log is emptied again and again, but not while somebody else reads the file in one long transaction."""
RESERVE_SHARE, RESERVE_LEAST, RESERVE_MOST = 0.05, 200 * 1024 * 1024, 1024 * 1024 * 1024
"""Free space that is left to others: a share of the file system, in bytes, and of a small one a quarter at most."""
CHECK_ROOM_EVERY = 1.0
"""Seconds between two checks of the room that there is."""
PROGRESS_STEPS = 100_000
"""Of SQLite's machine, some milliseconds: so often a long check asks whether to go on."""
FREE_PAGES, PAGES_AT_ONCE, SHRINK_SECONDS = 256, 500, 2.0
"""Free pages that stay in the file; more are given back, so many at once, for so long."""
RETRY_FILE, RETRY_COPY = 30.0, 600.0
"""Seconds until a file that could not be written is tried again, and memory that could not hold what waits."""
WAL_PAGES, WAL_BYTES = 400, 1638400
"""The write-ahead log stays small, since a state folder may be: SQLite's own default is 4 MB and more."""
BUSY, BUSY_BRIEFLY = 5.0, 0.3
"""Seconds that somebody else's lock on the file is waited for; the second while all others wait for us."""
FOREIGN = (sqlite3.Error, OverflowError, OSError)
"""What SQLite and its file raise; OverflowError for a number beyond 64 bits."""
NO_LOCK = ("locked", "locking protocol")
DAMAGED = ("malformed", "not a database", "disk image")
UNWRITABLE = ("full", "readonly", "disk I/O", "unable to open")
"""Parts of SQLite's errors that are about the disk, not of the data. (Error codes come with Python 3.11 only.)"""


class StateDatabase:
    """Used from several threads: every use is one locked transaction. Raises StateError."""

    def __init__(
        self, path: str, go_on: Callable[[], None] = lambda: None, max_text_bytes: int = MAX_TEXT_BYTES
    ) -> None:
        """`go_on` is called again and again while the file is checked or brought to the present format.

        It may raise to end that. Texts of an older file are copied up to `max_text_bytes`.
        """
        self._path = path
        self._go_on = go_on
        self._max_text_bytes = max_text_bytes
        self._is_suspect = False
        """Damage was met: the next start is to check the file."""
        self._next_room_check = 0.0
        self._lock = threading.Lock()
        self._is_synchronous: bool | None = None
        """How the connection is set to commit; None: not set yet."""
        self._in_memory = False
        self._retry_at = 0.0
        self._reminder = Reminder()
        self.is_rebuilt = False
        """A damaged file was set aside: what had been pending must be found out again."""
        with self._translated():
            refuse_foreign(self._path)
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
        """Try a file that could not be written with the next write, and log if it still cannot be."""
        self._retry_at = self._next_room_check = 0.0
        self._reminder.forget()

    def close(self) -> None:
        """Close the file, with all in it if that can be, whatever room it leaves to others."""
        with self._lock:
            if self._in_memory:
                try:
                    self._return_to_file(to_the_last=True)
                except (StateError, *FOREIGN) as error:
                    log.error(
                        "the state file %s cannot be written at the end (%s): it lacks all since that began, which the"
                        " next start finds out from Slurm again; make room or make it writable before",
                        self._path,
                        error,
                    )
            self._database.close()
            if self._is_suspect:
                with contextlib.suppress(OSError):
                    Path(f"{self._path}-wal").touch()  # as after an unclean end

    @staticmethod
    def used_bytes(database: sqlite3.Connection) -> int:
        """Of the file, without its free pages."""
        names = ("page_count", "freelist_count", "page_size")
        pages, free, size = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
        return int((pages - free) * size)

    def shrink(self) -> None:
        """Give free pages back to the file system, in small steps between which others get their turn."""
        deadline, before = time.monotonic() + SHRINK_SECONDS, 0
        while not self._in_memory and time.monotonic() < deadline:
            with self.reading() as database:
                free = database.execute("PRAGMA freelist_count").fetchone()[0]
                if free <= FREE_PAGES or free == before:
                    return
                database.execute(f"PRAGMA incremental_vacuum({min(PAGES_AT_ONCE, free - FREE_PAGES)})").fetchall()
                before = free

    def read(self, query: str, values: tuple[object, ...]) -> list[Any]:
        """All rows of a result."""
        with self.reading() as database:
            return database.execute(query, values).fetchall()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for several queries."""
        try:
            with self._lock:
                yield self._database
        except FOREIGN as error:
            raise self._state_error(error) from error

    def write(self, action: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do something as one durable transaction: in the file, or in memory where the disk fails."""
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

        Where the disk fails so does the transaction, and the state moves to memory: the next one succeeds there. The
        file stays as it was, until it can be written again and gets everything.
        """
        try:
            with self._lock:
                if not self._in_memory:
                    self._check_room()
                elif time.monotonic() >= self._retry_at:
                    self._try_file()
                try:  # in one generator, as there are four transactions in the life of a job
                    self._begin(durable)
                    yield self._database
                    self._database.execute("COMMIT")
                except BaseException as error:
                    self._undo(error)
                    raise
        except FOREIGN as error:
            raise self._state_error(error) from error

    def _begin(self, durable: bool) -> None:
        if durable is not self._is_synchronous:
            self._database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._is_synchronous = durable
        self._database.execute("BEGIN IMMEDIATE")

    def _undo(self, error: BaseException) -> None:
        if self._database.in_transaction:  # a full disk has rolled back by itself
            self._database.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError) and not self._in_memory and _is_of_disk(error):
            self._move_to_memory(error)

    def _check_room(self) -> None:
        """Go on in memory where the file should not grow; where that cannot be, the file is used as long as it goes."""
        if time.monotonic() < self._next_room_check or self._path == IN_MEMORY:
            return
        self._next_room_check = time.monotonic() + CHECK_ROOM_EVERY
        try:
            self._demand_room(self._database)
        except sqlite3.OperationalError as error:
            problem = self._move_to_memory(error)
            if problem is not None:
                self._next_room_check = time.monotonic() + RETRY_COPY
                self._report_growth(error, problem)
            return
        if self._reminder.over():
            log.log(NOTICE, "the state file %s has room to grow again", self._path)

    def _demand_room(self, database: sqlite3.Connection) -> None:
        """Raises sqlite3.OperationalError where the file had better not grow."""
        free, reserve = self._room()
        if free < reserve:
            raise sqlite3.OperationalError(
                f"its file system has {free / 2**20:.0f} MB left, and the last {reserve / 2**20:.0f} MB are not used"
            )
        if self._wal_bytes() > MAX_WAL_BYTES:
            database.execute(f"PRAGMA busy_timeout = {BUSY_BRIEFLY * 1000:.0f}")
            is_busy = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            database.execute(f"PRAGMA busy_timeout = {BUSY * 1000:.0f}")
            if is_busy:
                raise sqlite3.OperationalError(
                    "somebody else reads it, in a transaction that does not end, and its log grows: end that (sqlite3?)"
                )

    def _room(self) -> tuple[float, float]:
        """Free bytes of its file system, and those of them that are left to others."""
        try:
            system = os.statvfs(os.path.dirname(self._path) or ".")
        except OSError:
            return float("inf"), 0  # the write that fails reports what is wrong
        total, free = system.f_blocks * system.f_frsize, system.f_bavail * system.f_frsize
        return free, min(max(RESERVE_SHARE * total, RESERVE_LEAST), RESERVE_MOST, total / 4)

    def _wal_bytes(self) -> int:
        try:
            return os.path.getsize(f"{self._path}-wal")
        except OSError:
            return 0

    def _move_to_memory(self, error: sqlite3.Error) -> sqlite3.Error | None:
        """Reading still works on a full or read-only disk. Where it does not, or all is too large, nothing changes.

        Then the reason is returned.
        """
        memory = self._new_memory()
        try:
            copy_to_memory(self._database, memory)
        except sqlite3.Error as problem:
            memory.close()
            return problem
        self._database.close()
        self._database, self._in_memory, self._is_synchronous = memory, True, None
        self._report_unwritable(error)
        return None

    def _new_memory(self) -> sqlite3.Connection:
        """An empty database that cannot grow above MAX_IN_MEMORY."""
        memory = self._connect(IN_MEMORY)
        page_size = memory.execute("PRAGMA page_size").fetchone()[0]
        memory.execute(f"PRAGMA max_page_count = {MAX_IN_MEMORY // page_size}")
        return memory

    def _try_file(self) -> None:
        try:
            self._return_to_file()
        except (sqlite3.Error, OSError) as error:
            self._report_unwritable(error)

    def _return_to_file(self, *, to_the_last: bool = False) -> None:
        """What is in memory is brought into the file, as a whole; `to_the_last` also where it had better not grow."""
        file = self._connect(self._path, BUSY_BRIEFLY)
        try:
            if not to_the_last:
                self._demand_room(file)
            if self._version(file) in OLDER:
                file.close()
                replace_older(self._path, self._database)
                file = self._connect(self._path, BUSY_BRIEFLY)
            self._prepare(file)
            copy_to_file(self._database, file)
            file.execute(f"PRAGMA busy_timeout = {BUSY * 1000:.0f}")
        except BaseException:
            file.close()
            raise
        self._database.close()
        self._database, self._in_memory, self._is_synchronous = file, False, None
        if self._reminder.over():
            log.log(NOTICE, "the state file %s can be written again and has everything", self._path)

    def _report_unwritable(self, error: Exception) -> None:
        self._retry_at = time.monotonic() + RETRY_FILE
        if self._reminder.is_due():
            log.error(
                "the state file %s cannot be written (%s): going on from memory, and the file is tried again every"
                " %.0f s; make room or make it writable (after a crash all since then is found out from Slurm again)",
                self._path,
                error,
                RETRY_FILE,
            )

    def _report_growth(self, error: sqlite3.Error, problem: sqlite3.Error) -> None:
        if self._reminder.is_due("grows"):
            more = f"more waits than the {MAX_IN_MEMORY >> 20} MB that memory is to hold"
            log.error(
                "the state file %s grows, although it should not (%s), since it cannot be held in memory (%s): make"
                " room, and see what keeps messages from being delivered",
                self._path,
                error,
                more if "full" in str(problem) else problem,
            )

    def _opened(self) -> sqlite3.Connection:
        ended_uncleanly = os.path.exists(f"{self._path}-wal")
        memory = self._migrated()
        if memory is not None:
            return memory
        database = self._connect(self._path)
        try:
            self._prepare(database)
            if ended_uncleanly:
                self._check(database)
        except BaseException:
            database.close()
            raise
        return database

    def _migrated(self) -> sqlite3.Connection | None:
        """Bring an older file to the present format. Where there is no room for that, what it has in memory instead."""
        if not os.path.isfile(self._path):
            return None
        with contextlib.closing(self._connect(self._path)) as database:
            if self._version(database) not in OLDER:
                return None
        free, reserve = self._room()
        needed = f"the file in the present format needs {(os.path.getsize(self._path) >> 20) + 1} MB at most"
        if free < reserve:
            with contextlib.suppress(sqlite3.OperationalError):  # more than memory is to hold: the file grows
                return self._migrated_to_memory(
                    f"it is of an older version, and its file system is nearly full: {needed}"
                )
        try:
            migrate(self._path, self._go_on, int(min(self._max_text_bytes, max(free - reserve, 0))))
        except sqlite3.OperationalError as error:
            if not is_of_room(error):
                raise
            return self._migrated_to_memory_or_fail(f"it is of an older version, and {error}: {needed}")
        return None

    def _migrated_to_memory_or_fail(self, why: str) -> sqlite3.Connection:
        try:
            return self._migrated_to_memory(why)
        except sqlite3.OperationalError as error:
            folder = os.path.dirname(self._path) or "."
            raise StateError(
                f"the state file {self._path} cannot be used: {why}, and it cannot be held in memory ({error}): free so"
                f" much on the file system of {folder}, or set statePath to another"
            ) from error

    def _migrated_to_memory(self, why: str) -> sqlite3.Connection:
        """An older file stays as it is until there is room for a new one."""
        memory = self._new_memory()
        try:
            migrate_to_memory(self._path, memory, self._go_on)
        except BaseException:
            memory.close()
            raise
        self._in_memory = True
        self._report_unwritable(sqlite3.OperationalError(why))
        return memory

    def _connect(self, path: str, busy: float = BUSY) -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=busy, isolation_level=None, check_same_thread=False)

    def _version(self, database: sqlite3.Connection) -> int:
        """The number of the file's format; 0 of a new one. Raises StateError when it is somebody else's."""
        if not is_ours_or_new(database):
            raise foreign(self._path)
        found: int = database.execute("PRAGMA user_version").fetchone()[0]
        return found

    def _set_aside(self, error: sqlite3.Error) -> None:
        aside = f"{self._path}.damaged-{int(time.time())}"
        log.error("the state file %s is damaged (%s): moved to %s, rebuilt from Slurm", self._path, error, aside)
        try:
            os.replace(self._path, aside)
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path + suffix)
            self._keep_newest(aside)
        except OSError as problem:
            raise StateError(f"the damaged state file {self._path} cannot be moved: {problem}") from problem
        self.is_rebuilt = True

    def _keep_newest(self, aside: str) -> None:
        """Of the damaged files that were set aside."""
        name = re.compile(re.escape(os.path.basename(self._path)) + r"\.damaged-\d+")
        for path in Path(self._path).parent.iterdir():
            if name.fullmatch(path.name) and path.name != os.path.basename(aside) and path.is_file():
                path.unlink()

    def _prepare(self, database: sqlite3.Connection) -> None:
        version = self._version(database)
        if version == 0:
            new_database(database)
        elif version != SCHEMA_VERSION:
            raise StateError(
                f"the state file {self._path} has the format {version}, this version knows {SCHEMA_VERSION}:"
                " use the version that wrote it, or move the file away (jobs are then read from Slurm again)"
            )
        _tune(database)

    def _check(self, database: sqlite3.Connection) -> None:
        """Read all of it, after an end that may have left anything. Raises what `go_on` raises."""
        stopped: list[AdapterError] = []

        def tick() -> int:
            try:
                self._go_on()
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

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except FOREIGN as error:
            raise self._state_error(error) from error

    def _state_error(self, error: Exception) -> StateError:
        if isinstance(error, sqlite3.DatabaseError) and any(word in str(error) for word in DAMAGED):
            self._is_suspect = True
        return StateError(f"the state file {self._path} cannot be used: {self._why(error)}")

    def _why(self, error: Exception) -> str:
        if any(word in str(error) for word in NO_LOCK):
            kind = file_system_type(self._path)
            if kind in NOT_LOCAL:
                return (
                    f"{error}: it lies on {kind}, but must be on a local file system: set statePath to a place on one"
                )
            return (
                f"{error}: another program has it open; end that (if its file system is not a local one, set statePath)"
            )
        if _is_of_disk(error):
            return f"{error}: {belongs_to_another(self._path) or 'is the disk full or read-only?'}"
        return str(error)


def _is_of_disk(error: Exception) -> bool:
    return any(word in str(error) for word in UNWRITABLE)


def _tune(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA cache_size = -2048")
    database.execute("PRAGMA secure_delete = OFF")  # Debian's SQLite would write over every page that is given up
    database.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    database.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    database.execute("SELECT 1 FROM checkpoint").fetchone()  # makes the files beside it, while there is room
