"""State files of older versions: what is pending and the keys come over, and there is a way back."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cc_slurm_adapter.errors import AdapterError, StateError
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox import memory, migration
from cc_slurm_adapter.outbox.database import StateDatabase
from cc_slurm_adapter.outbox.outbox import Outbox, Stage
from cc_slurm_adapter.outbox.schema import SCHEMA_VERSION
from cc_slurm_adapter.sinks.base import Kind
from tests.built import old_state
from tests.built.old_state import FORMATS
from tests.unit.outbox.test_database import no_space
from tests.unit.outbox.test_state_size import MB, little_room

FAR = 1e12
ROOT = Path(__file__).parents[3]
SINKS = {"rest": "", "nats": "rest"}
SCRIPT = "#!/bin/sh\n" + "x" * 500
ROWS = [
    # id, sink, job, kind, outcome, reason
    (1, "rest", 1, "start", "delivered", ""),
    (2, "nats", 1, "start", "following", ""),
    (3, "rest", 2, "start", "owed", ""),
    (4, "nats", 2, "start", "following", ""),
    (5, "rest", 3, "start", "parked", "HTTP 400: host 'n1' is in no subcluster"),
    (6, "rest", 3, "stop", "owed", ""),
    (7, "rest", 4, "start", "shadowed", "another run is stored"),
    (8, "rest", 5, "start", "kept", ""),
    (9, "rest", 5, "stop", "kept", ""),
    (10, "rest", 5, "withdraw", "kept", ""),
    (11, "rest", 6, "start", "delivered", ""),
    (12, "nats", 6, "start", "delivered", ""),
]


def key_of(job_id: int) -> RunKey:
    return RunKey("lab", job_id, 1000)


def payload(job_id: int, kind: str) -> bytes:
    message = {"jobId": job_id, "startTime": 1000}
    if kind != "start":
        return json.dumps(message).encode()
    meta_data = {"jobName": "name", "jobScript": SCRIPT, "slurmInfo": f"JobId={job_id}", "submitTime": "990"}
    return json.dumps({**message, "metaData": meta_data, "numNodes": 1}).encode()


def fill(path: Path, name: str) -> None:
    """A file of an older format with rows in every state."""
    old_state.make(path, FORMATS[name])
    now = int(time.time())
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT INTO checkpoint VALUES ('lab', 777)")
        for job_id, stage in (
            (1, "live"),
            (2, "live"),
            (3, "done"),
            (4, "live"),
            (5, "done"),
            (6, "live"),
            (7, "seen"),
        ):
            word = migration.STAGES.get(stage, stage) if FORMATS[name].number == 7 else stage
            row = ("lab", job_id, 1000, word, "n1", None, now)
            database.execute("INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        if FORMATS[name].number == 7:
            add_deliveries(database, now)
            return
        for row_id, sink, job_id, kind, outcome, reason in ROWS:
            database.execute(
                "INSERT INTO message (id, sink, cluster, job_id, start_time, kind, payload, created, outcome, reason)"
                " VALUES (?, ?, 'lab', ?, 1000, ?, ?, ?, ?, ?)",
                (row_id, sink, job_id, kind, payload(job_id, kind), now, outcome, reason),
            )


def add_deliveries(database: sqlite3.Connection, now: int) -> None:
    """The same rows as format 7 has them: a message once for all its sinks, and its texts apart while they wait."""
    numbers: dict[tuple[int, str], int] = {}
    for row_id, sink, job_id, kind, outcome, reason in ROWS:
        state = migration.STATES.get(outcome, outcome)
        if (job_id, kind) not in numbers:
            head, texts = separated(job_id, kind)
            at = len(head) - 2 if texts else 0
            named = json.dumps([(f',"{key}":', hash_of(key, job_id)) for key in texts]) if texts else ""
            values = (head, at, named)
            added = database.execute("INSERT INTO message (payload, texts_at, texts) VALUES (?, ?, ?)", values)
            numbers[job_id, kind] = added.lastrowid or 0
            for key, text in texts.items() if state in ("pending", "parked") else ():
                body = json.dumps(text).encode()
                database.execute("INSERT OR IGNORE INTO text VALUES (?, ?)", (hash_of(key, job_id), body))
                database.execute("INSERT INTO text_use VALUES (?, ?)", (numbers[job_id, kind], hash_of(key, job_id)))
        is_parked = state == "parked"
        database.execute(
            "INSERT INTO delivery (id, sink, cluster, job_id, start_time, kind, message, created, state, reason,"
            " next_try, parkings, parked_since, why) VALUES (?, ?, 'lab', ?, 1000, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (row_id, sink, job_id, kind, numbers[job_id, kind], now, state, reason)
            + ((1e15, 1, now, "HTTP 400: host # is in no subcluster") if is_parked else (0, 0, 0, "")),
        )


def hash_of(key: str, job_id: int) -> str:
    """The name of a text: all jobs have the same script."""
    return key if key == "jobScript" else f"{key} of {job_id}"


def separated(job_id: int, kind: str) -> tuple[bytes, dict[str, str]]:
    """A message without its texts, at the end of which they belong, and the texts."""
    message = json.loads(payload(job_id, kind))
    if kind != "start":
        return payload(job_id, kind), {}
    meta_data = message.pop("metaData")
    texts = {key: meta_data.pop(key) for key in ("jobScript", "slurmInfo")}
    return json.dumps({**message, "metaData": meta_data}).encode(), texts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


@pytest.mark.parametrize("name", FORMATS)
def test_all_that_is_pending_and_the_keys_come_over(path: Path, name: str) -> None:
    fill(path, name)
    outbox = Outbox(str(path), SINKS)
    assert outbox.checkpoint("lab") == 777
    stages = {run.key.job_id: run.stage for run in outbox.open_runs("lab")}
    is_first = FORMATS[name].number == 1
    assert stages == dict.fromkeys((1, 2, 4, 6), Stage.STARTED) | ({} if is_first else {7: Stage.PREPARING})
    assert outbox.unknown(map(key_of, range(1, 8))) == ([key_of(7)] if is_first else [])
    assert outbox.counts() == {
        "delivered": 3,
        "following": 2,
        "pending": 2,
        "parked": 1,
        "conflict": 1,
        "retained": 3,
    }
    outbox.retry_all()
    due = {(each.key.job_id, each.kind): each for each in outbox.deliveries.due("rest", FAR, 99)}
    assert due.keys() == {(2, Kind.START), (3, Kind.START)}
    for (job_id, _), delivery in due.items():
        assert json.loads(delivery.payload) == json.loads(payload(job_id, "start"))
    outbox.deliveries.delivered(*due.values())
    (stop,) = outbox.deliveries.due("rest", FAR, 99)
    assert stop.payload == payload(3, "stop")
    (start, *_) = outbox.deliveries.due("nats", FAR, 99)
    assert json.loads(start.payload) == json.loads(payload(2, "start"))
    outbox.close()


def test_a_start_that_was_delivered_is_there_without_its_texts(path: Path) -> None:
    fill(path, "5")
    outbox = Outbox(str(path), SINKS)
    assert outbox.resend_starts("rest", "lab", lambda key: key.job_id == 6, FAR) == [key_of(6)]
    (start,) = [each for each in outbox.deliveries.due("rest", FAR, 99) if each.key.job_id == 6]
    meta_data = json.loads(start.payload)["metaData"]
    assert meta_data["jobName"] == "name"
    assert meta_data["jobScript"] == SCRIPT  # a start that is pending has it as well
    assert "left out" in meta_data["slurmInfo"]
    outbox.close()


def test_the_file_before_is_kept_and_said(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(path, "5")
    Outbox(str(path), SINKS).close()
    before = path.with_name("state.sqlite.format-5")
    assert f"kept as {before}: to go back, stop the daemon and move that to {path}" in caplog.text
    assert old_state.number_of(before) == 5
    with closing(sqlite3.connect(before)) as database:
        assert database.execute("SELECT COUNT(*) FROM message").fetchone()[0] == len(ROWS)
    assert sorted(each.name for each in path.parent.iterdir()) == ["state.sqlite", "state.sqlite.format-5"]


def test_a_large_file_is_not_kept_and_that_is_said(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "KEPT_BYTES", 1000)
    fill(path, "5")
    Outbox(str(path), SINKS).close()
    assert [each.name for each in path.parent.iterdir()] == ["state.sqlite"]
    assert "is not kept" in caplog.text


class Stopped(AdapterError):
    """What the daemon raises when it is to stop."""


def stop_at(step: int) -> Callable[[], None]:
    steps = iter(range(step + 1))

    def go_on() -> None:
        if next(steps) == step:
            raise Stopped

    return go_on


@pytest.mark.parametrize("name", ["5", "7"])
@pytest.mark.parametrize("step", [0, 3, 9])
def test_it_can_be_stopped_at_every_step_and_begins_anew(
    path: Path, step: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "AT_ONCE", 2)
    fill(path, name)
    with pytest.raises(Stopped):
        StateDatabase(str(path), stop_at(step))
    assert old_state.number_of(path) == int(name)
    outbox = Outbox(str(path), SINKS)
    assert old_state.number_of(path) == SCHEMA_VERSION
    assert sum(outbox.counts().values()) == len(ROWS)
    outbox.close()


KILLED_AT = {
    "the tables": "CREATE VIEW",
    "a run": "INSERT INTO run",
    "a message": "INSERT INTO message",
    "a text": "INSERT OR IGNORE INTO text VALUES",
    "a delivery": "INSERT INTO delivery",
    "a commit": "COMMIT",
    "the number of the format": f"PRAGMA user_version = {SCHEMA_VERSION}",
    "the way back": "os.link",
    "the last step": "os.rename",
}
KILLED = """
import sys
from cc_slurm_adapter.outbox.outbox import Outbox
from tests.built.killed_migration import kill_at
kill_at(sys.argv[1])
Outbox(sys.argv[2])
"""


@pytest.mark.parametrize("name", ["5", "7"])
@pytest.mark.parametrize("step", KILLED_AT)
def test_a_kill_costs_only_the_work_so_far(path: Path, step: str, name: str) -> None:
    fill(path, name)
    command = [sys.executable, "-c", KILLED, KILLED_AT[step], str(path)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert old_state.number_of(path) == int(name)
    outbox = Outbox(str(path), SINKS)
    assert sum(outbox.counts().values()) == len(ROWS)
    outbox.close()
    assert sorted(each.name for each in path.parent.iterdir()) == ["state.sqlite", f"state.sqlite.format-{name}"]


def test_rows_of_format_7_come_over_as_they_are(path: Path) -> None:
    fill(path, "7")
    old_state.change(
        path,
        "UPDATE delivery SET created = 11, refusals = 2, first_sent = 3.5, next_try = 4.5, cuts = 1, parkings = 6,"
        " parked_since = 7.5, why = 'why', reason = 'reason' WHERE id = 5",
    )
    outbox = Outbox(str(path), SINKS)
    found = outbox.admin.rows_of_job(3)
    (run,) = found.runs
    (start, _) = found.rows
    assert (run.stage, run.hosts, run.note) == ("done", "n1", "")
    assert start.message == json.loads(separated(3, "start")[0])
    assert start[:15] == (
        *(5, "rest", "lab", 3, 1000, "start", "parked"),
        *(11, 3.5, 2, 6, 7.5, "reason", "why", 1),
    )
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT COUNT(*) FROM text").fetchone()[0] == 3  # a script, and two of slurmInfo
    outbox.close()


def test_a_file_that_somebody_else_has_open_is_left_alone(path: Path) -> None:
    """His log would be taken for the new file's."""
    fill(path, "5")
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT * FROM message").fetchone()
        with pytest.raises(StateError, match="locked"):
            Outbox(str(path), SINKS)
    assert old_state.number_of(path) == 5


@pytest.mark.parametrize("name", ["5", "7"])
def test_texts_of_pending_starts_come_over_as_far_as_there_is_room(path: Path, name: str) -> None:
    fill(path, name)
    StateDatabase(str(path), max_text_bytes=0).close()
    outbox = Outbox(str(path), SINKS)
    (start,) = [each for each in outbox.deliveries.due("rest", FAR, 99) if each.key.job_id == 2]
    assert "left out" in json.loads(start.payload)["metaData"]["jobScript"]
    outbox.close()


# --- no room for it


def disk_of(pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file beside the old one may have so many pages."""
    new_database = migration.new_database

    def limited(database: sqlite3.Connection) -> None:
        new_database(database)
        if database.execute("PRAGMA database_list").fetchone()[2]:
            database.execute(f"PRAGMA max_page_count = {pages}")

    monkeypatch.setattr(migration, "new_database", limited)


def fill_with_large_texts(path: Path) -> None:
    """Two hundred starts that wait, with scripts of 20 kB: 4 MB."""
    fill(path, "5")
    with closing(sqlite3.connect(path)) as database, database:
        for job_id in range(100, 300):
            message = {"jobId": job_id, "startTime": 1000, "metaData": {"a": 1, "jobScript": f"{job_id}" * 7000}}
            database.execute(
                "INSERT INTO message (sink, cluster, job_id, start_time, kind, payload, created)"
                " VALUES ('rest', 'lab', ?, 1000, 'start', ?, ?)",
                (job_id, json.dumps(message).encode(), int(time.time())),
            )


def files(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def test_where_the_disk_is_too_full_for_texts_they_are_left_out(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill_with_large_texts(path)
    disk_of(200, monkeypatch)
    outbox = Outbox(str(path), SINKS)
    assert outbox.is_durable
    starts = [each for each in outbox.deliveries.due("rest", FAR, 999) if each.key.job_id >= 100]
    assert len(starts) == 200
    assert all("left out" in json.loads(start.payload)["metaData"]["jobScript"] for start in starts)
    assert "once more, without them" in caplog.text
    outbox.close()
    assert files(path) == ["state.sqlite", "state.sqlite.format-5"]


@pytest.mark.parametrize("free", [900, 5000])
def test_no_more_of_texts_is_taken_over_than_there_is_room_for(
    path: Path, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below what is left to others nothing is written at all."""
    fill_with_large_texts(path)
    monkeypatch.setattr(os, "statvfs", little_room(free * MB))
    outbox = Outbox(str(path), SINKS)
    has_room = free == 5000
    assert outbox.is_durable is has_room
    assert old_state.number_of(path) == (SCHEMA_VERSION if has_room else 5)
    starts = [each for each in outbox.deliveries.due("rest", FAR, 999) if each.key.job_id >= 100]
    assert len([each for each in starts if b"left out" in each.payload]) == (0 if has_room else 200)
    outbox.close()


def test_where_the_disk_is_full_reporting_goes_on_from_memory_until_there_is_room(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill_with_large_texts(path)
    with monkeypatch.context() as patch:
        disk_of(20, patch)
        outbox = Outbox(str(path), SINKS)
        assert files(path) == ["state.sqlite"]
        assert old_state.number_of(path) == 5
        assert not outbox.is_durable
        assert "going on from memory" in caplog.text
        assert "needs 5 MB at most" in caplog.text
        (first, *_) = outbox.deliveries.due("rest", FAR, 999)
        outbox.deliveries.delivered(first)
        counts = outbox.counts()
        outbox.retry_all()
        assert not outbox.is_durable
        assert files(path) == ["state.sqlite"]
    outbox.retry_all()
    assert outbox.is_durable
    assert old_state.number_of(path) == SCHEMA_VERSION
    assert outbox.counts() == counts
    outbox.close()
    assert files(path) == ["state.sqlite", "state.sqlite.format-5"]
    outbox = Outbox(str(path), SINKS)
    assert outbox.counts() == counts
    assert first.row_id not in [each.row_id for each in outbox.deliveries.due("rest", FAR, 999)]
    assert outbox.resend_starts("rest", "lab", lambda key: key.job_id == 6, FAR) == [key_of(6)]
    outbox.close()


def test_a_disk_that_takes_too_little_keeps_no_update_from_its_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what SQLite needs to read a file: the 32 KB of its `-shm`."""
    fill(path, "5")
    with no_space(40960):
        outbox = Outbox(str(path), SINKS)
        assert not outbox.is_durable
        assert {each.key.job_id for each in outbox.deliveries.due("rest", FAR, 99)} >= {2}
        outbox.retry_all()
        assert not outbox.is_durable
    assert files(path) == ["state.sqlite"]

    def forbidden(source: str, target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", forbidden)
        outbox.retry_all()
        assert not outbox.is_durable
    outbox.retry_all()
    assert outbox.is_durable
    outbox.close()
    assert old_state.number_of(path) == SCHEMA_VERSION


def test_a_stop_while_an_older_file_is_held_in_memory_writes_the_new_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path, "5")
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", little_room(900 * MB))
        outbox = Outbox(str(path), SINKS)
        (first, *_) = outbox.deliveries.due("rest", FAR, 999)
        outbox.deliveries.delivered(first)
        counts = outbox.counts()
        outbox.close()
    assert old_state.number_of(path) == SCHEMA_VERSION
    outbox = Outbox(str(path), SINKS)
    assert outbox.counts() == counts
    outbox.close()


def test_what_is_too_much_for_memory_as_well_is_one_clear_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_with_large_texts(path)
    disk_of(20, monkeypatch)
    monkeypatch.setattr(memory, "MAX_IN_MEMORY", 65536)
    with pytest.raises(StateError, match="needs 5 MB at most, and it cannot be kept in memory") as refused:
        Outbox(str(path), SINKS)
    assert f"free that much on the file system of {path.parent}" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert files(path) == ["state.sqlite"]
    assert old_state.number_of(path) == 5


def test_what_fails_leaves_nothing_beside_the_file(path: Path) -> None:
    fill(path, "5")
    with pytest.raises(Stopped):
        StateDatabase(str(path), stop_at(0))
    assert files(path) == ["state.sqlite"]
