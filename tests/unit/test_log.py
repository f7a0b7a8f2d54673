"""When a line is logged again, how findings are logged, and how far long work has come."""

from __future__ import annotations

import logging

import pytest

from cc_slurm_adapter.log import REMIND, Progress, Reminder, log_findings
from cc_slurm_adapter.model import Finding


def test_short_work_is_not_mentioned_and_long_work_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    progress = Progress("reading", 100, clock=lambda: now[0])
    progress.say(1)
    assert caplog.messages == []
    for done in range(2, 50):
        now[0] += 1
        progress.say(done)
    assert 3 <= len(caplog.messages) <= 5
    assert "of 100" in caplog.messages[0]


def test_a_trouble_is_said_at_once_and_then_now_and_then() -> None:
    moments = [5.0, 6.0, 5.0 + REMIND - 1, 5.0 + REMIND, 6.0 + REMIND]
    reminder = Reminder(clock=iter(moments).__next__)
    assert [reminder.is_due() for _ in moments] == [True, False, False, True, False]


def test_a_trouble_of_another_kind_is_said_soon() -> None:
    said = [(0.0, "refused"), (5.0, "no token"), (11.0, "no token"), (30.0, "no token")]
    reminder = Reminder(clock=iter([*(when for when, _ in said), 31.0]).__next__)
    assert [reminder.is_due(about) for _, about in said] == [True, False, True, False]
    reminder.forget()
    assert reminder.is_due("no token")


def test_a_trouble_that_comes_and_goes_is_said_at_most_once_a_minute() -> None:
    moments = [0.0, 10.0, 59.0, 60.0, 61.0]
    reminder = Reminder(clock=iter(moments).__next__)
    said = [(reminder.is_due(), reminder.over()) for _ in moments]
    assert said == [(True, True), (False, False), (False, False), (True, True), (False, False)]


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
