"""The last hour, a point a minute: what a minute had, and what is not known of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.counters import Label, Sample
from cc_slurm_adapter.daemon.history import MINUTES, DestinationPoint, History, Point
from cc_slurm_adapter.daemon.report import DestinationReport, HooksReport, StatusReport
from cc_slurm_adapter.outbox.report import QueueReport, SinkReport
from tests.fakes.statuses import REPORT

START = 1000.0
"""time.monotonic() of the first report."""


def deliveries(sink: str, kind: str, result: str, value: int) -> Sample:
    return Sample("deliveries", (Label("sink", sink), Label("kind", kind), Label("result", result)), value)


def report(
    delivered: int = 0,
    *,
    time: float = 1_800_000_000.0,
    oldest: float = 0.0,
    pending: int = 0,
    events: int = 7,
) -> StatusReport:
    """One destination, to which so many stops were delivered since the start, and so many hook events."""
    return replace(
        REPORT,
        time=time,
        destinations=(
            DestinationReport(SinkReport("cc_rest", "cc-backend"), QueueReport("cc_rest", pending, 0, 0, oldest)),
        ),
        hooks=HooksReport(events, 1_799_999_999.0),
        samples=(deliveries("cc_rest", "stop", "delivered", delivered),),
    )


def delivered(history: History, now: float) -> list[int | None]:
    """The deliveries of each minute that has a point, and None for each gap after the first of them."""
    found = [point and point.destinations[0].delivered for point in history.points(now)]
    while found and found[0] is None:
        found.pop(0)
    return found


def test_before_the_first_minute_is_over_there_is_nothing() -> None:
    history = History()
    assert history.points(START) == (None,) * 60
    history.add(report(5), START)
    history.add(report(9), START + 59.9)
    assert history.points(START + 59.9) == (None,) * 60


def test_a_minute_has_what_was_delivered_in_it_and_what_waits_at_its_end() -> None:
    history = History()
    history.add(report(100), START)
    history.add(report(104), START + 30)
    history.add(report(112, time=1_800_000_060.0, oldest=1_799_999_160.0, pending=4, events=10), START + 61)
    points = history.points(START + 61)
    assert len(points) == 60
    assert points[:-1] == (None,) * 59
    assert points[-1] == Point((DestinationPoint("cc_rest", 900.0, 4, 12),), 3)
    assert history.events_a_minute == 3


def test_all_kinds_of_messages_count_and_other_answers_do_not() -> None:
    history, before = History(), report()
    history.add(before, START)
    samples = (
        deliveries("cc_rest", "start", "delivered", 2),
        deliveries("cc_rest", "stop", "delivered", 3),
        deliveries("cc_rest", "start", "rejected", 50),
        deliveries("cc_nats", "start", "delivered", 700),
        Sample("hook_events", (), 11),
    )
    history.add(replace(before, samples=samples), START + 60)
    assert delivered(history, START + 60) == [5]


def test_each_destination_has_its_own() -> None:
    nats = DestinationReport(SinkReport("cc_nats", "NATS"), QueueReport("cc_nats", 1, 0, 0, 1_799_999_990.0))
    both = replace(report(3), destinations=(*report().destinations, nats))
    history = History()
    history.add(both, START)
    history.add(replace(both, samples=(*both.samples, deliveries("cc_nats", "stop", "delivered", 8))), START + 60)
    point = history.points(START + 60)[-1]
    assert point is not None
    assert point.of("cc_nats") == DestinationPoint("cc_nats", 10.0, 1, 8)
    assert point.of("cc_rest") == DestinationPoint("cc_rest", 0.0, 0, 0)
    assert point.of("something_else") is None


def test_reports_may_come_often_and_late_in_a_minute() -> None:
    history = History()
    for second in range(0, 301, 5):
        history.add(report(second), START + second + 0.9 * (second > 0))
    assert delivered(history, START + 301) == [60, 60, 60, 60, 60]


def test_minutes_without_a_report_are_gaps_and_their_deliveries_are_in_no_other_minute() -> None:
    history = History()
    for minute, number in enumerate((0, 10, 20)):
        history.add(report(number), START + 60 * minute)
    history.add(report(500), START + 345)  # in the minute that began 300 s after the start
    history.add(report(510), START + 360)  # the beginning of that minute was not seen
    history.add(report(517), START + 420)
    assert delivered(history, START + 420) == [10, 10, None, None, None, None, 7]


def test_a_page_long_after_the_last_report_shows_the_gap() -> None:
    history = History()
    history.add(report(), START)
    history.add(report(9), START + 60)
    assert delivered(history, START + 240) == [9, None, None, None]
    assert delivered(history, START + 60 * 61) == []


def test_a_counter_that_begins_anew_counts_as_none() -> None:
    history = History()
    history.add(report(50), START)
    history.add(report(2), START + 60)
    history.add(report(5), START + 120)
    assert delivered(history, START + 120) == [0, 3]


def test_it_keeps_an_hour() -> None:
    history = History()
    for minute in range(200):
        history.add(report(minute * minute), START + 60 * minute)
    now = START + 60 * 199
    assert delivered(history, now) == [2 * minute + 1 for minute in range(139, 199)]
    assert len(history._points) <= MINUTES


@pytest.mark.parametrize("step", [-1e9, -3600.0, 3600.0])
def test_the_clock_may_be_set(step: float) -> None:
    history = History()
    history.add(report(1), START)
    history.add(report(4, time=1_800_000_060.0 + step, oldest=1_800_000_000.0, pending=1), START + 60)
    point = history.points(START + 60)[-1]
    assert point is not None
    assert point.destinations[0] == DestinationPoint("cc_rest", max(60.0 + step, 0.0), 1, 3)


def test_a_report_that_comes_out_of_order_changes_nothing() -> None:
    history = History()
    history.add(report(1), START)
    history.add(report(4), START + 60)
    history.add(report(400), START - 500)
    assert delivered(history, START + 60) == [3]


@given(st.lists(st.tuples(st.floats(0, 400), st.integers(0, 30)), max_size=80))
def test_whenever_reports_come_no_delivery_is_invented(reports: list[tuple[float, int]]) -> None:
    history, now, total = History(), START, 0
    for wait, more in reports:
        now, total = now + wait, total + more
        history.add(report(total), now)
        points = history.points(now)
        assert len(points) == MINUTES
        assert sum(point.destinations[0].delivered for point in points if point) <= total
