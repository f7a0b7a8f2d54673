"""The routes: what each asks of the daemon, and who may change what. The source here is a fake."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.daemon.control import (
    CONTROL_ROUTES,
    METRICS_ROUTES,
    Control,
    parse_object,
)
from cc_slurm_adapter.daemon.http_message import Request, Response
from cc_slurm_adapter.daemon.report import StatusReport, from_json
from cc_slurm_adapter.errors import ConfigError, StateError, UnderWay, UsageError
from cc_slurm_adapter.jobs.report import SyncReport
from tests.fakes.statuses import REPORT

OTHER_UID = os.geteuid() + 4242


class FakeSource:
    """Answers what the test says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.error: Exception | None = None
        self.reasons: list[str] = []

    def _answer(self, *asked: object) -> dict[str, Any]:
        self.asked.append(asked)
        if self.error:
            raise self.error
        return {"messages": 3}

    def collect(self) -> StatusReport:
        self._answer("collect")
        return REPORT

    def queue_list(self, query: dict[str, str]) -> dict[str, Any]:
        return self._answer("list", query)

    def queue_retry(self, selection: dict[str, Any], uid: int | None) -> dict[str, Any]:
        return self._answer("retry", selection)

    def queue_drop(self, selection: dict[str, Any], uid: int | None) -> dict[str, Any]:
        return self._answer("drop", selection)

    def reload(self, uid: int | None) -> dict[str, Any]:
        return self._answer("reload", uid)

    def resend(self, words: dict[str, Any], uid: int | None) -> dict[str, Any]:
        self._answer("resend", words, uid)
        return {"runs": 2, "jobs": 1} if words.get("dry_run") else {"id": 17}

    def resend_report(self) -> dict[str, Any]:
        return self._answer("resend_report")

    def job(self, job_id: int) -> dict[str, Any]:
        return self._answer("job", job_id)

    def sync(self, wanted: dict[str, Any], uid: int | None) -> SyncReport:
        self._answer("sync", wanted, uid)
        return SyncReport(began=1.5, since=5, until=9)

    def stop_sync(self) -> SyncReport:
        self._answer("stop")
        return SyncReport(began=1.5, found=3)

    def metrics(self) -> str:
        return "up 1\n"

    def page(self) -> str:
        return "<!doctype html>é"

    def healthy(self) -> list[str]:
        return self.reasons

    def ready(self) -> list[str]:
        return self.reasons


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


def get(source: FakeSource, path: str, query: dict[str, str] | None = None, *, metrics: bool = False) -> Response:
    routes = METRICS_ROUTES if metrics else CONTROL_ROUTES
    return Control(source, routes)(Request("GET", path, query or {}, b"", None if metrics else OTHER_UID))


def post(source: FakeSource, path: str, body: bytes, uid: int | None = 0) -> Response:
    return Control(source, CONTROL_ROUTES)(Request("POST", path, {}, body, uid))


def said(response: Response) -> str:
    """The error of a response."""
    found = json.loads(response.body)
    assert found["version"] == 1
    return str(found["error"])


def test_status_is_the_report(source: FakeSource) -> None:
    response = get(source, "/status")
    assert (response.status, response.content_type) == (200, "application/json")
    assert from_json(response.body.decode()) == REPORT


def test_the_queue_is_asked_with_the_query(source: FakeSource) -> None:
    query = {
        "state": "parked",
        "reason": "x",
        "sink": "cc_rest",
        "cluster": "lab",
        "job": "7",
        "limit": "2",
        "after": "9",
    }
    response = get(source, "/queue", query)
    assert json.loads(response.body) == {"version": 1, "messages": 3}
    assert source.asked == [("list", query)]


@pytest.mark.parametrize(("path", "job_id"), [("/jobs/1", 1), ("/jobs/0004711", 4711), ("/jobs/2147483647", 2**31 - 1)])
def test_a_job(source: FakeSource, path: str, job_id: int) -> None:
    assert get(source, path).status == 200
    assert source.asked == [("job", job_id)]


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.0", "²", " 1", "2147483648", "9" * 5000])
def test_what_is_no_job_id(source: FakeSource, text: str) -> None:
    response = get(source, f"/jobs/{text}")
    assert response.status == 400
    assert "expected a job id" in said(response)
    assert source.asked == []


@pytest.mark.parametrize(
    "path", ["/", "/jobs/", "/jobs", "/jobs/1/", "/jobs/1/2", "/status/", "/Status", "/queue/x", "//status"]
)
def test_no_such_path(source: FakeSource, path: str) -> None:
    response = get(source, path)
    assert response.status == 404
    assert "/jobs/ID" in said(response)
    assert source.asked == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/status", "GET, HEAD"),
        ("POST", "/jobs/1", "GET, HEAD"),
        ("GET", "/queue/drop", "POST"),
        ("GET", "/sync", "POST"),
        ("DELETE", "/sync/stop", "POST"),
        ("GET", "/queue/retry", "POST"),
    ],
)
def test_another_method(source: FakeSource, method: str, path: str, allowed: str) -> None:
    response = Control(source, CONTROL_ROUTES)(Request(method, path, {}, b"", 0))
    assert response.status == 405
    assert response.headers == (("Allow", allowed),)
    assert source.asked == []


@pytest.mark.parametrize("what", ["retry", "drop"])
@pytest.mark.parametrize("uid", [0, os.geteuid()])
def test_root_and_the_daemons_user_may_change(source: FakeSource, what: str, uid: int) -> None:
    response = post(source, f"/queue/{what}", b'{"job": 4711, "state": "parked"}', uid)
    assert json.loads(response.body) == {"version": 1, "messages": 3}
    assert source.asked == [(what, {"job": 4711, "state": "parked"})]


@pytest.mark.parametrize("what", ["retry", "drop"])
@pytest.mark.parametrize("uid", [OTHER_UID, None])
def test_nobody_else_may_change(source: FakeSource, what: str, uid: int | None) -> None:
    response = post(source, f"/queue/{what}", b'{"all": true}', uid)
    assert response.status == 403
    assert f"changes are up to root and the daemon's own user (uid {os.geteuid()})" in said(response)
    assert source.asked == []


@pytest.mark.parametrize("body", [b"", b"{}", b"whatever"])
@pytest.mark.parametrize("uid", [0, os.geteuid()])
def test_root_and_the_daemons_user_may_reload(source: FakeSource, body: bytes, uid: int) -> None:
    response = post(source, "/reload", body, uid)
    assert (response.status, json.loads(response.body)) == (202, {"version": 1, "messages": 3})
    assert source.asked == [("reload", uid)]


@pytest.mark.parametrize("uid", [OTHER_UID, None])
def test_nobody_else_may_reload(source: FakeSource, uid: int | None) -> None:
    assert post(source, "/reload", b"", uid).status == 403
    assert get(source, "/reload").status == 405
    assert source.asked == []


def test_a_broken_configuration_is_answered_with_all_its_problems(source: FakeSource) -> None:
    source.error = ConfigError(["/c: ccPollInterval: no", "/c: ignoreUsers: neither"])
    response = post(source, "/reload", b"")
    assert response.status == 400
    assert json.loads(response.body)["problems"] == ["/c: ccPollInterval: no", "/c: ignoreUsers: neither"]
    assert said(response) == (
        "the configuration is refused, the one before stays in force; everything is tried again: /c: ccPollInterval:"
        " no; /c: ignoreUsers: neither"
    )


def test_all_messages_must_be_asked_for(source: FakeSource) -> None:
    assert post(source, "/queue/drop", b'{"all": true}').status == 200
    assert source.asked == [("drop", {"all": True})]


def test_a_change_is_done_in_steps(source: FakeSource) -> None:
    body = {"state": "following,parked", "after": ["lab", 7, 9], "until": 12, "dry_run": True}
    assert post(source, "/queue/retry", json.dumps(body).encode()).status == 200
    assert source.asked == [("retry", body)]


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"\xff", b"{", b"[" * 60_000, b'"x"'])
def test_a_body_that_is_no_object(source: FakeSource, body: bytes) -> None:
    response = post(source, "/queue/drop", body)
    assert response.status == 400
    assert said(response).startswith("expected a JSON object")
    assert source.asked == []


@given(st.binary(max_size=200))
def test_any_body_is_an_object_or_refused(body: bytes) -> None:
    try:
        assert isinstance(parse_object(body), dict)
    except UsageError as error:
        assert str(error)


@pytest.mark.parametrize("path", ["/status", "/queue", "/jobs/1"])
def test_errors_of_the_source(source: FakeSource, path: str) -> None:
    source.error = UsageError("after: this is no row")
    assert (get(source, path).status, said(get(source, path))) == (400, "after: this is no row")
    source.error = StateError("the state file is busy: try again")
    assert (get(source, path).status, said(get(source, path))) == (503, "the state file is busy: try again")
    source.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):  # the server answers 500 and logs it
        get(source, path)


@pytest.mark.parametrize("metrics", [False, True])
@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
def test_health(source: FakeSource, path: str, *, metrics: bool) -> None:
    response = get(source, path, metrics=metrics)
    assert (response.status, response.body, response.content_type) == (200, b"OK\n", "text/plain; charset=utf-8")
    source.reasons = ["slurmctld does not answer", "cc-backend:\nrefused"]
    response = get(source, path, metrics=metrics)
    assert (response.status, response.body) == (503, b"slurmctld does not answer\ncc-backend:\\nrefused\n")


@pytest.mark.parametrize("metrics", [False, True])
def test_metrics(source: FakeSource, *, metrics: bool) -> None:
    response = get(source, "/metrics", metrics=metrics)
    assert (response.status, response.body) == (200, b"up 1\n")
    assert response.content_type == "text/plain; version=0.0.4; charset=utf-8"


def test_the_page_may_load_nothing(source: FakeSource) -> None:
    response = get(source, "/", metrics=True)
    assert (response.body, response.content_type) == ("<!doctype html>é".encode(), "text/html; charset=utf-8")
    assert dict(response.headers) == {
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


@pytest.mark.parametrize(
    "path",
    ["/status", "/queue", "/jobs/1", "/queue/retry", "/queue/drop", "/reload", "/resend", "/sync", "/sync/stop"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_metrics_listen_has_nothing_with_names_and_nothing_to_change(
    source: FakeSource, method: str, path: str
) -> None:
    response = Control(source, METRICS_ROUTES)(Request(method, path, {}, b'{"all": true}', 0))
    assert response.status == 404
    assert source.asked == []


def test_every_route_is_documented_and_no_other() -> None:
    text = (Path(__file__).parents[3] / "docs" / "control-api.md").read_text(encoding="utf-8")
    table = text.split("\n## Routes\n")[1].split("\n## ")[0]
    listed = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert listed == [f"{route.method} {route.path}" for route in CONTROL_ROUTES]


def test_a_resend_is_begun_and_its_outcome_is_asked_for(source: FakeSource) -> None:
    begun = post(source, "/resend", b'{"job": 7}', 0)
    assert (begun.status, json.loads(begun.body)) == (202, {"version": 1, "id": 17})
    counted = post(source, "/resend", b'{"job": 7, "dry_run": true}', 0)
    assert (counted.status, json.loads(counted.body)) == (200, {"version": 1, "runs": 2, "jobs": 1})
    assert get(source, "/resend").status == 200
    assert source.asked[0] == ("resend", {"job": 7}, 0)
    assert source.asked[-1] == ("resend_report",)


def test_a_resend_while_another_is_under_way_is_a_conflict(source: FakeSource) -> None:
    source.error = UnderWay("another is under way")
    response = post(source, "/resend", b'{"job": 7}')
    assert (response.status, said(response)) == (409, "another is under way")


def test_only_root_and_the_daemons_user_may_begin_a_resend(source: FakeSource) -> None:
    assert post(source, "/resend", b'{"job": 7}', OTHER_UID).status == 403
    assert source.asked == []


def test_a_sync_is_accepted_and_can_be_stopped(source: FakeSource) -> None:
    accepted = post(source, "/sync", b'{"since": 5, "until": 9}')
    assert accepted.status == 202
    found = json.loads(accepted.body)
    assert (found["version"], found["began"], found["since"], found["until"], found["ended"]) == (1, 1.5, 5, 9, 0)
    stopped = post(source, "/sync/stop", b"{}")
    assert (stopped.status, json.loads(stopped.body)["found"]) == (200, 3)
    assert source.asked == [("sync", {"since": 5, "until": 9}, 0), ("stop",)]


def test_a_second_sync_is_refused_with_the_first_one(source: FakeSource) -> None:
    source.error = UnderWay("a sync is under way")
    refused = post(source, "/sync", b'{"job": 7}')
    assert refused.status == 409
    assert said(refused) == "a sync is under way"


def test_a_sync_is_up_to_root_and_the_daemon_s_user(source: FakeSource) -> None:
    for path in ("/sync", "/sync/stop"):
        assert post(source, path, b"{}", OTHER_UID).status == 403
    assert source.asked == []
