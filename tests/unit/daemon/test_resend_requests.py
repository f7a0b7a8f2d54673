"""What may be asked for on the control socket, one at a time, and what is answered about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cc_slurm_adapter.daemon.resend_requests import (
    DONE,
    FAILED,
    UNDER_WAY,
    ResendReport,
    ResendRequest,
    ResendRequests,
    parse_wanted,
)
from cc_slurm_adapter.errors import UnderWay, UsageError
from cc_slurm_adapter.jobs.resend import SENT, Outcome
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.outbox.resends import Wanted
from cc_slurm_adapter.sinks.base import CC_REST


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(str(tmp_path / "state.sqlite"), {CC_REST: ""})
    yield made
    made.close()


def test_a_request_is_handed_on_and_its_report_can_be_read(outbox: Outbox) -> None:
    handed: list[ResendRequest] = []
    requests = ResendRequests("lab", handed.append, over_rest=True)
    assert requests.as_object() == {"id": 0, "state": "none", "failure": "", "runs": [], "next": None}
    answer = requests.answer(outbox.admin, {"job": 7, "after": [7, 1000]}, 0)
    (request,) = handed
    assert answer == {"id": request.id}
    assert (request.wanted, request.after, request.who) == (Wanted(job_id=7), (7, 1000), "uid 0: job 7")
    assert requests.as_object()["state"] == UNDER_WAY
    requests.ended(ResendReport(request.id, DONE, "", (Outcome(7, 1000, SENT, "x"),), (7, 1000)))
    assert requests.as_object() == {
        "id": request.id,
        "state": DONE,
        "failure": "",
        "runs": [{"job_id": 7, "start_time": 1000, "result": "sent", "text": "x"}],
        "next": [7, 1000],
    }


def test_one_is_done_at_a_time(outbox: Outbox) -> None:
    handed: list[ResendRequest] = []
    requests = ResendRequests("lab", handed.append, over_rest=True)
    first = requests.answer(outbox.admin, {"since": 5}, None)
    with pytest.raises(UnderWay, match="another resend is under way"):
        requests.answer(outbox.admin, {"since": 5}, None)
    requests.ended(ResendReport(first["id"], FAILED, "no answer"))
    assert requests.answer(outbox.admin, {"since": 5}, None)["id"] > first["id"]
    assert len(handed) == 2


def test_to_count_nothing_is_begun(outbox: Outbox) -> None:
    insert = "INSERT INTO run (cluster, job_id, start_time, stage, hosts, changed) VALUES (?, ?, ?, ?, '', 1)"
    rows = [("lab", 1, 10, "started"), ("lab", 1, 5, "done"), ("lab", 2, 10, "ignored"), ("other", 3, 10, "done")]
    outbox._state.write(lambda database: database.executemany(insert, rows))
    handed: list[ResendRequest] = []
    requests = ResendRequests("lab", handed.append, over_rest=True)
    assert requests.answer(outbox.admin, {"since": 1, "dry_run": True}, 0) == {"runs": 2, "jobs": 1}
    assert requests.answer(outbox.admin, {"job": 2, "dry_run": True}, 0) == {"runs": 0, "jobs": 0}
    assert (handed, requests.as_object()["state"]) == ([], "none")


def test_over_nats_nothing_can_be_removed(outbox: Outbox) -> None:
    requests = ResendRequests("lab", lambda request: None, over_rest=False)
    for words in ({"job": 1}, {"job": 1, "dry_run": True}):
        with pytest.raises(UsageError, match="over NATS nothing can be removed from cc-backend"):
            requests.answer(outbox.admin, words, 0)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({}, "nothing is selected: give a job, or since"),
        ({"job": "all"}, "nothing is selected"),
        ({"job": "1_4"}, "is no job id"),
        ({"since": -1}, "must be a number from 0"),
        ({"since": "soon"}, "must be a number from 0"),
        ({"job": 1, "jobs": 2}, "'jobs' is not understood"),
        ({"job": 1, "dry_run": 1}, "dry_run must be true or false"),
        *(({"job": 1, "after": after}, "after must be") for after in (3, [1], [1, "x"], [True, 1], [1, 2, 3])),
    ],
)
def test_what_is_not_understood_is_said(words: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        parse_wanted(words)


def test_a_job_and_a_time_may_be_given_together() -> None:
    assert parse_wanted({"job": "7", "since": 5}) == (Wanted(7, 5), (0, 0), False)
    assert str(Wanted(7, 5)) == "job 7, since 5"
