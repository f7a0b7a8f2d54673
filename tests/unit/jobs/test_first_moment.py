"""What ended before the first moment is not started, and all else is: whatever is lost, and wherever the clock goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.jobs.first_moment import Before, FirstMoment, catch_up_from
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.model import AccountedEnd, End, EndState, Phase, Run, RunKey
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.sinks.base import Kind, RunningRow, RunningRows
from cc_slurm_adapter.sinks.messages import CcMessages
from tests.fakes.slurm_and_sinks import NOW, FakeSlurm, make_run
from tests.unit.jobs.test_watch import SINK, Lab, believed, stop_times

WEEK, DAY, HOUR, MINUTE = 7 * 86400, 86400, 3600, 60
MIN_JOB_AGE = 300
EARLIER, LATER = NOW - 2 * DAY, NOW + DAY
FRESH = Before(None, None, is_rebuilt=False, max_span=WEEK)
OLD_STATE = FRESH._replace(checkpoint=EARLIER, last_run=NOW)


def settled(folder: Path, before: Before, now: int = NOW) -> int:
    """The first moment with which a daemon starts there."""
    moment = FirstMoment(str(folder / "state.sqlite"))
    moment.settle(before, now)
    return moment.limit(now)


# --- the file


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param(FRESH, NOW - WEEK, id="nothing"),
        pytest.param(FRESH._replace(last_run=EARLIER), EARLIER, id="the existing adapter's lastrun"),
        pytest.param(FRESH._replace(last_run=NOW), NOW, id="a lastrun of this moment"),
        pytest.param(FRESH._replace(last_run=NOW - 2 * WEEK), NOW - 2 * WEEK, id="an old lastrun"),
        pytest.param(FRESH._replace(last_run=LATER), NOW, id="a lastrun from the future"),
        pytest.param(FRESH._replace(last_run=NOW, is_rebuilt=True), NOW - WEEK, id="a state that is damaged now"),
        pytest.param(OLD_STATE, EARLIER - WEEK, id="an older version's state"),
        pytest.param(OLD_STATE._replace(checkpoint=LATER), NOW - WEEK, id="and its clock was ahead"),
    ],
)
def test_it_is_decided_once_and_never_moves(before: Before, expected: int, tmp_path: Path) -> None:
    assert settled(tmp_path, before) == expected
    assert (tmp_path / "first-moment").read_text() == f"{expected}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["first-moment"]
    for later in (FRESH, before, Before(NOW + 9, NOW + 9, is_rebuilt=True, max_span=MINUTE)):
        assert settled(tmp_path, later, NOW + WEEK) == expected
    assert (tmp_path / "first-moment").read_text() == f"{expected}\n"


def test_a_lastrun_from_the_future_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settled(tmp_path, FRESH._replace(last_run=LATER))
    assert "is in the future: the present time is used instead" in caplog.text


def test_a_state_that_was_set_aside_once_says_that_lastrun_is_our_own(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite.damaged-1790000000").touch()
    assert settled(tmp_path, FRESH._replace(last_run=NOW)) == NOW - WEEK


def test_two_daemons_in_one_folder_have_a_file_each(tmp_path: Path) -> None:
    for name, last_run in (("state.sqlite", EARLIER), ("other.sqlite", NOW)):
        FirstMoment(str(tmp_path / name)).settle(FRESH._replace(last_run=last_run), NOW)
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"first-moment": f"{EARLIER}\n", "first-moment.other.sqlite": f"{NOW}\n"}


@pytest.mark.parametrize("content", [b"", b"\n", b"0\n", b"1800000000", b"18\x0000\n", b"\0" * 11, b"1800000000\r\n"])
def test_a_damaged_file_is_said_and_written_anew(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was this program's, so lastrun does not tell what was delivered: rather too much is read than too little."""
    file = tmp_path / "first-moment"
    file.write_bytes(content)
    assert settled(tmp_path, FRESH._replace(last_run=NOW)) == NOW - WEEK
    assert file.read_text() == f"{NOW - WEEK}\n"
    assert "contains no time: it is written anew" in caplog.text


@pytest.mark.parametrize(
    "content", [b"abc\n", b"-5\n", b"2026-01-01\n", b"1800000000 # mine\n", b"1" * 5000, b"\0" * 64 + b"mine"]
)
def test_a_file_of_somebody_else_is_said_and_left_alone(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The time counts for this life all the same."""
    file = tmp_path / "first-moment"
    file.write_bytes(content)
    moment = FirstMoment(str(tmp_path / "state.sqlite"))
    moment.settle(FRESH._replace(last_run=NOW), NOW)
    moment.keep()
    assert moment.limit(NOW) == NOW - WEEK
    assert file.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["first-moment"]
    assert "was not written by this program: it is left alone" in caplog.text
    assert "move it away and restart" in caplog.text


def make_folder(path: Path) -> None:
    path.mkdir()


def make_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [make_folder, make_loop, os.mkfifo])
def test_a_file_that_cannot_be_read_is_said_and_left_alone(
    make: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path / "first-moment")
    assert settled(tmp_path, FRESH._replace(last_run=NOW)) == NOW - WEEK
    assert "cannot be read" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["first-moment"]


def test_a_named_pipe_in_its_place_does_not_hang_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "first-moment")
    assert settled(tmp_path, FRESH) == NOW - WEEK


def test_a_file_that_cannot_be_written_is_no_reason_not_to_start_and_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state"
    moment = FirstMoment(str(folder / "state.sqlite"))
    moment.settle(FRESH._replace(last_run=EARLIER), NOW)
    assert moment.limit(NOW) == EARLIER
    assert "cannot be written (No such file or directory), which is tried again" in caplog.text
    folder.mkdir()
    moment.keep()
    assert (folder / "first-moment").read_text() == f"{EARLIER}\n"
    assert "is written now" in caplog.text


def test_a_catch_up_tries_to_write_it_again(lab: Lab) -> None:
    folder = lab.folder / "new"
    lab.first_moment = FirstMoment(str(folder / "state.sqlite"))
    lab.first_moment.settle(FRESH._replace(last_run=EARLIER), NOW)
    lab.restart()
    folder.mkdir()
    lab.catch_up(NOW)
    assert (folder / "first-moment").read_text() == f"{EARLIER}\n"


def test_a_moment_that_is_still_to_come_limits_nothing_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moment = FirstMoment(str(tmp_path / "state.sqlite"))
    moment.settle(FRESH._replace(last_run=NOW), NOW)
    assert [moment.limit(NOW - HOUR), moment.limit(NOW - 1), moment.limit(NOW)] == [0, 0, NOW]
    assert caplog.text.count("was the clock set back?") == 1
    assert (tmp_path / "first-moment").read_text() == f"{NOW}\n"


@pytest.mark.parametrize(
    ("checkpoint", "last_run", "first_moment", "expected"),
    [
        (NOW - 70, NOW - 50, 0, NOW - 70),
        (NOW - 70, NOW - 90, 0, NOW - 90),
        (NOW - 70, None, 0, NOW - 70),
        (NOW - 70, 1, 0, NOW - 1000),
        (NOW + 70, None, 0, NOW - 1000),
        (NOW + 70, NOW - 90, 0, NOW - 90),
        (NOW - 70, NOW - 90, NOW - 80, NOW - 80),
        (None, NOW - 50, 0, NOW - 1000),
        (None, NOW - 50, NOW - 500, NOW - 500),
        (None, None, NOW - 5000, NOW - 1000),
    ],
)
def test_where_catching_up_begins(
    checkpoint: int | None, last_run: int | None, first_moment: int, expected: int
) -> None:
    """Without a checkpoint what was to be delivered is lost: then lastrun says nothing."""
    before = Before(checkpoint, last_run, is_rebuilt=False, max_span=1000)
    assert catch_up_from(before, first_moment, NOW) == expected


# --- what it limits


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Migrated from the existing adapter, whose last run was at this moment."""
    made = Lab(tmp_path)
    made.first_moment = FirstMoment(str(tmp_path / "state.sqlite"))
    made.first_moment.settle(FRESH._replace(last_run=NOW), NOW)
    made.restart()
    yield made
    made.outbox.close()


def over(job_id: int, end_time: int, start: int = NOW - 1000) -> Run:
    return make_run(job_id, start, Phase.ENDED, end=End(EndState.COMPLETED, end_time, "COMPLETED"))


def test_what_ended_before_is_not_started_although_slurmctld_still_lists_it(lab: Lab) -> None:
    lab.slurm.put(over(1, NOW - 1))
    lab.slurm.put(over(2, NOW))
    running = lab.slurm.put(make_run(3, NOW - 1000))
    lab.poll()
    lab.watch.look_up([1, 2, 3])
    assert {key.job_id for _, key in lab.pop_pending()} == {2, 3}
    assert running.key in lab.watch._store.open_runs
    lab.slurm.asked.clear()
    lab.poll()
    assert "read_details" not in lab.slurm.asked


def test_accounting_is_not_read_from_before(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    windows: list[int] = []
    ended_between = lab.slurm.ended_between

    def noted(since: int, until: int) -> Generator[list[AccountedEnd], None, None]:
        windows.append(since)
        return ended_between(since, until)

    monkeypatch.setattr(lab.slurm, "ended_between", noted)
    for _ in range(3 * 24):
        lab.catch_up(int(lab.now) - HOUR)
        lab.now += HOUR
    assert windows
    assert min(windows) == NOW


def test_what_accounting_tells_of_before_is_not_started(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """sacct may show more than it was asked for, and a window that was planned before may begin too early."""
    lab.slurm.close(over(1, NOW - 1))
    after = lab.slurm.close(over(2, NOW))
    ended_between = lab.slurm.ended_between
    monkeypatch.setattr(lab.slurm, "ended_between", lambda _, until: ended_between(0, until))
    lab.now += MINUTE
    lab.catch_up(NOW)
    assert lab.pop_pending() == [(Kind.START, after.key), (Kind.STOP, after.key)]


def test_what_is_open_or_believed_to_run_is_stopped_whenever_it_ended(lab: Lab) -> None:
    seen = lab.slurm.put(make_run(1, NOW - 1000))
    lab.poll()
    lab.slurm.jobs.clear()
    lab.slurm.close(over(1, NOW - 500))  # the clock was set back
    orphan = lab.slurm.close(over(2, NOW - 30 * DAY, NOW - 31 * DAY))
    lab.poll()
    lab.catch_up(NOW)
    lab.watch.reconcile(believed(RunningRow(2, orphan.key.start_time)))
    assert stop_times(lab) == {seen.key: ("completed", NOW - 500), orphan.key: ("completed", NOW - 30 * DAY)}


def test_a_row_whose_start_is_still_to_come_is_stopped(lab: Lab) -> None:
    """It began before the clock was set back, so it is not too young to be judged."""
    orphan = lab.slurm.close(over(2, NOW, NOW + DAY))
    lab.watch.reconcile(believed(RunningRow(2, orphan.key.start_time)))
    assert list(stop_times(lab)) == [orphan.key]


def test_what_ends_after_the_clock_was_set_back_to_before_it_is_ours(lab: Lab) -> None:
    lab.catch_up(NOW - 60)
    lab.now -= 2 * HOUR
    run = lab.slurm.close(over(1, int(lab.now) + 20, int(lab.now) + 10))
    lab.now += MINUTE
    lab.catch_up(int(lab.now) - MINUTE)
    assert lab.pop_pending() == [(Kind.START, run.key), (Kind.STOP, run.key)]


# --- random histories


class Job(NamedTuple):
    """A run by the time that really passes, in seconds since the existing adapter's last run."""

    start: int
    length: int
    was_reported: bool
    """The existing adapter has told cc-backend of it, if it had begun by then."""


class Step(NamedTuple):
    """What happens next."""

    passes: int
    """Seconds until then."""
    is_up: bool = True
    """Whether a daemon runs during that time."""
    loses: str = ""
    """What is done to the state file, while no daemon runs."""
    clock: int = 0
    """Seconds by which the clock is set then."""


JOBS = st.builds(Job, st.integers(-2 * DAY, 2 * DAY), st.integers(1, 2 * DAY), st.booleans())
STEPS = st.builds(
    Step,
    st.sampled_from([MINUTE, 10 * MINUTE, HOUR, 7 * HOUR, DAY]),
    st.booleans(),
    st.sampled_from(["", "", "deleted", "damaged"]),
    st.sampled_from([0, 0, 0, -HOUR, HOUR]),
)


class History:
    """Jobs come and go as time passes; a daemon watches while it is up, and cc-backend has what it sends."""

    def __init__(self, folder: Path, jobs: list[Job]) -> None:
        self._folder = folder
        self._jobs = dict(enumerate(jobs, 1))
        self._passed = 0
        self._offset = 0
        self._slurm = FakeSlurm()
        self._last_run = NOW
        self._outbox: Outbox | None = None
        self.starts: set[RunKey] = set()
        self.stops: set[RunKey] = set()
        self.begun: dict[int, RunKey] = {}
        self.ended: dict[int, Run] = {}
        self._advance_to(0)
        self.believed = {key for job_id, key in self.begun.items() if self._jobs[job_id].was_reported}

    @property
    def now(self) -> int:
        return NOW + self._passed + self._offset

    def _advance_to(self, passed: int) -> None:
        """What begins and ends until then has the time that the clock shows."""
        for job_id, job in self._jobs.items():
            if job_id not in self.begun and job.start <= passed:
                self.begun[job_id] = RunKey("lab", job_id, NOW + job.start + self._offset)
            if job_id not in self.ended and job.start + job.length <= passed:
                end = End(EndState.COMPLETED, NOW + job.start + job.length + self._offset, "COMPLETED")
                start = self.begun[job_id].start_time
                self.ended[job_id] = make_run(job_id, start, Phase.ENDED, end=end)
                self._slurm.close(self.ended[job_id])
        self._passed = passed
        self._slurm.jobs.clear()
        for job_id, key in self.begun.items():
            if job_id not in self.ended:
                self._slurm.put(make_run(job_id, key.start_time))
            elif passed - self._jobs[job_id].start - self._jobs[job_id].length < MIN_JOB_AGE:
                self._slurm.put(self.ended[job_id])

    def go(self, step: Step) -> None:
        if step.is_up:
            self._start()
        else:
            self._stop()
            if step.loses:
                self._lose(step.loses)
        until = self._passed + step.passes
        while self._passed < until:
            self._advance_to(min(self._passed + HOUR, until))
            self._watch()
        # Not to before the first moment: that is another test's.
        self._offset = max(self._offset + step.clock, -self._passed)

    def _start(self) -> None:
        if self._outbox:
            return
        path = str(self._folder / "state.sqlite")
        self._outbox = Outbox(path)
        before = Before(self._outbox.checkpoint("lab"), self._last_run, self._outbox.is_rebuilt, WEEK)
        moment = FirstMoment(path)
        moment.settle(before, self.now)
        self._since = catch_up_from(before, moment.limit(self.now), self.now)
        watch_settings = WatchSettings("lab", IgnoreRules(), True, WEEK, clock=lambda: self.now, first_moment=moment)
        self._job_watch = JobWatch(self._slurm, self._outbox, CcMessages(()), [SINK], Counters(), watch_settings)
        self._is_first = True

    def _stop(self) -> None:
        if self._outbox:
            self._outbox.close()
        self._outbox = None

    def _lose(self, how: str) -> None:
        if how == "damaged" and (self._folder / "state.sqlite").exists():
            (self._folder / "state.sqlite").write_bytes(b"no database" * 1000)
        else:
            for file in self._folder.glob("state.sqlite*"):
                file.unlink()

    def _watch(self) -> None:
        """A pass, as the main loop makes it; at the start and every now and then also a comparison."""
        if not self._outbox:
            return
        began = self.now
        list(self._job_watch.poll())
        list(self._job_watch.catch_up(self._since))
        self._since = self._last_run = began
        self._send(self._outbox)
        rows = [RunningRow(key.job_id, key.start_time) for key in (self.starts | self.believed) - self.stops]
        self._job_watch.reconcile(RunningRows(SINK.name, rows, self.now))
        self._send(self._outbox)

    def _send(self, outbox: Outbox) -> None:
        while due := outbox.deliveries.due(SINK.name, 1e12, 100):
            outbox.deliveries.begin(due, self.now)
            for delivery in due:
                (self.starts if delivery.kind is Kind.START else self.stops).add(delivery.key)
                outbox.deliveries.delivered(delivery)

    def close(self) -> None:
        self._stop()


@settings(max_examples=40, deadline=None)
@given(st.lists(JOBS, max_size=12), st.lists(STEPS, max_size=10))
def test_started_is_what_ended_after_the_first_moment_or_runs_and_stopped_is_whatever_is_believed_to_run(
    tmp_path_factory: pytest.TempPathFactory, jobs: list[Job], steps: list[Step]
) -> None:
    history = History(tmp_path_factory.mktemp("state"), jobs)
    for step in [Step(MINUTE), *steps, Step(2 * DAY)]:
        history.go(step)
    history.close()
    running = {key for job_id, key in history.begun.items() if job_id not in history.ended}
    ours = {run.key for run in history.ended.values() if run.end and run.end.end_time >= NOW}
    over = {run.key for run in history.ended.values()}
    assert history.starts == running | ours
    assert history.stops == (history.starts | history.believed) & over
