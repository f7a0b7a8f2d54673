"""Polls and catch-ups over a fake Slurm into a real outbox: what is enqueued, when, and what never is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cc_slurm_adapter.counters import Counters, Label, Sample
from cc_slurm_adapter.errors import CommandFailed
from cc_slurm_adapter.jobs import recorder
from cc_slurm_adapter.jobs.accounting_windows import OVERLAP
from cc_slurm_adapter.jobs.catch_up import FIRST_WAIT, LONGEST_WAIT
from cc_slurm_adapter.jobs.first_moment import FirstMoment
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.model import (
    AccountedEnd,
    Details,
    End,
    EndState,
    Missing,
    NodeState,
    Phase,
    Resource,
    Run,
    RunKey,
)
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.sinks.base import Kind, RunningRow, RunningRows
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import CcRest
from tests.fakes.slurm_and_sinks import NOW, FakeSlurm, make_run

SINK = CcRest("http://127.0.0.1:1", lambda: "token")


class Lab:
    """A fake Slurm, an outbox in a folder, and a watch over both that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.slurm = FakeSlurm()
        self.folder = folder
        self.now = NOW
        self.ignore = IgnoreRules()
        self.on_nodes: Callable[[Sequence[NodeState]], None] = lambda nodes: None
        self.has_accounting = self.records_steps = True
        self.first_moment = FirstMoment()
        self.late_runs = LateRuns()
        self.outbox = Outbox(str(folder / "state.sqlite"))
        self.status = Counters()
        self.watch = self._new_watch()

    def _new_watch(self) -> JobWatch:
        settings = WatchSettings(
            "lab",
            self.ignore,
            self.has_accounting,
            604800,
            self.records_steps,
            on_nodes=lambda nodes: self.on_nodes(nodes),
            clock=lambda: self.now,
            first_moment=self.first_moment,
            late_runs=self.late_runs,
        )
        return JobWatch(self.slurm, self.outbox, CcMessages(()), [SINK], self.status, settings)

    def poll(self) -> None:
        """A whole poll of slurmctld."""
        self.watch.read_nodes()
        for _ in self.watch.poll():
            pass

    def catch_up(self, since: int) -> None:
        """All of accounting since a moment."""
        for _ in self.watch.catch_up(since):
            pass

    def restart(self) -> None:
        """What a killed daemon and its successor do: only the file is left."""
        self.outbox.close()
        self.outbox = Outbox(str(self.folder / "state.sqlite"))
        self.watch = self._new_watch()

    def pop_pending(self) -> list[tuple[Kind, RunKey]]:
        """All that is pending, in its order; it counts as delivered from then on."""
        found: list[tuple[Kind, RunKey]] = []
        while True:
            due = self.outbox.deliveries.due(SINK.name, 1e12, 100)
            if not due:
                return found
            for delivery in due:
                found.append((delivery.kind, delivery.key))
                self.outbox.deliveries.delivered(delivery)

    def starts(self) -> list[dict[str, object]]:
        """The start messages that are pending."""
        due = self.outbox.deliveries.due(SINK.name, 1e12, 100)
        return [json.loads(delivery.payload) for delivery in due if delivery.kind is Kind.START]


def test_what_a_hook_event_has_read_is_newer_than_what_the_poll_had_asked_before(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "SLICE", 1)
    lab.restart()
    first = lab.slurm.put(make_run(1))
    lab.slurm.put(make_run(2, start=NOW - 50, phase=Phase.CONFIGURING))
    poll = lab.watch.poll()
    next(poll)  # the details of both are read, the first one is recorded
    moved = lab.slurm.put(make_run(2, start=NOW - 10))  # its nodes are ready: the start has moved
    lab.watch.look_up([2])
    assert list(poll) == [None]
    assert lab.watch.report.open == 2
    assert lab.pop_pending() == [(Kind.START, moved.key), (Kind.START, first.key)]


def test_what_a_hook_event_has_read_counts_although_the_rest_of_it_failed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "SLICE", 1)
    lab.restart()
    lab.slurm.put(make_run(1))
    lab.slurm.put(make_run(2, start=NOW - 50, phase=Phase.CONFIGURING))
    poll = lab.watch.poll()
    next(poll)
    moved = lab.slurm.put(make_run(2, start=NOW - 10))
    lab.slurm.put(make_run(3))
    with_texts = lab.slurm.with_texts

    def fail_for_3(runs: list[Run]) -> Generator[Run, None, None]:
        if runs and runs[0].key.job_id == 3:
            raise CommandFailed("scontrol was killed")
        return with_texts(runs)

    monkeypatch.setattr(lab.slurm, "with_texts", fail_for_3)
    with pytest.raises(CommandFailed):
        lab.watch.look_up([2, 3])
    list(poll)
    assert lab.watch.report.open == 2
    assert (Kind.START, moved.key) in lab.pop_pending()


def test_the_run_before_a_requeue_is_not_lost_because_a_hook_event_has_read_the_next_one(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "SLICE", 1)
    lab.restart()
    lab.slurm.put(make_run(1))
    before = lab.slurm.put(make_run(2, start=NOW - 50))
    poll = lab.watch.poll()
    next(poll)
    after = lab.slurm.put(make_run(2, start=NOW - 10))
    lab.watch.look_up([2])
    list(poll)
    pending = lab.pop_pending()
    assert (Kind.START, before.key) in pending
    assert (Kind.START, after.key) in pending


def test_what_a_hook_event_tells_is_reported_before_all_that_a_poll_has_found(lab: Lab) -> None:
    for job_id in (1, 2):
        lab.slurm.put(make_run(job_id))
    lab.poll()
    lab.slurm.put(make_run(3))
    lab.watch.look_up([3])
    lab.slurm.put(make_run(3, phase=Phase.ENDED))
    lab.watch.look_up([3])
    assert [(kind, key.job_id) for kind, key in lab.pop_pending()] == [
        (Kind.START, 3),
        (Kind.START, 1),
        (Kind.START, 2),
        (Kind.STOP, 3),
    ]


def believed(*rows: RunningRow) -> RunningRows:
    """What the destination says it believes to run, now."""
    return RunningRows(SINK.name, list(rows), NOW)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.outbox.close()


def test_a_run_gets_its_start_and_then_its_stop(lab: Lab) -> None:
    run = lab.slurm.put(make_run())
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, run.key)]
    lab.poll()
    assert lab.pop_pending() == []
    lab.slurm.put(make_run(phase=Phase.ENDED))
    lab.poll()
    assert lab.pop_pending() == [(Kind.STOP, run.key)]
    lab.poll()
    assert lab.pop_pending() == []


def test_a_run_whose_nodes_are_made_ready_waits_and_keeps_what_was_read(lab: Lab) -> None:
    lab.slurm.put(make_run(phase=Phase.CONFIGURING))
    lab.poll()
    assert lab.pop_pending() == []
    lab.restart()
    moved = make_run(start=NOW - 90, phase=Phase.ENDED, missing=frozenset({Missing.GPUS}))
    lab.slurm.put(replace(moved, resources=(Resource("node01", (0, 1)),)))
    lab.poll()
    (start,) = lab.starts()
    assert start["startTime"] == NOW - 90
    assert start["resources"] == [{"hostname": "node01", "hwthreads": [0, 1]}]
    assert "incomplete" not in start["metaData"]  # type: ignore[operator]
    assert lab.pop_pending() == [(Kind.START, moved.key), (Kind.STOP, moved.key)]
    assert lab.watch.report.open == 0


def test_a_listing_without_a_job_ends_nothing(lab: Lab) -> None:
    run = lab.slurm.put(make_run())
    lab.poll()
    lab.pop_pending()
    lab.slurm.jobs.clear()
    lab.poll()
    assert lab.pop_pending() == []
    lab.slurm.close(make_run(phase=Phase.ENDED))
    lab.poll()
    lab.catch_up(NOW - 10)
    assert lab.pop_pending() == [(Kind.STOP, run.key)]


def test_a_query_that_failed_ends_nothing(lab: Lab) -> None:
    lab.slurm.put(make_run())
    lab.poll()
    lab.pop_pending()
    lab.slurm.failure = CommandFailed("slurmctld is down")
    with pytest.raises(CommandFailed):
        lab.poll()
    assert lab.pop_pending() == []
    assert lab.watch.report.open == 1


def test_a_requeued_job_has_two_runs(lab: Lab) -> None:
    first = lab.slurm.put(make_run(start=NOW - 500))
    lab.poll()
    lab.pop_pending()
    requeued = End(EndState.CANCELLED, NOW - 300, "REQUEUED")
    lab.slurm.close(make_run(start=NOW - 500, phase=Phase.ENDED, end=requeued))
    second = lab.slurm.put(make_run(start=NOW - 100))
    lab.poll()
    lab.catch_up(NOW - 10)
    assert lab.pop_pending() == [(Kind.STOP, first.key), (Kind.START, second.key)]


def test_the_stop_of_a_requeued_run_goes_before_the_start_of_the_next_one(lab: Lab) -> None:
    first = lab.slurm.put(make_run(start=NOW - 500))
    lab.poll()
    lab.pop_pending()
    lab.slurm.close(make_run(start=NOW - 500, phase=Phase.ENDED, end=End(EndState.CANCELLED, NOW - 300, "REQUEUED")))
    second = lab.slurm.put(make_run(start=NOW - 200))
    assert lab.watch.look_up([1]) == {1}
    due = lab.outbox.deliveries.due(SINK.name, 1e12, 100)
    assert [(delivery.kind, delivery.key) for delivery in due] == [(Kind.STOP, first.key)]
    assert lab.pop_pending() == [(Kind.STOP, first.key), (Kind.START, second.key)]


def test_a_requeued_run_is_ended_although_its_job_cannot_be_understood_for_a_moment(lab: Lab) -> None:
    run = lab.slurm.put(make_run(start=NOW - 500))
    lab.poll()
    lab.pop_pending()
    lab.slurm.close(make_run(start=NOW - 500, phase=Phase.ENDED, end=End(EndState.CANCELLED, NOW - 300, "REQUEUED")))
    lab.slurm.broken = {1: "a job that has nodes has no start"}
    assert lab.watch.look_up([1]) == {1}
    assert lab.pop_pending() == [(Kind.STOP, run.key)]


NEXT_RUNS = [(0, Phase.WAITING, NOW - 300), (NOW - 200, Phase.RUNNING, NOW - 300), (0, Phase.WAITING, NOW - 500)]


@pytest.mark.parametrize(("start", "phase", "submitted"), NEXT_RUNS)
def test_a_requeued_run_without_an_end_in_accounting_ends_when_it_was_requeued(
    lab: Lab, start: int, phase: Phase, submitted: int, caplog: pytest.LogCaptureFixture
) -> None:
    first = lab.slurm.put(make_run(start=NOW - 500))
    lab.poll()
    lab.pop_pending()
    second = lab.slurm.put(make_run(start=start, phase=phase, submit_time=submitted))
    lab.poll()
    lab.catch_up(NOW - 10)
    lab.now += FIRST_WAIT
    lab.poll()
    lab.catch_up(NOW - 10)
    assert (Kind.STOP, first.key) not in lab.pop_pending()  # accounting may just be late
    lab.slurm.accounted.append(second)
    lab.now += LONGEST_WAIT
    lab.poll()
    lab.catch_up(NOW - 10)
    (stop,) = lab.outbox.deliveries.due(SINK.name, 1e12, 100)
    assert (stop.kind, stop.key) == (Kind.STOP, first.key)
    message = json.loads(stop.payload)
    assert (message["stopTime"], message["jobState"]) == (submitted, "cancelled")
    assert "accounting has a later run of their jobs and no end of them" in caplog.text


def test_a_late_end_from_accounting_counts_more_than_the_requeue(lab: Lab) -> None:
    lab.slurm.put(make_run(start=NOW - 500))
    lab.poll()
    lab.pop_pending()
    lab.slurm.put(make_run(start=0, phase=Phase.WAITING, submit_time=NOW - 300))
    for _ in range(5):
        lab.now += FIRST_WAIT
        lab.poll()
        lab.catch_up(NOW - 10)
    preempted = End(EndState.PREEMPTED, NOW - 301, "PREEMPTED")
    lab.slurm.close(make_run(start=NOW - 500, phase=Phase.ENDED, end=preempted))
    lab.catch_up(NOW - 10)
    (stop,) = lab.outbox.deliveries.due(SINK.name, 1e12, 100)
    message = json.loads(stop.payload)
    assert (message["stopTime"], message["jobState"]) == (NOW - 301, "preempted")


def test_a_run_of_which_neither_slurmctld_nor_accounting_tells_is_asked_for_ever_more_seldom(lab: Lab) -> None:
    run = lab.slurm.put(make_run(start=NOW - 500))
    lab.poll()
    lab.pop_pending()
    lab.slurm.jobs.clear()
    questions = []
    for _ in range(12):
        lab.poll()
        lab.slurm.asked.clear()
        lab.catch_up(NOW - 10)
        questions.append(lab.slurm.asked.count("read_details"))
        lab.now += FIRST_WAIT
    assert lab.pop_pending() == []
    assert questions == [0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]
    lab.now -= 10 * FIRST_WAIT  # the clock was set back
    lab.slurm.asked.clear()
    lab.catch_up(NOW - 10)
    assert lab.slurm.asked.count("read_details") == 1
    lab.slurm.close(make_run(start=NOW - 500, phase=Phase.ENDED))
    lab.catch_up(NOW - 10)
    assert lab.pop_pending() == [(Kind.STOP, run.key)]


def test_a_run_that_was_missed_once_has_its_time_when_it_is_missed_again(lab: Lab) -> None:
    first = lab.slurm.put(make_run(start=NOW - 500))
    lab.poll()
    lab.pop_pending()
    lab.slurm.jobs.clear()
    lab.poll()
    lab.catch_up(NOW - 10)
    lab.slurm.put(first)
    lab.now += 10 * FIRST_WAIT
    lab.poll()
    lab.catch_up(NOW - 10)
    lab.slurm.accounted.append(lab.slurm.put(make_run(start=0, phase=Phase.WAITING, submit_time=NOW - 300)))
    lab.poll()
    lab.catch_up(NOW - 10)
    assert lab.pop_pending() == []


def test_a_job_whose_details_cannot_be_had_keeps_no_accounting_from_being_read(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.slurm.put(make_run(start=NOW - 500))
    lab.poll()
    lab.pop_pending()
    lab.slurm.put(make_run(start=0, phase=Phase.WAITING, submit_time=NOW - 300))
    lab.poll()
    lab.catch_up(NOW - 10)
    lab.now += FIRST_WAIT
    lab.poll()

    read_details = lab.slurm.read_details

    def fail_for_1(job_ids: Iterable[int]) -> Iterator[Details]:
        if 1 in job_ids:
            raise CommandFailed("squeue: error")
        return read_details(job_ids)

    monkeypatch.setattr(lab.slurm, "read_details", fail_for_1)
    other = lab.slurm.close(make_run(2, start=NOW - 200, phase=Phase.ENDED))
    with pytest.raises(CommandFailed):
        lab.catch_up(NOW - 200)
    assert other.key in {key for _, key in lab.pop_pending()}


def test_runs_of_a_job_that_was_requeued_twice_do_not_overlap(lab: Lab) -> None:
    first = lab.slurm.put(make_run(start=NOW - 500))
    lab.poll()
    second = lab.slurm.put(make_run(start=NOW - 300))
    lab.poll()
    lab.pop_pending()
    lab.slurm.accounted.append(lab.slurm.put(make_run(start=0, phase=Phase.WAITING, submit_time=NOW - 50)))
    for _ in range(3):
        lab.poll()
        lab.catch_up(NOW - 10)
        lab.now += FIRST_WAIT
    stops = {}
    for (each,) in iter(lambda: lab.outbox.deliveries.due(SINK.name, 1e12, 100), []):
        stops[each.key] = json.loads(each.payload)["stopTime"]
        lab.outbox.deliveries.delivered(each)
    assert stops == {first.key: NOW - 300, second.key: NOW - 50}


@pytest.mark.parametrize("submitted", [NOW - 600, NOW - 500])
def test_a_run_is_not_ended_by_another_one_that_was_not_submitted_after_it_began(lab: Lab, submitted: int) -> None:
    """A resized run may have another start in slurmctld, but has its old submit time."""
    lab.slurm.put(make_run(start=NOW - 500))
    lab.poll()
    lab.slurm.accounted.append(lab.slurm.put(make_run(start=NOW - 200, submit_time=submitted)))
    for _ in range(3):
        lab.now += LONGEST_WAIT
        lab.poll()
        lab.catch_up(NOW - 10)
    assert Kind.STOP not in {kind for kind, _ in lab.pop_pending()}


def test_the_next_run_is_read_although_accounting_does_not_answer(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.slurm.put(make_run(start=NOW - 500))
    lab.poll()
    lab.pop_pending()
    second = lab.slurm.put(make_run(start=NOW - 200))

    def down(*_: object) -> Iterator[list[AccountedEnd]]:
        raise CommandFailed("slurmdbd is down")

    monkeypatch.setattr(lab.slurm, "ends_of", down)
    assert lab.watch.look_up([1]) == {1}
    assert (Kind.START, second.key) in lab.pop_pending()


def test_the_epilog_of_a_requeued_run_is_served_from_accounting(lab: Lab) -> None:
    first = lab.slurm.put(make_run(start=NOW - 500))
    lab.watch.look_up([1])
    lab.pop_pending()
    lab.slurm.put(make_run(start=0, phase=Phase.WAITING))
    assert lab.watch.look_up([1]) == {1}
    assert not lab.watch.is_settled(1, over=True)
    lab.slurm.close(make_run(start=NOW - 500, phase=Phase.ENDED, end=End(EndState.CANCELLED, NOW - 300, "REQUEUED")))
    lab.watch.look_up([1])
    assert lab.pop_pending() == [(Kind.STOP, first.key)]
    assert lab.watch.is_settled(1, over=True)


def test_a_completing_job_without_its_nodes_is_not_taken_for_one_that_never_ran(lab: Lab) -> None:
    completing = End(EndState.COMPLETED, NOW - 50, "COMPLETED+COMPLETING")
    run = lab.slurm.put(make_run(1))
    lab.poll()
    lab.slurm.put(make_run(1, phase=Phase.ENDED, end=completing, resources=()))
    stranger = lab.slurm.put(make_run(2, phase=Phase.ENDED, end=completing, resources=()))
    lab.watch.look_up([1, 2])
    assert lab.pop_pending() == [(Kind.START, run.key), (Kind.STOP, run.key)]
    lab.slurm.put(make_run(2, phase=Phase.ENDED))
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, stranger.key), (Kind.STOP, stranger.key)]


def test_a_job_cancelled_while_it_waited_is_never_reported_and_asked_for_once(lab: Lab) -> None:
    lab.slurm.put(make_run(phase=Phase.ENDED, resources=()))
    lab.poll()
    lab.slurm.asked.clear()
    lab.poll()
    assert lab.pop_pending() == []
    assert "read_details" not in lab.slurm.asked


def test_a_run_that_was_never_seen_is_caught_up_with_start_and_stop(lab: Lab) -> None:
    run = lab.slurm.close(make_run(start=NOW - 7200, phase=Phase.ENDED))
    lab.catch_up(NOW - 9000)
    (start,) = lab.starts()
    assert start["numAcc"] == 2
    assert start["metaData"]["incomplete"] == "cores,gpus"  # type: ignore[index]
    assert lab.pop_pending() == [(Kind.START, run.key), (Kind.STOP, run.key)]
    assert lab.outbox.checkpoint("lab") == NOW
    lab.catch_up(NOW - 9000)
    assert lab.pop_pending() == []
    assert lab.status.counts()["incomplete_runs"] == 1
    labels = (Label("missing", "cores_gpus"), Label("why", "late"))
    assert Sample("incomplete_runs", labels, 1) in lab.status.samples()


def test_catching_up_takes_cores_from_slurmctld_while_it_still_knows_them(lab: Lab) -> None:
    run = make_run(start=NOW - 60, phase=Phase.ENDED)
    lab.slurm.put(run)
    lab.slurm.close(run)
    lab.catch_up(NOW - 600)
    (start,) = lab.starts()
    assert start["resources"] == [{"hostname": "node01", "hwthreads": [0, 1]}]


def test_catching_up_goes_hour_by_hour_and_stops_at_the_limit(lab: Lab) -> None:
    lab.catch_up(0)
    assert lab.slurm.asked.count("ended_between") == 604800 // 3600
    lab.slurm.asked.clear()
    lab.catch_up(NOW)
    assert lab.slurm.asked == ["ended_between"]
    assert OVERLAP < 3600


def test_a_failed_catch_up_does_not_move_the_checkpoint_past_the_failure(lab: Lab) -> None:
    lab.catch_up(NOW - 100)
    lab.now += 1000
    lab.slurm.failure = CommandFailed("slurmdbd is down")
    with pytest.raises(CommandFailed):
        lab.catch_up(NOW)
    assert lab.outbox.checkpoint("lab") == NOW


def test_without_accounting_everything_else_works(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.has_accounting = False
    lab.restart()
    lab.slurm.put(make_run())
    lab.poll()
    lab.slurm.put(make_run(phase=Phase.ENDED))
    lab.poll()
    lab.catch_up(NOW - 100)
    assert [kind for kind, _ in lab.pop_pending()] == [Kind.START, Kind.STOP]
    assert not {"ends_of", "ended_between", "is_forgotten"} & set(lab.slurm.asked)
    assert lab.outbox.checkpoint("lab") == NOW
    lab.outbox.close()


@pytest.fixture
def lone(lab: Lab) -> Lab:
    """A site without slurmdbd."""
    lab.has_accounting = False
    lab.restart()
    return lab


def stop_times(lab: Lab) -> dict[RunKey, tuple[str, int]]:
    """State and stop time of the stops that are pending; all of it counts as delivered from then on."""
    found = {}
    while due := lab.outbox.deliveries.due(SINK.name, 1e12, 100):
        for delivery in due:
            if delivery.kind is Kind.STOP:
                message = json.loads(delivery.payload)
                found[delivery.key] = (message["jobState"], message["stopTime"])
            lab.outbox.deliveries.delivered(delivery)
    return found


def test_without_accounting_a_requeue_ends_a_run_although_the_job_waits(lone: Lab) -> None:
    first = lone.slurm.put(make_run(start=NOW - 500))
    lone.poll()
    lone.slurm.put(make_run(start=NOW + 60, phase=Phase.WAITING, submit_time=NOW - 300))
    lone.poll()
    lone.catch_up(NOW - 60)
    assert stop_times(lone) == {first.key: ("cancelled", NOW - 300)}
    assert lone.watch.report.open == 0


def test_without_accounting_a_later_run_of_a_job_ends_the_earlier_one(lone: Lab) -> None:
    first = lone.slurm.put(make_run(start=NOW - 500))
    lone.poll()
    second = lone.slurm.put(make_run(start=NOW - 100, submit_time=NOW - 300))
    lone.poll()
    lone.catch_up(NOW - 60)
    assert stop_times(lone) == {first.key: ("cancelled", NOW - 300)}
    assert lone.watch.report.open == 1
    assert lone.watch.is_settled(second.key.job_id, over=False)


def test_without_accounting_a_run_that_slurmctld_has_forgotten_is_over(
    lone: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    run = lone.slurm.put(make_run())
    lone.poll()
    lone.slurm.jobs.clear()
    lone.poll()
    lone.catch_up(NOW - 60)
    assert stop_times(lone) == {}
    lone.slurm.forgotten = {1}
    lone.poll()
    lone.catch_up(NOW - 60)
    assert stop_times(lone) == {run.key: ("failed", NOW)}
    assert "Slurm does not know since when and how" in caplog.text


def test_without_accounting_rows_of_jobs_that_are_over_or_forgotten_are_stopped(lone: Lab) -> None:
    over = lone.slurm.put(make_run(1, start=NOW - 9000, phase=Phase.ENDED))
    live = lone.slurm.put(make_run(2, start=NOW - 9000))
    lone.slurm.forgotten = {3}
    rows = [RunningRow(job_id, NOW - 9000) for job_id in (1, 2, 3, 4)]
    lone.watch.reconcile(believed(*rows))
    forgotten = RunKey("lab", 3, NOW - 9000)
    assert stop_times(lone) == {over.key: ("completed", NOW - 8950), forgotten: ("failed", NOW)}
    assert live.key not in stop_times(lone)


def test_the_rest_of_a_resized_run_is_no_run_of_its_own(lab: Lab) -> None:
    run = lab.slurm.put(make_run(start=NOW - 5000))
    lab.poll()
    ended = make_run(start=NOW - 5000, phase=Phase.ENDED, end=End(EndState.COMPLETED, NOW - 60, "COMPLETED"))
    lab.slurm.put(ended)
    lab.poll()
    lab.slurm.close(ended)
    lab.slurm.rests = {run.key: RunKey("lab", 1, NOW - 2000)}
    lab.catch_up(NOW - 600)
    assert stop_times(lab) == {run.key: ("completed", NOW - 60)}
    lab.slurm.asked.clear()
    lab.catch_up(NOW - 600)
    assert stop_times(lab) == {}
    assert "ends_of" not in lab.slurm.asked


def test_a_resized_run_that_vanished_ends_when_its_rest_did(lab: Lab) -> None:
    run = lab.slurm.put(make_run(start=NOW - 5000))
    lab.poll()
    lab.slurm.jobs.clear()
    lab.slurm.close(make_run(start=NOW - 5000, phase=Phase.ENDED, end=End(EndState.TIMEOUT, NOW - 60, "TIMEOUT")))
    lab.slurm.rests = {run.key: RunKey("lab", 1, NOW - 2000)}
    lab.catch_up(NOW - 600)
    assert stop_times(lab) == {run.key: ("timeout", NOW - 60)}


def test_a_resized_run_that_was_never_seen_is_one_run(lab: Lab) -> None:
    whole = make_run(start=NOW - 5000, phase=Phase.ENDED, end=End(EndState.COMPLETED, NOW - 60, "COMPLETED"))
    lab.slurm.close(whole)
    lab.slurm.rests = {whole.key: RunKey("lab", 1, NOW - 2000)}
    lab.catch_up(NOW - 600)
    assert lab.pop_pending() == [(Kind.START, whole.key), (Kind.STOP, whole.key)]


def test_a_run_that_is_left_out_counts_on_its_node_until_it_ends(lab: Lab) -> None:
    lab.slurm.put(make_run(1, opted_out=True))
    lab.slurm.put(make_run(2))
    lab.poll()
    assert [node.jobs_running for node in lab.watch.node_states()] == [2]
    lab.restart()
    lab.poll()
    assert [node.jobs_running for node in lab.watch.node_states()] == [2]
    lab.slurm.put(make_run(1, phase=Phase.ENDED, opted_out=True))
    lab.poll()
    assert [node.jobs_running for node in lab.watch.node_states()] == [1]
    assert {key.job_id for _, key in lab.pop_pending()} == {2}


def test_a_run_that_is_left_out_only_after_its_start_was_told_gets_its_stop(lab: Lab) -> None:
    run = lab.slurm.put(make_run())
    lab.poll()
    completing = End(EndState.COMPLETED, NOW - 50, "COMPLETED+COMPLETING")
    lab.slurm.put(make_run(phase=Phase.ENDED, end=completing, opted_out=True))
    lab.watch.look_up([1])
    assert lab.pop_pending() == [(Kind.START, run.key), (Kind.STOP, run.key)]


@pytest.mark.parametrize(
    "rules", [IgnoreRules(partitions=re.compile("^main$")), IgnoreRules(users=re.compile("alice"))]
)
def test_a_run_is_left_out_by_partition_or_user(lab: Lab, rules: IgnoreRules) -> None:
    lab.ignore = rules
    lab.restart()
    lab.slurm.put(make_run(1))
    other = lab.slurm.put(make_run(2, partition="debug", user="bob"))
    lab.slurm.close(make_run(3, start=NOW - 60, phase=Phase.ENDED))
    lab.poll()
    lab.catch_up(NOW - 600)
    assert lab.pop_pending() == [(Kind.START, other.key)]


def test_a_run_of_more_than_a_year_keeps_its_start_and_gets_its_stop(lab: Lab) -> None:
    start = NOW - 400 * 86400
    run = lab.slurm.put(make_run(start=start))
    lab.poll()
    lab.pop_pending()
    lab.outbox.tidy(604800)
    lab.restart()
    lab.slurm.jobs.clear()
    lab.slurm.close(make_run(start=start, phase=Phase.ENDED, end=End(EndState.COMPLETED, NOW - 9, "COMPLETED")))
    lab.poll()
    lab.catch_up(NOW - 60)
    assert stop_times(lab) == {run.key: ("completed", NOW - 9)}


def test_a_job_id_that_was_given_out_again_is_another_run(lab: Lab) -> None:
    first = lab.slurm.put(make_run(7, start=NOW - 90 * 86400))
    lab.poll()
    lab.slurm.put(make_run(7, start=NOW - 90 * 86400, phase=Phase.ENDED))
    lab.poll()
    second = lab.slurm.put(make_run(7, start=NOW - 100))
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, first.key), (Kind.STOP, first.key), (Kind.START, second.key)]


def test_a_clock_that_stepped_back_leaves_no_run_open(lab: Lab) -> None:
    run = lab.slurm.put(make_run(start=NOW - 100))
    lab.poll()
    lab.slurm.put(make_run(start=NOW - 100, phase=Phase.ENDED, end=End(EndState.COMPLETED, NOW - 3700, "COMPLETED")))
    lab.poll()
    assert stop_times(lab) == {run.key: ("completed", NOW - 100)}


def test_a_run_is_read_although_an_earlier_one_of_its_job_could_not_be_understood(lab: Lab) -> None:
    lab.slurm.put(make_run(7, start=NOW - 900))
    lab.slurm.broken = {7: "jobs[7].nodes: no host list"}
    lab.poll()
    lab.slurm.broken = {}
    later = lab.slurm.put(make_run(7, start=NOW - 100))
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, later.key)]


def test_all_nodes_of_each_poll_are_told_also_ignored_ones_and_none_when_they_cannot_be_read(lab: Lab) -> None:
    told: list[list[str]] = []
    lab.on_nodes = lambda nodes: told.append([node.hostname for node in nodes])
    lab.ignore = IgnoreRules(hosts=re.compile("node01$"))
    lab.restart()
    for _ in range(2):
        lab.poll()
    assert told == [["node01"], ["node01"]]
    lab.slurm.failure = CommandFailed("sinfo: Unable to contact slurm controller")
    with pytest.raises(CommandFailed):
        lab.poll()
    assert len(told) == 2


def test_nodes_that_cannot_be_read_keep_no_job_waiting(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[NodeState]:
        raise CommandFailed("sinfo: too much output")

    run = lab.slurm.put(make_run())
    monkeypatch.setattr(lab.slurm, "node_states", broken)
    with pytest.raises(CommandFailed):
        lab.watch.read_nodes()
    for _ in lab.watch.poll():
        pass
    assert lab.pop_pending() == [(Kind.START, run.key)]


def test_a_job_that_was_cancelled_while_it_waited_costs_no_question(lab: Lab) -> None:
    """Thousands of them may be cancelled at once. Slurm gives such a job one moment as its start and its end."""
    cancelled = End(EndState.CANCELLED, NOW - 100, "CANCELLED")
    for job_id in range(1, 1001):
        lab.slurm.put(make_run(job_id, start=NOW - 100, phase=Phase.ENDED, end=cancelled, resources=()))
    ran = lab.slurm.put(make_run(1001, start=NOW - 100, phase=Phase.ENDED, end=cancelled))
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, ran.key), (Kind.STOP, ran.key)]
    lab.slurm.asked.clear()
    lab.poll()
    assert set(lab.slurm.asked) == {"node_states", "list_jobs"}


def test_an_open_run_ends_even_if_its_nodes_are_listed_no_more(lab: Lab) -> None:
    run = lab.slurm.put(make_run(1))
    lab.poll()
    lab.pop_pending()
    lab.slurm.put(make_run(1, phase=Phase.ENDED, end=End(EndState.FAILED, run.key.start_time, "FAILED"), resources=()))
    lab.poll()
    assert lab.pop_pending() == [(Kind.STOP, run.key)]


def test_where_a_job_stands_tells_which_events_are_repeats(lab: Lab) -> None:
    """A prolog is one while a run is open whose start is enqueued; an epilog when none is open any more."""

    def known() -> tuple[bool, bool]:
        return lab.watch.is_known(1, over=False), lab.watch.is_known(1, over=True)

    assert known() == (False, False)
    lab.slurm.put(make_run(1, phase=Phase.CONFIGURING))
    lab.poll()
    assert known() == (False, False)
    lab.slurm.put(make_run(1))
    lab.poll()
    assert known() == (True, False)
    lab.slurm.put(make_run(1, phase=Phase.ENDED))
    lab.poll()
    assert known() == (False, True)
    assert lab.watch.is_settled(1, over=False)


def test_an_opt_out_while_the_nodes_are_made_ready_counts(lab: Lab) -> None:
    lab.slurm.put(make_run(phase=Phase.CONFIGURING))
    lab.poll()
    lab.slurm.put(make_run(opted_out=True))
    lab.poll()
    lab.slurm.put(make_run(phase=Phase.ENDED, opted_out=True))
    lab.poll()
    assert lab.pop_pending() == []
    assert lab.watch.report.open == 0


def test_slurmdbd_down_keeps_no_pass_over_slurmctld_from_its_end(lab: Lab) -> None:
    lab.slurm.put(make_run(1))
    lab.poll()
    lab.slurm.jobs.clear()
    lab.poll()
    assert "ends_of" not in lab.slurm.asked
    lab.slurm.failure = CommandFailed("slurmdbd is down")
    with pytest.raises(CommandFailed):
        lab.catch_up(NOW - 10)
    assert lab.watch.report.open == 1


def test_a_run_that_never_gets_ready_is_given_up(lab: Lab) -> None:
    lab.slurm.put(make_run(phase=Phase.CONFIGURING))
    lab.poll()
    lab.watch.forget_never_started(1000)
    assert lab.watch.report.open == 1
    lab.watch.forget_never_started(10)
    assert lab.watch.report.open == 0
    lab.restart()
    assert lab.watch.report.open == 0


def test_a_row_near_a_run_that_still_runs_is_not_stopped(lab: Lab) -> None:
    lab.slurm.close(make_run(7, start=NOW - 1000, phase=Phase.ENDED))
    lab.slurm.put(make_run(7, start=NOW - 800))
    lab.poll()
    lab.pop_pending()
    lab.watch.reconcile(believed(RunningRow(7, NOW - 810)))
    assert lab.pop_pending() == []


def test_a_run_of_which_nobody_tells_more_is_said_once(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    lab.slurm.close(make_run(1, start=NOW - 60, phase=Phase.ENDED))
    nothing: list[Details] = []
    lab.slurm.read_accounted = lambda *_: (each for each in nothing)  # type: ignore[method-assign]
    lab.catch_up(NOW - 600)
    lab.catch_up(NOW)
    assert len([line for line in caplog.messages if "has more about them" in line]) == 1


def test_a_run_is_left_out_when_all_its_hosts_are_ignored(lab: Lab) -> None:
    lab.ignore = IgnoreRules(hosts=re.compile("node01$"))
    lab.restart()
    lab.slurm.put(make_run(1))
    mixed = lab.slurm.put(make_run(2, resources=(Resource("node01", (0,)), Resource("node02", (0,)))))
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, mixed.key)]
    assert lab.watch.node_states() == []
    lab.slurm.put(make_run(1, phase=Phase.ENDED))
    lab.poll()
    assert lab.pop_pending() == []


def test_killed_between_passes_nothing_is_lost_or_doubled(lab: Lab) -> None:
    run = lab.slurm.put(make_run())
    lab.poll()
    lab.restart()
    lab.poll()
    lab.restart()
    lab.slurm.put(make_run(phase=Phase.ENDED))
    lab.poll()
    lab.restart()
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, run.key), (Kind.STOP, run.key)]


def test_the_jobs_on_each_node_are_counted(lab: Lab) -> None:
    lab.slurm.put(make_run(1))
    lab.slurm.put(make_run(2))
    lab.poll()
    (node,) = lab.watch.node_states()
    assert node.jobs_running == 2
    lab.slurm.put(make_run(2, phase=Phase.ENDED))
    lab.poll()
    (node,) = lab.watch.node_states()
    assert node.jobs_running == 1


def test_a_hook_event_is_settled_when_slurm_shows_it(lab: Lab) -> None:
    lab.slurm.put(make_run(phase=Phase.CONFIGURING))
    lab.watch.look_up([1])
    assert not lab.watch.is_settled(1, over=False)
    run = lab.slurm.put(make_run())
    lab.watch.look_up([1])
    assert lab.watch.is_settled(1, over=False)
    assert not lab.watch.is_settled(1, over=True)
    lab.slurm.put(make_run(phase=Phase.ENDED))
    lab.watch.look_up([1])
    assert lab.watch.is_settled(1, over=True)
    assert lab.pop_pending() == [(Kind.START, run.key), (Kind.STOP, run.key)]
    assert not lab.watch.is_settled(2, over=False)


def test_what_the_destination_believes_to_run_is_stopped_when_slurm_says_it_is_over(lab: Lab) -> None:
    over = lab.slurm.close(make_run(1, start=NOW - 9000, phase=Phase.ENDED))
    moved = lab.slurm.close(make_run(2, start=NOW - 9000, phase=Phase.ENDED))
    young = lab.slurm.close(make_run(3, start=NOW - 20, phase=Phase.ENDED))
    live = lab.slurm.put(make_run(4, start=NOW - 9000))
    lab.poll()
    lab.pop_pending()
    rows = [
        RunningRow(1, over.key.start_time),
        RunningRow(2, moved.key.start_time + 7),
        RunningRow(3, young.key.start_time),
        RunningRow(4, live.key.start_time),
        RunningRow(5, NOW - 9000),
    ]
    lab.watch.reconcile(believed(*rows))
    assert lab.pop_pending() == [(Kind.STOP, over.key), (Kind.STOP, RunKey("lab", 2, NOW - 9000 + 7))]


def test_a_run_that_the_destination_has_lost_gets_its_start_again_and_only_once(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    lost = lab.slurm.put(make_run(1, start=NOW - 9000))
    kept = lab.slurm.put(make_run(2, start=NOW - 9000))
    lab.slurm.put(make_run(3, start=NOW - 9000, opted_out=True))
    over = lab.slurm.put(make_run(4, start=NOW - 9000))
    lab.poll()
    lab.slurm.put(make_run(4, start=NOW - 9000, phase=Phase.ENDED))
    lab.poll()
    deliver_all(lab, NOW - 9000)
    lab.watch.reconcile(believed(RunningRow(2, kept.key.start_time)))
    assert deliver_all(lab, NOW) == [(Kind.START, lost.key)]
    assert "lost 1 job that runs:" in caplog.text
    lab.watch.reconcile(believed(RunningRow(2, kept.key.start_time)))
    assert lab.pop_pending() == []
    assert over.key not in lab.watch._store.open_runs


def test_a_row_with_a_start_up_to_five_minutes_away_is_the_run_s_own(lab: Lab) -> None:
    away = {1: 0, 2: 300, 3: -300, 4: 301, 5: -301}
    runs = {job_id: lab.slurm.put(make_run(job_id, start=NOW - 9000)) for job_id in (*away, 6)}
    lab.poll()
    deliver_all(lab, NOW - 9000)
    rows = [RunningRow(job_id, runs[job_id].key.start_time + seconds) for job_id, seconds in away.items()]
    lab.watch.reconcile(believed(*rows, RunningRow(7, NOW)))
    sent_again = {key for kind, key in lab.pop_pending() if kind is Kind.START}
    assert sent_again == {runs[job_id].key for job_id in (4, 5, 6)}


def test_a_start_that_the_destination_cannot_show_yet_is_not_sent_again(lab: Lab) -> None:
    lab.slurm.put(make_run(1, start=NOW - 9000))
    lab.poll()
    deliver_all(lab, NOW - 100)
    lab.watch.reconcile(believed())
    assert lab.pop_pending() == []


def deliver_all(lab: Lab, when: float) -> list[tuple[Kind, RunKey]]:
    """Send all that is pending, at a Unix time."""
    sent: list[tuple[Kind, RunKey]] = []
    while due := lab.outbox.deliveries.due(SINK.name, 1e12, 100):
        lab.outbox.deliveries.begin(due, when)
        for delivery in due:
            lab.outbox.deliveries.delivered(delivery)
            sent.append((delivery.kind, delivery.key))
    return sent
