"""How long a request may take."""

from __future__ import annotations

from cc_slurm_adapter.sinks.timeouts import TIMING, AdaptiveTimeout


def test_one_request_at_a_time_may_take_longer_after_each_time_out() -> None:
    timeouts = AdaptiveTimeout()
    seconds = []
    for _ in range(5):
        special, other = timeouts.begin(), timeouts.begin()
        assert (special.is_special, other) == (True, (TIMING.time_limit, False))
        seconds.append(special.seconds)
        timeouts.end(other, timed_out=True)
        timeouts.end(special, timed_out=True)
    assert seconds == [10, 20, 40, 60, 60]


def test_a_slow_answer_gives_time_to_all_and_a_quick_one_takes_it_back() -> None:
    timeouts = AdaptiveTimeout()
    timeouts.responded(TIMING.slow + 1)
    first, second = timeouts.begin(), timeouts.begin()
    assert first.seconds == second.seconds == TIMING.slow_time_limit
    timeouts.end(first, timed_out=False)
    timeouts.end(second, timed_out=False)
    timeouts.responded(0.1)
    assert timeouts.begin().seconds == TIMING.time_limit


def test_a_failure_that_is_no_time_out_changes_nothing() -> None:
    timeouts = AdaptiveTimeout()
    for _ in range(3):
        timeout = timeouts.begin()
        assert timeout == (TIMING.time_limit, True)
        timeouts.end(timeout, timed_out=False)
