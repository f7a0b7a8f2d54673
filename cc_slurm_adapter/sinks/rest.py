"""cc-backend over REST, and what each of its answers means."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from itertools import count
from urllib.parse import urlencode

from cc_slurm_adapter.errors import BrokenOff, SinkError
from cc_slurm_adapter.model import NodeState, Proxy
from cc_slurm_adapter.sinks.base import CC_REST, Answer, Delivery, Kind, RunningRow, Verdict
from cc_slurm_adapter.sinks.http_client import HttpAnswer, HttpClient
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
"""Rows of a list that are read at most."""
MAX_NODES_BODY, MIN_NODES_BODY = 512 * 1024, 16 * 1024
"""Bytes of node states in one request: a proxy may take a megabyte (nginx's client_max_body_size), or less."""
COMMIT_SPAN = 300.0
"""Seconds after which cc-backend surely lists a start: two intervals of its commit worker, and a bit."""


class CcRest:
    """The Sink of cc-backend's REST interface."""

    name = CC_REST
    label = "cc-backend"
    counted_as = ""
    connections = 4
    at_once = 1

    def __init__(
        self,
        url: str,
        read_token: Callable[[], str],
        ca_file: str = "",
        proxy: Proxy | None = None,
        *,
        withdraws: bool = False,
    ) -> None:
        """`withdraws`: a requeued run makes room for the next run of its job."""
        self._url = url
        self._proxy = proxy
        self._read_token = read_token
        self._ca_file = ca_file
        self.withdraws = withdraws
        self._pace = AdaptiveTimeout()

    def connect(self, progress: Callable[[], None] = lambda: None) -> CcRestConnection:
        """A connection with a keep-alive of its own; `progress` is called after each answer."""
        client = HttpClient(self._url, self._read_token, self._pace, self._ca_file, self._proxy)
        return CcRestConnection(client, progress)


class CcRestConnection:
    """Sends rows, and asks cc-backend what it knows when its answer leaves that open."""

    def __init__(self, client: HttpClient, progress: Callable[[], None] = lambda: None) -> None:
        self._client = client
        self._progress = progress
        self._nodes_body = MAX_NODES_BODY

    def deliver_all(self, deliveries: Sequence[Delivery]) -> list[Answer]:
        """One request for each row."""
        return [self.deliver(delivery) for delivery in deliveries]

    def deliver(self, delivery: Delivery) -> Answer:
        """Send a row and judge the answer."""
        try:
            answer = self._request(*REQUESTS[delivery.kind], delivery.payload)
            if delivery.kind is Kind.START and answer.status == 422:
                return self._judge_refused_start(delivery, answer)
        except SinkError as error:
            return _no_answer(error)
        if delivery.kind is Kind.WITHDRAW and answer.status == 422 and "no rows in result set" in answer.error:
            return _judge_missing(delivery, answer)
        return judge(delivery.kind, answer)

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> Answer:
        """Send the states of all nodes, in smaller requests from then on when one was too large.

        Where a proxy breaks the connection off because of that, the next ones are smaller.
        """
        answer = self._post_parts(cluster, nodes)
        if answer.broke_off:
            self._nodes_body = max(self._nodes_body // 2, MIN_NODES_BODY)
        while answer.verdict is Verdict.TOO_LARGE and self._nodes_body > MIN_NODES_BODY:
            self._nodes_body //= 2
            answer = self._post_parts(cluster, nodes)
        return answer

    def _post_parts(self, cluster: str, nodes: list[NodeState]) -> Answer:
        """DELIVERED, or what became of the first request that was not taken."""
        for body in encode_node_parts(cluster, nodes, self._nodes_body):
            try:
                answer = self._request("POST", NODES_PATH, body)
            except SinkError as error:
                return _no_answer(error)
            if answer.status != 200:
                return Answer(Verdict.TOO_LARGE if answer.status == 413 else Verdict.REJECTED, _said(answer))
        return Answer(Verdict.DELIVERED)

    def running_rows(self, cluster: str) -> Iterator[RunningRow]:
        """All rows in the state running, page by page. Raises SinkError."""
        return self._rows({"state": "running", "cluster": cluster})

    def cluster_names(self) -> list[str]:
        """The clusters that cc-backend is configured for. Raises SinkError."""
        answer = self._request("GET", CLUSTERS_PATH)
        if answer.status in (401, 403):
            raise SinkError(_refusal(answer))
        try:
            return [str(cluster["name"]) for cluster in json.loads(answer.body)["clusters"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise SinkError(f"cc-backend does not list its clusters: {_said(answer)}") from error

    def abort(self) -> None:
        """Break off whatever is under way."""
        self._client.abort()

    def break_off(self) -> None:
        """End a request that is under way, for another try."""
        self._client.break_off()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _request(self, method: str, path: str, body: bytes | None = None) -> HttpAnswer:
        """Each may take long: whoever waits for many of them still gets on."""
        answer = self._client.request(method, path, body)
        self._progress()
        return answer

    def _judge_refused_start(self, delivery: Delivery, answer: HttpAnswer) -> Answer:
        """422 says that some run of this job is stored. Only a look tells whether it is this one.

        A start that was sent before may still be on its way into cc-backend's list, so its absence
        proves nothing before COMMIT_SPAN is over.
        """
        key = delivery.key
        at_start = {"cluster": key.cluster, "start-time": f"{key.start_time}-{key.start_time}"}
        if RunningRow(key.job_id, key.start_time) in self._rows(at_start):
            return _had_it(answer)
        if delivery.first_sent and time.time() - delivery.first_sent < COMMIT_SPAN:
            return Answer(Verdict.NOT_YET, f"cc-backend may not list it yet: {answer.error}", COMMIT_SPAN / 5)
        return Answer(Verdict.CONFLICT, answer.error)

    def _rows(self, query: Mapping[str, str]) -> Iterator[RunningRow]:
        """All rows that fit, each once: while the pages are read, rows may move from one to the next.

        Raises SinkError, also where the list has no end: then nothing can be concluded from what is not in it.
        """
        known: set[RunningRow] = set()
        for page in count(1):
            words = urlencode({**query, "items-per-page": PAGE, "page": page})
            rows = _parse_rows(self._request("GET", f"{JOBS_PATH}?{words}"))
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


def _no_answer(error: SinkError) -> Answer:
    return Answer(Verdict.UNAVAILABLE, str(error), broke_off=isinstance(error, BrokenOff))


def _parse_rows(answer: HttpAnswer) -> list[RunningRow]:
    if answer.status != 200:
        raise SinkError(f"cc-backend does not list jobs: {_said(answer)}")
    try:
        return [RunningRow(int(job["jobId"]), int(job["startTime"])) for job in json.loads(answer.body)["jobs"]]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise SinkError(f"cc-backend lists jobs in an unknown form: {error}") from error


def _judge_missing(delivery: Delivery, answer: HttpAnswer) -> Answer:
    """There is no such row, or the commit worker has not moved it yet to where rows are removed.

    After COMMIT_SPAN, or when a request before this one may have removed it, there is none.
    """
    if delivery.first_sent or answer.repeated:
        return Answer(Verdict.DELIVERED, "was not stored any more")
    return Answer(Verdict.NOT_YET, f"cc-backend may not have committed it yet: {answer.error}", COMMIT_SPAN)


def _had_it(answer: HttpAnswer) -> Answer:
    return Answer(Verdict.DELIVERED, "was stored already", had_it=not answer.repeated)


_REFUSED = "cc-backend refuses the token (ccRestJwt or ccRestJwtFile): "
_OWN_WORDS = {(400, Kind.START), (400, Kind.STOP), (404, Kind.STOP)}
"""What cc-backend says in JSON: the same from somebody else comes from another address."""
WHOLE_SINK = {
    413: Verdict.TOO_LARGE,
    429: Verdict.UNAVAILABLE,
    502: Verdict.UNAVAILABLE,
    503: Verdict.UNAVAILABLE,
    504: Verdict.UNAVAILABLE,
}


def judge(kind: Kind, answer: HttpAnswer) -> Answer:
    """What an answer means by itself: 422 on a start needs a look at what is stored."""
    status, said = answer.status, _said(answer)
    if status in (200, 201):
        return Answer(Verdict.DELIVERED) if _is_json_object(answer.body) else Answer(Verdict.UNAVAILABLE, said)
    if status in WHOLE_SINK:
        return Answer(WHOLE_SINK[status], said, _seconds(answer.retry_after))
    if status in (401, 403, 407):
        return Answer(Verdict.MISCONFIGURED, _refusal(answer))
    if 300 <= status < 400:
        where = f" to {answer.location[:200]!r}" if answer.location else ""
        return Answer(
            Verdict.MISCONFIGURED, f"ccRestUrl is redirected{where}, set it to the address that answers: {said}"
        )
    if answer.own_error is None and (status, kind) in _OWN_WORDS:
        return Answer(Verdict.MISCONFIGURED, f"this is not cc-backend's answer, is ccRestUrl right? {said}")
    return _JUDGES[kind](answer, said)


def _judge_start(answer: HttpAnswer, said: str) -> Answer:
    if answer.status in (404, 405):
        return Answer(
            Verdict.MISCONFIGURED,
            f"ccRestUrl is not cc-backend's address, or cc-backend takes jobs from NATS only: {said}",
        )
    if answer.status == 500 and answer.error.startswith("insert into database failed"):
        if "UNIQUE" in answer.error and "job_cache" in answer.error:
            return _had_it(answer)
        return Answer(Verdict.REJECTED, said)
    return _judge_otherwise(answer, said)


def _judge_stop(answer: HttpAnswer, said: str) -> Answer:
    if answer.status == 404:
        return Answer(Verdict.UNKNOWN_RUN, said)
    if answer.status == 422 and "already been stopped" in answer.error:
        return _had_it(answer)
    return _judge_otherwise(answer, said)


def _judge_otherwise(answer: HttpAnswer, said: str) -> Answer:
    return Answer(Verdict.FAILED if answer.status >= 500 else Verdict.REJECTED, said)


_JUDGES = {Kind.START: _judge_start, Kind.STOP: _judge_stop, Kind.WITHDRAW: _judge_otherwise}


def _refusal(answer: HttpAnswer) -> str:
    """cc-backend says 401 also with its web page, for paths that are not of its interface; 407 is a proxy's."""
    if answer.status == 407:
        return f"the proxy wants a user and a password, put the right ones into ccRestProxy: {_said(answer)}"
    why = "is ccRestUrl right? " if answer.own_error is None else _REFUSED
    return why + _said(answer)


def _said(answer: HttpAnswer) -> str:
    return f"HTTP {answer.status}: {answer.error[:300]}"


def _is_json_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _seconds(retry_after: str) -> float | None:
    """Retry-After is a number of seconds or a date."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        return max(parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
