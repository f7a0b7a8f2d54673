"""How a destination is: pauses, outages, and what the log says of them."""

from __future__ import annotations

import time

import pytest

from cc_slurm_adapter.outbox.report import SinkReport
from cc_slurm_adapter.outbox.sink_health import LONGEST_PAUSE, TIMING, SinkHealth, wait_of_row
from cc_slurm_adapter.outbox.tasks import NodeStates, Request, Rows
from cc_slurm_adapter.sinks.base import Answer, Verdict

AWAY = Answer(Verdict.UNAVAILABLE, "connection refused")
FAILED = Answer(Verdict.FAILED, "HTTP 500: odd")
CONNECTIONS = 4


def request(seconds_ago: float = 0.0) -> Request:
    return Request(Rows([]), time.monotonic() - seconds_ago, 0)


@pytest.fixture
def health() -> SinkHealth:
    return SinkHealth(SinkReport("cc_rest", "cc-backend"), CONNECTIONS)


def test_a_destination_that_names_a_time_is_left_alone_for_that_but_not_for_ever(health: SinkHealth) -> None:
    assert health.silence([]) == 0
    assert health.pause_after(AWAY._replace(retry_after=100.0), request()) == 100
    assert 99 < health.silence([]) <= 100
    assert health.pause_after(AWAY._replace(retry_after=1e300), request()) == LONGEST_PAUSE
    health.end_pause()
    assert health.silence([]) == 0


def test_a_destination_that_fails_gets_one_request_at_a_time(health: SinkHealth) -> None:
    assert health.silence([request()]) == 0
    health.pause_after(AWAY, request())
    health.end_pause()
    assert TIMING.probe_every - 1 < health.silence([request()]) <= TIMING.probe_every
    assert health.silence([request(TIMING.probe_every)]) == 0  # it hangs
    assert health.silence([Request(NodeStates("lab", []), time.monotonic(), 0)]) == 0
    health.answers(1, request())
    assert health.silence([request()]) == 0


def test_what_a_request_has_taken_counts_as_waiting(health: SinkHealth) -> None:
    assert health.pause_after(AWAY, request(TIMING.longest_wait)) == 0


def test_only_an_answer_after_a_long_outage_lets_what_waits_go_on() -> None:
    back: list[Request] = []
    health = SinkHealth(SinkReport("cc_rest", "cc-backend"), CONNECTIONS, on_back=back.append)
    health.pause_after(AWAY, request())
    health.answers(1, request())
    assert back == []
    health.pause_after(AWAY, request(TIMING.long_outage + 1))
    first = request()
    health.answers(1, first)
    health.answers(1, request())
    assert back == [first]
    assert health.successes == 3


def test_everything_waits_is_reported_once_and_so_is_the_end(
    health: SinkHealth, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        health.pause_after(AWAY, request())
    for _ in range(3):
        health.answers(1, request())
    assert caplog.messages == [
        "cc-backend cannot be reached, everything waits: connection refused",
        "cc-backend answers again after 0 s",
    ]


def test_errors_of_row_after_row_are_no_row_s_own(health: SinkHealth) -> None:
    assert health.fails_as_a_whole(AWAY)
    for _ in range(2 * CONNECTIONS - 1):
        health.count_failure()
    assert not health.fails_as_a_whole(FAILED)
    health.count_failure()
    assert health.fails_as_a_whole(FAILED)
    health.answers(1, request())
    assert not health.fails_as_a_whole(FAILED)


def test_what_is_due_is_read_again_after_a_pause() -> None:
    pauses: list[float] = []
    report = SinkReport("cc_rest", "cc-backend")
    made = SinkHealth(report, CONNECTIONS, on_pause=lambda: pauses.append(made.silence([])))
    made.pause_after(AWAY._replace(retry_after=10.0), request())
    made.pause_after_error(request())
    assert len(pauses) == 2
    assert min(pauses) > 9


def test_a_row_waits_ever_longer_and_longer_than_all() -> None:
    waits = [wait_of_row(failures, 0.0) for failures in range(100)]
    assert waits == sorted(waits)
    assert waits[0] == TIMING.first_wait
    assert waits[-1] == TIMING.longest_wait
    assert wait_of_row(0, 100.0) > 100


def test_node_states_that_are_not_accepted_are_reported_and_hold_up_no_job(
    health: SinkHealth, caplog: pytest.LogCaptureFixture
) -> None:
    health.nodes_answered(AWAY)
    health.nodes_answered(Answer(Verdict.DELIVERED))
    assert health.silence([]) == 0
    assert caplog.messages == [
        "cc-backend cannot be used: connection refused",
        "cc-backend can be used again after 0 s",
    ]


def test_accepted_node_states_end_a_failure_of_rows_that_were_not_tried_for_long() -> None:
    """Else the destination would count as away after its pending rows were dropped."""
    health = SinkHealth(SinkReport("cc_rest", "cc-backend"), CONNECTIONS)
    health.pause_after(AWAY, request())
    health.nodes_answered(Answer(Verdict.DELIVERED))
    assert health.report.failing_since
    long_ago = time.time() - 2 * TIMING.longest_wait - 1
    health.report = health.report._replace(failed_at=long_ago)
    health.nodes_answered(FAILED)
    assert health.report.failing_since
    health.nodes_answered(Answer(Verdict.DELIVERED))
    assert (health.report.failing_since, health.report.why, health.report.nodes_why) == (0, "", "")
