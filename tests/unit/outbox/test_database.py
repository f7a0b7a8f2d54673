from __future__ import annotations

import os
import resource
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from cc_slurm_adapter.daemon.daemon import _begin_with
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox import memory
from cc_slurm_adapter.outbox.outbox import Batch, Message, OpenRun, Outbox, Stage
from cc_slurm_adapter.outbox.state_file import Timing
from cc_slurm_adapter.sinks.base import Encoded, Kind
from cc_slurm_adapter.system.file_systems import file_system_type


@contextmanager
def no_space(limit: int = 4096) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes: SQLite gets the error of a disk that takes nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state.sqlite")


@pytest.fixture
def outbox(path: str) -> Iterator[Outbox]:
    """With one run, and a file that is tried again at every write."""
    made = Outbox(path, timing=Timing(retry_file=0.0, busy_briefly=0.01))
    add(made, 1)
    yield made
    made.close()


def add(outbox: Outbox, job_id: int) -> None:
    key = RunKey("lab", job_id, 1000)
    outbox.commit("lab", Batch(runs={key: OpenRun(key, Stage.STARTED, "node01", None)}, checkpoint=job_id))


def jobs(outbox: Outbox) -> list[int]:
    return sorted(run.key.job_id for run in outbox.open_runs("lab"))


def jobs_in_file(path: str) -> list[int]:
    """What a daemon would find that starts now."""
    with closing(sqlite3.connect(path)) as database:
        return [job_id for (job_id,) in database.execute("SELECT job_id FROM run ORDER BY job_id")]


def test_a_disk_that_takes_nothing_costs_nothing(outbox: Outbox, path: str) -> None:
    with no_space():
        add(outbox, 2)
        add(outbox, 3)
        assert jobs(outbox) == [1, 2, 3]
        assert not outbox.is_durable
    assert jobs_in_file(path) == [1]


def test_the_file_gets_everything_once_it_can_be_written_again(
    outbox: Outbox, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with no_space():
        for job_id in (2, 2, 3):
            with suppress(StateError):
                add(outbox, job_id)
    add(outbox, 4)
    assert outbox.is_durable
    assert jobs_in_file(path) == [1, 2, 3, 4]
    assert outbox.checkpoint("lab") == 4
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "going on from memory" in said[0]
    assert "can be written again" in said[1]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)


def test_what_is_settled_fails_once_and_is_settled_in_memory_then(outbox: Outbox) -> None:
    key = RunKey("lab", 1, 1000)
    outbox.commit("lab", Batch(messages=[Message(("rest",), key, Kind.START, Encoded(b"{}"))]))
    (owed,) = outbox.deliveries.due("rest", time.time(), 1)
    with no_space():
        with pytest.raises(StateError, match="cannot be used"):
            outbox.deliveries.parked(owed, "refused")
        assert outbox.counts() == {"pending": 1}
        outbox.deliveries.parked(owed, "refused")
        assert outbox.counts() == {"parked": 1}


def test_the_file_and_its_log_stay_small(path: str) -> None:
    """A state folder of some MB is enough for what some jobs need."""
    outbox = Outbox(path)
    for job_id in range(1000):
        key = RunKey("lab", job_id, 1000)
        outbox.commit("lab", Batch(messages=[Message(("rest",), key, Kind.START, Encoded(b"x" * 4000))]))
        (owed,) = outbox.deliveries.due("rest", time.time(), 1)
        outbox.deliveries.delivered(owed)
        outbox.commit("lab", Batch(messages=[Message(("rest",), key, Kind.STOP, Encoded(b"{}"))]))
        (owed,) = outbox.deliveries.due("rest", time.time(), 1)
        outbox.deliveries.delivered(owed)
    assert os.path.getsize(path) + os.path.getsize(f"{path}-wal") < 3 * 1024 * 1024
    outbox.close()


def test_what_is_in_memory_is_saved_at_the_end(path: str) -> None:
    outbox = Outbox(path)
    with no_space():
        for _ in range(2):
            with suppress(StateError):
                add(outbox, 1)
    outbox.close()
    assert jobs_in_file(path) == [1]


def test_a_file_that_is_gone_meanwhile_is_made_again(outbox: Outbox, path: str) -> None:
    with no_space():
        for _ in range(2):
            with suppress(StateError):
                add(outbox, 2)
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(path + suffix)
    add(outbox, 3)
    assert jobs_in_file(path) == [1, 2, 3]


def test_the_memory_for_it_is_limited(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_IN_MEMORY", 256 * 1024)
    with no_space():
        with suppress(StateError):
            add(outbox, 2)
        with pytest.raises(StateError, match="full"):
            for first in range(2, 100_000, 1000):
                keys = [RunKey("lab", job_id, 1000) for job_id in range(first, first + 1000)]
                outbox.commit("lab", Batch(runs={key: OpenRun(key, Stage.STARTED, "node01", None) for key in keys}))
        assert jobs(outbox)[0] == 1


def test_a_lock_of_somebody_else_does_not_stop_the_way_back(outbox: Outbox, path: str) -> None:
    with no_space():
        for _ in range(2):
            with suppress(StateError):
                add(outbox, 2)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        add(outbox, 3)
        assert not outbox.is_durable
        other.execute("ROLLBACK")
    add(outbox, 4)
    assert outbox.is_durable
    assert jobs_in_file(path) == [1, 2, 3, 4]


def test_a_file_that_is_too_large_for_memory_stays_a_file(
    outbox: Outbox, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MAX_IN_MEMORY", 8192)
    with no_space():
        for _ in range(2):
            with pytest.raises(StateError, match="is the disk full or read-only"):
                add(outbox, 2)
        assert outbox.is_durable
        assert jobs(outbox) == [1]
    add(outbox, 2)
    assert jobs_in_file(path) == [1, 2]


def test_a_start_on_a_full_disk_with_messages_that_wait_goes_on_from_memory(outbox: Outbox) -> None:
    key = RunKey("lab", 1, 1000)
    outbox.commit("lab", Batch(messages=[Message(("rest",), key, Kind.START, Encoded(b"{}"))]))
    (owed,) = outbox.deliveries.due("rest", time.time(), 1)
    outbox.deliveries.put_off(owed, time.time() + 100, "cc-backend is away")
    with no_space():
        _begin_with(outbox)
        assert not outbox.is_durable
        assert [each.key for each in outbox.deliveries.due("rest", time.time(), 1)] == [key]


def test_a_lock_of_somebody_else_is_no_reason_to_leave_the_file(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(path)
    outbox._state._database.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateError, match="locked"):
            add(outbox, 1)
        assert outbox.is_durable
        other.execute("ROLLBACK")
    add(outbox, 1)
    outbox.close()
    assert jobs_in_file(path) == [1]


@pytest.mark.parametrize(
    ("mounts", "kind", "advice"),
    [
        ("nfs4", "nfs4", "it is on nfs4, but must be on a local file system: set statePath"),
        ("ext4", "ext4", "another program has it open"),
    ],
)
def test_a_file_that_cannot_be_locked_says_what_to_change(
    path: str, monkeypatch: pytest.MonkeyPatch, mounts: str, kind: str, advice: str
) -> None:
    """On a file system without working locks SQLite says no more than that the file is locked."""
    folder = os.path.dirname(path)
    lines = [
        "21 1 8:1 / / rw,relatime shared:1 - xfs /dev/sda1 rw",
        f"40 21 0:50 / {folder} rw,relatime shared:2 - {mounts} server:/state rw",
        f"41 21 0:51 / {folder}-other rw,relatime shared:2 - tmpfs none rw",
    ]
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "\n".join(lines))
    assert file_system_type(path) == kind
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda name, **options: connect(name, **{**options, "timeout": 0.01}))
    with closing(connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StateError, match="locked") as refused:
            Outbox(path)
    assert advice in str(refused.value)
