"""What every answer of cc-backend means."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest

from cc_slurm_adapter.errors import ConfigError, SinkError
from cc_slurm_adapter.model import End, EndState, NodeState, RunKey
from cc_slurm_adapter.sinks.base import Delivery, Kind, RunningRow, StoredRun, Verdict
from cc_slurm_adapter.sinks.http_client import HttpClient, HttpResponse
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import MAX_ROWS, PAGE, CcRest, CcRestConnection, judge
from cc_slurm_adapter.sinks.timeouts import AdaptiveTimeout
from examples.practice.cc_backend import CcBackend, Clock, LostAnswer, OtherAnswer, serving
from tests.fakes.slurm_and_sinks import NOW, make_run

ADDRESSES = ((re.compile("^node"), ("00000000:00:00.0", "00000000:01:00.0")),)


def error(status: int, text: str) -> HttpResponse:
    return HttpResponse(status, json.dumps({"status": "x", "error": text}).encode())


@pytest.mark.parametrize(
    ("kind", "answer", "verdict"),
    [
        (Kind.START, HttpResponse(201, b'{"msg":"success"}'), Verdict.DELIVERED),
        (Kind.STOP, HttpResponse(200, b'{"jobId":1}'), Verdict.DELIVERED),
        (
            Kind.START,
            error(500, "insert into database failed: UNIQUE constraint failed: job_cache.job_id"),
            Verdict.DELIVERED,
        ),
        (Kind.STOP, error(422, "jobId 1 on lab : job has already been stopped"), Verdict.DELIVERED),
        (Kind.STOP, error(422, "something else"), Verdict.REJECTED),
        (Kind.STOP, error(404, "finding job failed: sql: no rows in result set"), Verdict.UNKNOWN_RUN),
        (Kind.START, error(400, "no such cluster: nope"), Verdict.REJECTED),
        (Kind.STOP, error(400, "stopTime must be larger"), Verdict.REJECTED),
        (
            Kind.START,
            error(500, "insert into database failed: CHECK constraint failed: smt IN (0, 1)"),
            Verdict.REJECTED,
        ),
        (Kind.START, error(500, "insert into database failed: UNIQUE constraint failed: job.id"), Verdict.REJECTED),
        (Kind.START, error(401, "no user for secured check"), Verdict.MISCONFIGURED),
        (Kind.STOP, error(403, "forbidden"), Verdict.MISCONFIGURED),
        (Kind.START, HttpResponse(429, b"", "7"), Verdict.UNAVAILABLE),
        (Kind.START, HttpResponse(408, b"<html>"), Verdict.UNAVAILABLE),
        (Kind.START, HttpResponse(502, b"<html>"), Verdict.UNAVAILABLE),
        (Kind.STOP, HttpResponse(503, b""), Verdict.UNAVAILABLE),
        (Kind.STOP, HttpResponse(504, b""), Verdict.UNAVAILABLE),
        (Kind.START, HttpResponse(200, b"<html>welcome</html>"), Verdict.UNAVAILABLE),
        (Kind.START, error(500, "out of memory"), Verdict.FAILED),
        (Kind.STOP, error(500, "insert into database failed: x"), Verdict.FAILED),
        (Kind.STOP, HttpResponse(501, b""), Verdict.FAILED),
        (Kind.START, error(404, "the requested endpoint does not exist"), Verdict.MISCONFIGURED),
        (Kind.START, HttpResponse(405, b""), Verdict.MISCONFIGURED),
        (Kind.START, HttpResponse(301, b""), Verdict.MISCONFIGURED),
        (Kind.STOP, HttpResponse(308, b""), Verdict.MISCONFIGURED),
        (Kind.START, HttpResponse(413, b""), Verdict.TOO_LARGE),
        (Kind.STOP, HttpResponse(413, b""), Verdict.TOO_LARGE),
        (Kind.STOP, HttpResponse(405, b""), Verdict.REJECTED),
        (Kind.START, HttpResponse(418, b"teapot"), Verdict.REJECTED),
    ],
)
def test_every_answer_has_its_verdict(kind: Kind, answer: HttpResponse, verdict: Verdict) -> None:
    assert judge(kind, answer).verdict is verdict


def test_the_time_that_the_destination_names_is_kept() -> None:
    assert judge(Kind.START, HttpResponse(429, b"", "7")).retry_after == 7
    assert judge(Kind.START, HttpResponse(429, b"", "soon")).retry_after is None


@pytest.fixture
def backend() -> CcBackend:
    return CcBackend(clock=Clock(NOW))


@pytest.fixture
def sink(backend: CcBackend) -> Iterator[CcRest]:
    with serving(backend) as url:
        yield CcRest(url, lambda: backend.token)


def start_of(sink: CcRest, job_id: int = 1, start: int = NOW - 100, first_sent: float = 0.0) -> Delivery:
    run = make_run(job_id, start=start)
    return Delivery(1, run.key, Kind.START, CcMessages(ADDRESSES).encode_start(run).whole(), 0, first_sent)


def stop_of(sink: CcRest, job_id: int = 1, start: int = NOW - 100) -> Delivery:
    key = RunKey("lab", job_id, start)
    return Delivery(
        2,
        key,
        Kind.STOP,
        CcMessages(()).encode_stop(key, End(EndState.COMPLETED, start + 50, "COMPLETED")).whole(),
        0,
        0,
    )


def test_start_and_stop_arrive(backend: CcBackend, sink: CcRest) -> None:
    connection = sink.connect()
    assert connection.deliver(start_of(sink)).verdict is Verdict.DELIVERED
    assert connection.deliver(stop_of(sink)).verdict is Verdict.DELIVERED
    (row,) = backend.rows
    assert (row.state, row.stop_time) == ("completed", NOW - 50)
    connection.close()


def test_the_runs_of_one_job_are_found_by_when_they_began(backend: CcBackend, sink: CcRest) -> None:
    connection = sink.connect()
    for job_id, start in ((1, NOW - 100), (2, NOW - 100), (3, NOW - 90000)):
        assert connection.deliver(start_of(sink, job_id, start)).verdict is Verdict.DELIVERED
    assert connection.stored_runs("lab", 1, NOW - 200, NOW) == []  # not committed yet
    backend.commit()
    assert connection.deliver(stop_of(sink)).verdict is Verdict.DELIVERED
    assert connection.stored_runs("lab", 1, NOW - 100, NOW - 100) == [
        StoredRun(1, NOW - 100, "completed", 50, "alice", 1)
    ]
    assert connection.stored_runs("lab", 1, NOW - 99, NOW) == []
    assert connection.stored_runs("other", 1, NOW - 100, NOW) == []
    (running,) = connection.stored_runs("lab", 3, NOW - 90000, NOW)
    assert running.state == "running"
    connection.close()


def test_a_refused_start_that_is_stored_counts_as_delivered(backend: CcBackend, sink: CcRest) -> None:
    connection = sink.connect()
    connection.deliver(start_of(sink))
    backend.commit()
    answer = connection.deliver(start_of(sink))
    assert answer.verdict is Verdict.DELIVERED
    connection.close()


def test_a_refused_start_of_another_run_is_shadowed(backend: CcBackend, sink: CcRest) -> None:
    connection = sink.connect()
    connection.deliver(start_of(sink))
    backend.commit()
    assert connection.deliver(start_of(sink, start=NOW - 10)).verdict is Verdict.CONFLICT
    connection.close()


def test_nothing_is_concluded_from_a_list_that_may_be_too_young(
    backend: CcBackend, sink: CcRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = sink.connect()
    connection.deliver(start_of(sink))
    backend.commit()
    monkeypatch.setattr("cc_slurm_adapter.sinks.rest.time.time", lambda: NOW)
    assert connection.deliver(start_of(sink, start=NOW - 10, first_sent=NOW - 20)).verdict is Verdict.NOT_YET
    assert connection.deliver(start_of(sink, start=NOW - 10, first_sent=NOW - 999)).verdict is Verdict.CONFLICT
    connection.close()


def test_a_lost_answer_is_asked_for_again_and_doubles_nothing(backend: CcBackend, sink: CcRest) -> None:
    connection = sink.connect()
    backend.add_fault(LostAnswer(count=1))
    assert connection.deliver(start_of(sink)).verdict is Verdict.UNAVAILABLE
    assert connection.deliver(start_of(sink)).verdict is Verdict.DELIVERED
    assert len(backend.rows) == 1
    connection.close()


def test_the_running_list_is_read_in_pages(backend: CcBackend, sink: CcRest, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = sink.connect()
    for job_id in range(1, 8):
        connection.deliver(start_of(sink, job_id))
    backend.commit()
    monkeypatch.setattr("cc_slurm_adapter.sinks.rest.PAGE", 3)
    rows = list(connection.running_rows("lab"))
    assert sorted(rows) == [RunningRow(job_id, NOW - 100) for job_id in range(1, 8)]
    assert list(connection.running_rows("big")) == []
    assert connection.clusters().names == ["big", "lab"]
    connection.close()


class Lister(HttpClient):
    """Lists jobs as a test wants it, page by page, and counts the questions."""

    def __init__(self, page: Callable[[int], list[int]]) -> None:
        self.asked = 0
        self._page = page

    def request(self, method: str, path: str, body: bytes | None = None) -> HttpResponse:
        self.asked += 1
        jobs = [{"jobId": job_id, "startTime": 1} for job_id in self._page(self.asked)]
        return HttpResponse(200, json.dumps({"jobs": jobs}).encode())


@pytest.mark.parametrize(
    ("page", "asked"),
    [
        (lambda number: list(range(PAGE)), 2),
        (lambda number: list(range(PAGE)) if number % 2 else list(range(PAGE, 2 * PAGE)), 3),
        (lambda number: [7] * PAGE, 2),
    ],
    ids=["pages are ignored", "two pages in turn", "one row"],
)
def test_a_list_whose_pages_bring_nothing_new_is_an_error(page: Callable[[int], list[int]], asked: int) -> None:
    lister = Lister(page)
    with pytest.raises(SinkError, match="does not end"):
        list(CcRestConnection(lister).running_rows("lab"))
    assert lister.asked == asked


def test_a_list_that_grows_without_end_is_an_error_at_last() -> None:
    lister = Lister(lambda number: list(range(number * PAGE, (number + 1) * PAGE)))
    with pytest.raises(SinkError, match=f"more than {MAX_ROWS} jobs"):
        list(CcRestConnection(lister).running_rows("lab"))
    assert lister.asked == MAX_ROWS // PAGE


def test_rows_that_move_from_page_to_page_are_listed_once() -> None:
    pages = {1: list(range(PAGE)), 2: list(range(PAGE - 3, 2 * PAGE - 3)), 3: [0, 2 * PAGE]}
    rows = list(CcRestConnection(Lister(pages.__getitem__)).running_rows("lab"))
    assert [row.job_id for row in rows] == [*range(2 * PAGE - 3), 2 * PAGE]


def test_a_refused_start_is_looked_for_only_as_long_as_the_list_brings_something() -> None:
    class Refusing(Lister):
        def request(self, method: str, path: str, body: bytes | None = None) -> HttpResponse:
            return error(422, "found") if method == "POST" else super().request(method, path, body)

    run = make_run(7, start=NOW - 100)
    answer = CcRestConnection(Refusing(lambda number: list(range(PAGE)))).deliver(
        Delivery(1, run.key, Kind.START, b"{}", 0, 0.0)
    )
    assert answer.verdict is Verdict.UNAVAILABLE
    assert "does not end" in answer.reason


def test_whoever_sends_is_told_of_each_page_and_each_part(backend: CcBackend, sink: CcRest) -> None:
    """Each may take a minute: together they must not look like a thread that is stuck."""
    told: list[int] = []
    pages, missing = 20, Delivery(1, make_run(7, start=NOW).key, Kind.START, b"{}", 0, 0.0)

    class Refusing(Lister):
        def request(self, method: str, path: str, body: bytes | None = None) -> HttpResponse:
            return error(422, "found") if method == "POST" else super().request(method, path, body)

    full = Refusing(lambda number: list(range(number * PAGE, (number + 1) * PAGE)) if number < pages else [])
    answer = CcRestConnection(full, lambda: told.append(full.asked)).deliver(missing)
    assert answer.verdict is Verdict.CONFLICT
    assert told == list(range(pages + 1))
    connection = sink.connect(lambda: told.append(-1))
    connection.post_nodes("lab", many_nodes(20_000))
    assert told.count(-1) == len(backend.log) > 2
    connection.close()


def test_node_states_arrive(backend: CcBackend, sink: CcRest) -> None:
    connection = sink.connect()
    assert connection.post_nodes("lab", [NodeState("node01", ("idle",), 0, 0, 0)]).verdict is Verdict.DELIVERED
    assert backend.node_states["lab", "node01"].payload["states"] == ["idle"]
    connection.close()


def many_nodes(count: int) -> list[NodeState]:
    return [NodeState(f"node{number:05}", ("idle",), number, 0, 0) for number in range(count)]


def test_the_states_of_many_nodes_go_in_several_requests(backend: CcBackend, sink: CcRest) -> None:
    connection = sink.connect()
    assert connection.post_nodes("lab", many_nodes(20_000)).verdict is Verdict.DELIVERED
    assert len(backend.node_states) == 20_000
    assert backend.node_states["lab", "node19999"].payload["cpusAllocated"] == 19_999
    assert 2 < len(backend.log) < 10
    connection.close()


class BehindProxy(HttpClient):
    """A proxy that takes so many bytes, as nginx does it."""

    largest = 100_000
    refused = 0

    def request(self, method: str, path: str, body: bytes | None = None) -> HttpResponse:
        if body is not None and len(body) > self.largest:
            self.refused += 1
            return HttpResponse(413, b"<html>413 Request Entity Too Large</html>")
        return super().request(method, path, body)


def test_a_proxy_that_takes_less_gets_less_and_is_remembered(backend: CcBackend) -> None:
    with serving(backend) as url:
        client = BehindProxy(url, lambda: backend.token, AdaptiveTimeout())
        connection = CcRestConnection(client)
        for _ in range(2):
            assert connection.post_nodes("lab", many_nodes(3000)).verdict is Verdict.DELIVERED
            assert len(backend.node_states) == 3000
            assert client.refused == 3  # 512, 256 and 128 KiB
        connection.close()


def test_a_proxy_that_takes_nothing_is_told(backend: CcBackend) -> None:
    with serving(backend) as url:
        client = BehindProxy(url, lambda: backend.token, AdaptiveTimeout())
        client.largest = 1000
        connection = CcRestConnection(client)
        answer = connection.post_nodes("lab", many_nodes(3000))
        assert (answer.verdict, answer.reason[:8]) == (Verdict.TOO_LARGE, "HTTP 413")
        assert client.refused == 6
        connection.close()


def test_a_new_token_is_read_after_a_refusal(backend: CcBackend) -> None:
    tokens = iter(["old", backend.token])
    with serving(backend) as url:
        sink = CcRest(url, lambda: next(tokens))
        connection = sink.connect()
        assert connection.deliver(start_of(sink)).verdict is Verdict.DELIVERED
        assert [request.status for request in backend.log] == [401, 201]
        connection.close()


def test_a_renewed_token_is_read_once_by_each_connection_before_its_next_request(backend: CcBackend) -> None:
    tokens: list[str] = []

    def read_token() -> str:
        tokens.append(backend.token)
        return backend.token

    with serving(backend) as url:
        sink = CcRest(url, read_token)
        connections = [sink.connect(), sink.connect()]
        for _ in range(2):
            backend.token += "-new"
            sink.renew_token()
            for _ in range(2):
                assert [list(each.running_rows("lab")) for each in connections] == [[], []]
        for each in connections:
            each.close()
    assert len(tokens) == 4
    assert {request.status for request in backend.log} == {200}


def test_a_token_that_is_not_refused_is_kept_while_another_one_cannot_be_read(backend: CcBackend) -> None:
    tokens = [backend.token]

    def read_token() -> str:
        if not tokens:
            raise ConfigError(["ccRestJwtFile: gone"])
        return tokens.pop()

    with serving(backend) as url:
        sink = CcRest(url, read_token)
        connection = sink.connect()
        assert list(connection.running_rows("lab")) == []
        sink.renew_token()
        assert list(connection.running_rows("lab")) == []
        backend.token += "-new"
        with pytest.raises(SinkError, match="401"):
            list(connection.running_rows("lab"))
        with pytest.raises(SinkError, match="ccRestJwtFile: gone"):
            list(connection.running_rows("lab"))
        connection.close()


def test_a_token_that_cannot_be_read_is_a_failure_of_the_sink(backend: CcBackend) -> None:
    def read_token() -> str:
        raise ConfigError(["ccRestJwtFile: gone"])

    with serving(backend) as url:
        sink = CcRest(url, read_token)
        answer = sink.connect().deliver(start_of(sink))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert "ccRestJwtFile" in answer.reason


def test_a_list_that_is_refused_is_an_error(backend: CcBackend, sink: CcRest) -> None:
    connection = sink.connect()
    backend.add_fault(OtherAnswer(status=500))
    with pytest.raises(SinkError, match="500"):
        list(connection.running_rows("lab"))
    connection.close()


def test_nobody_there_is_a_failure_of_the_sink() -> None:
    sink = CcRest("http://127.0.0.1:9", lambda: "token")
    answer = sink.connect().deliver(start_of(sink))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert "127.0.0.1:9" in answer.reason


def test_an_answer_without_end_is_refused(backend: CcBackend, sink: CcRest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cc_slurm_adapter.sinks.http_client.RESPONSE_LIMIT", 1000)
    connection = sink.connect()
    backend.add_fault(OtherAnswer(status=200, body=b"x" * 100_000))
    answer = connection.deliver(start_of(sink))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert "longer than 1000 bytes" in answer.reason
    connection.close()
