"""How large the state becomes: in its file, in the file's log, and in memory while the file cannot be written."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cc_slurm_adapter.errors import CommandCancelled, NoRoom, StateError
from cc_slurm_adapter.jobs import catch_up
from cc_slurm_adapter.model import End, EndState, Phase, Run, RunKey
from cc_slurm_adapter.outbox import database as database_module
from cc_slurm_adapter.outbox import memory as memory_module
from cc_slurm_adapter.outbox import state_file
from cc_slurm_adapter.outbox.database import StateDatabase
from cc_slurm_adapter.outbox.memory import MAX_IN_MEMORY, copy_to_memory
from cc_slurm_adapter.outbox.outbox import Batch, Message, OpenRun, Outbox, Stage
from cc_slurm_adapter.outbox.state_file import MAX_TEXT_BYTES, Timing
from cc_slurm_adapter.outbox.withdrawals import Room
from cc_slurm_adapter.sinks.base import Delivery, Encoded, Kind
from cc_slurm_adapter.sinks.messages import CcMessages
from tests.fakes.slurm_and_sinks import NOW, make_run
from tests.unit.jobs.test_watch import Lab
from tests.unit.outbox.test_database import no_space

FAR = 1e12
MB = 1024 * 1024
SINK = "cc_rest"
SINKS = {SINK: ""}
ENCODER = CcMessages(())
AT_ONCE = 100


class Site:
    """An outbox whose one destination takes everything."""

    def __init__(self, folder: Path, sinks: dict[str, str] | None = None, max_text_bytes: int = MAX_TEXT_BYTES) -> None:
        self.path = str(folder / "state.sqlite")
        self.sinks = sinks or SINKS
        self.outbox = Outbox(self.path, self.sinks, max_text_bytes=max_text_bytes)

    def reopen(self, **waits: Any) -> None:
        """Open the state anew, with other waits."""
        self.outbox.close()
        self.outbox = Outbox(self.path, self.sinks, timing=Timing(**waits))

    def begin(self, runs: list[Run]) -> None:
        for at in range(0, len(runs), AT_ONCE):
            batch = Batch()
            for run in runs[at : at + AT_ONCE]:
                message = Message(tuple(self.sinks), run.key, Kind.START, ENCODER.encode_start(run))
                batch.messages.append(message)
                batch.runs[run.key] = OpenRun(run.key, Stage.STARTED, "node01", None)
            self.outbox.commit("lab", batch)

    def end(self, keys: list[RunKey]) -> None:
        for at in range(0, len(keys), AT_ONCE):
            batch = Batch()
            for key in keys[at : at + AT_ONCE]:
                stop = ENCODER.encode_stop(key, End(EndState.COMPLETED, NOW, "COMPLETED"))
                batch.messages.append(Message(tuple(self.sinks), key, Kind.STOP, stop))
                batch.runs[key] = OpenRun(key, Stage.DONE, "", None)
            self.outbox.commit("lab", batch)

    def deliver(self) -> list[Delivery]:
        """All that can be delivered; returns it."""
        delivered = []
        for sink in self.sinks:
            while rows := self.outbox.deliveries.due(sink, FAR, 16):
                self.outbox.deliveries.delivered(*self.outbox.deliveries.begin(rows, time.time()))
                delivered += rows
        return delivered

    def size(self) -> int:
        """Bytes of the file and its log."""
        return sum(os.path.getsize(self.path + each) for each in ("", "-wal") if os.path.exists(self.path + each))

    def rest(self) -> None:
        """What is done every ten minutes, long enough for the file to give its pages back."""
        for _ in range(20):
            self.outbox.tidy(7 * 86400)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.outbox.close()


def runs_with(count: int, script: Callable[[int], str], info: int = 1500) -> list[Run]:
    return [
        replace(make_run(job_id), job_script=script(job_id), slurm_info=f"JobId={job_id} ".ljust(info, "y"))
        for job_id in range(1, count + 1)
    ]


def own_script(size: int) -> Callable[[int], str]:
    return lambda job_id: f"#!/bin/sh\n# {job_id}\n".ljust(size, "x")


# --- the file


def test_jobs_with_scripts_of_their_own_take_little_once_they_are_delivered(site: Site) -> None:
    """With 10,000 of them 90 MB before, and 20 MB after."""
    site.begin(runs_with(4_000, own_script(3000)))
    assert site.size() <= 90 * MB * 0.4
    site.deliver()
    site.rest()
    assert site.outbox.counts() == {"delivered": 4_000}
    assert site.size() <= 20 * MB * 0.4


def test_the_tasks_of_an_array_share_their_script(tmp_path: Path) -> None:
    """Also where two destinations are to be told."""
    site = Site(tmp_path, {SINK: "", "cc_nats": SINK})
    script = "#!/bin/sh\n".ljust(MB, "x")
    site.begin(runs_with(100, lambda job_id: script))
    assert site.size() <= 4 * MB
    rows = site.outbox.deliveries.due(SINK, FAR, 3)
    assert all(json.loads(row.payload)["metaData"]["jobScript"] == script for row in rows)
    site.outbox.close()


def test_the_file_shrinks_when_large_texts_are_not_needed_any_more(site: Site) -> None:
    runs = runs_with(30, own_script(MB))
    site.begin(runs)
    assert site.size() >= 30 * MB
    site.deliver()
    site.rest()
    assert site.size() <= 6 * MB  # pages that are free, and the log's
    site.end([run.key for run in runs])
    site.deliver()
    assert site.outbox.counts() == {}


def test_texts_stay_until_every_sink_has_them(tmp_path: Path) -> None:
    site = Site(tmp_path, {SINK: "", "cc_nats": SINK})
    (run,) = runs_with(1, own_script(300_000))
    site.begin([run])
    site.outbox.deliveries.delivered(*site.outbox.deliveries.due(SINK, FAR, 9))
    site.outbox.tidy(7 * 86400)
    (start,) = site.outbox.deliveries.due("cc_nats", FAR, 9)
    assert json.loads(start.payload)["metaData"]["jobScript"] == run.job_script
    site.outbox.close()


def test_a_start_that_is_sent_again_says_that_its_texts_are_gone(site: Site) -> None:
    (run,) = runs_with(1, own_script(300_000))
    site.begin([run])
    site.deliver()
    assert site.outbox.resend_starts(SINK, "lab", lambda key: True, FAR) == [run.key]
    (start,) = site.deliver()
    assert "left out" in json.loads(start.payload)["metaData"]["jobScript"]


def test_a_start_that_is_too_large_loses_its_script_first(site: Site) -> None:
    site.begin(runs_with(1, own_script(100)))
    for left_out in (["jobScript"], ["jobScript", "slurmInfo"]):
        (start,) = site.outbox.deliveries.due(SINK, FAR, 9)
        assert site.outbox.deliveries.cut(start)
        (start,) = site.outbox.deliveries.due(SINK, FAR, 9)
        texts = json.loads(start.payload)["metaData"]
        assert [key for key in ("jobScript", "slurmInfo") if "too large" in texts[key]] == left_out
    assert not site.outbox.deliveries.cut(start)


# --- stateMaxBytes


def test_above_the_limit_texts_are_left_out_and_messages_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site = Site(tmp_path, max_text_bytes=5 * MB)
    site.begin(runs_with(300, own_script(100_000)))
    assert site.size() <= 9 * MB  # with the log
    assert [each for each in caplog.text.splitlines() if "stateMaxBytes" in each][1:] == []
    scripts = [json.loads(start.payload)["metaData"]["jobScript"] for start in site.deliver()]
    assert len(scripts) == 300
    kept = [script for script in scripts if "left out" not in script]
    assert 30 <= len(kept) <= 60
    assert scripts[: len(kept)] == kept
    site.outbox.close()


def test_above_the_limit_by_messages_alone_texts_that_wait_go(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.begin(runs_with(100, own_script(100_000)))
    site.outbox.close()
    site.outbox = Outbox(site.path, SINKS, max_text_bytes=MB)
    site.begin(runs_with(101, own_script(100_000))[100:])
    site.rest()
    assert site.size() <= 5 * MB
    assert len(site.deliver()) == 101
    site.outbox.close()


# --- the log of the file


@pytest.mark.parametrize("size", [256 * 1024, MB])
def test_a_start_is_written_about_once(site: Site, size: int) -> None:
    """From the pass that found it until a destination has it."""
    database = site.outbox._state._database
    database.execute("PRAGMA wal_autocheckpoint = 0")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    site.begin(runs_with(1, own_script(size)))
    site.deliver()
    assert os.path.getsize(f"{site.path}-wal") <= 1.5 * size


def test_a_reader_that_does_not_end_lets_the_log_grow_only_so_far(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As `sqlite3` with a transaction that somebody has forgotten."""
    monkeypatch.setattr(state_file, "MAX_WAL_BYTES", 4 * MB)
    site.reopen(check_room_every=0.0, retry_file=0.0, busy_briefly=0.01)
    site.outbox._state._next_room_check = 0.0
    runs = runs_with(3000, own_script(3000))
    with closing(sqlite3.connect(site.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM run").fetchone()
        for at in range(0, len(runs), AT_ONCE):
            site.begin(runs[at : at + AT_ONCE])
            site.deliver()
        assert site.size() <= 8 * MB
        assert not site.outbox.is_durable
        assert "another program reads it" in caplog.text
    site.begin([make_run(9999)])
    assert site.outbox.is_durable
    assert len(site.outbox.open_runs("lab")) == 3001


# --- no room on the file system, and memory


def little_room(free: int, total: int = 100 * 1024 * MB) -> Callable[[str], SimpleNamespace]:
    return lambda path: SimpleNamespace(f_frsize=1, f_blocks=total, f_bavail=free)


@pytest.mark.parametrize(
    ("total", "free", "is_enough"),
    [
        (1024 * MB, 201 * MB, True),
        (1024 * MB, 199 * MB, False),
        (10 * 1024 * MB, 513 * MB, True),
        (10 * 1024 * MB, 511 * MB, False),
        (10_000 * 1024 * MB, 1025 * MB, True),
        (MB, MB // 2, True),
        (MB, MB // 5, False),
    ],
)
def test_the_last_of_a_file_system_is_left_to_others(
    site: Site, monkeypatch: pytest.MonkeyPatch, total: int, free: int, is_enough: bool
) -> None:
    site.reopen(check_room_every=0.0, retry_file=0.0)
    monkeypatch.setattr(os, "statvfs", little_room(free, total))
    site.outbox._state._next_room_check = 0.0
    site.begin([make_run(1)])
    assert site.outbox.is_durable is is_enough
    monkeypatch.undo()
    site.outbox.retry_all()
    assert site.outbox.is_durable


def test_ten_thousand_running_jobs_and_as_many_that_wait_are_reported_on_a_full_disk(site: Site) -> None:
    site.reopen(retry_file=0.0)
    runs = runs_with(20_000, own_script(3000))
    site.begin(runs[:10_000])
    site.outbox._state.write(lambda database: database.execute("UPDATE delivery SET state = 'delivered'"))
    site.outbox.tidy(7 * 86400)
    site.begin(runs[10_000:])
    with no_space():
        with pytest.raises(StateError):
            site.outbox.deliveries.put_off(site.outbox.deliveries.due(SINK, FAR, 1)[0], 0, "cc-backend is away")
        assert not site.outbox.is_durable
        site.end([run.key for run in runs[:1_000]])
        assert len(site.deliver()) == 11_000
        assert site.outbox._state._database.execute("PRAGMA page_count").fetchone()[0] * 4096 <= MAX_IN_MEMORY
        site.end([run.key for run in runs[1_000:6_000]])
    site.begin([make_run(99_999)])
    assert site.outbox.is_durable
    assert site.outbox.counts() == {"delivered": 19_000, "pending": 5_001}
    assert len(site.outbox.open_runs("lab")) == 14_001
    stop = site.outbox.deliveries.due(SINK, FAR, 1)[0]
    assert site.outbox.deliveries.start_first(stop)
    assert (stop.key, Kind.START) in [(each.key, each.kind) for each in site.outbox.deliveries.due(SINK, FAR, 6_000)]


def test_what_was_delivered_while_the_disk_was_full_is_not_sent_again(site: Site) -> None:
    site.reopen(retry_file=0.0)
    runs = runs_with(3, own_script(3000))
    site.begin(runs)
    with no_space():
        with pytest.raises(StateError):
            site.deliver()
        site.deliver()
        site.end([runs[0].key])
        site.deliver()
    site.outbox.retry_all()
    assert site.outbox.is_durable
    site.outbox.close()
    site.outbox = Outbox(site.path, SINKS)
    site.rest()
    assert site.outbox.counts() == {"delivered": 2}
    with closing(sqlite3.connect(site.path)) as database:
        assert database.execute("SELECT COUNT(*) FROM message").fetchone()[0] == 2


def enough_no_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system has less left than is left to others, but takes writes."""
    monkeypatch.setattr(os, "statvfs", little_room(900 * MB))
    site.outbox._state._next_room_check = 0.0


def test_a_stop_writes_all_to_a_disk_that_has_little_room(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.begin([make_run(1)])
    enough_no_more(site, monkeypatch)
    site.begin([make_run(2)])
    assert not site.outbox.is_durable
    site.outbox.close()
    site.outbox = Outbox(site.path, SINKS)
    assert site.outbox.counts() == {"pending": 2}


def test_a_stop_writes_all_although_somebody_reads(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(state_file, "MAX_WAL_BYTES", -1)
    site.reopen(busy_briefly=0.01)
    site.begin([make_run(1)])
    with closing(sqlite3.connect(site.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM run").fetchone()
        site.outbox._state._next_room_check = 0.0
        site.begin([make_run(2)])
        assert not site.outbox.is_durable
        site.outbox.close()
    assert "cannot be written at the end" not in caplog.text
    site.outbox = Outbox(site.path, SINKS)
    assert site.outbox.counts() == {"pending": 2}


def test_a_stop_that_loses_what_is_in_memory_says_so(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.begin([make_run(1)])
    enough_no_more(site, monkeypatch)
    site.begin([make_run(2)])
    with no_space():
        site.outbox.close()
    (said,) = [record for record in caplog.records if "cannot be written at the end" in record.getMessage()]
    assert said.levelname == "ERROR"
    assert "make room" in said.getMessage()


def test_a_file_that_grows_although_it_should_not_is_said_and_copied_seldom(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """More waits than memory is to hold."""
    site.reopen(check_room_every=0.0, retry_file=0.0)
    site.begin(runs_with(50, own_script(100), info=100))
    monkeypatch.setattr(memory_module, "MAX_IN_MEMORY", 8192)
    copies: list[object] = []

    def counted(file: sqlite3.Connection, memory: sqlite3.Connection) -> None:
        copies.append(file)
        copy_to_memory(file, memory)

    monkeypatch.setattr(database_module, "copy_to_memory", counted)
    enough_no_more(site, monkeypatch)
    for job_id in (101, 102, 103):
        site.begin([make_run(job_id)])
    assert site.outbox.is_durable
    assert len(copies) == 1
    assert caplog.text.count("grows, although it should not") == 1
    monkeypatch.setattr(os, "statvfs", little_room(5000 * MB))
    site.outbox.retry_all()
    assert caplog.text.count("has room to grow again") == 1


# --- what memory lacks: messages that were delivered


def in_memory(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this the state has moved to memory."""
    enough_no_more(site, monkeypatch)
    site.outbox.deliveries.retry_pending(SINK)
    assert not site.outbox.is_durable


def back_in_file(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", little_room(5000 * MB))
    site.outbox.retry_all()
    assert site.outbox.is_durable


def test_a_delivered_start_that_memory_lacks_does_not_hold_its_stop_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(1)
    site.begin([run])
    site.deliver()
    in_memory(site, monkeypatch)
    site.end([run.key])
    (stop,) = site.outbox.deliveries.due(SINK, FAR, 9)
    assert not site.outbox.deliveries.start_first(stop)
    assert [each.kind for each in site.outbox.deliveries.due(SINK, FAR, 9)] == [Kind.STOP]
    back_in_file(site, monkeypatch)
    assert site.outbox.deliveries.start_first(stop)
    assert [each.kind for each in site.deliver()] == [Kind.START, Kind.STOP]


def test_a_lost_start_that_memory_lacks_is_sent_again_from_the_file(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(1)
    site.begin([run])
    site.deliver()
    in_memory(site, monkeypatch)
    assert site.outbox.resend_starts(SINK, "lab", lambda key: True, FAR) == []
    assert site.outbox.counts() == {"delivered": 1}
    back_in_file(site, monkeypatch)
    assert site.outbox.resend_starts(SINK, "lab", lambda key: True, FAR) == [run.key]
    assert len(site.deliver()) == 1


def test_what_was_over_and_is_told_anew_in_memory_has_its_message(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(1)
    site.begin([run])
    site.end([run.key])
    site.deliver()
    in_memory(site, monkeypatch)
    site.end([run.key])
    assert [each.kind for each in site.outbox.deliveries.due(SINK, FAR, 9)] == [Kind.STOP]
    back_in_file(site, monkeypatch)
    assert [each.kind for each in site.deliver()] == [Kind.STOP]


def test_a_withdrawn_run_can_be_sent_again_from_memory(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the later run of its job, for which it was withdrawn, is refused after all."""
    first, second = make_run(1, NOW - 1000), make_run(1, NOW - 100)
    site.begin([first])
    site.outbox.commit("lab", Batch(messages=[Message((SINK,), first.key, Kind.WITHDRAW, Encoded(b"{}"))]))
    site.end([first.key])
    site.deliver()
    site.begin([second])
    (start,) = site.outbox.deliveries.due(SINK, FAR, 9)
    assert site.outbox.deliveries.make_room(start, 0) is Room.MADE
    (withdrawal,) = site.outbox.deliveries.due(SINK, FAR, 9)
    site.outbox.deliveries.delivered(withdrawal)
    in_memory(site, monkeypatch)
    assert site.outbox.deliveries.conflict(start, "refused") == [first.key]
    assert [(each.key, each.kind) for each in site.deliver()] == [(first.key, Kind.START), (first.key, Kind.STOP)]


# --- accounting


def test_accounting_is_not_read_on_while_too_much_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catch_up, "MAX_PENDING", 10)
    lab = Lab(tmp_path)
    gone = lab.slurm.put(make_run(40, start=NOW - 100))
    lab.poll()
    del lab.slurm.jobs[gone.key.job_id]
    lab.poll()
    for job_id in range(1, 31):
        lab.slurm.close(make_run(job_id, start=NOW - 100, phase=Phase.ENDED))
    with pytest.raises(NoRoom, match="accounting is read on when they are fewer"):
        lab.catch_up(NOW - 200)
    assert lab.outbox.checkpoint("lab") is None
    assert lab.outbox.waiting() <= 12
    (row,) = lab.outbox.deliveries.due(SINK, FAR, 1)
    lab.outbox.deliveries.delivered(row)
    lab.now += 60
    lab.poll()
    lab.slurm.asked.clear()
    with pytest.raises(NoRoom):  # while more than half of them are left; the lost run is not asked for either
        lab.catch_up(NOW - 200)
    assert lab.slurm.asked == []
    for _ in range(5):
        while rows := lab.outbox.deliveries.due(SINK, FAR, 99):
            lab.outbox.deliveries.delivered(*rows)
        with contextlib.suppress(NoRoom):
            lab.catch_up(NOW - 200)
    assert all(lab.outbox.knows_job("lab", job_id) for job_id in range(1, 31))
    assert lab.outbox.checkpoint("lab") == lab.now
    lab.outbox.close()


def test_accounting_is_read_on_however_much_is_parked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catch_up, "MAX_PENDING", 30)
    lab = Lab(tmp_path)
    for day in range(5):
        for job_id in range(10 * day, 10 * day + 10):
            lab.slurm.close(make_run(job_id + 1, start=NOW - 100, phase=Phase.ENDED))
        lab.catch_up(NOW - 200)
        for row in lab.outbox.deliveries.due(SINK, FAR, 99):
            lab.outbox.deliveries.parked(row, "HTTP 400: the user is unknown")
    assert lab.outbox.counts() == {"parked": 50, "pending": 50}
    assert lab.outbox.checkpoint("lab") == NOW
    lab.outbox.close()


# --- the check of the file


def test_the_file_is_read_as_a_whole_only_after_an_unclean_end_and_that_can_be_stopped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_file, "PROGRESS_STEPS", 10)
    site.begin(runs_with(100, own_script(3000)))
    site.outbox.close()

    def stop() -> None:
        raise CommandCancelled("the daemon stops")

    StateDatabase(site.path, stop).close()
    Path(f"{site.path}-wal").touch()
    with pytest.raises(CommandCancelled):
        StateDatabase(site.path, stop)
    site.outbox = Outbox(site.path, SINKS)
    assert site.outbox.counts() == {"pending": 100}
