"""cc-backend over REST, and what each of its responses means."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

from cc_slurm_adapter.errors import BrokenOff, SinkError, TokenRefused
from cc_slurm_adapter.model import NodeState, Proxy
from cc_slurm_adapter.sinks import timeouts
from cc_slurm_adapter.sinks.allocation import parse_allocation
from cc_slurm_adapter.sinks.base import (
    CC_REST,
    LABELS,
    REMOVALS,
    AllocatedRow,
    Answer,
    Delivery,
    Kind,
    PackedRows,
    RunningRow,
    StoredRun,
    Verdict,
)
from cc_slurm_adapter.sinks.clusters import ClusterList, parse_clusters, read_clock
from cc_slurm_adapter.sinks.http_client import HttpClient, HttpResponse
from cc_slurm_adapter.sinks.messages import encode_node_parts
from cc_slurm_adapter.sinks.timeouts import AdaptiveTimeout
from cc_slurm_adapter.system.http_dates import parse_http_date
from cc_slurm_adapter.system.outages import Outages

REQUESTS = {
    Kind.START: ("POST", "/api/jobs/start_job/"),
    Kind.STOP: ("POST", "/api/jobs/stop_job/"),
    Kind.WITHDRAW: ("DELETE", "/api/jobs/delete_job/"),
    Kind.REMOVE: ("DELETE", "/api/jobs/delete_job/"),
}
NODES_PATH = "/api/nodestate/"
JOBS_PATH = "/api/jobs/"
CLUSTERS_PATH = "/api/clusters/"
PAGE = 500
MAX_ROWS = 100_000
"""Most rows that are read of a list, so that reading an endless list ends."""
MAX_NUMBER = (1 << 63) - 1
"""The largest number that a row in memory can have."""
MAX_NODES_BODY, MIN_NODES_BODY = 512 * 1024, 16 * 1024
"""Bytes of node states in one request. A proxy may accept a megabyte (nginx's client_max_body_size), or less."""


MAX_SEARCHED = 20_000
"""Most rows that are read to find those of one job."""


Row = TypeVar("Row", RunningRow, StoredRun, AllocatedRow)


class Timing(NamedTuple):
    """How long cc-backend may take, in seconds."""

    commit_span: float = 300.0
    """After that it surely lists a start: two intervals of its commit worker and a little more."""
    requests: timeouts.Timing = timeouts.TIMING
    """For each request."""


TIMING = Timing()


class CcRest:
    """The sink of cc-backend's REST interface."""

    name = CC_REST
    label = LABELS[CC_REST]
    connections = 4
    batch_size = 1

    def __init__(  # noqa: PLR0913 - how to reach it
        self,
        url: str,
        read_token: Callable[[], str],
        ca_file: str = "",
        proxy: Proxy | None = None,
        *,
        withdraws: bool = False,
        timing: Timing = TIMING,
    ) -> None:
        """Store the settings.

        `withdraws` tells whether a requeued run is removed to make room for the next run of its job.
        """
        self._url = url
        self._proxy = proxy
        self._read_token = read_token
        self._ca_file = ca_file
        self.withdraws = withdraws
        self._timing = timing
        self._timeouts = AdaptiveTimeout(timing=timing.requests)
        self.outages = Outages()
        """Shared by all who ask cc-backend, so that each outage is logged once."""
        self._token_number = 0

    def connect(self, progress: Callable[[], None] = lambda: None) -> CcRestConnection:
        """Make a keep-alive connection for one thread; `progress` is called after each response."""
        client = HttpClient(
            self._url, self._read_token, self._timeouts, self._ca_file, self._proxy, lambda: self._token_number
        )
        return CcRestConnection(client, progress, timing=self._timing)

    def renew_token(self) -> None:
        """Let each connection read the token again before its next request. Any thread may call this."""
        self._token_number += 1

    def describe(self, delivery: Delivery) -> dict[str, object]:
        """Return the request for a row, with its body as an object."""
        method, path = REQUESTS[delivery.kind]
        return self._described(method, path, delivery.payload)

    def describe_nodes(self, cluster: str, nodes: list[NodeState]) -> list[dict[str, object]]:
        """Return the requests for the states of all nodes."""
        bodies = encode_node_parts(cluster, nodes, MAX_NODES_BODY)
        return [self._described("POST", NODES_PATH, body) for body in bodies]

    def _described(self, method: str, path: str, body: bytes) -> dict[str, object]:
        return {"to": self.label, "method": method, "url": self._url + path, "body": json.loads(body)}


class CcRestConnection:
    """Sends rows, and asks cc-backend what it has stored if its response does not tell."""

    def __init__(
        self, client: HttpClient, progress: Callable[[], None] = lambda: None, *, timing: Timing = TIMING
    ) -> None:
        self._client = client
        self._commit_span = timing.commit_span
        self._progress = progress
        self._nodes_body = MAX_NODES_BODY

    def deliver_all(self, deliveries: Sequence[Delivery]) -> list[Answer]:
        """Send a request for each row."""
        return [self.deliver(delivery) for delivery in deliveries]

    def deliver(self, delivery: Delivery) -> Answer:
        """Send a row and judge the response."""
        try:
            response = self._request(*REQUESTS[delivery.kind], delivery.payload)
            if delivery.kind is Kind.START and response.status == 422:
                return self._judge_refused_start(delivery, response)
        except SinkError as error:
            return _no_response(error)
        if delivery.kind in REMOVALS and response.status == 422 and "no rows in result set" in response.error:
            return _judge_row_not_found(delivery, response, self._commit_span)
        return judge(delivery.kind, response)

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> Answer:
        """Send the states of all nodes. If a request is too large, this one and later ones are made smaller.

        A proxy may break the connection off instead of refusing a large request. Then only later requests are smaller.
        """
        answer = self._post_parts(cluster, nodes)
        if answer.broke_off:
            self._nodes_body = max(self._nodes_body // 2, MIN_NODES_BODY)
        while answer.verdict is Verdict.TOO_LARGE and self._nodes_body > MIN_NODES_BODY:
            self._nodes_body //= 2
            answer = self._post_parts(cluster, nodes)
        return answer

    def _post_parts(self, cluster: str, nodes: list[NodeState]) -> Answer:
        """Send the nodes in parts. Return DELIVERED, or the answer for the first part that was not accepted."""
        for body in encode_node_parts(cluster, nodes, self._nodes_body):
            try:
                response = self._request("POST", NODES_PATH, body)
            except SinkError as error:
                return _no_response(error)
            if response.status != 200:
                return Answer(Verdict.TOO_LARGE if response.status == 413 else Verdict.REJECTED, _describe(response))
        return Answer(Verdict.DELIVERED)

    def running_rows(self, cluster: str) -> Iterator[RunningRow]:
        """Read all rows in the state running, page by page. Raises SinkError."""
        return self._rows({"state": "running", "cluster": cluster}, _running_row)

    def stored_runs(self, cluster: str, job_id: int, first: int, last: int) -> list[StoredRun]:
        """Read the rows of a job that began between two moments (Unix seconds, both included). Raises SinkError.

        cc-backend cannot be asked for a job by its id, so it lists all jobs that began then, MAX_SEARCHED at most.
        """
        query = {"cluster": cluster, "start-time": f"{first}-{last}"}
        return [row for row in self._rows(query, _stored_run, MAX_SEARCHED) if row.job_id == job_id]

    def allocations(self, cluster: str, first: int, last: int) -> Iterator[AllocatedRow]:
        """Read what is stored of the nodes of all runs that began between two moments. Raises SinkError.

        Both are Unix seconds, and included.
        """
        query = {"cluster": cluster, "start-time": f"{first}-{last}"}
        return self._rows(query, _allocated_row)

    def clusters(self) -> ClusterList:
        """Read which clusters cc-backend is configured for. Raises SinkError, and TokenRefused if that is why."""
        sent = time.time()
        response = self._request("GET", CLUSTERS_PATH)
        clock = read_clock(response.date, sent, time.time())
        if response.status in (401, 403, 407):
            kind = SinkError if response.status == 407 or response.backend_error is None else TokenRefused
            raise kind(_refusal(response))
        if 300 <= response.status < 400:
            raise SinkError(_redirection(response))
        try:
            return ClusterList(parse_clusters(json.loads(response.body)), clock)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SinkError(f"cc-backend does not list its clusters: {_not_clusters(response)}") from error

    def abort(self) -> None:
        """End the request under way and refuse later ones."""
        self._client.abort()

    def break_off(self) -> None:
        """End the request under way, so that it is sent again."""
        self._client.break_off()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _request(self, method: str, path: str, body: bytes | None = None) -> HttpResponse:
        """Send a request and report progress, because each of many requests may take long."""
        response = self._client.request(method, path, body)
        self._progress()
        return response

    def _judge_refused_start(self, delivery: Delivery, response: HttpResponse) -> Answer:
        """Judge a start refused with 422: some run of this job is stored, and only cc-backend's list tells which one.

        A start that was sent before may still be on its way into that list. So its absence proves nothing until
        `commit_span` is over.
        """
        key = delivery.key
        at_start = {"cluster": key.cluster, "start-time": f"{key.start_time}-{key.start_time}"}
        if RunningRow(key.job_id, key.start_time) in self._rows(at_start, _running_row):
            return _already_stored(response)
        if delivery.first_sent and time.time() - delivery.first_sent < self._commit_span:
            return Answer(Verdict.NOT_YET, f"cc-backend may not list it yet: {response.error}", self._commit_span / 5)
        return Answer(Verdict.CONFLICT, response.error)

    def _rows(
        self, query: Mapping[str, str], read: Callable[[Mapping[str, Any]], Row], most: int = MAX_ROWS
    ) -> Iterator[Row]:
        """Read all rows that match, each once, although rows may move from one page to the next meanwhile.

        `read` makes a row from one job of cc-backend's list; its first two fields tell it from others. Raises
        SinkError, also if the list has no end. Then nothing can be concluded from a row that is not in it.
        """
        known = PackedRows()
        for page in count(1):
            query_string = urlencode({**query, "items-per-page": PAGE, "page": page})
            rows = _parse_rows(self._request("GET", f"{JOBS_PATH}?{query_string}"), read)
            found = {(row[0], row[1]): row for row in rows}
            repeated = known.among(found)
            new = {place: row for place, row in found.items() if place not in repeated}
            yield from new.values()
            if len(rows) < PAGE:
                return
            for place in new:
                known.add(*place)
            if not new:
                raise SinkError(
                    f"cc-backend's list of jobs does not end, page {page} repeats an earlier page: does a proxy drop"
                    " what follows the question mark?"
                )
            if len(known) >= most:
                raise SinkError(f"cc-backend lists more than {most} jobs: have old ones never been stopped there?")


def _no_response(error: SinkError) -> Answer:
    return Answer(Verdict.UNAVAILABLE, str(error), broke_off=isinstance(error, BrokenOff))


def _running_row(job: Mapping[str, Any]) -> RunningRow:
    row = RunningRow(int(job["jobId"]), int(job["startTime"]))
    if max(map(abs, row)) > MAX_NUMBER:
        raise OverflowError("a number has more than 63 bits")
    return row


def _stored_run(job: Mapping[str, Any]) -> StoredRun:
    state, user = str(job.get("jobState", "")), str(job.get("user", ""))
    return StoredRun(*_running_row(job), state, int(job.get("duration") or 0), user, int(job.get("numNodes") or 0))


def _allocated_row(job: Mapping[str, Any]) -> AllocatedRow:
    return AllocatedRow(*_running_row(job), parse_allocation(job))


def _parse_rows(response: HttpResponse, read: Callable[[Mapping[str, Any]], Row]) -> list[Row]:
    if response.status != 200:
        raise SinkError(f"cc-backend does not list jobs: {_describe(response)}")
    try:
        return [read(job) for job in json.loads(response.body)["jobs"]]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise SinkError(f"cc-backend lists jobs in an unknown form: {error}") from error


def _judge_row_not_found(delivery: Delivery, response: HttpResponse, commit_span: float) -> Answer:
    """Judge the removal of a row that cc-backend does not find: it does not exist, or it is not committed yet.

    It does not exist if the removal was sent before: then `commit_span` is over, or an earlier request may have removed
    it.
    """
    if delivery.first_sent or response.repeated:
        return Answer(Verdict.DELIVERED, "was no longer stored")
    return Answer(Verdict.NOT_YET, f"cc-backend may not have committed it yet: {response.error}", commit_span)


def _already_stored(response: HttpResponse) -> Answer:
    return Answer(Verdict.DELIVERED, "was stored already", had_it=not response.repeated)


_REFUSED = "cc-backend refuses the token (ccRestJwt or ccRestJwtFile): "
_FOREIGN = "this is not cc-backend's answer, is ccRestUrl right? "
_ALWAYS_JSON = {(400, Kind.START), (400, Kind.STOP), (404, Kind.STOP)}
"""Refusals that cc-backend always sends as JSON. If one is not JSON, something else responds at this address."""
STATUS_VERDICTS = {
    408: Verdict.UNAVAILABLE,  # a proxy's, for a connection on which no request came in time
    413: Verdict.TOO_LARGE,
    429: Verdict.UNAVAILABLE,
    502: Verdict.UNAVAILABLE,
    503: Verdict.UNAVAILABLE,
    504: Verdict.UNAVAILABLE,
}


def judge(kind: Kind, response: HttpResponse) -> Answer:
    """Judge a response by itself, without asking cc-backend anything.

    `deliver` handles two cases of 422 before: one to a start, which also needs cc-backend's list
    (`_judge_refused_start`), and one to a removal whose row cc-backend does not find (`_judge_row_not_found`).
    """
    if response.status in (200, 201) and _is_json_object(response.body):
        return Answer(Verdict.DELIVERED)
    return _judge_failure(kind, response)


def _judge_failure(kind: Kind, response: HttpResponse) -> Answer:
    status, text = response.status, _describe(response)
    if status in (200, 201):
        return Answer(Verdict.UNAVAILABLE, text)
    if status in STATUS_VERDICTS:
        return Answer(STATUS_VERDICTS[status], text, _seconds(response.retry_after))
    if status in (401, 403, 407):
        return Answer(Verdict.MISCONFIGURED, _refusal(response))
    if 300 <= status < 400:
        return Answer(Verdict.MISCONFIGURED, _redirection(response))
    if response.backend_error is None and (status, kind) in _ALWAYS_JSON:
        return Answer(Verdict.MISCONFIGURED, _FOREIGN + text)
    return _JUDGES[kind](response, text)


def _judge_start(response: HttpResponse, text: str) -> Answer:
    if response.status in (404, 405):
        return Answer(
            Verdict.MISCONFIGURED,
            f"ccRestUrl is not cc-backend's address, or cc-backend accepts jobs from NATS only: {text}",
        )
    if response.status == 500 and response.error.startswith("insert into database failed"):
        if "UNIQUE" in response.error and "job_cache" in response.error:
            return _already_stored(response)
        return Answer(Verdict.REJECTED, text)
    return _judge_otherwise(response, text)


def _judge_stop(response: HttpResponse, text: str) -> Answer:
    if response.status == 404:
        return Answer(Verdict.UNKNOWN_RUN, text)
    if response.status == 422 and "already been stopped" in response.error:
        return _already_stored(response)
    return _judge_otherwise(response, text)


def _judge_otherwise(response: HttpResponse, text: str) -> Answer:
    return Answer(Verdict.FAILED if response.status >= 500 else Verdict.REJECTED, text)


_JUDGES = {Kind.START: _judge_start, Kind.STOP: _judge_stop, **dict.fromkeys(REMOVALS, _judge_otherwise)}


def _refusal(response: HttpResponse) -> str:
    """Describe a refused token. cc-backend also sends 401, with its web page, for unknown paths. A 407 is a proxy's."""
    if response.status == 407:
        return f"the proxy requires a user and a password: set them in ccRestProxy: {_describe(response)}"
    why = "is ccRestUrl right? " if response.backend_error is None else _REFUSED
    return why + _describe(response)


def _redirection(response: HttpResponse) -> str:
    where = f" to {response.location[:200]!r}" if response.location else ""
    return f"ccRestUrl is redirected{where}, set it to the address that answers: {_describe(response)}"


def _not_clusters(response: HttpResponse) -> str:
    """Describe a response without clusters. From status 500 on it may be a proxy's, while cc-backend is away."""
    is_foreign = response.status < 500 and response.backend_error is None
    return (_FOREIGN if is_foreign else "") + _describe(response)


def _describe(response: HttpResponse) -> str:
    return f"HTTP {response.status}: {response.error[:300]}"


def _is_json_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body.decode()), dict)
    except (ValueError, RecursionError):
        return False


def _seconds(retry_after: str) -> float | None:
    """Parse Retry-After, which is a number of seconds or a date."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    date = parse_http_date(retry_after)
    return None if date is None else max(date - time.time(), 0.0)
