"""Checks whether statePath may name this program's state file. Any other file is reported, and not changed or used.

The check only reads the file as it is, so that not even SQLite changes anything: no lock, no recovery, no files beside
it.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from urllib.parse import quote

from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.outbox.moment_file import DEFAULT_STATE, names_moment

HEADER = b"SQLite format 3\0"
"""The first bytes of every SQLite database (https://www.sqlite.org/fileformat2.html)."""
OWN_TABLES = {"checkpoint", "run", "message"}
"""Every format has these tables, made together. A later format must keep them, or its files are taken for foreign."""


def refuse_foreign(path: str) -> None:
    """Raise StateError if the path names what belongs to another program. A file that cannot be read is not refused.

    A damaged state file is recognized by its name, its log or its first moment.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise StateError(f"statePath names {path}, which is not a file: set statePath to a file of the daemon's own")
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError), open(path, "rb") as file:
        start = file.read(len(HEADER))
        if start == HEADER:
            _refuse_foreign_database(path)
        elif start and not (os.path.exists(f"{path}-wal") or _has_our_name(path)):
            raise StateError(
                f"statePath names {path}, which is neither an SQLite database nor known to be this program's: it is"
                " left alone; set statePath to a file of the daemon's own, or move that one away"
            )


def _refuse_foreign_database(path: str) -> None:
    has_log, has_journal = os.path.exists(f"{path}-wal"), os.path.exists(f"{path}-journal")
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)) as database:
            names, may_be_ours = _names(database), is_ours_or_new(database)
    except sqlite3.DatabaseError:
        is_ours = has_log or has_journal or _has_our_name(path)
    else:
        # The file alone does not show everything if it has a rollback journal, or if it is empty and has a log. Our own
        # tables are in the file before it has a log.
        is_ours = has_journal or (may_be_ours and (bool(names) or not has_log or _has_our_name(path)))
    if not is_ours:
        raise foreign(path)


def _has_our_name(path: str) -> bool:
    return os.path.basename(path) == DEFAULT_STATE or names_moment(path)


def is_ours_or_new(database: sqlite3.Connection) -> bool:
    """Return whether a database has this program's tables, whatever else it has, or is empty. Raises sqlite3.Error."""
    names = _names(database)
    marks = [database.execute(f"PRAGMA {mark}").fetchone()[0] for mark in ("user_version", "application_id")]
    return names >= OWN_TABLES or not (names or any(marks))


def _names(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master")}


def foreign(path: str) -> StateError:
    """Return the error for a database of another program, which says what to do."""
    return StateError(
        f"statePath names {path}, a database of another program, which is left alone: set statePath to a file of the"
        " daemon's own, or move that one away"
    )
