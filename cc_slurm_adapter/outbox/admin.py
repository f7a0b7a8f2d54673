"""What an administrator may do with messages that are not delivered: list and show them, try them again, drop them.

The daemon uses it through its `Outbox`, and the command `-queue` on the file when no daemon runs (see `offline`). The
functions `answer_...` are the requests of the control socket without HTTP.

A list shows each row. To try again and to drop is done with what a run has for a sink, never with a part of it:

- A stop that waits for its own start goes with the start, and is not selected by itself.
- With the rows for the leading sink go those for the sinks that follow, since they get only what that one has.
- A message that would remove an earlier run goes with the start for which it makes room.

Both work in steps of at most RUNS_AT_ONCE runs, each a transaction, and whoever asks repeats the request with what the
answer says comes next. So nobody waits long for the lock, no request takes long, and after a kill between two steps
each run is either as it was or wholly changed. Rows that are stored after the first step are left alone.

A row may be under way meanwhile. If it was dropped, its number is gone, and the answer changes nothing.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from typing import NamedTuple, Protocol, TypeVar

from cc_slurm_adapter.errors import UsageError
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox import dropped_runs, parking, stored_messages
from cc_slurm_adapter.outbox.dropped_runs import Row
from cc_slurm_adapter.outbox.job_rows import FIELDS, SOURCE, JobRows, MessageRow, read_job, row_of
from cc_slurm_adapter.outbox.resends import Wanted, count
from cc_slurm_adapter.outbox.selection import Selection, parse, parse_for_change, parse_number
from cc_slurm_adapter.sinks.base import Kind
from cc_slurm_adapter.system.quantities import counted

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Answer = dict[str, object]
VERSION = 1
"""Of the answers."""
MOST_ROWS, FEW_ROWS = 1000, 100
"""The most rows in a list, and how many there are if nobody says."""
RUNS_AT_ONCE = 200
"""The most runs that one transaction changes."""
LARGEST_ROW_ID = 2**63 - 1
AHEAD = (Kind.REMOVE.value, Kind.START.value)
"""The kinds for which all others of their run wait."""
_MATCHES = """
d.state IN ({states}) AND (:cluster = '' OR d.cluster = :cluster) AND (:sink = '' OR d.sink = :sink)
AND (:job IS NULL OR d.job_id = :job) AND (:reason = '' OR d.reason LIKE :reason ESCAPE '!')
"""
_LIST = "SELECT {fields} {source} WHERE {matches} AND d.id > :after ORDER BY d.id LIMIT :limit"
_COUNT = "SELECT d.kind, COUNT(*) FROM delivery AS d WHERE {matches} GROUP BY d.kind"
_NEXT_RUNS = """
SELECT DISTINCT d.cluster, d.job_id, d.start_time FROM delivery AS d INDEXED BY sqlite_autoindex_delivery_1
WHERE {matches} AND d.id <= :until AND (d.cluster, d.job_id, d.start_time) > (:after_cluster, :after_job, :after_start)
ORDER BY d.cluster, d.job_id, d.start_time LIMIT :limit
"""
"""The index is that of the constraint UNIQUE. It is in this order, so each step goes on where the last one ended."""
_ROWS_OF_RUN = """
SELECT d.id, d.sink, d.kind, d.state, d.why, {matches} AND d.id <= :until FROM delivery AS d
WHERE d.cluster = :key_cluster AND d.job_id = :key_job AND d.start_time = :key_start ORDER BY d.sink, d.kind
"""
_LAST = "SELECT COALESCE(MAX(id), 0) FROM delivery"
_LATER_START_WAITS = """
SELECT 1 FROM delivery WHERE sink = ? AND cluster = ? AND job_id = ? AND start_time > ? AND kind = 'start'
AND state IN ('pending', 'parked') LIMIT 1
"""
_RETRY = """
UPDATE delivery SET next_try = MIN(next_try, 0), parkings = MIN(parkings, 1), refusals = 0, cuts = 0 WHERE id = ?
"""
"""The row is due, and counts as if it had been refused once: if it is refused again, its waits begin anew."""
_RETRY_CONFLICT = """
UPDATE delivery SET state = ?, next_try = 0, first_sent = 0, refusals = 0, reason = '', cuts = 0, parkings = 0,
parked_since = 0, why = '', created = ? WHERE id = ? AND message IN (SELECT id FROM message)
"""
"""Its age counts from now on. While the state is in memory, messages of such rows are missing: then nothing changes."""


class State(Protocol):
    """The state file, as `StateDatabase` has it for the daemon, and `offline` without one."""

    @property
    def is_durable(self) -> bool:
        """Return whether what was written last is in the file."""
        ...

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """Return a connection for several queries. Raises StateError."""
        ...

    def write(self, action: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do something as one durable transaction. It may be done twice, the second time in memory."""
        ...


class QueuePage(NamedTuple):
    """Some of the selected rows, in the order in which they were stored."""

    rows: list[MessageRow]
    next: int | None
    """The `after` of the next page; None if this is the last."""
    messages: int
    """How many rows are selected in all."""
    starts: int
    stops: int


class Step(NamedTuple):
    """Which part of a change is done next."""

    after: RunKey | None = None
    """The last run of the step before."""
    until: int = 0
    """The last row that may be changed; 0 means the last one that there is now."""
    dry_run: bool = False
    """Whether it is only counted what would be dropped."""


FIRST = Step()


class Changed(NamedTuple):
    """What a step has changed, and from where on the next one continues."""

    messages: int = 0
    starts: int = 0
    stops: int = 0
    runs: int = 0
    restored: int = 0
    """Earlier runs that had made room for a dropped one, and are sent again."""
    next: RunKey | None = None
    until: int = 0


class QueueAdmin:
    """Used from any thread: each call is a few short transactions. Raises StateError."""

    def __init__(self, state: State, leaders: Mapping[str, str]) -> None:
        """`leaders` has each sink that follows, with the sink that it follows."""
        self._state = state
        self._leaders = leaders

    @property
    def is_durable(self) -> bool:
        """Whether what was changed is in the file. In memory, a crash undoes it."""
        return self._state.is_durable

    def list_rows(self, selection: Selection, limit: int = FEW_ROWS, after: int = 0) -> QueuePage:
        """Return the selected rows after a given one, at most MOST_ROWS."""
        most = min(limit, MOST_ROWS)
        matches = _matches(selection)
        statement = _LIST.format(fields=FIELDS, source=SOURCE, matches=matches)
        values, now = {**_values(selection), "after": after, "limit": most + 1}, time.time()
        with self._state.reading() as database:
            rows = [row_of(row, now) for row in database.execute(statement, values)]
            counts = dict(database.execute(_COUNT.format(matches=matches), _values(selection)))
        following = rows[most - 1].id if most and len(rows) > most else None
        starts, stops = (int(counts.get(kind.value, 0)) for kind in (Kind.START, Kind.STOP))
        return QueuePage(rows[:most], following, sum(counts.values()), starts, stops)

    def rows_of_job(self, job_id: int) -> JobRows:
        """Return the latest runs of a job and their rows, in every state and in whatever cluster."""
        with self._state.reading() as database:
            return read_job(database, job_id)

    def count_runs(self, cluster: str, wanted: Wanted) -> tuple[int, int]:
        """Return how many runs, and of how many jobs, an administrator may send anew."""
        with self._state.reading() as database:
            return count(database, cluster, wanted)

    def retry(self, selection: Selection, step: Step = FIRST, uid: int | None = None) -> Changed:
        """Make the selected messages due now. One in conflict is sent again, its stop after it.

        What follows the leading sink is not sent earlier because of that. Whoever calls this wakes the senders.
        `uid` is the user who wants it, for the log.
        """
        changed = self._step(selection, step, self._retry_run)
        if changed.messages and not step.dry_run:
            log.log(
                NOTICE, "tried again for an administrator (%s): %s", _request_text(selection, uid), _in_words(changed)
            )
        return changed

    def drop(self, selection: Selection, step: Step = FIRST, uid: int | None = None) -> Changed:
        """Drop the selected messages: they are never sent. With a start goes its stop, also one that is still to come.

        Later messages of the job may be due because of that: whoever calls this wakes the senders. `uid` as in `retry`.
        """
        changed = self._step(selection, step, self._drop_run)
        if not step.dry_run and changed.next is None and (changed.messages or step.after):
            self._state.write(stored_messages.sweep)
        if changed.messages and not step.dry_run:
            log.log(NOTICE, "dropped by an administrator (%s): %s", _request_text(selection, uid), _in_words(changed))
        return changed

    def _step(self, selection: Selection, step: Step, change: _Change) -> Changed:
        if step.dry_run:
            with self._state.reading() as database:
                return _Work(database, selection, step).do(change)
        return self._state.write(lambda database: _Work(database, selection, step).do(change))

    def _drop_run(self, work: _Work, key: RunKey, rows: dict[str, list[Row]]) -> None:
        hit = {sink for sink, head in work.heads(rows).items() if not work.makes_room(key, head)}
        hit |= {sink for sink in rows if self._leaders.get(sink) in hit}
        for sink in sorted(hit):
            waiting = [row for row in rows[sink] if row.waits]
            work.count(key, waiting)
            if not work.step.dry_run:
                work.restored |= set(dropped_runs.drop(work.database, key, sink, rows[sink], work.now))
                work.reasons |= {(row.sink, row.why) for row in waiting if row.state == "parked"}

    def _retry_run(self, work: _Work, key: RunKey, rows: dict[str, list[Row]]) -> None:
        for sink, head in work.heads(rows).items():
            leading = rows.get(self._leaders.get(sink, ""), [])
            if head.state == "conflict" and head.kind == Kind.START.value:
                if any(row.state == "conflict" for row in leading):
                    continue  # it goes with the row for the leading sink
                waits = any(row.waits and row.kind == Kind.START.value for row in leading)
                self._retry_conflict(work, key, rows[sink], "following" if waits else "pending")
                for other, some in rows.items():
                    if self._leaders.get(other) == sink:
                        self._retry_conflict(work, key, some, "following")
            elif head.state in ("pending", "parked"):
                found = [row for row in rows[sink] if row.state in ("pending", "parked")]
                work.count(key, found)
                again = [(row.row_id,) for row in found if row == head or row.state == "parked"]
                work.change(_RETRY, again)

    def _retry_conflict(self, work: _Work, key: RunKey, rows: list[Row], state: str) -> None:
        """Make the start of a run pending again, and its stop. A stop whose start is gone stays where it is."""
        if not any(row.kind == Kind.START.value for row in rows):
            return
        for row in [each for each in rows if each.state == "conflict"]:  # in the order of the kinds: the start first
            if not work.change(_RETRY_CONFLICT, [(state, int(work.now), row.row_id)]):
                return
            work.count(key, [row])


class _Work:
    """One step of a change, within its transaction."""

    def __init__(self, database: sqlite3.Connection, selection: Selection, step: Step) -> None:
        self.database = database
        self.step = step
        self.now = time.time()
        self.restored: set[RunKey] = set()
        self.reasons: set[tuple[str, str]] = set()
        """Reasons (sink, why) that may have no probe any more."""
        self._runs: set[RunKey] = set()
        self._kinds: Counter[str] = Counter()
        self._matches = _matches(selection)
        self._until = step.until or int(database.execute(_LAST).fetchone()[0])
        self._values = {**_values(selection), "until": self._until}

    def do(self, change: _Change) -> Changed:
        """Change the next runs."""
        after = self.step.after or RunKey("", 0, 0)
        place = {"after_cluster": after.cluster, "after_job": after.job_id, "after_start": after.start_time}
        values = {**self._values, **place, "limit": RUNS_AT_ONCE + 1}
        statement = _NEXT_RUNS.format(matches=self._matches)
        keys = [RunKey(*row) for row in self.database.execute(statement, values).fetchall()]
        for key in keys[:RUNS_AT_ONCE]:
            change(self, key, self._rows_of(key))
        parking.see_that_there_are_probes(self.database, self.reasons, self.now)
        starts, stops = (self._kinds[kind.value] for kind in (Kind.START, Kind.STOP))
        following = keys[RUNS_AT_ONCE - 1] if len(keys) > RUNS_AT_ONCE else None
        messages = sum(self._kinds.values())
        return Changed(messages, starts, stops, len(self._runs), len(self.restored), following, self._until)

    def _rows_of(self, key: RunKey) -> dict[str, list[Row]]:
        """Return all rows of a run by their sink."""
        place = {"key_cluster": key.cluster, "key_job": key.job_id, "key_start": key.start_time}
        found = self.database.execute(_ROWS_OF_RUN.format(matches=self._matches), {**self._values, **place})
        rows = [Row(*row) for row in found]
        return {sink: list(some) for sink, some in groupby(rows, lambda row: row.sink)}

    def heads(self, rows: Mapping[str, list[Row]]) -> dict[str, Row]:
        """Return for each sink the first of its rows that waits, if that or one that is not behind it is selected.

        Rows that wait for their own start are behind it. The removal of a run that is sent anew is not.
        """
        found = {}
        for sink, some in rows.items():
            waiting = [row for row in some if row.waits]
            ahead = [row for row in waiting if row.kind in AHEAD] or waiting
            selected = [row for row in ahead if row.is_selected]
            if selected:
                found[sink] = selected[0]
        return found

    def makes_room(self, key: RunKey, head: Row) -> bool:
        """Return whether a row removes a run to make room for a later start that waits: it goes with that."""
        if head.kind != Kind.WITHDRAW.value:
            return False
        return self.database.execute(_LATER_START_WAITS, (head.sink, *key)).fetchone() is not None

    def count(self, key: RunKey, rows: list[Row]) -> None:
        """Count rows of a run that are changed."""
        if rows:
            self._runs.add(key)
            self._kinds.update(row.kind for row in rows)

    def change(self, statement: str, values: Sequence[tuple[object, ...]]) -> int:
        """Change rows, unless it is only counted. Return how many."""
        return len(values) if self.step.dry_run else self.database.executemany(statement, values).rowcount


_Change = Callable[[_Work, RunKey, dict[str, list[Row]]], None]


def answer_queue(admin: QueueAdmin, query: Mapping[str, str]) -> Answer:
    """Answer GET /queue: some of the selected rows, and how many are selected. Raises UsageError and StateError."""
    selection = parse(query, others=("limit", "after"))
    limit = parse_number(query, "limit", FEW_ROWS, MOST_ROWS, least=1)
    page = admin.list_rows(selection, limit, parse_number(query, "after", 0, LARGEST_ROW_ID))
    rows = [row._asdict() for row in page.rows]
    for row in rows:
        del row["message"]  # only those of one job have it
    return {"version": VERSION, **page._asdict(), "rows": rows}


def answer_retry(admin: QueueAdmin, words: Mapping[str, object], uid: int | None = None) -> Answer:
    """Answer POST /queue/retry. If it has changed messages, the senders are to be woken by `retry_now`."""
    selection, step = _request(words)
    if selection.states == ("following",):
        raise UsageError("what follows is sent when cc-backend has it: try the messages for cc-backend again")
    return _answer(admin, admin.retry(selection, step, uid))


def answer_drop(admin: QueueAdmin, words: Mapping[str, object], uid: int | None = None) -> Answer:
    """Answer POST /queue/drop. If it has dropped messages, the senders are to be woken by `wake`."""
    return _answer(admin, admin.drop(*_request(words), uid))


def _answer(admin: QueueAdmin, changed: Changed) -> Answer:
    following = list(changed.next) if changed.next else None
    return {"version": VERSION, **changed._asdict(), "next": following, "durable": admin.is_durable}


def _request(words: Mapping[str, object]) -> tuple[Selection, Step]:
    selection = parse_for_change(words, others=("after", "until", "dry_run"))
    dry_run = words.get("dry_run", False)
    if not isinstance(dry_run, bool):
        raise UsageError("dry_run must be true or false")
    return selection, Step(_after(words.get("after")), parse_number(words, "until", 0, LARGEST_ROW_ID), dry_run)


def _after(word: object) -> RunKey | None:
    if word is None:
        return None
    if isinstance(word, list) and len(word) == len(RunKey._fields) and isinstance(word[0], str):
        cluster, *numbers = word
        if all(isinstance(number, int) and abs(number) <= LARGEST_ROW_ID for number in numbers):
            return RunKey(cluster, *numbers)
    raise UsageError("after must be what `next` was in the answer before: a list of cluster, job id and start time")


def _matches(selection: Selection) -> str:
    """Return the condition for `d`. The states are words of this program."""
    return _MATCHES.format(states=", ".join(f"'{state}'" for state in selection.states_or_all))


def _values(selection: Selection) -> dict[str, object]:
    escaped = selection.reason.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return {
        "cluster": selection.cluster,
        "sink": selection.sink,
        "job": selection.job_id,
        "reason": f"%{escaped}%" if selection.reason else "",
    }


def _request_text(selection: Selection, uid: int | None) -> str:
    return str(selection) if uid is None else f"uid {uid}: {selection}"


def _in_words(changed: Changed) -> str:
    kinds = f"{counted(changed.starts, 'start')}, {counted(changed.stops, 'stop')}"
    words = f"{counted(changed.messages, 'message')} of {counted(changed.runs, 'run')} ({kinds})"
    again = f"; sent again: {counted(changed.restored, 'earlier run')}" if changed.restored else ""
    return f"{words}{again}"
