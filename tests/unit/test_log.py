"""When a line is logged again, how findings are logged, and how far long work has come."""

from __future__ import annotations

import logging

import pytest

from cc_slurm_adapter.log import (
    LASTING,
    MAX_KINDS,
    MAX_REASONS,
    NOTICE,
    REMIND,
    SOMETHING_ELSE,
    Progress,
    Reminder,
    Repeated,
    Work,
    log_findings,
)
from cc_slurm_adapter.model import Finding
from tests.fakes.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_short_work_is_not_mentioned_and_long_work_less_and_less_often(
    caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    caplog.set_level(NOTICE)
    progress = Progress("reading", 100_000, clock)
    progress.say(1)
    assert caplog.messages == []
    for done in range(1, 5001):  # 83 minutes
        clock.now += 1
        progress.say(done)
    # After 10, 30, 70, 150, 310, 630, 1270, 2550 s; then every 1800 s: 4350.
    assert [line.split()[1] for line in caplog.messages] == [
        *("10", "30", "70", "150", "310", "630", "1270", "2550", "4350")
    ]
    assert caplog.messages[0] == "reading: 10 of 100000"


def test_who_asks_is_told_how_far_work_is_and_that_it_is_over_however_it_ends(clock: Clock) -> None:
    told: list[tuple[str, Work | None]] = []
    with (
        pytest.raises(ValueError, match="broken"),
        Progress("reading", 9, clock, lambda what, work: told.append((what, work))) as progress,
    ):
        progress.say(4)
        raise ValueError("broken")
    assert [(what, work and (work.done, work.total)) for what, work in told] == [
        ("reading", (0, 9)),
        ("reading", (4, 9)),
        ("reading", None),
    ]


def moments(reminder: Reminder, clock: Clock, *when: float, about: str = "") -> list[float]:
    """Those of these seconds after the first at which a failure is logged."""
    began, logged = clock.now, []
    for seconds in when:
        clock.now = began + seconds
        if reminder.is_due(about):
            logged.append(seconds)
    return logged


def test_a_failure_is_logged_at_its_beginning_and_every_hour_with_how_long_it_lasts(clock: Clock) -> None:
    reminder = Reminder(clock)
    assert moments(reminder, clock, *range(0, 3600, 60)) == [0]
    assert reminder.note != ""
    clock.now += 60
    assert reminder.is_due()
    assert reminder.note == ", for 1 h now (61 failures)"
    clock.now += 3599
    assert not reminder.is_due()
    clock.now += 1
    assert reminder.is_due()
    assert reminder.note == ", for 2 h now (63 failures)"
    clock.now += 3600
    assert reminder.over()
    assert reminder.note == " after 3 h"
    assert not reminder.over()


def test_the_first_line_has_no_note(clock: Clock) -> None:
    reminder = Reminder(clock)
    assert reminder.is_due()
    assert reminder.note == ""


def test_another_reason_is_logged_soon_and_each_reason_once(clock: Clock) -> None:
    reminder = Reminder(clock)
    assert reminder.is_due("refused")
    clock.now += 5
    assert not reminder.is_due("no token")
    clock.now += 5
    assert reminder.is_due("no token")
    for _ in range(100):
        clock.now += 20
        assert not reminder.is_due("refused")
        assert not reminder.is_due("no token")
    reminder.forget()
    assert reminder.is_due("no token")


def test_however_many_reasons_there_are_few_are_logged(clock: Clock) -> None:
    reminder, logged = Reminder(clock), 0
    for number in range(1000):
        clock.now += SOMETHING_ELSE
        logged += reminder.is_due(str(number))
    assert logged == MAX_REASONS + 2  # 10,000 s: and two reminders


def test_a_failure_that_comes_and_goes_is_logged_less_and_less_often_and_at_last_how_often(clock: Clock) -> None:
    reminder, began = Reminder(clock), clock.now
    begins, ends = [], []
    for _ in range(12 * 60):  # for half a day it fails every minute, for half a minute
        if reminder.is_due():
            begins.append(clock.now - began)
        clock.now += 30
        if reminder.over():
            ends.append(clock.now - began)
        clock.now += 30
    # After 1, 2, 4, 8, 16, 32 minutes, then once an hour.
    assert begins[:8] == [0, 60, 180, 420, 900, 1860, 3780, 7380]
    assert len(begins) == 7 + (12 * 3600 - 1 - 3780) // 3600
    assert ends == [when + 30 for when in begins]
    assert reminder.is_due() is False
    clock.now += 30
    assert not reminder.over()
    # It last failed 30 s ago. When it has not failed for an hour, the rest of its failures are logged.
    clock.now += 3600
    assert reminder.over()
    left_out = int((clock.now - 3630 - began - begins[-1]) / 60)
    assert reminder.note == f" (failed {left_out} more times since the last such line)"
    assert not reminder.over()


def test_after_an_hour_without_a_failure_the_next_one_is_like_the_first(clock: Clock) -> None:
    reminder = Reminder(clock)
    for _ in range(10):
        assert reminder.is_due()
        assert reminder.over()
        clock.now += REMIND


def test_a_failure_that_lasts_is_logged_although_it_came_and_went_before(clock: Clock) -> None:
    reminder = Reminder(clock)
    for _ in range(120):
        reminder.is_due()
        clock.now += 30
        reminder.over()
        clock.now += 30
    logged = moments(reminder, clock, *range(0, 3600, 60))
    assert logged
    assert logged[0] <= LASTING
    assert "failed" in reminder.note or "failures" in reminder.note


def test_it_is_over_is_logged_only_if_the_failure_was(clock: Clock) -> None:
    reminder = Reminder(clock)
    assert not reminder.over()
    assert reminder.is_due()
    assert reminder.over()
    clock.now += 10
    assert not reminder.is_due()
    assert not reminder.over()


def test_what_is_repeated_without_an_end_is_logged_less_and_less_often(clock: Clock) -> None:
    lines, began, logged = Repeated(clock), clock.now, []
    for _ in range(6 * 360):  # every ten seconds for six hours
        if lines.is_due("garbage"):
            logged.append((clock.now - began, lines.note))
        clock.now += 10
    assert logged[:3] == [
        (0, ""),
        (60, " (5 more of this kind since the last such line)"),
        (180, " (11 more of this kind since the last such line)"),
    ]
    assert [when for when, _ in logged[3:]] == [420, 900, 1860, 3780, 7380, 10980, 14580, 18180]
    assert lines.is_due("refused")
    clock.now += REMIND
    assert lines.is_due("garbage")


def test_however_many_kinds_are_repeated_few_are_counted_separately(clock: Clock) -> None:
    lines = Repeated(clock)
    assert sum(lines.is_due(str(number)) for number in range(10 * MAX_KINDS)) == MAX_KINDS + 1


def test_findings_are_logged_at_their_levels_with_the_next_step_behind_the_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log_findings(
        Finding(logging.WARNING, "hooks", "it is not set", "set it"),
        Finding(logging.ERROR, "hooks", "100% is wrong", "Set another value"),
        Finding(logging.WARNING, "hooks", "all else works"),
    )
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "it is not set: set it"),
        ("ERROR", "100% is wrong. Set another value"),
        ("WARNING", "all else works"),
    ]
