"""Which windows of accounting are read, and which again."""

from __future__ import annotations

import pytest

from cc_slurm_adapter.jobs.accounting_windows import (
    AUDIT_EVERY,
    AUDIT_SPAN,
    AUDITS_AT_MOST,
    OVERLAP,
    WIDE_AUDIT_EVERY,
    WINDOW,
    AccountingWindows,
    Window,
)

NOW = 1_800_000_000
WEEK = 7 * 86400
POLL = 60


class Reader:
    """Reads accounting with every poll. `away` are spans in which sacct fails."""

    def __init__(self, max_span: int = WEEK) -> None:
        self.now = NOW
        self.since = NOW - POLL
        self.windows = AccountingWindows(max_span, NOW)
        self.forgotten_until = 0
        self.read: list[tuple[int, Window]] = []

    def poll(self, *, fails: bool = False) -> list[Window]:
        windows = self.windows.next(self.since, self.now, forgotten_until=self.forgotten_until)
        for window in () if fails else windows:
            self.windows.was_read(window)
            self.read.append((self.now, window))
        if not fails:
            self.since = self.now
        self.now += POLL
        return windows

    def poll_for(self, seconds: int) -> None:
        for _ in range(seconds // POLL):
            self.poll()

    def covers(self, since: int, until: int, read_after: int) -> bool:
        """Whether every moment between was read after a certain one."""
        spans = sorted((window.start, window.until) for when, window in self.read if when >= read_after)
        reached = since
        for start, end in spans:
            if start <= reached:
                reached = max(reached, end)
        return reached >= until


def test_new_accounting_is_read_from_the_oldest_on_and_at_most_an_hour_at_once() -> None:
    windows = [window for window in AccountingWindows(WEEK, NOW).next(NOW - 9000, NOW) if not window.is_audit]
    assert windows[0].start == NOW - 9000 - OVERLAP
    assert windows[-1].until == NOW
    assert all(before.until == after.start for before, after in zip(windows, windows[1:]))
    assert all(window.until - window.start <= WINDOW for window in windows)


def test_nothing_is_read_from_before_the_longest_span() -> None:
    windows = AccountingWindows(WEEK, NOW).next(0, NOW)
    assert min(window.start for window in windows) == NOW - WEEK


def test_six_hours_are_read_again_every_hour_and_everything_every_day() -> None:
    reader = Reader()
    reader.poll_for(3 * WIDE_AUDIT_EVERY)
    for hour in range(60):
        moment = NOW + hour * AUDIT_EVERY
        assert reader.covers(moment - AUDIT_SPAN + AUDIT_EVERY, moment, moment)
    for day in (1, 2):
        moment = NOW + day * WIDE_AUDIT_EVERY
        assert reader.covers(moment - WEEK + AUDIT_EVERY, moment, moment)


def test_audits_come_a_few_windows_at_a_time_and_cost_little_in_a_day() -> None:
    reader = Reader()
    while reader.now < NOW + WIDE_AUDIT_EVERY:
        assert len(reader.poll()) <= 1 + AUDITS_AT_MOST
    per_day = sum(1 for _, window in reader.read if window.is_audit)
    assert per_day <= 24 * (AUDIT_SPAN // WINDOW + 1) + WEEK // WINDOW + 1


def test_an_audit_that_fails_is_made_up_for() -> None:
    """slurmdbd is restarted every night, just when the audit begins."""
    reader = Reader()
    reader.poll_for(WIDE_AUDIT_EVERY - POLL)
    for _ in range(5):
        reader.poll(fails=True)
    moment = reader.now
    reader.poll_for(2 * AUDIT_EVERY)
    assert reader.covers(moment - WEEK + 2 * AUDIT_EVERY, moment, moment)


def test_a_longer_span_reads_nothing_again_that_may_be_forgotten() -> None:
    """Such runs would be taken for new ones. What is new is read all the same."""
    reader = Reader(WIDE_AUDIT_EVERY)
    reader.poll_for(WIDE_AUDIT_EVERY)
    reader.forgotten_until = reader.now - 3 * WIDE_AUDIT_EVERY
    reader.windows.max_span = WEEK
    moment = reader.now
    reader.poll_for(2 * WIDE_AUDIT_EVERY)
    assert min(window.start for _, window in reader.read) == reader.forgotten_until
    assert reader.covers(reader.forgotten_until, moment, moment)
    new = reader.windows.next(moment - WEEK + OVERLAP, moment, forgotten_until=reader.forgotten_until)
    assert new[0] == Window(moment - WEEK, moment - WEEK + WINDOW, is_audit=False)


def test_a_planned_window_is_dropped_if_its_runs_are_forgotten_meanwhile() -> None:
    reader = Reader()
    reader.poll_for(WIDE_AUDIT_EVERY + POLL)
    assert any(window.start < reader.now - AUDIT_SPAN for window in reader.windows._audit)
    reader.forgotten_until = reader.now - AUDIT_SPAN
    del reader.read[:]
    reader.poll_for(AUDIT_EVERY)
    assert min(window.start for _, window in reader.read) >= reader.forgotten_until


def test_what_was_forgotten_while_the_clock_was_ahead_puts_no_audit_off() -> None:
    reader = Reader()
    reader.forgotten_until = NOW + 365 * 86400
    reader.poll_for(2 * AUDIT_EVERY)
    assert any(window.is_audit for _, window in reader.read)


@pytest.mark.parametrize("years", [1, 2])
def test_a_clock_that_was_set_back_puts_no_audit_off(years: int) -> None:
    reader = Reader()
    reader.poll_for(AUDIT_EVERY)
    reader.now -= years * 365 * 86400
    reader.since = reader.now - POLL
    moment = reader.now + AUDIT_EVERY
    reader.poll_for(2 * AUDIT_EVERY)
    assert reader.covers(moment - AUDIT_SPAN + AUDIT_EVERY, moment, moment)
