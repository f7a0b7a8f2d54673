"""cc-backend over REST, and what each of its responses means."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from itertools import count
from typing import NamedTuple
from urllib.parse import urlencode

from cc_slurm_adapter.errors import BrokenOff, SinkError
from cc_slurm_adapter.model import NodeState, Proxy
from cc_slurm_adapter.sinks import timeouts
from cc_slurm_adapter.sinks.base import CC_REST, Answer, Delivery, Kind, RunningRow, Verdict
from cc_slurm_adapter.sinks.http_client import HttpClient, HttpResponse
from cc_slurm_adapter.sinks.messages import encode_node_parts
from cc_slurm_adapter.sinks.timeouts import AdaptiveTimeout

REQUESTS = {
    Kind.START: ("POST", "/api/jobs/start_job/"),
    Kind.STOP: ("POST", "/api/jobs/stop_job/"),
    Kind.WITHDRAW: ("DELETE", "/api/jobs/delete_job/"),
}
NODES_PATH = "/api/nodestate/"
JOBS_PATH = "/api/jobs/"
CLUSTERS_PATH = "/api/clusters/"
PAGE = 500
MAX_ROWS = 100_000
"""Most rows that are read of a list, so that reading an endless list ends."""
MAX_NODES_BODY, MIN_NODES_BODY = 512 * 1024, 16 * 1024
"""Bytes of node states in one request. A proxy may accept a megabyte (nginx's client_max_body_size), or less."""


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
    label = "cc-backend"
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

    def connect(self, progress: Callable[[], None] = lambda: None) -> CcRestConnection:
        """Make a keep-alive connection for one thread; `progress` is called after each response."""
        client = HttpClient(self._url, self._read_token, self._timeouts, self._ca_file, self._proxy)
        return CcRestConnection(client, progress, timing=self._timing)


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
        if delivery.kind is Kind.WITHDRAW and response.status == 422 and "no rows in result set" in response.error:
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
        return self._rows({"state": "running", "cluster": cluster})

    def cluster_names(self) -> list[str]:
        """Read which clusters cc-backend is configured for. Raises SinkError."""
        response = self._request("GET", CLUSTERS_PATH)
        if response.status in (401, 403):
            raise SinkError(_refusal(response))
        try:
            return [str(cluster["name"]) for cluster in json.loads(response.body)["clusters"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise SinkError(f"cc-backend does not list its clusters: {_describe(response)}") from error

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
        if RunningRow(key.job_id, key.start_time) in self._rows(at_start):
            return _already_stored(response)
        if delivery.first_sent and time.time() - delivery.first_sent < self._commit_span:
            return Answer(Verdict.NOT_YET, f"cc-backend may not list it yet: {response.error}", self._commit_span / 5)
        return Answer(Verdict.CONFLICT, response.error)

    def _rows(self, query: Mapping[str, str]) -> Iterator[RunningRow]:
        """Read all rows that match, each once, although rows may move from one page to the next meanwhile.

        Raises SinkError, also if the list has no end. Then nothing can be concluded from a row that is not in it.
        """
        known: set[RunningRow] = set()
        for page in count(1):
            query_string = urlencode({**query, "items-per-page": PAGE, "page": page})
            rows = _parse_rows(self._request("GET", f"{JOBS_PATH}?{query_string}"))
            new = [row for row in dict.fromkeys(rows) if row not in known]
            yield from new
            if len(rows) < PAGE:
                return
            known.update(new)
            if not new:
                raise SinkError(
                    f"cc-backend's list of jobs does not end, page {page} is a page before it once more: does a proxy"
                    " leave out what stands after the question mark?"
                )
            if len(known) >= MAX_ROWS:
                raise SinkError(f"cc-backend lists more than {MAX_ROWS} jobs: have old ones never been stopped there?")


def _no_response(error: SinkError) -> Answer:
    return Answer(Verdict.UNAVAILABLE, str(error), broke_off=isinstance(error, BrokenOff))


def _parse_rows(response: HttpResponse) -> list[RunningRow]:
    if response.status != 200:
        raise SinkError(f"cc-backend does not list jobs: {_describe(response)}")
    try:
        return [RunningRow(int(job["jobId"]), int(job["startTime"])) for job in json.loads(response.body)["jobs"]]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise SinkError(f"cc-backend lists jobs in an unknown form: {error}") from error


def _judge_row_not_found(delivery: Delivery, response: HttpResponse, commit_span: float) -> Answer:
    """Judge the removal of a row that cc-backend does not find: it does not exist, or it is not committed yet.

    It does not exist if the removal was sent before: then `commit_span` is over, or an earlier request may have removed
    it.
    """
    if delivery.first_sent or response.repeated:
        return Answer(Verdict.DELIVERED, "was not stored any more")
    return Answer(Verdict.NOT_YET, f"cc-backend may not have committed it yet: {response.error}", commit_span)


def _already_stored(response: HttpResponse) -> Answer:
    return Answer(Verdict.DELIVERED, "was stored already", had_it=not response.repeated)


_REFUSED = "cc-backend refuses the token (ccRestJwt or ccRestJwtFile): "
_ALWAYS_JSON = {(400, Kind.START), (400, Kind.STOP), (404, Kind.STOP)}
"""Refusals that cc-backend always sends as JSON. If one is not JSON, something else responds at this address."""
STATUS_VERDICTS = {
    413: Verdict.TOO_LARGE,
    429: Verdict.UNAVAILABLE,
    502: Verdict.UNAVAILABLE,
    503: Verdict.UNAVAILABLE,
    504: Verdict.UNAVAILABLE,
}


def judge(kind: Kind, response: HttpResponse) -> Answer:
    """Judge a response by itself, without asking cc-backend anything.

    `deliver` handles two cases of 422 before: one to a start, which also needs cc-backend's list
    (`_judge_refused_start`), and one to a withdrawal whose row cc-backend does not find (`_judge_row_not_found`).
    """
    status, text = response.status, _describe(response)
    if status in (200, 201):
        return Answer(Verdict.DELIVERED) if _is_json_object(response.body) else Answer(Verdict.UNAVAILABLE, text)
    if status in STATUS_VERDICTS:
        return Answer(STATUS_VERDICTS[status], text, _seconds(response.retry_after))
    if status in (401, 403, 407):
        return Answer(Verdict.MISCONFIGURED, _refusal(response))
    if 300 <= status < 400:
        where = f" to {response.location[:200]!r}" if response.location else ""
        return Answer(
            Verdict.MISCONFIGURED, f"ccRestUrl is redirected{where}, set it to the address that answers: {text}"
        )
    if response.backend_error is None and (status, kind) in _ALWAYS_JSON:
        return Answer(Verdict.MISCONFIGURED, f"this is not cc-backend's answer, is ccRestUrl right? {text}")
    return _JUDGES[kind](response, text)


def _judge_start(response: HttpResponse, text: str) -> Answer:
    if response.status in (404, 405):
        return Answer(
            Verdict.MISCONFIGURED,
            f"ccRestUrl is not cc-backend's address, or cc-backend takes jobs from NATS only: {text}",
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


_JUDGES = {Kind.START: _judge_start, Kind.STOP: _judge_stop, Kind.WITHDRAW: _judge_otherwise}


def _refusal(response: HttpResponse) -> str:
    """Describe a refused token. cc-backend also sends 401, with its web page, for unknown paths. A 407 is a proxy's."""
    if response.status == 407:
        return f"the proxy wants a user and a password, put the right ones into ccRestProxy: {_describe(response)}"
    why = "is ccRestUrl right? " if response.backend_error is None else _REFUSED
    return why + _describe(response)


def _describe(response: HttpResponse) -> str:
    return f"HTTP {response.status}: {response.error[:300]}"


def _is_json_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _seconds(retry_after: str) -> float | None:
    """Parse Retry-After, which is a number of seconds or a date."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        return max(parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
