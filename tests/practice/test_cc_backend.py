"""The stand-in cc-backend against what a real one answered, and what it can do beyond that."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from examples.practice.cc_backend import (
    DEFAULT_TOKEN,
    CcBackend,
    CcBackendServer,
    Clock,
    Clusters,
    CutAnswer,
    Delay,
    Dropped,
    Fault,
    LostAnswer,
    NoAnswer,
    OtherAnswer,
    RowKey,
    Rubbish,
    html_page,
    main,
    refused_jobs,
    rest_start_off,
    serving,
    too_many_requests,
)

ROOT = Path(__file__).parents[2]
CONTRACT = Path(__file__).parents[1] / "recorded" / "cc_backend"
START = "/api/jobs/start_job/"
STOP = "/api/jobs/stop_job/"
NODES = "/api/nodestate/"
T0 = 1_800_000_000
DAY = 86400
CUT_AT = 300
"""Characters of an answer that the recordings keep."""


class Reply(NamedTuple):
    status: int
    content_type: str | None
    text: str
    headers: Mapping[str, str]

    @property
    def error(self) -> str:
        error: str = json.loads(self.text)["error"]
        return error


class Client:
    """One keep-alive connection."""

    def __init__(self, url: str, timeout: float = 5.0) -> None:
        address = urlsplit(url)
        assert address.hostname
        self._connection = http.client.HTTPConnection(address.hostname, address.port, timeout=timeout)

    def close(self) -> None:
        self._connection.close()

    def send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        try:
            self._connection.request(method, path, body, dict(headers))
            response = self._connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        return Reply(response.status, response.getheader("Content-Type"), text, dict(response.getheaders()))

    def post(self, path: str, document: object) -> Reply:
        return self.send("POST", path, json.dumps(document).encode(), {"X-AUTH-TOKEN": DEFAULT_TOKEN})

    def get(self, path: str) -> Reply:
        return self.send("GET", path, None, {"X-AUTH-TOKEN": DEFAULT_TOKEN})

    def start(self, job_id: int, start_time: int = T0, **fields: object) -> Reply:
        return self.post(START, start_of(job_id, start_time, **fields))

    def stop(self, job_id: int, start_time: int = T0, **fields: object) -> Reply:
        request = {"cluster": "lab", "jobId": job_id, "startTime": start_time, "stopTime": start_time + 60}
        return self.post(STOP, {**request, "jobState": "completed", **fields})

    def listed(self, query: str = "") -> list[int]:
        """Job ids of a listing."""
        reply = self.get(f"/api/jobs/?{query}")
        assert reply.status == 200
        return [job["jobId"] for job in json.loads(reply.text)["jobs"]]


def start_of(job_id: int, start_time: int = T0, **fields: object) -> dict[str, object]:
    request = {
        "cluster": "lab",
        "jobId": job_id,
        "user": "alice",
        "project": "proj",
        "numNodes": 1,
        "startTime": start_time,
        "resources": [{"hostname": "node01"}],
    }
    return {**request, **fields}


@pytest.fixture
def clock() -> Clock:
    return Clock(start=T0)


@pytest.fixture
def backend(clock: Clock) -> CcBackend:
    return CcBackend(clock=clock)


@pytest.fixture
def url(backend: CcBackend) -> Iterator[str]:
    with serving(backend) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with contextlib.closing(Client(url)) as client:
        yield client


# What a real cc-backend answered


class Exchange(NamedTuple):
    """One exchange with a real cc-backend; `answer` is cut at CUT_AT characters."""

    name: str
    note: str
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    status: int
    content_type: str | None
    answer: str


def read_exchanges() -> list[Exchange]:
    recorded = json.loads((CONTRACT / "exchanges.json").read_text(encoding="utf-8"))
    return [Exchange(**exchange) for exchange in recorded]


def request_body(exchange: Exchange, plain: dict[str, object]) -> bytes | None:
    """The bytes that were sent; `plain` is the request that was made larger where they were too many to keep."""
    if exchange.body is None:
        return None
    if isinstance(exchange.body, dict):
        return json.dumps(exchange.body).encode()
    large = re.fullmatch(r"\((\d+) MB in metaData\.jobScript\)", exchange.body)
    if not large:
        return bytes(exchange.body.encode())
    megabytes = int(large.group(1))
    script = "#" * (megabytes * 1024 * 1024)
    return json.dumps({**plain, "jobId": megabytes, "metaData": {"jobScript": script}}).encode()


def comparable(text: str) -> str:
    """An answer without row numbers, which depend on what was stored before."""
    return re.sub(r"(\(id |dbid: )\d+", r"\1N", text)


def differences(exchange: Exchange, reply: Reply) -> Iterator[str]:
    if (reply.status, reply.content_type) != (exchange.status, exchange.content_type):
        yield f"{exchange.name}: {reply.status} {reply.content_type} {reply.text[:CUT_AT]}"
    if exchange.content_type == "application/json":
        ours, theirs = comparable(reply.text), comparable(exchange.answer)
        if len(exchange.answer) == CUT_AT:
            ours = ours[: len(theirs)]
        if ours != theirs:
            yield f"{exchange.name}: {ours} instead of {theirs}"
    elif not exchange.answer:
        if reply.text:
            yield f"{exchange.name}: {reply.text} instead of nothing"
    elif not reply.text.startswith("<!DOCTYPE html>"):
        yield f"{exchange.name}: no page"


def test_answers_like_the_real_one_in_all_recorded_exchanges() -> None:
    exchanges = read_exchanges()
    assert len(exchanges) == 100
    clock = Clock(start=exchanges[0].body["startTime"] + 1000)
    found: list[str] = []
    with serving(CcBackend(clock=clock)) as url, contextlib.closing(Client(url)) as client:
        for exchange in exchanges:
            if exchange.name == "running list":
                # By then the commit worker had run: the first job that the recording lists came by a
                # start that nothing else took out of the cache.
                clock.advance(120)
            headers = {name: value.replace("<jwt>", DEFAULT_TOKEN) for name, value in exchange.headers.items()}
            body = request_body(exchange, plain=exchanges[0].body)
            reply = client.send(exchange.method, exchange.path, body, headers)
            found += differences(exchange, reply)
    assert found == []


def test_row_numbers_are_given_as_by_sqlite() -> None:
    """The recording shows a number given out again that a stop had freed in the job cache."""
    exchanges = {exchange.name: exchange for exchange in read_exchanges()}
    names = list(exchanges)
    wanted = exchanges["stop before start"]
    with serving(CcBackend()) as url, contextlib.closing(Client(url)) as client:
        for name in names[: names.index("stop before start") + 1]:
            reply = client.post(exchanges[name].path, exchanges[name].body)
    assert reply.text == wanted.answer
    assert "(id 3)" in wanted.answer


def test_takes_the_requests_of_the_existing_adapter(backend: CcBackend, client: Client) -> None:
    requests = json.loads((CONTRACT / "existing-adapter-requests.json").read_text(encoding="utf-8"))
    assert len(requests) == 6
    # Job 2 had been reported before the recording began.
    client.start(2, 1795340384)
    statuses = [client.post(request["path"], request["body"]).status for request in requests]
    assert statuses == [request["status"] for request in requests]
    assert [row.job_id for row in backend.rows] == [2, 9, 15, 18, 21]
    assert backend.rows_of(2)[0].stop_time == 1795340393
    assert backend.rows_of(15)[0].start["arrayJobId"] == 12
    assert backend.node_states["lab", "node03"].payload["states"] == ["MIXED"]


RESOURCES = "Resource.resources"
LINKS = "JobLink.concurrentJobs"


@pytest.mark.parametrize(
    ("path", "body", "value", "field", "go_type"),
    [
        # What Go 1.26 printed for the types of cc-backend 1.5.4.
        (START, '{"resources":[{"hostname":1}]}', "number", f"{RESOURCES}.hostname", "string"),
        (START, '{"resources":{}}', "object", "Job.resources", "[]*schema.Resource"),
        (START, '{"resources":[1]}', "number", "Job.resources", "schema.Resource"),
        (START, '{"resources":[{"hwthreads":[1.5]}]}', "number 1.5", f"{RESOURCES}.hwthreads", "int"),
        (START, '{"resources":[{"hwthreads":3}]}', "number", f"{RESOURCES}.hwthreads", "[]int"),
        (START, '{"numNodes":1.0}', "number 1.0", "Job.numNodes", "int32"),
        (START, '{"numNodes":3000000000}', "number 3000000000", "Job.numNodes", "int32"),
        (START, '{"jobId":9223372036854775808}', "number 9223372036854775808", "Job.jobId", "int64"),
        (START, '{"jobId":true}', "bool", "Job.jobId", "int64"),
        (START, '{"metaData":[]}', "array", "Job.metaData", "map[string]string"),
        (START, '{"jobState":1}', "number", "Job.jobState", "schema.JobState"),
        (START, '{"energy":"1"}', "string", "Job.energy", "float64"),
        (START, '{"concurrentJobs":{"items":[{"id":"x"}]}}', "string", f"{LINKS}.items.id", "int64"),
        (START, '"x"', "string", "", "schema.Job"),
        (STOP, '{"startTime":"a"}', "string", "StopJobAPIRequest.startTime", "int64"),
        (STOP, "[]", "array", "", "api.StopJobAPIRequest"),
        (NODES, '{"nodes":{}}', "object", "UpdateNodeStatesRequest.nodes", "[]schema.NodePayload"),
        (NODES, '{"nodes":[{"states":"IDLE"}]}', "string", "NodePayload.nodes.states", "[]string"),
    ],
)
def test_wrong_types_are_refused_in_the_words_of_go(
    client: Client, path: str, body: str, value: str, field: str, go_type: str
) -> None:
    reply = client.send("POST", path, body.encode(), {"X-AUTH-TOKEN": DEFAULT_TOKEN})
    place = f"struct field {field}" if field else "value"
    error = f"json: cannot unmarshal {value} into Go {place} of type {go_type}"
    assert (reply.status, reply.error) == (400, f"parsing request body failed: {error}")


def test_keys_match_in_any_case_nulls_count_as_missing_and_the_rest_is_not_read(
    backend: CcBackend, client: Client
) -> None:
    body = json.dumps(start_of(1, tags=None, walltime=None)).replace("jobId", "JOBID") + " and more"
    assert client.send("POST", START, body.encode(), {"X-AUTH-TOKEN": DEFAULT_TOKEN}).status == 201
    (row,) = backend.rows
    assert row.job_id == 1
    assert "walltime" not in row.start


# Repeats


@pytest.mark.parametrize(
    ("difference", "status"),
    [(0, 422), (1, 422), (DAY - 1, 422), (DAY, 201), (10 * DAY, 201), (-1, 422), (-DAY, 422), (-10 * DAY, 422)],
)
def test_another_start_within_a_day_or_earlier_is_a_repeat(
    backend: CcBackend, client: Client, difference: int, status: int
) -> None:
    client.start(1)
    backend.commit()
    assert client.start(1, T0 + difference).status == status


def test_the_same_job_id_of_another_cluster_is_no_repeat(backend: CcBackend, client: Client) -> None:
    client.start(1)
    backend.commit()
    assert client.start(1, cluster="big", resources=[{"hostname": "n100"}]).status == 201


def test_a_refused_run_leaves_no_row_and_no_mark_on_the_other(backend: CcBackend, client: Client) -> None:
    client.start(1)
    backend.commit()
    assert client.start(1, T0 + 5).status == 422
    assert [(row.key, row.starts) for row in backend.rows] == [(RowKey("lab", 1, T0), 1)]


def test_the_date_of_an_answer_is_that_of_its_clock(clock: Clock, client: Client) -> None:
    """1,800,000,000 is 2027-01-15 08:00:00 UTC."""
    clock.advance(62)
    assert client.start(1).headers["Date"] == "Fri, 15 Jan 2027 08:01:02 GMT"


# The job cache


def test_a_fresh_start_is_not_listed_until_the_commit_worker_ran(clock: Clock, client: Client) -> None:
    client.start(1)
    clock.advance(59)
    assert client.listed("state=running") == []
    clock.advance(1)
    assert client.listed("state=running") == [1]


def test_a_repeat_fails_in_the_cache_and_is_refused_after_it(clock: Clock, backend: CcBackend, client: Client) -> None:
    client.start(1)
    fresh = client.start(1)
    assert (fresh.status, "UNIQUE constraint failed: job_cache" in fresh.error) == (500, True)
    clock.advance(60)
    assert client.start(1).status == 422
    assert [row.starts for row in backend.rows] == [3]


def test_another_start_time_is_taken_while_the_first_is_cached(backend: CcBackend, client: Client) -> None:
    assert [client.start(1, T0 + seconds).status for seconds in (0, 10, -10)] == [201, 201, 201]
    assert [row.in_cache for row in backend.rows] == [True, True, True]


def test_a_stop_finds_a_cached_row_and_takes_it_out(backend: CcBackend, client: Client) -> None:
    client.start(1)
    assert client.stop(1, jobState="failed", stopTime=T0 + 7).status == 200
    (row,) = backend.rows
    assert (row.in_cache, row.state, row.stop_time, row.stops) == (False, "failed", T0 + 7, 1)
    assert client.listed("state=failed") == [1]


def test_a_start_with_tags_skips_the_cache(client: Client) -> None:
    client.start(1, tags=[{"type": "a", "name": "b"}])
    assert client.listed() == [1]


# Stops


def test_a_stop_without_start_time_takes_the_newest_row_of_the_cache_then_of_the_table(
    backend: CcBackend, client: Client
) -> None:
    client.start(1, T0)
    client.start(1, T0 + 5)
    backend.commit()
    client.start(1, T0 + 2 * DAY)
    request = {"jobId": 1, "cluster": "lab", "jobState": "completed", "stopTime": T0 + 3 * DAY}
    assert client.post(STOP, request).status == 200
    assert [row.stop_time for row in backend.rows] == [None, None, T0 + 3 * DAY]
    # That row is in the table now, and the newest there.
    assert client.post(STOP, request).status == 422
    assert [row.stops for row in backend.rows] == [0, 0, 2]


def test_a_row_is_removed_once_the_commit_worker_has_moved_it(backend: CcBackend, client: Client) -> None:
    """As it was tried with the real one: start 1, stop 1, start 2 refused, delete 1, start 2 and its stop taken."""
    headers = {"X-AUTH-TOKEN": DEFAULT_TOKEN}

    def delete(start_time: int) -> Reply:
        body = json.dumps({"cluster": "lab", "jobId": 1, "startTime": start_time}).encode()
        return client.send("DELETE", "/api/jobs/delete_job/", body, headers)

    missing = (422, "finding job failed: sql: no rows in result set")
    client.start(1)
    reply = delete(T0)
    assert (reply.status, reply.error) == missing
    backend.commit()
    assert client.stop(1, jobState="cancelled", stopTime=T0).status == 200
    assert client.start(1, T0 + 3600).status == 422
    reply = delete(T0 + 3600)
    assert (reply.status, reply.error) == missing
    reply = delete(T0)
    assert (reply.status, json.loads(reply.text)) == (200, {"msg": "Successfully deleted job 1"})
    assert backend.rows == []
    assert client.start(1, T0 + 3600).status == 201
    assert client.stop(1, T0 + 3600).status == 200
    assert [row.start_time for row in backend.rows] == [T0 + 3600]


def test_a_row_that_runs_is_removed_too_and_a_wrong_token_removes_nothing(backend: CcBackend, client: Client) -> None:
    client.start(1)
    backend.commit()
    body = json.dumps({"cluster": "lab", "jobId": 1, "startTime": T0}).encode()
    assert client.send("DELETE", "/api/jobs/delete_job/", body, {}).status == 401
    assert len(backend.rows) == 1
    assert client.send("DELETE", "/api/jobs/delete_job/", body, {"X-AUTH-TOKEN": DEFAULT_TOKEN}).status == 200
    assert backend.rows == []


def test_what_a_stop_can_lack_and_not(client: Client) -> None:
    client.start(1)
    assert client.post(STOP, {"cluster": "lab"}).error == "the field 'jobId' is required"
    reply = client.post(STOP, {"jobId": 1, "stopTime": T0 + 9})
    assert reply.status == 200
    row = json.loads(reply.text)
    assert (row["jobState"], row["duration"], row["startTime"]) == ("completed", 9, T0)


# Listings


def test_pages_come_newest_start_first(backend: CcBackend, client: Client) -> None:
    for job_id, start_time in ((1, T0 + 20), (2, T0), (3, T0 + 30), (4, T0 + 10), (5, T0 + 10)):
        client.start(job_id, start_time)
    backend.commit()
    pages = [client.listed(f"items-per-page=2&page={page}") for page in (1, 2, 3, 4)]
    assert pages == [[3, 1], [5, 4], [2], []]
    assert client.listed(f"start-time={T0 + 10}-{T0 + 20}") == [1, 5, 4]


def test_twenty_five_jobs_are_a_page_unless_told_otherwise(backend: CcBackend, client: Client) -> None:
    for job_id in range(30):
        client.start(job_id)
    backend.commit()
    assert len(client.listed()) == 25
    assert len(client.listed("page=2")) == 5


def test_listings_are_limited_by_state_cluster_and_project(backend: CcBackend, client: Client) -> None:
    client.start(1)
    client.start(2, cluster="big", resources=[{"hostname": "n001"}])
    client.start(3, project="other")
    client.start(4)
    client.stop(4, jobState="timeout")
    backend.commit()
    assert sorted(client.listed("state=running")) == [1, 2, 3]
    assert sorted(client.listed("state=running&state=timeout&cluster=lab")) == [1, 3, 4]
    assert client.listed("project=other") == [3]


def test_metadata_is_listed_when_asked_for_in_whatever_way(backend: CcBackend, client: Client) -> None:
    client.start(1, metaData={"jobName": "a<b>&\u2603"})
    backend.commit()
    assert json.loads(client.get("/api/jobs/").text)["jobs"][0]["metaData"] is None
    reply = client.get("/api/jobs/?with-metadata=false")
    assert json.loads(reply.text)["jobs"][0]["metaData"] == {"jobName": "a<b>&\u2603"}
    assert "\\u003cb\\u003e\\u0026" in reply.text


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("page=0", "page must be >= 1"),
        ("page=x", 'strconv.Atoi: parsing "x": invalid syntax'),
        ("start-time=1-2-3", "invalid query parameter value: startTime"),
        ("start-time=a-2", 'strconv.ParseInt: parsing "a": invalid syntax'),
        ("state=done", "invalid query parameter value: state"),
    ],
)
def test_queries_that_are_refused(client: Client, query: str, error: str) -> None:
    reply = client.get(f"/api/jobs/?{query}")
    assert (reply.status, reply.error) == (400, error)


def test_clusters_are_the_configured_ones() -> None:
    clusters: Clusters = {"b": {"cpu": ["c1"], "gpu": ["g1", "g2"]}, "a": ["x1"]}
    with serving(CcBackend(clusters)) as url, contextlib.closing(Client(url)) as client:
        described = json.loads(client.get("/api/clusters/").text)["clusters"]
        assert client.start(1, cluster="b", resources=[{"hostname": "g2"}]).status == 201
        assert json.loads(client.stop(1, cluster="b").text)["subCluster"] == "gpu"
    hosts = {cluster["name"]: {part["name"]: part["nodes"] for part in cluster["subClusters"]} for cluster in described}
    assert hosts == {"a": {"main": "x1"}, "b": {"cpu": "c1", "gpu": "g1,g2"}}


# What is known in process


def test_node_states_keep_the_newest_of_each_node(clock: Clock, backend: CcBackend, client: Client) -> None:
    client.post(NODES, {"cluster": "lab", "nodes": [{"hostname": "node01", "states": ["IDLE"]}]})
    clock.advance(30)
    node = {"hostname": "node01", "states": ["MIXED"], "cpusAllocated": 4}
    client.post(NODES, {"cluster": "lab", "nodes": [node]})
    assert backend.node_states == {("lab", "node01"): (T0 + 30, node)}


def test_the_log_has_every_request(backend: CcBackend, client: Client) -> None:
    client.start(7)
    client.get("/api/jobs/?page=x")
    assert [(entry.time, entry.method, entry.path, entry.job, entry.status) for entry in backend.log] == [
        (T0, "POST", START, ("lab", 7), 201),
        (T0, "GET", "/api/jobs/", None, 400),
    ]


def test_waits_until_a_condition_holds(backend: CcBackend, url: str) -> None:
    def send() -> None:
        with contextlib.closing(Client(url)) as client:
            client.start(1)

    assert not backend.wait_for(lambda: bool(backend.rows), 0.0)
    sender = threading.Thread(target=send)
    sender.start()
    assert backend.wait_for(lambda: bool(backend.rows), 5.0)
    sender.join()


def test_forgets_everything(backend: CcBackend, client: Client) -> None:
    client.start(1)
    backend.commit()
    backend.forget()
    assert backend.rows == []
    assert client.stop(1).status == 404
    assert client.start(1).status == 201


def test_the_token_can_be_changed(backend: CcBackend, client: Client) -> None:
    backend.token = "a.b.c"
    assert client.start(1).status == 401
    assert backend.rows == []


def test_connections_are_served_at_the_same_time(backend: CcBackend, url: str) -> None:
    def send(first: int) -> None:
        with contextlib.closing(Client(url)) as client:
            for job_id in range(first, first + 25):
                client.start(job_id)

    senders = [threading.Thread(target=send, args=(first,)) for first in (0, 25, 50, 75)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert sorted(row.job_id for row in backend.rows) == list(range(100))
    assert sorted(row.id for row in backend.rows) == list(range(1, 101))


# Faults


def test_never_answers_until_the_fault_is_taken_out(backend: CcBackend, url: str) -> None:
    with contextlib.closing(Client(url, timeout=0.1)) as impatient, backend.fault(NoAnswer()):
        with pytest.raises(TimeoutError if sys.version_info >= (3, 10) else socket.timeout):
            impatient.start(1)
        assert backend.rows == []
    # What hung goes on, as in a process that was stopped and continued.
    assert backend.wait_for(lambda: bool(backend.rows), 5.0)


def test_a_delay_counts_for_the_requests_it_hits(backend: CcBackend, client: Client) -> None:
    fault = backend.add_fault(Delay(path=START, count=1, seconds=0.05))
    assert [client.start(1).status, client.start(2).status] == [201, 201]
    assert backend.log[0].seconds >= 0.05
    assert fault.count == 0


@pytest.mark.parametrize(
    ("fault", "stored"), [(LostAnswer(), True), (CutAnswer(), True), (Dropped(), False), (Rubbish(), False)]
)
def test_answers_that_do_not_arrive_whole(backend: CcBackend, client: Client, fault: Fault, stored: bool) -> None:
    with backend.fault(fault), pytest.raises((http.client.HTTPException, ConnectionError)):
        client.start(1)
    assert [row.job_id for row in backend.rows] == ([1] if stored else [])
    assert [entry.status for entry in backend.log] == [None]
    # The next connection is served as ever.
    assert client.start(2).status == 201


def test_an_answer_is_cut_in_its_body(backend: CcBackend, client: Client) -> None:
    backend.add_fault(CutAnswer())
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.start(1)
    assert b'{"msg":"success"}\n'.startswith(caught.value.partial)
    assert caught.value.partial


@pytest.mark.parametrize("status", [301, 401, 403, 413, 500, 502])
def test_another_answer_comes_instead(backend: CcBackend, client: Client, status: int) -> None:
    fault = OtherAnswer(status=status, body=b"no", content_type="text/plain", headers={"Location": "/else"})
    with backend.fault(fault):
        reply = client.start(1)
    assert (reply.status, reply.text, reply.content_type) == (status, "no", "text/plain")
    assert reply.headers["Location"] == "/else"
    assert backend.rows == []


def test_answers_of_proxies(backend: CcBackend, client: Client) -> None:
    with backend.fault(too_many_requests(3)):
        reply = client.start(1)
        assert (reply.status, reply.headers["Retry-After"]) == (429, "3")
    with backend.fault(html_page()):
        reply = client.start(1)
        assert (reply.status, reply.content_type) == (200, "text/html")
        assert reply.text.startswith("<html>")


@pytest.mark.parametrize("status", [404, 405])
def test_starts_over_rest_can_be_off(backend: CcBackend, client: Client, status: int) -> None:
    backend.add_fault(rest_start_off(status))
    assert client.start(1).status == status
    assert client.get("/api/jobs/").status == 200


def test_some_jobs_can_be_refused(backend: CcBackend, client: Client) -> None:
    backend.add_fault(refused_jobs({2, 3}))
    assert [client.start(job_id).status for job_id in (1, 2, 3, 4)] == [201, 400, 400, 201]
    assert [row.job_id for row in backend.rows] == [1, 4]


def test_a_share_of_requests_can_fail_the_same_ones_every_time(backend: CcBackend, client: Client) -> None:
    runs = []
    for _ in range(2):
        with backend.fault(OtherAnswer(fraction=0.5, seed=1, status=500)):
            runs.append([client.get("/api/clusters/").status for _ in range(40)])
    assert runs[0] == runs[1]
    assert 10 < runs[0].count(500) < 30


def test_a_fault_ends_after_its_count(backend: CcBackend, client: Client) -> None:
    backend.add_fault(OtherAnswer(count=2, status=502))
    assert [client.start(1).status for _ in range(3)] == [502, 502, 201]


# Away


@pytest.fixture
def server(backend: CcBackend) -> Iterator[CcBackendServer]:
    server = CcBackendServer(backend)
    yield server
    server.close()


def test_keeps_its_port_although_a_process_that_just_starts_has_the_listener_too(
    backend: CcBackend, server: CcBackendServer
) -> None:
    """Until it has become its program, a process has all open files of the one that starts it."""
    server.start()
    listener = server._listener.socket.dup()
    let_go = threading.Timer(0.3, listener.close)
    let_go.start()
    server.stop()
    let_go.join()
    server.start()
    with contextlib.closing(Client(server.url)) as client:
        assert client.start(1).status == 201


def test_refuses_connections_while_stopped_and_keeps_its_port(backend: CcBackend, server: CcBackendServer) -> None:
    with contextlib.closing(Client(server.url)) as client:
        for job_id in (1, 2, 3):
            with pytest.raises(ConnectionRefusedError):
                client.start(job_id)
            server.start()
            assert client.start(job_id).status == 201
            server.stop()
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                client.start(job_id)
    assert [row.job_id for row in backend.rows] == [1, 2, 3]


def test_a_stop_does_not_wait_for_requests_that_hang(backend: CcBackend, server: CcBackendServer) -> None:
    server.start()
    address = urlsplit(server.url)
    fault = backend.add_fault(NoAnswer(count=1))
    with socket.create_connection((address.hostname, server.port), timeout=5) as held:
        body = json.dumps(start_of(1)).encode()
        head = f"POST {START} HTTP/1.1\r\nX-AUTH-TOKEN: {DEFAULT_TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
        held.sendall(head.encode() + body)
        assert backend.wait_for(lambda: fault.count == 0, 5.0)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 3.0
        assert held.recv(1) == b""
    assert backend.rows == []


def test_another_server_can_take_the_port_over(backend: CcBackend) -> None:
    with serving(backend) as url, contextlib.closing(Client(url)) as client:
        client.start(1)
    port = urlsplit(url).port
    assert port
    with serving(backend, port=port) as again, contextlib.closing(Client(again)) as client:
        assert again == url
        assert client.stop(1).status == 200


def test_a_request_that_is_not_sent_whole_is_not_stored(backend: CcBackend, server: CcBackendServer) -> None:
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        head = f"POST {START} HTTP/1.1\r\nX-AUTH-TOKEN: {DEFAULT_TOKEN}\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head.encode() + json.dumps(start_of(1)).encode())
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert backend.rows == []


# As a program


def run_program(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "examples.practice.cc_backend", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_program_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(DEFAULT_TOKEN + "\n", encoding="utf-8")
    options = ("--port", "0", "--token-file", str(token), "--cluster", "mine=h1,h2")
    with run_program(*options) as program:
        assert program.stdout
        url = program.stdout.readline().split()[-1]
        with contextlib.closing(Client(url)) as client:
            assert client.start(5, cluster="mine", resources=[{"hostname": "h2"}]).status == 201
        line = program.stdout.readline()
        program.send_signal(signal.SIGTERM)
        assert program.communicate(timeout=5) == ("", "")
    assert program.returncode == 0
    assert re.search(rf"POST {START} +job 5 of mine +201", line)


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--token-file", "missing", "No such file"),
        ("--token-file", os.devnull, "is empty"),
        ("--port", "99999", "cannot listen on 127.0.0.1 port 99999"),
        ("--cluster", "lab", "expected NAME=HOST,HOST,... and not 'lab'"),
    ],
)
def test_the_program_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, problem: str
) -> None:
    token = tmp_path / "token"
    token.write_text(DEFAULT_TOKEN, encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        main(["--token-file", str(token), option, value])
    assert caught.value.code == 2
    assert problem in capsys.readouterr().err.splitlines()[-1]
