"""The practice cluster's state: one SQLite file that the controller writes and the commands read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple

from examples.practice.slurm.model import Record, Settings

FILE_NAME = "cluster.sqlite"
LOCK_SECONDS = 30.0

SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE node (
    position INTEGER PRIMARY KEY, name TEXT UNIQUE, cpus INTEGER DEFAULT 0, gpus TEXT DEFAULT '',
    drained INTEGER DEFAULT 0);
CREATE TABLE record (db_index INTEGER PRIMARY KEY, {", ".join(Record._fields[1:])});
CREATE INDEX record_job ON record (job_id);
CREATE INDEX record_array ON record (array_job_id) WHERE array_job_id;
CREATE INDEX record_end ON record (end_time);
CREATE INDEX record_phase ON record (phase, job_id) WHERE in_memory;
CREATE INDEX record_due ON record (due) WHERE in_memory;
CREATE TABLE script (job_id INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE request (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, target TEXT NOT NULL, by TEXT NOT NULL);
"""
SAVE = f"REPLACE INTO record VALUES ({', '.join('?' * len(Record._fields))})"  # noqa: S608 - question marks only


class Node(NamedTuple):
    """A node as the controller left it. `gpus` are the indices in use, such as 0-1."""

    position: int
    name: str
    cpus: int
    gpus: str
    drained: bool


class Request(NamedTuple):
    """Something asked of slurmctld: cancel or requeue a job, drain or resume a node."""

    number: int
    kind: str
    target: str
    by: str


class Store:
    """An open database. Use it as a context manager, or close it."""

    def __init__(self, folder: str, *, writable: bool = False) -> None:
        mode = "rw" if writable else "ro"
        # Autocommit: transactions are begun by hand, and a thread of the controller may use the connection.
        self._connection = sqlite3.connect(
            f"file:{_quote(folder)}/{FILE_NAME}?mode={mode}",
            uri=True,
            timeout=LOCK_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        if writable:
            self._connection.execute("PRAGMA synchronous = OFF")

    @classmethod
    def create(cls, folder: str, settings: Settings, nodes: Sequence[str], now: float) -> None:
        """Make a new database with idle nodes and no jobs; there must be none yet."""
        connection = sqlite3.connect(f"{folder}/{FILE_NAME}", isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")
            connection.executescript(SCHEMA)
            connection.executemany("INSERT INTO node (name) VALUES (?)", ((name,) for name in nodes))
            values = {
                "settings": json.dumps(settings._asdict()),
                "next_job_id": "1",
                "boot_time": str(int(now)),
            }
            connection.executemany("INSERT INTO meta VALUES (?, ?)", values.items())
        finally:
            connection.close()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in it happens at once or not at all, and other writers wait."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    # What is true of the whole cluster

    def read(self, key: str, default: str = "") -> str:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else default

    def write(self, key: str, value: str) -> None:
        self._connection.execute("REPLACE INTO meta VALUES (?, ?)", (key, value))

    def settings(self) -> Settings:
        values = json.loads(self.read("settings"))
        values["admin_levels"] = tuple((user, level) for user, level in values["admin_levels"])
        return Settings(**values)

    def is_down(self, daemon: str) -> bool:
        """Whether slurmctld or slurmdbd plays dead."""
        return self.read(f"down:{daemon}") == "1"

    def take_job_ids(self, count: int) -> int:
        """The first of `count` new job ids."""
        first = int(self.read("next_job_id"))
        self.write("next_job_id", str(first + count))
        return first

    # Nodes

    def nodes(self) -> list[Node]:
        return [Node._make(row) for row in self._connection.execute("SELECT * FROM node ORDER BY position")]

    def save_nodes(self, rows: Iterable[tuple[int, str, str]]) -> None:
        """Set CPUs in use and GPU indices in use of the nodes with these names."""
        self._connection.executemany("UPDATE node SET cpus = ?, gpus = ? WHERE name = ?", rows)

    def set_drained(self, name: str, *, drained: bool) -> None:
        self._connection.execute("UPDATE node SET drained = ? WHERE name = ?", (drained, name))

    # Requests

    def ask(self, kind: str, target: str, by: str) -> None:
        self._connection.execute("INSERT INTO request (kind, target, by) VALUES (?, ?, ?)", (kind, target, by))

    def take_requests(self) -> list[Request]:
        rows = [Request._make(row) for row in self._connection.execute("SELECT * FROM request ORDER BY number")]
        if rows:
            self._connection.execute("DELETE FROM request WHERE number <= ?", (rows[-1].number,))
        return rows

    # Records

    def new_db_index(self) -> int:
        row = self._connection.execute("SELECT max(db_index) FROM record").fetchone()
        return (row[0] or 0) + 1

    def save(self, records: Iterable[Record]) -> None:
        """Write whole records, new or changed."""
        self._connection.executemany(SAVE, records)

    def save_script(self, job_id: int, text: str) -> None:
        self._connection.execute("REPLACE INTO script VALUES (?, ?)", (job_id, text))

    def script(self, record: Record) -> str | None:
        """The batch script of a job; that of an array's task is kept once, for the array."""
        row = self._connection.execute(
            "SELECT text FROM script WHERE job_id = ?", (record.array_job_id or record.job_id,)
        ).fetchone()
        return row[0] if row else None

    def in_memory(self) -> list[Record]:
        """All that slurmctld knows, by job id."""
        return self._records("SELECT * FROM record WHERE in_memory ORDER BY job_id")

    def in_phases(self, phases: Iterable[str]) -> list[Record]:
        """What slurmctld knows in these phases, by job id."""
        found: list[Record] = []
        for phase in phases:
            found += self._records("SELECT * FROM record WHERE in_memory AND phase = ?", phase)
        return sorted(found, key=lambda record: record.job_id)

    def in_memory_by_id(self, job_id: int) -> list[Record]:
        """What slurmctld knows of a job, or of all tasks of an array; of the array first what waits."""
        return [record for record in self.accounted_by_id(job_id) if record.in_memory]

    def due(self, now: float) -> list[Record]:
        """Records to which something has to happen, the longest waiting first."""
        return self._records("SELECT * FROM record WHERE in_memory AND due <= ? ORDER BY due, job_id", now)

    def waiting(self, after: int, limit: int) -> list[Record]:
        """Pending records with larger job ids than `after`, in the order in which they may start."""
        return self._records(
            "SELECT * FROM record WHERE in_memory AND phase = 'PENDING' AND job_id > ? ORDER BY job_id LIMIT ?",
            after,
            limit,
        )

    def accounted(self) -> list[Record]:
        """Every record there ever was, by job id and run."""
        return self._records("SELECT * FROM record ORDER BY job_id, db_index")

    def accounted_by_id(self, job_id: int) -> list[Record]:
        """Every run of a job, or of all tasks of an array."""
        # The bare array_job_id lets SQLite use the index, which leaves out jobs that are in no array.
        return self._records("SELECT * FROM record WHERE job_id = ? ORDER BY db_index", job_id) + self._records(
            "SELECT * FROM record WHERE array_job_id AND array_job_id = ? AND job_id != ? ORDER BY job_id, db_index",
            job_id,
            job_id,
        )

    def accounted_by_end(self, start: float, end: float) -> list[Record]:
        """Every run that ended in this time, both ends included."""
        return self._records(
            "SELECT * FROM record WHERE end_time BETWEEN ? AND ? ORDER BY job_id, db_index", start, end
        )

    def accounted_since(self, start: float) -> list[Record]:
        """Every record that is not over, or ended at this time or later."""
        return self._records("SELECT * FROM record WHERE end_time IS NULL") + self._records(
            "SELECT * FROM record WHERE end_time >= ?", start
        )

    def _records(self, query: str, *values: Any) -> list[Record]:
        return [Record._make(row) for row in self._connection.execute(query, values)]


def _quote(path: str) -> str:
    """A path as it must stand in a URI."""
    return "".join(character if character not in "%?#" else f"%{ord(character):02x}" for character in path)
