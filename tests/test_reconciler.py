"""When a destination is asked for what it believes to be running."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator
from typing import cast

import pytest

from cc_slurm_adapter import reconciler as reconciler_module
from cc_slurm_adapter.errors import SinkError
from cc_slurm_adapter.reconciler import Reconciler
from cc_slurm_adapter.sinks import AskableSink, RunningRow, RunningRows

PATIENCE = 10.0


class AskedSink:
    """A sink whose one connection answers with rows, or fails as often as it is told to."""

    name = "asked"

    def __init__(self) -> None:
        self.failures = 0

    def connect(self) -> AskedSink:
        return self

    def running_rows(self, cluster: str) -> Iterable[RunningRow]:
        if self.failures:
            self.failures -= 1
            raise SinkError("away")
        return [RunningRow(1, len(cluster))]

    def abort(self) -> None: ...

    def close(self) -> None: ...


class Answers:
    """A reconciler that compares once a day, and what it hands on."""

    def __init__(self) -> None:
        self.sink = AskedSink()
        self._came: queue.SimpleQueue[RunningRows] = queue.SimpleQueue()
        self.reconciler = Reconciler(cast("AskableSink", self.sink), AskedSink.name, "lab", 86400, self._came.put)

    def next(self) -> RunningRows:
        return self._came.get(timeout=PATIENCE)

    def none_is_there(self) -> bool:
        return self._came.empty()


@pytest.fixture
def answers() -> Iterator[Answers]:
    made = Answers()
    yield made
    made.reconciler.stop(PATIENCE)


def test_it_asks_at_the_start_and_hands_on_whose_rows_they_are(answers: Answers) -> None:
    answers.reconciler.start()
    found = answers.next()
    assert (found.sink, found.rows) == ("asked", [RunningRow(1, 3)])
    assert found.asked > 1_700_000_000


def test_a_destination_that_is_away_is_asked_until_it_answers(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(reconciler_module, "LONGEST_WAIT", 0.002)
    answers.sink.failures = 3
    answers.reconciler.start()
    assert answers.next().rows
    assert answers.sink.failures == 0


def test_when_something_was_lost_it_asks_at_once_and_once_more_later(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "AGAIN", 0.01)
    answers.reconciler.start()
    answers.next()
    for _ in range(100):  # many stops that are not known are one reason
        answers.reconciler.ask_now()
    answers.next()
    answers.next()
    assert answers.none_is_there()
