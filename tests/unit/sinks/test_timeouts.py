"""How long an answer may take."""

from __future__ import annotations

from cc_slurm_adapter.sinks.timeouts import SLOW, SLOW_TIME_LIMIT, TIME_LIMIT, AdaptiveTimeout


def test_one_request_at_a_time_may_take_longer_after_each_time_out() -> None:
    pace = AdaptiveTimeout()
    seconds = []
    for _ in range(5):
        special, other = pace.begin(), pace.begin()
        assert (special.is_special, other) == (True, (TIME_LIMIT, False))
        seconds.append(special.seconds)
        pace.end(other, timed_out=True)
        pace.end(special, timed_out=True)
    assert seconds == [10, 20, 40, 60, 60]


def test_a_slow_answer_gives_time_to_all_and_a_quick_one_takes_it_back() -> None:
    pace = AdaptiveTimeout()
    pace.answered(SLOW + 1)
    first, second = pace.begin(), pace.begin()
    assert first.seconds == second.seconds == SLOW_TIME_LIMIT
    pace.end(first, timed_out=False)
    pace.end(second, timed_out=False)
    pace.answered(0.1)
    assert pace.begin().seconds == TIME_LIMIT


def test_a_failure_that_is_no_time_out_changes_nothing() -> None:
    pace = AdaptiveTimeout()
    for _ in range(3):
        patience = pace.begin()
        assert patience == (TIME_LIMIT, True)
        pace.end(patience, timed_out=False)
