"""The main loop with a fake Slurm: what fails delays only itself, and nothing ends the daemon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cc_slurm_adapter.counters import Counters, Label
from cc_slurm_adapter.daemon.activities import TIMING, LoopSettings, Timing
from cc_slurm_adapter.daemon.assembly import make_activities
from cc_slurm_adapter.daemon.inbox import Inbox, Reload
from cc_slurm_adapter.daemon.main_loop import MainLoop
from cc_slurm_adapter.daemon.state_files import LastRun
from cc_slurm_adapter.errors import CommandCancelled, CommandFailed, StateError
from cc_slurm_adapter.hooks.pending_events import MAX_WAITING
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.model import Details, HookEvent, ListedJob, NodeState, Phase
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.outbox.sender import Sender
from cc_slurm_adapter.sinks.base import RunningRow, RunningRows
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import CcRest
from cc_slurm_adapter.slurm.interface import Sift, Slurm
from cc_slurm_adapter.system import backoff
from cc_slurm_adapter.system.backoff import RetriedStep
from cc_slurm_adapter.system.outages import Outages
from tests.fakes.slurm_and_sinks import FakeSlurm, make_run
from tests.fakes.waiting import PATIENCE, comes

QUICK = Timing(retries=backoff.Timing(first_retry=0.01))


QUESTIONS = sorted(
    name for name in vars(Slurm) if not name.startswith("_") and name not in ("reads_all_jobs", "retry_all")
)
"""All that the daemon asks of Slurm while it runs."""
STEPS = {
    "a hook event is served": {"read_details", "with_texts"},
    "a run ends by the listing": {"list_jobs"},
    "a run ends by accounting": {"ended_between"},
    "a run that only accounting knows is reported": {"ended_between", "still_known", "read_accounted"},
    "a stale row of cc-backend gets its stop": {"ends_of"},
    "the nodes are told": {"node_states"},
    "lastrun moves": {
        "list_jobs",
        "prefetch_job_info",
        "read_details",
        "with_texts",
        "ended_between",
        "still_known",
        "read_accounted",
    },
}
"""What must go on, with the questions that it cannot do without."""


class Nodes(Sender):
    """Counts how often the nodes were told."""

    told = 0

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> None:
        self.told += 1


class Site:
    """A main loop in a thread, over a fake Slurm; nothing is sent."""

    def __init__(self, folder: Path, poll_interval: float = 60, *, timing: Timing = TIMING) -> None:
        self.slurm = FakeSlurm()
        self.counters = Counters()
        self.inbox = Inbox(self.counters)
        self.outbox = Outbox(str(folder / "state.sqlite"))
        sink = CcRest("http://127.0.0.1:9", lambda: "token")
        self.sender = Nodes(sink, self.outbox, self.counters)
        self.watch = JobWatch(
            self.slurm,
            self.outbox,
            CcMessages(()),
            [sink],
            self.counters,
            WatchSettings("lab", IgnoreRules(), True, 3600),
        )
        self.settings = LoopSettings("lab", poll_interval, 3600, 10, int(time.time()), 1.0)
        self.read_config: Callable[[], None] = lambda: None
        self.last_run = LastRun(str(folder / "lastrun"))
        self.fed: list[int] = []
        activities = make_activities(
            self.settings,
            self.watch,
            self.outbox,
            self.sender,
            self.last_run,
            self.counters,
            read_config=lambda by: self.read_config(),
            timing=timing,
        )
        self.loop = MainLoop(self.inbox, activities, lambda: self.fed.append(threading.get_ident()), timing=timing)
        self.thread = threading.Thread(target=self.loop.run, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.loop.stop()
        self.inbox.put(Reload())
        self.thread.join(PATIENCE)
        self.outbox.close()

    def owed(self) -> set[tuple[str, int]]:
        """Kind and job of all that was ever owed: nothing is delivered here."""
        return set(self.outbox._state.read("SELECT kind, job_id FROM delivery", ()))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def test_a_hook_event_is_served_without_waiting_for_the_poll(site: Site) -> None:
    assert comes(lambda: site.loop.activities.polls.polled)
    site.slurm.put(make_run(5))
    site.inbox.put(HookEvent(5, "prolog_slurmctld", 0))
    assert comes(lambda: site.outbox.counts() == {"pending": 1})
    site.slurm.put(make_run(5, phase=Phase.ENDED))
    site.inbox.put(HookEvent(5, "epilog_slurmctld", 0))
    assert comes(lambda: site.outbox.counts() == {"pending": 2})
    assert site.slurm.asked.count("list_jobs") == 1
    assert site.loop.activities.hooks.report.from_slurmctld == ("epilog_slurmctld", "prolog_slurmctld")


def test_the_events_of_a_burst_are_asked_for_together(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert comes(lambda: site.loop.activities.polls.polled)
    looks: list[tuple[float, float, int]] = []
    read_details = FakeSlurm.read_details

    def slow(self: FakeSlurm, job_ids: Iterable[int]) -> Generator[Details, None, None]:
        began, ids = time.monotonic(), list(job_ids)
        time.sleep(0.1)
        looks.append((began, time.monotonic(), len(ids)))
        return read_details(self, ids)

    monkeypatch.setattr(FakeSlurm, "read_details", slow)
    for job_id in range(1, 41):
        site.slurm.put(make_run(job_id))
        site.inbox.put(HookEvent(job_id, "prolog_slurmctld", 0))
        time.sleep(0.01)
    assert comes(lambda: site.outbox.counts() == {"pending": 40})
    assert sum(count for _, _, count in looks) == 40
    rests = [after[0] - before[1] for before, after in zip(looks, looks[1:])]
    assert min(rests) >= 0.09
    assert len(looks) <= 4


def test_polls_that_take_longer_than_their_interval_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    began, ended = [], []

    def slow(self: FakeSlurm, sift: Sift) -> list[ListedJob]:
        began.append(time.monotonic())
        time.sleep(0.2)
        ended.append(time.monotonic())
        return []

    monkeypatch.setattr(FakeSlurm, "list_jobs", slow)
    site = Site(tmp_path, poll_interval=0.15)
    assert comes(lambda: len(ended) >= 4)
    site.close()
    rests = [next_one - last for last, next_one in zip(ended[:3], began[1:4])]
    assert min(rests) >= 0.15
    assert caplog.text.count("a poll took") == 1


def test_slurm_has_a_rest_after_a_poll_that_took_long_and_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, ended = [], []

    def fail(self: FakeSlurm, sift: Sift) -> list[ListedJob]:
        began.append(time.monotonic())
        time.sleep(0.2)
        ended.append(time.monotonic())
        raise CommandFailed("slurmctld is frozen")

    monkeypatch.setattr(FakeSlurm, "list_jobs", fail)
    site = Site(tmp_path, poll_interval=0.15, timing=QUICK)
    assert comes(lambda: len(ended) >= 4)
    site.close()
    assert min(next_one - last for last, next_one in zip(ended[:3], began[1:4])) >= 0.15


def test_a_reload_while_a_poll_is_under_way_makes_another_one_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cc_slurm_adapter.jobs.recorder.SLICE", 1)
    site_of_two: list[Site] = []

    def read_and_reload(self: FakeSlurm, job_ids: Iterable[int]) -> Generator[Details, None, None]:
        self._ask("read_details")
        if len(self.asked) < 5:
            site_of_two[0].inbox.put(Reload())
        yield Details([self.jobs[1], self.jobs[2]])

    monkeypatch.setattr(FakeSlurm, "read_details", read_and_reload)
    site = Site(tmp_path)
    site_of_two.append(site)
    assert comes(lambda: site.loop.activities.polls.polled)
    for job_id in (1, 2):
        site.slurm.put(make_run(job_id))
    site.slurm.asked.clear()
    site.inbox.put(Reload())
    assert comes(lambda: site.slurm.asked.count("list_jobs") >= 2)
    site.close()


def test_other_intervals_are_in_force_at_once_and_no_event_is_lost(tmp_path: Path) -> None:
    site = Site(tmp_path, poll_interval=3600, timing=QUICK)
    assert comes(lambda: site.loop.activities.polls.polled)
    site.slurm.failing.add("read_details")
    site.slurm.put(make_run(5))
    site.inbox.put(HookEvent(5, "prolog_slurmctld", 0))
    assert comes(lambda: site.loop.activities.hooks.step.is_failing)
    settings = replace(site.settings, poll_interval=0.05, max_tries=1000, query_delay=0.01, parked_max_age=77)
    site.read_config = lambda: site.loop.activities.use(settings)
    site.inbox.put(Reload())
    assert comes(lambda: site.slurm.asked.count("list_jobs") >= 3)
    assert site.outbox.counts() == {}
    site.slurm.failing.clear()
    assert comes(lambda: site.outbox.counts() == {"pending": 1})
    site.close()


def test_a_configuration_that_cannot_be_read_again_keeps_nothing_from_being_tried_again(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(NOTICE)
    assert comes(lambda: site.loop.activities.polls.polled)
    site.read_config = lambda: 1 / 0  # type: ignore[assignment]
    site.inbox.put(Reload("POST /reload of uid 0"))
    assert comes(lambda: site.slurm.asked.count("list_jobs") == 2)
    assert "reading the configuration again failed" in caplog.text
    assert "POST /reload of uid 0: trying 0 parked messages again" in caplog.text


def test_an_unwritable_state_and_a_hook_event_do_not_spin(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert comes(lambda: site.loop.activities.polls.polled)

    def full(*_: object) -> None:
        raise StateError("the state file cannot be used: database or disk is full")

    monkeypatch.setattr(site.outbox, "commit", full)
    site.slurm.put(make_run(5))
    site.inbox.put(HookEvent(5, "epilog_slurmctld", 0))
    assert comes(lambda: "disk is full" in caplog.text)
    assert comes(lambda: site.loop.activities.hooks.step.is_failing)
    asked = len(site.slurm.asked)
    time.sleep(0.3)
    assert len(site.slurm.asked) <= asked + 2
    assert caplog.text.count("disk is full") == 1  # whoever has met it first


def test_a_hook_event_ends_the_long_wait_for_a_slurm_that_was_down(tmp_path: Path) -> None:
    site = Site(tmp_path, timing=Timing(soonest_poll=0.1, retries=backoff.Timing(first_retry=50.0)))
    assert comes(lambda: site.loop.activities.polls.polled)
    site.slurm.failure = CommandFailed("slurmctld is down")
    site.inbox.put(Reload())
    assert comes(lambda: site.loop.activities.polls.step.is_failing)
    site.slurm.failure = None
    site.slurm.put(make_run(6))
    site.slurm.put(make_run(5))
    site.inbox.put(HookEvent(5, "prolog_slurmctld", 0))
    assert comes(lambda: site.outbox.counts() == {"pending": 2})
    site.close()


def test_slurmdbd_down_does_not_make_it_ask_slurmctld_more_often(tmp_path: Path) -> None:
    site = Site(tmp_path, timing=QUICK)

    def down(*_: object) -> list[object]:
        site.slurm.asked.append("ended_between")
        raise CommandFailed("slurmdbd is down")

    site.slurm.ended_between = down  # type: ignore[assignment]
    assert comes(lambda: "ended_between" in site.slurm.asked)
    time.sleep(0.3)
    assert site.slurm.asked.count("list_jobs") == 1
    site.close()


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Site]:
    """A site where two runs are known, whose polls and retries come soon."""
    made = Site(tmp_path, poll_interval=0.05, timing=QUICK)
    for job_id in (1, 2):
        made.slurm.put(make_run(job_id, start=int(time.time()) - 100))
    assert comes(lambda: made.owed() == {("start", 1), ("start", 2)} and made.last_run.read() is not None)
    yield made
    made.close()


def begin_the_steps(site: Site) -> dict[str, Callable[[], bool]]:
    """Give each step something to do; how to see that it was done."""
    now = int(time.time())
    told = site.sender.told
    site.last_run.write(5000)
    site.slurm.put(make_run(1, start=site.slurm.jobs[1].key.start_time, phase=Phase.ENDED))
    site.slurm.close(make_run(2, start=site.slurm.jobs[2].key.start_time, phase=Phase.ENDED))
    site.slurm.close(make_run(3, start=now - 200, phase=Phase.ENDED))
    site.slurm.close(make_run(77, start=now - 9000, phase=Phase.ENDED))  # too old for what is read of accounting
    site.slurm.put(make_run(5, start=now - 10))
    site.inbox.put(HookEvent(5, "prolog_slurmctld", time.monotonic()))
    site.inbox.put(RunningRows("cc_rest", [RunningRow(77, now - 9000)], time.time()))
    return {
        "a hook event is served": lambda: ("start", 5) in site.owed(),
        "a run ends by the listing": lambda: ("stop", 1) in site.owed(),
        "a run ends by accounting": lambda: ("stop", 2) in site.owed(),
        "a run that only accounting knows is reported": lambda: {("start", 3), ("stop", 3)} <= site.owed(),
        "a stale row of cc-backend gets its stop": lambda: ("stop", 77) in site.owed(),
        "the nodes are told": lambda: site.sender.told > told + 1,
        "lastrun moves": lambda: (site.last_run.read() or 0) > 5000,
    }


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_that_fails_for_ever_stops_only_what_cannot_do_without_it(busy: Site, question: str) -> None:
    busy.slurm.failing = {question}
    done = begin_the_steps(busy)
    assert done.keys() == STEPS.keys()
    for step, questions in STEPS.items():
        assert question in questions or comes(done[step]), step
    busy.slurm.failing = set()
    for step in STEPS:
        assert comes(done[step]), step


def test_every_question_is_one_that_some_step_needs_or_that_only_rare_ends_need() -> None:
    """Those of sites without slurmdbd, of runs that Slurm has lost, and of requeued ones."""
    rare = {"is_forgotten", "accounting_backlog", "launches_of"}
    assert set(QUESTIONS) - set().union(*STEPS.values()) == rare


PARTS = {
    "nodes cannot be told": ("sender", "post_nodes"),
    "the state file cannot be tidied": ("outbox", "tidy"),
    "the state file cannot be counted": ("outbox", "waiting"),
    "lastRunPath cannot be written": ("last_run", "write"),
}


@pytest.mark.parametrize("part", PARTS, ids=list(PARTS))
def test_a_part_that_breaks_stops_nothing_else(busy: Site, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    done = begin_the_steps(busy)

    def broken(*_: object) -> None:
        raise StateError(f"broken: {part}")

    name, method = PARTS[part]
    monkeypatch.setattr(getattr(busy, name), method, broken)
    monkeypatch.setattr(busy.loop.activities.upkeep, "_next", 0.0)
    for step in STEPS.keys() - {"the nodes are told", "lastrun moves"}:
        assert comes(done[step]), step


def test_without_a_failure_each_thing_is_done(busy: Site) -> None:
    done = begin_the_steps(busy)
    for step in STEPS:
        assert comes(done[step]), step


def test_slurmctld_that_is_down_does_not_make_it_read_accounting_more_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[None] = []

    def down(self: FakeSlurm, sift: Sift) -> list[ListedJob]:
        asked.append(None)
        raise CommandFailed("slurmctld is down")

    monkeypatch.setattr(FakeSlurm, "list_jobs", down)
    site = Site(tmp_path, timing=QUICK)
    came = comes(lambda: len(asked) >= 6)
    site.close()
    assert came
    assert site.slurm.asked.count("ended_between") <= 2


def test_a_cluster_without_nodes_is_watched_like_any_other(busy: Site) -> None:
    busy.slurm.node_states = list  # type: ignore[method-assign]
    done = begin_the_steps(busy)
    for step in STEPS:
        assert comes(done[step]), step


def test_an_error_in_the_loop_itself_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path, timing=QUICK)
    assert comes(lambda: site.loop.activities.polls.polled)
    with monkeypatch.context() as patched:
        patched.setattr(site.loop.activities.hooks, "next_due", lambda: 1 / 0)
        site.inbox.put(Reload())
        assert comes(lambda: "a turn of the main loop failed" in caplog.text)
    site.slurm.put(make_run(5))
    site.inbox.put(HookEvent(5, "prolog_slurmctld", 0))
    assert comes(lambda: site.outbox.counts() == {"pending": 1})
    assert comes(lambda: "a turn of the main loop works again" in caplog.text)
    site.close()


def test_the_watchdog_is_fed_while_nothing_happens(tmp_path: Path) -> None:
    site = Site(tmp_path, timing=Timing(tick=0.01))
    assert comes(lambda: site.loop.activities.polls.polled)
    before = len(site.fed)
    assert comes(lambda: len(site.fed) > before + 5)
    site.close()
    assert set(site.fed) == {site.thread.ident}


def test_of_many_reloads_one_waits() -> None:
    inbox = Inbox(Counters())
    for _ in range(1000):
        inbox.put(Reload())
    assert len(inbox.pop_all(0)) == 1
    inbox.put(Reload())
    assert len(inbox.pop_all(0)) == 1


def test_an_error_of_the_program_ends_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    assert comes(lambda: site.loop.activities.polls.polled)

    def broken(*_: object) -> list[NodeState]:
        raise KeyError("nobody thought of that")

    site.slurm.node_states = broken  # type: ignore[method-assign]
    site.inbox.put(Reload())
    assert comes(lambda: "nobody thought of that" in caplog.text)
    site.slurm.put(make_run(5))
    site.inbox.put(HookEvent(5, "prolog_slurmctld", 0))
    assert comes(lambda: site.outbox.counts() == {"pending": 1})


def test_a_comparison_that_failed_is_made_again(site: Site) -> None:
    answers: list[Exception | None] = [CommandFailed("slurmdbd is down"), None]

    def ends_of(*_: object) -> list[object]:
        failure = answers.pop(0)
        if failure:
            raise failure
        return []

    site.slurm.ends_of = ends_of  # type: ignore[assignment]
    site.inbox.put(RunningRows("cc_rest", [RunningRow(1, 1000)], 2000))
    assert comes(lambda: not answers)


def test_a_flood_of_hook_events_is_bounded() -> None:
    counters = Counters()
    inbox = Inbox(counters)
    for job_id in range(3 * MAX_WAITING):
        inbox.put(HookEvent(job_id, "", 0))
    inbox.put(Reload())
    assert len(inbox.pop_all(0)) == 2 * MAX_WAITING + 1
    assert counters.counts() == {"hook_events_left_to_polls": MAX_WAITING}


def test_a_failing_activity_waits_longer_each_time_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    activity = RetriedStep("asking")

    def fail() -> None:
        raise CommandFailed("no")

    assert activity.may_run()
    waits = []
    for _ in range(4):
        assert not activity.attempt(fail)
        waits.append(round(activity.not_before - time.monotonic()))
    assert waits == [1, 2, 4, 8]
    assert not activity.may_run()
    assert len(caplog.messages) == 1
    assert activity.attempt(lambda: None)
    assert "works again" in caplog.text


DOWN = "Unable to contact slurm controller (connect failure)"


def test_while_slurmctld_is_away_one_line_says_so_and_one_that_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nodes, jobs and hook events are all asked of it, each by a command with words of its own."""
    caplog.set_level(NOTICE)
    site = Site(tmp_path, poll_interval=0.05, timing=QUICK)
    assert comes(lambda: site.loop.activities.polls.polled)
    for question in QUESTIONS:

        def fail(*_: object, question: str = question, **__: object) -> None:
            raise CommandFailed(f"{question}: slurm_load_{question} error: {DOWN}")

        monkeypatch.setattr(site.slurm, question, fail)
    site.inbox.put(HookEvent(5, "prolog_slurmctld", 0))
    failing = (site.loop.activities.nodes.query, site.loop.activities.polls.step, site.loop.activities.hooks.step)
    assert comes(lambda: all(each._backoff.failures > 2 for each in failing))
    lines = [record.getMessage() for record in caplog.records if DOWN in record.getMessage()]
    assert len(lines) == 1
    monkeypatch.undo()
    site.inbox.put(Reload())
    assert comes(lambda: not any(each.is_failing for each in failing[:2]))
    site.close()
    over = [line for line in caplog.messages if "works again" in line]
    assert len(over) == 1


def test_of_those_that_ask_the_same_each_logs_a_reason_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(NOTICE)
    now = 1000.0
    timing = backoff.Timing(clock=lambda: now)
    shared = Outages(timing.clock)
    first, second = (RetriedStep(f"asking for {what}", timing=timing, outages=shared) for what in ("nodes", "jobs"))

    def fail(reason: str) -> Callable[[], None]:
        def action() -> None:
            raise CommandFailed(reason)

        return action

    first.attempt(fail(f"sinfo: {DOWN}"))
    second.attempt(fail(f"squeue: slurm_load_jobs error:{DOWN}"))
    assert len(caplog.messages) == 1
    now += 60
    second.attempt(fail("squeue printed too much"))
    assert len(caplog.messages) == 2
    first.attempt(lambda: None)
    first.attempt(lambda: None)
    assert second.is_failing
    assert caplog.messages[2:] == ["asking for nodes works again after 1 min"]


def test_an_error_of_this_program_is_logged_by_each_step(caplog: pytest.LogCaptureFixture) -> None:
    shared, nothing = Outages(something_else=0.0), dict[str, int]()
    for name in ("asking for nodes", "asking for jobs"):
        RetriedStep(name, outages=shared).attempt(lambda: bool(nothing["no such thing"]))
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_a_part_that_is_done_is_no_success_yet(caplog: pytest.LogCaptureFixture) -> None:
    activity = RetriedStep("reading")

    def fail() -> None:
        raise CommandFailed("no")

    for _ in range(3):
        assert activity.attempt(lambda: False)
        assert not activity.attempt(fail)
    assert round(activity.not_before - time.monotonic()) == 4
    assert len(caplog.messages) == 1
    assert activity.attempt(lambda: True)
    assert "works again" in caplog.text


def test_a_stop_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    activity = RetriedStep("asking")

    def stop() -> None:
        raise CommandCancelled("the daemon stops")

    assert not activity.attempt(stop)
    assert activity.may_run()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_what_is_done_again_and_again_is_timed(site: Site) -> None:
    """`lookup` after an event, and what each poll leads to; `comparison` when cc-backend's list has come."""
    assert comes(lambda: site.loop.activities.polls.polled)
    site.slurm.put(make_run(5))
    site.inbox.put(HookEvent(5, "prolog_slurmctld", 0))
    site.inbox.put(RunningRows("cc_rest", [], time.time()))
    done = {"poll", "lookup", "nodes", "accounting", "comparison", "upkeep"}
    assert comes(lambda: {each.labels[0].value for each in site.counters.timings()} == done)
    site.slurm.failure = CommandFailed("no")
    site.loop.activities.polls.next_due = 0.0
    failed = (Label("step", "poll"), Label("result", "failed"))
    assert comes(lambda: any(each.labels == failed for each in site.counters.timings()))
