"""Where the state lives now: in its file, or in memory while that cannot be written or had better not grow.

Every use is one locked transaction. What the file is and how it is opened is in `state_file`.

Durability: the file is in WAL mode. What is written as durable is committed with synchronous=FULL, so that it survives
a power cut; all else with NORMAL, which survives a killed process.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.log import NOTICE, Reminder
from cc_slurm_adapter.outbox.memory import IN_MEMORY, MAX_IN_MEMORY, copy_to_memory, new_memory
from cc_slurm_adapter.outbox.state_file import MAX_TEXT_BYTES, STORAGE_ERRORS, TIMING, StateFile, Timing, is_of_disk

log = logging.getLogger(__name__)

Result = TypeVar("Result")
FREE_PAGES, PAGES_AT_ONCE, SHRINK_SECONDS = 256, 500, 2.0
"""Free pages that stay in the file; more are given back, so many at once, for so long."""
LOCK_LIMIT = 3600.0
"""Seconds that a reader waits for others. Before that systemd or the supervisor ends a daemon whose disk hangs."""
REQUEST_LIMIT = 2.0
"""The most seconds that a request of an administrator waits for them."""
RETRY_COPY = 600.0
"""Seconds until memory that could not hold what waits is tried again."""


class StateDatabase:
    """Used from several threads: every use is one locked transaction. Raises StateError."""

    def __init__(
        self,
        path: str,
        go_on: Callable[[], None] = lambda: None,
        max_text_bytes: int = MAX_TEXT_BYTES,
        *,
        timing: Timing = TIMING,
    ) -> None:
        """`go_on` and `max_text_bytes` as of `StateFile`."""
        self._file = StateFile(path, go_on, max_text_bytes, timing=timing)
        self._timing = timing
        self._next_room_check = 0.0
        self._lock = threading.Lock()
        self._is_synchronous: bool | None = None
        """How the connection is set to commit; None: not set yet."""
        self._retry_at = 0.0
        self._clock = timing.clock
        self._reminder = Reminder(timing.clock)
        self._database, why_in_memory = self._file.open()
        self._in_memory = why_in_memory is not None
        if why_in_memory is not None:
            self._report_unwritable(why_in_memory)

    @property
    def path(self) -> str:
        """The file."""
        return self._file.path

    @property
    def is_rebuilt(self) -> bool:
        """Tell whether a damaged file was set aside: what had been pending must be found out again."""
        return self._file.is_rebuilt

    @property
    def is_durable(self) -> bool:
        """Tell whether what was written last is in the file."""
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
                except (StateError, *STORAGE_ERRORS) as error:
                    log.error(
                        "the state file %s cannot be written at the end (%s): it lacks all since that began, which the"
                        " next start reads from Slurm again; make room or make it writable before",
                        self._file.path,
                        error,
                    )
            self._database.close()
            self._file.mark_if_damaged()

    def shrink(self) -> None:
        """Give free pages back to the file system, in small steps between which others get their turn."""
        deadline, before = self._clock() + SHRINK_SECONDS, 0
        while not self._in_memory and self._clock() < deadline:
            with self.reading() as database:
                free = database.execute("PRAGMA freelist_count").fetchone()[0]
                if free <= FREE_PAGES or free == before:
                    if before:  # the file itself only becomes smaller when its log is copied into it
                        database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                    return
                database.execute(f"PRAGMA incremental_vacuum({min(PAGES_AT_ONCE, free - FREE_PAGES)})").fetchall()
                before = free

    def read(self, query: str, values: tuple[object, ...]) -> list[Any]:
        """Return all rows of a result."""
        with self.reading() as database:
            return database.execute(query, values).fetchall()

    @contextlib.contextmanager
    def reading(self, time_limit: float = LOCK_LIMIT) -> Iterator[sqlite3.Connection]:
        """A connection for several queries, which waits at most `time_limit` seconds for others that use the file."""
        _take(self._lock, time_limit, self._file.path)
        try:
            yield self._database
        except STORAGE_ERRORS as error:
            raise self._file.error_of(error) from error
        finally:
            self._lock.release()

    def write(self, action: Callable[[sqlite3.Connection], Result], time_limit: float = LOCK_LIMIT) -> Result:
        """Do something as one durable transaction: in the file, or in memory where the disk fails.

        It waits at most `time_limit` seconds for others that use the file.
        """
        was_durable = self.is_durable
        try:
            with self.writing(durable=True, time_limit=time_limit) as database:
                return action(database)
        except StateError:
            if self.is_durable or not was_durable:
                raise
        with self.writing(time_limit=time_limit) as database:
            return action(database)

    @contextlib.contextmanager
    def writing(self, *, durable: bool = False, time_limit: float = LOCK_LIMIT) -> Iterator[sqlite3.Connection]:
        """One transaction, which waits at most `time_limit` seconds for others that use the file.

        Where the disk fails so does the transaction, and the state moves to memory: the next one succeeds there. The
        file stays as it was, until it can be written again and gets everything.
        """
        _take(self._lock, time_limit, self._file.path)
        try:
            if not self._in_memory:
                self._check_room()
            elif self._clock() >= self._retry_at:
                self._try_file()
            try:  # in one generator, as there are four transactions in the life of a job
                self._begin(durable)
                yield self._database
                self._database.execute("COMMIT")
            except BaseException as error:
                self._undo(error)
                raise
        except STORAGE_ERRORS as error:
            raise self._file.error_of(error) from error
        finally:
            self._lock.release()

    def _begin(self, durable: bool) -> None:
        if durable is not self._is_synchronous:
            self._database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._is_synchronous = durable
        self._database.execute("BEGIN IMMEDIATE")

    def _undo(self, error: BaseException) -> None:
        if self._database.in_transaction:  # a full disk has rolled back by itself
            self._database.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError) and not self._in_memory and is_of_disk(error):
            self._move_to_memory(error)

    def _check_room(self) -> None:
        """Go on in memory where the file should not grow; where that cannot be, the file is used as long as it goes."""
        if self._clock() < self._next_room_check or self._file.path == IN_MEMORY:
            return
        self._next_room_check = self._clock() + self._timing.check_room_every
        try:
            self._file.demand_room(self._database)
        except sqlite3.OperationalError as error:
            problem = self._move_to_memory(error)
            if problem is not None:
                self._next_room_check = self._clock() + RETRY_COPY
                self._report_growth(error, problem)
            return
        if self._reminder.over():
            log.log(NOTICE, "the state file %s has room to grow again%s", self._file.path, self._reminder.note)

    def _move_to_memory(self, error: sqlite3.Error) -> sqlite3.Error | None:
        """Move the state to memory: reading still works on a full or read-only disk.

        Where it does not, or all is too large, nothing changes, and the reason is returned.
        """
        memory = new_memory()
        try:
            copy_to_memory(self._database, memory)
        except sqlite3.Error as problem:
            memory.close()
            return problem
        self._replace(memory, in_memory=True)
        self._report_unwritable(error)
        return None

    def _try_file(self) -> None:
        try:
            self._return_to_file()
        except (sqlite3.Error, OSError) as error:
            self._report_unwritable(error)

    def _return_to_file(self, *, to_the_last: bool = False) -> None:
        self._replace(self._file.write_back(self._database, to_the_last=to_the_last), in_memory=False)
        if self._reminder.over():
            text = "the state file %s can be written again and has everything%s"
            log.log(NOTICE, text, self._file.path, self._reminder.note)

    def _replace(self, database: sqlite3.Connection, *, in_memory: bool) -> None:
        self._database.close()
        self._database, self._in_memory, self._is_synchronous = database, in_memory, None

    def _report_unwritable(self, error: Exception) -> None:
        self._retry_at = self._clock() + self._timing.retry_file
        if self._reminder.is_due():
            log.error(
                "the state file %s cannot be written (%s): going on from memory, and the file is tried again every"
                " %.0f s; make room or make it writable (after a crash all since then is read from Slurm again)%s",
                self._file.path,
                error,
                self._timing.retry_file,
                self._reminder.note,
            )

    def _report_growth(self, error: sqlite3.Error, problem: sqlite3.Error) -> None:
        if self._reminder.is_due("grows"):
            more = f"more waits than the {MAX_IN_MEMORY >> 20} MB that may be kept in memory"
            log.error(
                "the state file %s grows, although it should not (%s), since it cannot be kept in memory (%s): make"
                " room, and see what keeps messages from being delivered%s",
                self._file.path,
                error,
                more if "full" in str(problem) else problem,
                self._reminder.note,
            )


def _take(lock: threading.Lock, time_limit: float, path: str) -> None:
    if not lock.acquire(timeout=time_limit):
        raise StateError(f"the state file {path} is in use: does its file system answer?")


class Briefly:
    """The state for requests that must not wait long for others that use the file, as a disk may hold them."""

    def __init__(self, state: StateDatabase, time_limit: float = REQUEST_LIMIT) -> None:
        self._state = state
        self._time_limit = time_limit

    @property
    def is_durable(self) -> bool:
        """Tell whether what was written last is in the file."""
        return self._state.is_durable

    def reading(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """Return a connection for several queries. Raises StateError."""
        return self._state.reading(self._time_limit)

    def write(self, action: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do something as one durable transaction. Raises StateError."""
        return self._state.write(action, self._time_limit)
