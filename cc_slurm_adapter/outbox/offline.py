"""Opens the state file for a command, while no daemon runs or none answers.

To read it, nothing is changed and no file is made: it is not brought to another format, and a damaged one is not set
aside. Whoever changes it holds the lock of the daemon meanwhile. Root acts as the owner of the file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.outbox.foreign_state import foreign, is_ours_or_new, refuse_foreign
from cc_slurm_adapter.outbox.rerouting import RANK, USED_SINKS
from cc_slurm_adapter.outbox.schema import SCHEMA_VERSION
from cc_slurm_adapter.outbox.state_file import BUSY, DAMAGED, MAX_TEXT_BYTES, STORAGE_ERRORS, StateFile
from cc_slurm_adapter.system.file_systems import user_name
from cc_slurm_adapter.system.owner import acting_as_owner

Result = TypeVar("Result")


class OfflineState:
    """The state file as a command uses it, with one thread. Every method raises StateError."""

    is_durable = True
    """It is never kept in memory."""

    def __init__(self, path: str, database: sqlite3.Connection) -> None:
        self._path = path
        self._database = database

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Return a connection for several queries."""
        with _translated(self._path):
            yield self._database

    def write(self, action: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do something as one durable transaction."""
        with _translated(self._path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                result = action(self._database)
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
            return result

    def leaders(self) -> dict[str, str]:
        """Return each sink that follows, with the sink that it follows, as the last daemon had them."""
        with self.reading() as database:
            used = {sink for (sink,) in database.execute(USED_SINKS)}
        leading, *others = [sink for sink in RANK if sink in used] or [""]
        return dict.fromkeys(others, leading)


@contextlib.contextmanager
def open_to_read(path: str) -> Iterator[OfflineState]:
    """Open the state file only to read it. Raises StateError."""
    with _translated(path), acting_as_owner(path):
        demand(path)
        how = _how_to_read(path)
        with contextlib.closing(_connect(f"file:{quote(path)}?mode=ro&{how}")) as database:
            _check_format(path, database)
            yield OfflineState(path, database)


@contextlib.contextmanager
def open_to_change(path: str) -> Iterator[OfflineState]:
    """Open the state file to change it. The caller holds its lock. Raises StateError."""
    with _translated(path), acting_as_owner(path):
        demand(path, to_change=True)
        with _still_unclean(path), contextlib.closing(_connect(f"file:{quote(path)}?mode=rw")) as database:
            _check_format(path, database)
            database.execute("PRAGMA synchronous = FULL")
            database.execute("PRAGMA secure_delete = OFF")
            yield OfflineState(path, database)


@contextlib.contextmanager
def _still_unclean(path: str) -> Iterator[None]:
    """Leave a log after an unclean end, as there was before: by that the daemon's start knows that it has to check."""
    log = f"{path}-wal"
    ended_uncleanly = os.path.exists(log)
    try:
        yield
    finally:
        if ended_uncleanly:
            with contextlib.suppress(OSError):
                Path(log).touch()


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, timeout=BUSY, isolation_level=None)


def demand(path: str, *, to_change: bool = False) -> None:
    """Raise StateError if there is no state file of this program, or if it may not be used."""
    refuse_foreign(path)
    try:
        uid = os.stat(path).st_uid
    except (FileNotFoundError, NotADirectoryError):
        raise StateError(
            f"there is no state file {path} (statePath), and no daemon answers: start it, or see whether -config names"
            " the daemon's configuration"
        ) from None
    except PermissionError:
        raise StateError(f"the folder of the state file {path} may not be entered: run this as root") from None
    if not os.access(path, os.R_OK | (os.W_OK if to_change else 0), effective_ids=True):
        is_read_only = to_change and bool(os.statvfs(path).f_flag & os.ST_RDONLY)
        raise StateError(f"the state file {path} {_why_not(user_name(uid), is_read_only=is_read_only)}")


def _why_not(owner: str, *, is_read_only: bool) -> str:
    """Return why a file of this user may not be used, and what to do."""
    if is_read_only:
        return "is on a read-only file system: make it writable"
    others = "" if owner == "root" else f" or as {owner}"
    return f"belongs to {owner}: run this as root{others}"


def _how_to_read(path: str) -> str:
    """Return how SQLite is to open the file so that nothing is made beside it.

    Without a log, the file has everything. With one, its index must be there, too: SQLite would make it anew.
    """
    log = f"{path}-wal"
    if not os.path.exists(log) or os.path.getsize(log) == 0:
        return "immutable=1"
    if os.path.exists(f"{path}-shm"):
        return "readonly_shm=1"
    raise StateError(
        f"the state file {path} was not closed, and {path}-shm is gone, without which it cannot be read unchanged:"
        " start the daemon, which repairs that"
    )


def _check_format(path: str, database: sqlite3.Connection) -> None:
    if not is_ours_or_new(database):
        raise foreign(path)
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        raise StateError(f"the state file {path} is empty: nothing was reported with it yet")
    if version < SCHEMA_VERSION:
        raise StateError(
            f"the state file {path} has the format {version} of an older version, this one has {SCHEMA_VERSION}: start"
            " the daemon once, which brings it to the present format, or use the older version"
        )
    if version > SCHEMA_VERSION:
        raise StateError(
            f"the state file {path} has the format {version}, this version knows {SCHEMA_VERSION}: use the version that"
            " wrote it"
        )


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except STORAGE_ERRORS as error:
        is_damaged = any(word in str(error) for word in DAMAGED)
        what_next = ": the daemon sets it aside when it starts, and reads all from Slurm again" if is_damaged else ""
        found = StateFile(path, lambda: None, MAX_TEXT_BYTES).error_of(error)
        raise StateError(f"{found}{what_next}") from error
