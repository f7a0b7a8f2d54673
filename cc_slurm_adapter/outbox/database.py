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
import time
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
        self._reminder = Reminder()
        self._database, why_in_memory = self._file.open()
        self._in_memory = why_in_memory is not None
        if why_in_memory is not None:
            self._report_unwritable(why_in_memory)

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
                        " next start finds out from Slurm again; make room or make it writable before",
                        self._file.path,
                        error,
                    )
            self._database.close()
            self._file.mark_if_damaged()

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
        """Return all rows of a result."""
        with self.reading() as database:
            return database.execute(query, values).fetchall()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for several queries."""
        try:
            with self._lock:
                yield self._database
        except STORAGE_ERRORS as error:
            raise self._file.error_of(error) from error

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
        except STORAGE_ERRORS as error:
            raise self._file.error_of(error) from error

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
        if time.monotonic() < self._next_room_check or self._file.path == IN_MEMORY:
            return
        self._next_room_check = time.monotonic() + self._timing.check_room_every
        try:
            self._file.demand_room(self._database)
        except sqlite3.OperationalError as error:
            problem = self._move_to_memory(error)
            if problem is not None:
                self._next_room_check = time.monotonic() + RETRY_COPY
                self._report_growth(error, problem)
            return
        if self._reminder.over():
            log.log(NOTICE, "the state file %s has room to grow again", self._file.path)

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
            log.log(NOTICE, "the state file %s can be written again and has everything", self._file.path)

    def _replace(self, database: sqlite3.Connection, *, in_memory: bool) -> None:
        self._database.close()
        self._database, self._in_memory, self._is_synchronous = database, in_memory, None

    def _report_unwritable(self, error: Exception) -> None:
        self._retry_at = time.monotonic() + self._timing.retry_file
        if self._reminder.is_due():
            log.error(
                "the state file %s cannot be written (%s): going on from memory, and the file is tried again every"
                " %.0f s; make room or make it writable (after a crash all since then is found out from Slurm again)",
                self._file.path,
                error,
                self._timing.retry_file,
            )

    def _report_growth(self, error: sqlite3.Error, problem: sqlite3.Error) -> None:
        if self._reminder.is_due("grows"):
            more = f"more waits than the {MAX_IN_MEMORY >> 20} MB that memory is to hold"
            log.error(
                "the state file %s grows, although it should not (%s), since it cannot be held in memory (%s): make"
                " room, and see what keeps messages from being delivered",
                self._file.path,
                error,
                more if "full" in str(problem) else problem,
            )
