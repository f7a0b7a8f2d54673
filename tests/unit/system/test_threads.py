"""Threads go on whatever happens, and those that do not are noticed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.system.threads import Aside, Supervisor, Worker, run_beside
from tests.fakes.waiting import PATIENCE, comes


def test_what_is_done_aside_is_waited_for_and_its_error_raised() -> None:
    may_end = threading.Event()

    def action() -> None:
        may_end.wait(PATIENCE)
        raise OSError(99, "no such address")

    aside = Aside("slow", action)
    assert not aside.is_done(0.01)
    may_end.set()
    with pytest.raises(OSError, match="no such address"):
        aside.is_done(PATIENCE)
    assert Aside("quick", lambda: None).is_done(PATIENCE)


class Clock:
    """Seconds that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def started() -> Iterator[list[Worker]]:
    """Workers of a test, which are stopped at its end."""
    workers: list[Worker] = []
    yield workers
    for worker in workers:
        worker.stop()
        worker.join(PATIENCE)


def start(workers: list[Worker], worker: Worker) -> Worker:
    workers.append(worker)
    worker.start()
    return worker


@pytest.mark.parametrize("error", [ValueError("nobody thought of that"), MemoryError(), OSError(24, "no file")])
def test_a_thread_goes_on_after_any_error_and_says_it_once(
    started: list[Worker], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    turns: list[None] = []

    def turn() -> None:
        turns.append(None)
        if len(turns) <= 5:
            raise error
        threading.Event().wait(0.01)

    worker = start(started, Worker("frail", turn, longest_pause=0.016))
    assert comes(lambda: len(turns) > 7)
    assert worker.is_alive
    said = [record for record in caplog.records if "the thread frail" in record.getMessage()]
    assert [record.levelno for record in said] == [logging.ERROR, NOTICE]
    assert said[1].getMessage().startswith("the thread frail works again after ")


def test_the_pause_after_errors_in_a_row_grows(started: list[Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(Worker, "wait", lambda _, seconds: waits.append(seconds))

    def turn() -> None:
        if len(waits) >= 10:
            started[0].stop()
        raise ValueError

    start(started, Worker("broken", turn, longest_pause=8.0)).join(PATIENCE)
    assert waits[:6] == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_a_stop_ends_the_pause_and_the_end_is_done_in_the_thread(started: list[Worker]) -> None:
    failed = threading.Event()
    ends: list[str] = []

    def turn() -> None:
        failed.set()
        raise ValueError

    worker = start(started, Worker("broken", turn, lambda: ends.append(threading.current_thread().name)))
    assert failed.wait(PATIENCE)
    worker.stop()
    worker.join(0.9)  # less than the pause
    assert not worker.is_alive
    assert not worker.has_ended
    assert ends == ["broken"]


def test_an_error_at_the_end_is_said(started: list[Worker], caplog: pytest.LogCaptureFixture) -> None:
    def at_end() -> None:
        raise ValueError("at the end")

    worker = start(started, Worker("tidy", lambda: started[0].stop(), at_end))
    worker.join(PATIENCE)
    assert "the end of the thread tidy" in caplog.text
    assert "ValueError: at the end" in caplog.text


def test_one_that_was_never_started_is_neither_waited_for_nor_missed() -> None:
    worker = Worker("idle", lambda: None)
    worker.join(PATIENCE)
    assert not worker.has_ended
    assert worker.never_ran


def test_what_short_work_raises_is_said(caplog: pytest.LogCaptureFixture) -> None:
    def action() -> None:
        raise KeyError("x")

    run_beside("short", action).join(PATIENCE)
    assert "the thread short: an error of this program, KeyError" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_ended_is_noticed(started: list[Worker]) -> None:
    def turn() -> None:
        raise SystemExit  # which no loop survives

    worker = start(started, Worker("dead", turn))
    supervisor = Supervisor()
    supervisor.watch([worker])
    worker.join(PATIENCE)
    assert supervisor.find_fault() == "the thread dead has ended"


class Standing:
    """A worker that makes progress only when a test says so; and the supervisor that looks at it."""

    def __init__(self, workers: list[Worker]) -> None:
        self.go_on = threading.Event()
        self.worker = start(workers, Worker("slow", lambda: self.worker.wait(PATIENCE), stuck_after=100.0))
        self.clock = Clock()
        self.supervisor = Supervisor(self.clock)
        self.supervisor.watch([self.worker])

    def looks(self, seconds: float) -> str:
        """What is found in that time; one look each second, as the main thread has it."""
        for _ in range(int(seconds)):
            self.clock.now += 1
            found = self.supervisor.find_fault()
            if found:
                return found
        return ""


def test_a_thread_without_progress_is_noticed(started: list[Worker]) -> None:
    standing = Standing(started)
    assert standing.looks(99) == ""
    standing.worker.progress()
    assert standing.looks(99) == ""
    assert standing.looks(10) == "the thread slow has made no progress for 100 s"


def test_a_process_that_was_stopped_for_long_has_no_stuck_threads(started: list[Worker]) -> None:
    standing = Standing(started)
    standing.clock.now += 86400
    assert standing.looks(50) == ""


def test_a_thread_that_a_disk_holds_is_said_and_ends_nothing(
    started: list[Worker], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    standing = Standing(started)
    assert standing.worker.waits_for_a_disk is False
    monkeypatch.setattr(Worker, "waits_for_a_disk", property(lambda _: True))
    assert standing.looks(300) == ""
    assert caplog.text.count("the thread slow has waited for a file system or a device for 100 s") == 1
