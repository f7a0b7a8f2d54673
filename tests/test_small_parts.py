"""Small parts: backing off, waiting hook events, the pid file, the time of the last run, progress, open runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cc_slurm_adapter.backoff import Backoff
from cc_slurm_adapter.errors import AlreadyRunning, StateError
from cc_slurm_adapter.hook_queue import AT_ONCE, MAX_WAITING, HookQueue
from cc_slurm_adapter.job import HookEvent
from cc_slurm_adapter.log import REMIND, Reminder
from cc_slurm_adapter.open_runs import OpenRuns
from cc_slurm_adapter.outbox import KnownRun, Stage
from cc_slurm_adapter.progress import Progress
from cc_slurm_adapter.state_files import LastRun, PidFile, check_state_folder
from tests.fakes import make_run


def test_waiting_grows_to_its_limit_and_starts_again() -> None:
    backoff = Backoff(1, 20, jitter=lambda: 1.0)
    assert [backoff.failed() for _ in range(7)] == [1, 2, 4, 8, 16, 20, 20]
    backoff.succeeded()
    assert backoff.failed() == 1
    assert Backoff(8, 20, jitter=lambda: 0.25).failed() == 2


PROLOG, EPILOG = HookEvent(1, "prolog_slurmctld", 0), HookEvent(1, "epilog_slurmctld", 0)


def test_an_event_is_asked_for_again_a_little_later_each_time() -> None:
    hooks = HookQueue(max_tries=10)
    hooks.add(PROLOG, 100.0)
    asked = []
    now = 100.0
    while hooks.next_due() is not None:
        now = hooks.next_due() or 0
        asked.append(round(now - 100, 2))
        hooks.looked_at(hooks.due(now), now, lambda _: len(asked) == 6, {1})
    assert asked == [0.05, 0.25, 0.75, 1.75, 3.75, 5.75]


def test_an_event_that_never_fits_is_given_up() -> None:
    hooks = HookQueue(max_tries=2)
    hooks.add(PROLOG, 0.0)
    hooks.looked_at([1], 0.1, lambda _: False, {1})
    hooks.looked_at([1], 1.0, lambda _: False, {1})
    assert hooks.next_due() is None


def test_prolog_and_epilog_of_a_job_wait_each_for_itself_and_are_asked_together() -> None:
    hooks = HookQueue(max_tries=10)
    hooks.add(PROLOG, 0.0)
    hooks.add(EPILOG, 0.0)
    assert hooks.due(0.0) == [1]
    hooks.looked_at([1], 0.1, lambda event: not event.is_end, {1})
    assert hooks.due(0.2) == []
    assert hooks.due(0.4) == [1]
    hooks.looked_at([1], 0.4, lambda event: event.is_end, {1})
    assert hooks.next_due() is None


def test_a_job_that_slurm_does_not_know_is_soon_given_up() -> None:
    hooks = HookQueue(max_tries=10)
    hooks.add(EPILOG, 0.0)
    hooks.looked_at([1], 0.0, lambda _: False, set())
    hooks.looked_at([1], 1.0, lambda _: False, set())
    assert hooks.next_due() is None


def test_a_flood_of_events_is_left_to_the_polls() -> None:
    hooks = HookQueue(max_tries=10)
    taken = [hooks.add(HookEvent(job_id, "epilog_slurmctld", 0), 0.0) for job_id in range(MAX_WAITING + 1)]
    assert taken == [True] * MAX_WAITING + [False]
    assert hooks.due(0.0) == list(range(AT_ONCE))


def test_an_event_that_fails_alone_while_others_are_answered_is_given_up() -> None:
    hooks = HookQueue(max_tries=3)
    for job_id in range(1, 9):
        hooks.add(HookEvent(job_id, "epilog_slurmctld", 0), 0.0)
    now = 1.0
    asked = []
    while hooks.next_due() is not None and now < 100:
        job_ids = hooks.due(now)
        asked.append(job_ids)
        if 1 in job_ids:
            hooks.failed(job_ids, now)
        else:
            hooks.looked_at(job_ids, now, lambda _: len(asked) > 20, {*job_ids})
        now += 1
    assert asked[:5] == [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4], [1, 2], [1], [2]]
    assert now < 100
    assert hooks.next_due() is None


def test_no_event_is_given_up_while_nothing_is_answered() -> None:
    hooks = HookQueue(max_tries=3)
    hooks.add(EPILOG, 0.0)
    for now in range(100):
        hooks.failed([1], float(now))
    assert hooks.next_due() is not None


def test_a_second_daemon_is_refused_and_the_first_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "daemon.pid"
    first, second = PidFile(str(path)), PidFile(str(path))
    first.lock()
    first.publish()
    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
        second.lock()
    second.release()
    assert path.read_text() == f"{os.getpid()}\n"
    first.release()
    assert not path.exists()


@pytest.mark.parametrize("left_over", ["1\n", f"{os.getpid()}\n", "", "nonsense", "9" * 500])
def test_a_pid_file_that_was_left_behind_blocks_nothing(tmp_path: Path, left_over: str) -> None:
    path = tmp_path / "daemon.pid"
    path.write_text(left_over)
    pid_file = PidFile(str(path))
    pid_file.lock()
    pid_file.publish()
    assert path.read_text() == f"{os.getpid()}\n"
    pid_file.release()
    assert not path.exists()


def test_a_refused_start_leaves_the_pid_file_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "daemon.pid"
    path.write_text("4711\n")
    pid_file = PidFile(str(path))
    pid_file.lock()
    pid_file.release()
    assert path.read_text() == "4711\n"


def test_a_refused_start_leaves_no_pid_file_of_its_own(tmp_path: Path) -> None:
    pid_file = PidFile(str(tmp_path / "daemon.pid"))
    pid_file.lock()
    pid_file.release()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_daemon_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "daemon.pid"
    script = (
        "import os, signal; from cc_slurm_adapter.state_files import PidFile;"
        f" PidFile({str(path)!r}).lock(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parent.parent, check=False)
    assert path.exists()
    pid_file = PidFile(str(path))
    pid_file.lock()
    pid_file.release()


def test_a_pid_file_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="RuntimeDirectory"):
        PidFile(str(tmp_path / "nowhere" / "daemon.pid")).lock()


def test_the_time_of_the_last_run_is_the_time_of_the_file(tmp_path: Path) -> None:
    last_run = LastRun(str(tmp_path / "lastrun"))
    assert last_run.read() is None
    last_run.write(1_700_000_000.5)
    assert last_run.read() == 1_700_000_000
    assert (tmp_path / "lastrun").read_bytes() == b""


def test_a_state_folder_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    assert check_state_folder(str(tmp_path / "lastrun")) == str(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StateError, match="StateDirectory"):
        check_state_folder(str(tmp_path / "nowhere" / "lastrun"))


def test_short_work_is_not_mentioned_and_long_work_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    progress = Progress("reading", 100, clock=lambda: now[0])
    progress.say(1)
    assert caplog.messages == []
    for done in range(2, 50):
        now[0] += 1
        progress.say(done)
    assert 3 <= len(caplog.messages) <= 5
    assert "of 100" in caplog.messages[0]


def test_open_runs_are_found_by_job_and_counted_by_node() -> None:
    first, second, other = make_run(1, start=10), make_run(1, start=20), make_run(2, start=10)
    runs = OpenRuns([KnownRun(run.key, Stage.LIVE, "a,b", None) for run in (first, second, other)])
    assert {known.key for known in runs.of_job(1)} == {first.key, second.key}
    assert (runs.jobs_on("a"), runs.jobs_on("b"), runs.jobs_on("c")) == (3, 3, 0)
    runs.put(KnownRun(second.key, Stage.LIVE, "a", None))
    assert (runs.jobs_on("a"), runs.jobs_on("b")) == (3, 2)
    runs.put(KnownRun(first.key, Stage.DONE, "", None))
    runs.drop(other.key)
    runs.drop(other.key)
    assert list(runs) == [second.key]
    assert (runs.jobs_on("a"), runs.jobs_on("b")) == (1, 0)
    assert runs.of_job(2) == []
    assert runs.stage(second.key) is Stage.LIVE
    assert runs.stage(first.key) is None


def test_a_trouble_is_said_at_once_and_then_now_and_then() -> None:
    moments = [5.0, 6.0, 5.0 + REMIND - 1, 5.0 + REMIND, 6.0 + REMIND]
    reminder = Reminder(clock=iter(moments).__next__)
    assert [reminder.is_due() for _ in moments] == [True, False, False, True, False]


def test_a_trouble_of_another_kind_is_said_soon() -> None:
    said = [(0.0, "refused"), (5.0, "no token"), (11.0, "no token"), (30.0, "no token")]
    reminder = Reminder(clock=iter([*(when for when, _ in said), 31.0]).__next__)
    assert [reminder.is_due(about) for _, about in said] == [True, False, True, False]
    reminder.forget()
    assert reminder.is_due("no token")


def test_a_trouble_that_comes_and_goes_is_said_at_most_once_a_minute() -> None:
    moments = [0.0, 10.0, 59.0, 60.0, 61.0]
    reminder = Reminder(clock=iter(moments).__next__)
    said = [(reminder.is_due(), reminder.over()) for _ in moments]
    assert said == [(True, True), (False, False), (False, False), (True, True), (False, False)]
