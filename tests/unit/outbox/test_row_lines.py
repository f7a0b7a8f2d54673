"""What the log says of refused messages: a line for each reason, with their number, the first job and its hosts."""

from __future__ import annotations

import json
import logging

import pytest

from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox.row_lines import RowLines
from cc_slurm_adapter.sinks.base import Delivery, Kind
from cc_slurm_adapter.system.grouped_lines import AT_MOST_EVERY, MAX_GROUPS, SOON
from cc_slurm_adapter.system.outages import kind_of
from tests.fakes.clock import Clock

WHAT = "refused and parked"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(clock: Clock) -> RowLines:
    return RowLines("cc-backend", clock)


def delivery(job_id: int, *hosts: str, kind: Kind = Kind.START, payload: bytes | None = None) -> Delivery:
    body = json.dumps({"resources": [{"hostname": host} for host in hosts]}).encode()
    return Delivery(job_id, RunKey("lab", job_id, 1_000), kind, body if payload is None else payload, 0, 0.0)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Two answers that a real cc-backend gave (tests/recorded/cc_backend): they differ from job to job only in these parts.
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HTTP 400: invalid cluster name 'lab2'", "HTTP 400: invalid cluster name 'lab3'"),
        ("HTTP 400: host node0815 in no subcluster", "HTTP 400: host gpu-17.example in no subcluster"),
        ("HTTP 422: job 4711 of 2026", 'HTTP 422: job 1 of "x"'.replace('"x"', "12")),
    ],
)
def test_what_differs_from_job_to_job_is_no_other_reason(one: str, other: str) -> None:
    assert kind_of(one) == kind_of(other)


@pytest.mark.parametrize("other", ["HTTP 400: no resources", "HTTP 500: invalid cluster"])
def test_other_words_and_another_status_are_another_reason(other: str) -> None:
    assert kind_of("HTTP 400: invalid cluster") != kind_of(other)


def test_many_refusals_of_one_reason_are_two_lines(
    lines: RowLines, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for job_id in range(1, 73):
        lines.report(delivery(job_id, f"n{job_id}", "n100"), WHAT, f"HTTP 400: no subcluster for host n{job_id}")
    assert told(caplog) == [f"job 1 of lab (start 1000): start {WHAT}: cc-backend: HTTP 400: no subcluster for host n1"]
    clock.now += SOON - 1
    lines.report_due()
    assert len(told(caplog)) == 1
    clock.now += 1
    lines.report_due()
    assert told(caplog)[1:] == [
        f"71 more {WHAT}, the first of job 2 of lab (start 1000), on n2, n100: cc-backend:"
        " HTTP 400: no subcluster for host n2"
    ]


def test_a_reason_that_goes_on_is_told_hourly(lines: RowLines, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    seconds = 5 * AT_MOST_EVERY
    for number in range(int(seconds / 10)):
        clock.now += 10
        lines.report(delivery(number), WHAT, "HTTP 400: no")
        lines.report_due()
    assert len(told(caplog)) in (6, 7)  # the first, the ones after it, and one an hour


def test_a_reason_that_comes_back_much_later_is_told_at_once(
    lines: RowLines, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    lines.report(delivery(1), WHAT, "HTTP 400: no")
    clock.now += AT_MOST_EVERY
    lines.report_due()
    lines.report(delivery(2), WHAT, "HTTP 400: no")
    assert len(told(caplog)) == 2


def test_other_reasons_and_other_outcomes_have_lines_of_their_own(
    lines: RowLines, caplog: pytest.LogCaptureFixture
) -> None:
    lines.report(delivery(1), WHAT, "HTTP 400: no")
    lines.report(delivery(2), WHAT, "HTTP 400: never")
    lines.report(delivery(3), "not stored, another run of this job is", "HTTP 400: no")
    assert len(told(caplog)) == 3


def test_each_message_has_its_own_line_at_debug_3(lines: RowLines, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for job_id in (1, 2, 3):
        lines.report(delivery(job_id), WHAT, "HTTP 400: no")
    assert [f"job {job_id} of lab" in record.getMessage() for job_id, record in zip((1, 2, 3), caplog.records)] == [
        True
    ] * 3


def test_however_many_reasons_there_are_the_memory_is_bounded(
    lines: RowLines, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10 * MAX_GROUPS):
        word = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        lines.report(delivery(number), WHAT, f"HTTP 400: {word}")
    clock.now += SOON
    lines.report_due()
    assert len(lines._lines._groups) <= MAX_GROUPS + 1
    assert len(told(caplog)) == MAX_GROUPS + 1
    assert told(caplog)[-1].startswith(f"{9 * MAX_GROUPS} more {WHAT}")


@pytest.mark.parametrize("payload", [b"", b"no JSON", b"[]", b'{"resources": 5}', b'{"resources": [{}]}'])
def test_a_message_that_names_no_hosts_is_told_without(
    lines: RowLines, clock: Clock, caplog: pytest.LogCaptureFixture, payload: bytes
) -> None:
    for job_id in (1, 2):
        lines.report(delivery(job_id, payload=payload), WHAT, "HTTP 400: no")
    clock.now += SOON
    lines.report_due()
    assert told(caplog)[1] == f"1 more {WHAT}, the first of job 2 of lab (start 1000): cc-backend: HTTP 400: no"


def test_what_happens_to_many_runs_is_one_line_and_their_number(
    lines: RowLines, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(NOTICE)
    for job_id in range(1, 1001):
        lines.report_run(RunKey("lab", job_id, 1000), "removed from cc-backend to make room", level=NOTICE)
        lines.report_run(RunKey("lab", job_id, 1000), "cc-backend does not remove it", f"HTTP 403: not job {job_id}")
    clock.now += SOON
    lines.report_due()
    assert caplog.messages == [
        "job 1 of lab (start 1000): removed from cc-backend to make room",
        "job 1 of lab (start 1000): cc-backend does not remove it: HTTP 403: not job 1",
        "999 more runs, the first is job 2 of lab (start 1000): removed from cc-backend to make room",
        "999 more runs, the first is job 2 of lab (start 1000): cc-backend does not remove it: HTTP 403: not job 2",
    ]


def test_a_reason_that_comes_now_and_then_is_logged_once_an_hour(
    lines: RowLines, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(24 * 30):  # a day, with a refusal every two minutes
        lines.report(delivery(number), WHAT, "HTTP 400: no")
        clock.now += 120
        lines.report_due()
    assert len(told(caplog)) in (24, 25)
