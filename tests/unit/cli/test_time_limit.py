"""The time that -check may take: what hangs is left behind, and nothing that was found before is lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from cc_slurm_adapter.cli.time_limit import LONGEST, TimeLimit
from cc_slurm_adapter.model import Finding

GOOD = Finding(logging.INFO, "ccRestUrl", "it answers")


class Clock:
    """A clock that moves on with each look by a number of seconds."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_what_ends_in_time_is_passed_on() -> None:
    pulses: list[None] = []
    limit = TimeLimit(lambda: pulses.append(None))
    assert list(limit.apply("cc-backend", lambda: [GOOD, GOOD])) == [GOOD, GOOD]
    assert list(limit.apply("NATS", list)) == []
    assert pulses


def test_what_hangs_is_left_behind_with_a_warning_and_what_it_had_found() -> None:
    release = threading.Event()

    def find() -> Iterator[Finding]:
        yield GOOD
        release.wait()

    try:
        first, *rest = TimeLimit(lambda: None, Clock(LONGEST / 10)).apply("NATS", find)
    finally:
        release.set()
    assert first == GOOD
    assert [(each.level, each.subject) for each in rest] == [(logging.WARNING, "NATS")]
    assert rest[0].text.startswith("has not answered")
    assert rest[0].next_step


def test_after_the_time_nothing_more_is_asked() -> None:
    limit = TimeLimit(lambda: None, Clock(LONGEST + 1))
    (found,) = limit.apply("NATS", lambda: pytest.fail("it must not be asked"))
    assert found.level == logging.WARNING
    assert found.text.startswith("not asked")


def test_an_error_is_raised_after_what_was_found() -> None:
    def find() -> Iterator[Finding]:
        yield GOOD
        raise KeyError("surprise")

    found = TimeLimit(lambda: None).apply("NATS", find)
    assert next(found) == GOOD
    with pytest.raises(KeyError):
        next(found)
