"""When a destination is asked for what it believes to be running."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import pytest

from cc_slurm_adapter.daemon.running_list import RunningListPoller, Timing
from cc_slurm_adapter.errors import SinkError
from cc_slurm_adapter.sinks.base import AskableSink, RunningRow, RunningRows
from cc_slurm_adapter.sinks.clusters import Cluster, ClusterList
from cc_slurm_adapter.system.backoff import Backoff

PATIENCE = 10.0
CLUSTERS = ClusterList((Cluster("lab"),))


class AskedSink:
    """A sink whose one connection answers with rows, or fails as often as it is told to."""

    name = "asked"

    def __init__(self) -> None:
        self.failures = 0

    def connect(self, progress: Callable[[], None]) -> AskedSink:
        self._progress = progress
        return self

    def running_rows(self, cluster: str) -> Iterable[RunningRow]:
        if self.failures:
            self.failures -= 1
            raise SinkError("away")
        for _ in range(100):  # pages
            self._progress()
        return [RunningRow(1, len(cluster))]

    def clusters(self) -> ClusterList:
        return CLUSTERS

    def abort(self) -> None: ...

    def close(self) -> None: ...


class ClustersSink(AskedSink):
    """One that may also fail when it is asked for its clusters, and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster_failures = 0
        self.now = 1000.0

    def clusters(self) -> ClusterList:
        if self.cluster_failures:
            self.cluster_failures -= 1
            raise SinkError("away")
        return CLUSTERS


class Answers:
    """A poller that asks once a day, and what it hands on."""

    def __init__(self) -> None:
        self.sink = AskedSink()
        self._came: queue.SimpleQueue[RunningRows] = queue.SimpleQueue()
        self.poller = self.make_poller()

    def make_poller(self, **waits: Any) -> RunningListPoller:
        """A poller that hardly waits between tries, unless `waits` say otherwise."""
        timing = Timing(first_wait=0.001, longest_wait=0.002)._replace(**waits)
        sink = cast("AskableSink", self.sink)
        return RunningListPoller(sink, AskedSink.name, "lab", 86400, self._came.put, timing=timing)

    def next(self) -> RunningRows:
        return self._came.get(timeout=PATIENCE)

    def none_is_there(self) -> bool:
        return self._came.empty()


@pytest.fixture
def answers() -> Iterator[Answers]:
    made = Answers()
    yield made
    made.poller.stop(PATIENCE)


def test_it_asks_at_the_start_and_hands_on_whose_rows_they_are(answers: Answers) -> None:
    answers.poller.start()
    found = answers.next()
    assert (found.sink, list(found.rows)) == ("asked", [RunningRow(1, 3)])
    assert found.asked > 1_700_000_000
    assert answers.poller.workers[0].steps >= 100


def test_a_destination_that_is_away_is_asked_until_it_answers(answers: Answers) -> None:
    answers.sink.failures = 3
    answers.poller.start()
    assert answers.next().rows
    assert answers.sink.failures == 0


@pytest.mark.parametrize("error", [MemoryError(), ValueError("nobody thought of that")])
def test_an_error_that_nobody_thought_of_does_not_end_it(
    answers: Answers, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(answers.poller._worker, "_backoff", Backoff(0.001, 0.002))
    errors = [error]
    running_rows = answers.sink.running_rows

    def fails_first(cluster: str) -> Iterable[RunningRow]:
        if errors:
            raise errors.pop()
        return running_rows(cluster)

    monkeypatch.setattr(answers.sink, "running_rows", fails_first)
    answers.poller.start()
    assert answers.next().rows
    assert answers.poller.workers[0].is_alive


def test_calls_do_not_shorten_the_rest_of_a_destination_that_is_away(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answers.sink.failures = 1000
    running_rows = answers.sink.running_rows

    def count(cluster: str) -> Iterable[RunningRow]:
        asked.append(cluster)
        return running_rows(cluster)

    monkeypatch.setattr(answers.sink, "running_rows", count)
    monkeypatch.setattr(answers.poller._failures, "_backoff", Backoff(PATIENCE, PATIENCE, jitter=lambda: 1.0))
    answers.poller.start()
    while not asked:
        time.sleep(0.005)
    for _ in range(100):
        monkeypatch.setattr(answers.poller, "_next_request", 0.0)
        answers.poller.poll_soon()
        time.sleep(0.001)
    assert len(asked) == 1


def test_when_something_was_lost_it_asks_at_once_and_once_more_later(answers: Answers) -> None:
    answers.poller = answers.make_poller(second_poll_after=0.01)
    answers.poller.start()
    answers.next()
    for _ in range(100):  # many stops that are not known are one reason
        answers.poller.poll_soon()
    answers.next()
    answers.next()
    assert answers.none_is_there()


@pytest.mark.parametrize(("long_failure", "level"), [(3600.0, "INFO"), (0.0, "WARNING")])
def test_a_comparison_that_fails_for_long_is_a_warning_and_a_short_failure_is_none(
    answers: Answers, caplog: pytest.LogCaptureFixture, long_failure: float, level: str
) -> None:
    caplog.set_level("INFO")
    answers.poller = answers.make_poller(long_failure=long_failure)
    answers.sink.failures = 2
    answers.poller.start()
    answers.next()
    warned = [] if level == "INFO" else ["WARNING", "NOTICE"]
    assert [record.levelname for record in caplog.records] == ["INFO", *warned]


def test_another_interval_is_in_force_at_once(answers: Answers) -> None:
    answers.poller.start()
    answers.next()
    answers.poller.change_interval(0.01)
    for _ in range(3):
        answers.next()


class TestClusters:
    """The question for the clusters, which is asked in turns of the poller."""

    def make_poller(self, sink: ClustersSink, known: list[ClusterList]) -> RunningListPoller:
        timing = Timing(first_wait=5.0, clusters_again=100.0, clock=lambda: sink.now)
        asked = cast("AskableSink", sink)
        return RunningListPoller(asked, sink.name, "lab", 1e9, lambda _: None, timing=timing, on_clusters=known.append)

    def test_they_are_asked_for_only_on_request(self) -> None:
        sink = ClustersSink()
        known: list[ClusterList] = []
        poller = self.make_poller(sink, known)
        poller._requested.set()  # so that no turn waits
        poller._turn()
        assert known == []
        poller.ask_clusters()
        for _ in range(2):
            poller._requested.set()
            poller._turn()
        assert known == [CLUSTERS]

    def test_a_failure_is_logged_once_and_tried_again_later(self, caplog: pytest.LogCaptureFixture) -> None:
        sink = ClustersSink()
        known: list[ClusterList] = []
        poller = self.make_poller(sink, known)
        sink.cluster_failures = 2
        poller.ask_clusters()
        for seconds in (0, 99, 100, 199, 200):
            sink.now = 1000.0 + seconds
            poller._requested.set()
            poller._turn()
            assert known == ([CLUSTERS] if seconds == 200 else [])
        (line,) = caplog.messages
        assert line == "cc-backend cannot be asked for its clusters, which is tried again: away"

    def test_a_destination_that_is_away_is_asked_when_it_answers_again(self) -> None:
        sink = ClustersSink()
        known: list[ClusterList] = []
        poller = self.make_poller(sink, known)
        sink.failures = 1
        poller._turn()
        poller.ask_clusters()
        sink.now += 10
        poller._turn()
        assert known == []
        poller._requested.set()
        poller._turn()
        assert known == [CLUSTERS]
