"""An outage that several parts notice: which of them logs it, and when it is over."""

from __future__ import annotations

import pytest

from cc_slurm_adapter.log import MAX_REASONS, SOMETHING_ELSE
from cc_slurm_adapter.system.outages import STALE, Outages, cause_of
from tests.fakes.clock import Clock

REFUSED = "connection refused: nothing listens there"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outages(clock: Clock) -> Outages:
    return Outages(clock)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("squeue: slurm_load_jobs error: Unable to contact", "sinfo -h -N: slurm_load_node: Unable to contact"),
        ("squeue: slurmctld gave no answer within 90 s", "sinfo: slurmctld gave no answer within 91 s"),
        ("cc:443: connection refused: nothing listens there", "10.0.0.1:80: connection refused: nothing listens there"),
        ("cc-backend does not list jobs: HTTP 502: Bad Gateway", "HTTP 502: Bad Gateway"),
        ("HTTP 401: no token for 'a'", "cc-backend refuses the token (ccRestJwt): HTTP 401: no token for 'b'"),
    ],
)
def test_parts_that_meet_the_same_have_one_cause(one: str, other: str) -> None:
    assert cause_of(one) == cause_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("squeue: slurmctld gave no answer within 90 s", "sacct: slurmdbd gave no answer within 90 s"),
        ("HTTP 502: ", "HTTP 503: "),
        ("HTTP 500: database is locked", "HTTP 500: no such table"),
        ("squeue: Unable to contact slurm controller", "sacct: error: Connection refused"),
    ],
)
def test_what_is_another_fault_has_another_cause(one: str, other: str) -> None:
    assert cause_of(one) != cause_of(other)


def test_a_text_that_ends_with_a_colon_is_its_own_cause() -> None:
    assert cause_of("scontrol:") == "scontrol:"


def test_the_first_that_notices_logs_and_all_others_are_silent(outages: Outages, clock: Clock) -> None:
    assert outages.failed("nodes", f"a: {REFUSED}") == ""
    for _ in range(59):
        clock.now += 60
        assert outages.failed("jobs", f"b: {REFUSED}") is None
        assert outages.failed("nodes", f"a: {REFUSED}") is None
    clock.now += 60
    assert outages.failed("jobs", f"b: {REFUSED}") == ", for 1 h now (120 failures)"
    assert outages.failed("nodes", f"a: {REFUSED}") is None


def test_it_is_over_when_all_that_failed_work(outages: Outages, clock: Clock) -> None:
    outages.failed("nodes", REFUSED)
    outages.failed("jobs", REFUSED)
    clock.now += 180
    assert outages.works("nodes") is None
    assert outages.works("reading") is None
    assert outages.works("jobs") == " after 3 min"
    assert outages.works("jobs") is None


def test_it_is_over_when_one_works_that_has_surely_asked(outages: Outages, clock: Clock) -> None:
    outages.failed("nodes", REFUSED)
    outages.failed("jobs", REFUSED)
    clock.now += 180
    assert outages.works("rows", proves=True) is None  # it never failed because of that
    assert outages.works("jobs", proves=True) == " after 3 min"
    assert outages.works("nodes") is None


def test_what_is_not_tried_any_more_does_not_hold_it_open(outages: Outages, clock: Clock) -> None:
    outages.failed("hooks", REFUSED)
    clock.now += STALE / 2
    outages.failed("jobs", REFUSED)
    assert outages.works("jobs") is None
    clock.now += STALE / 2
    assert outages.works("jobs") == " after 30 min"


def test_a_failure_after_a_long_time_without_any_try_is_another_one(outages: Outages, clock: Clock) -> None:
    assert outages.failed("hooks", REFUSED) == ""
    clock.now += 5 * 3600
    assert outages.failed("hooks", REFUSED) == ""


def test_each_fault_is_logged_and_ends_by_itself(outages: Outages, clock: Clock) -> None:
    assert outages.failed("jobs", REFUSED) == ""
    assert outages.failed("reading", "no token") is None  # so soon after the first that it may be a part of it
    clock.now += SOMETHING_ELSE
    assert outages.failed("reading", "no token") == ""
    clock.now += 120
    assert outages.works("reading") == " after 2 min"
    assert outages.failed("jobs", REFUSED) is None


def test_a_part_that_fails_for_several_reasons_has_one_line_when_it_works(outages: Outages, clock: Clock) -> None:
    for reason in (REFUSED, "no answer in time", "HTTP 502: "):
        assert outages.failed("rows", reason) == ""
        clock.now += SOMETHING_ELSE
    assert outages.works("rows") == " after 30 s"
    assert outages.works("rows") is None


def test_however_many_causes_there_are_few_are_logged(outages: Outages, clock: Clock) -> None:
    logged = 0
    for number in range(100):
        clock.now += SOMETHING_ELSE
        word = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        logged += outages.failed("rows", f"reason {word}") is not None
    assert logged == MAX_REASONS + 1  # and one for all others
    assert outages.works("rows") is not None
    clock.now += 3600
    assert outages.failed("rows", "a new one") == ""
    clock.now += SOMETHING_ELSE
    assert outages.failed("rows", "and another one") == ""
