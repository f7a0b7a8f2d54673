"""cc-backend over REST: requests with keep-alive, and what each answer means."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from cc_slurm_adapter.errors import ConfigError, SinkError
from cc_slurm_adapter.job import End, NodeState, Run, RunKey
from cc_slurm_adapter.sinks import Answer, Connection, Delivery, Kind, RunningRow, Verdict
from cc_slurm_adapter.sinks.cc_messages import StartMessages, cut_start, encode_nodes, encode_stop

log = logging.getLogger(__name__)

PATHS = {Kind.START: "/api/jobs/start_job/", Kind.STOP: "/api/jobs/stop_job/"}
NODES_PATH = "/api/nodestate/"
JOBS_PATH = "/api/jobs/"
CLUSTERS_PATH = "/api/clusters/"
TIME_LIMIT = 10.0
"""Seconds for a request; a destination that has just answered slowly gets SLOW_TIME_LIMIT."""
SLOW_TIME_LIMIT = 60.0
SLOW = 3.0
PAGE = 500
ANSWER_LIMIT = 64 * 1024 * 1024
PIECE = 64 * 1024
COMMIT_SPAN = 300.0
"""Seconds after which cc-backend surely lists a start: two intervals of its commit worker, and a bit."""


class HttpAnswer(NamedTuple):
    """Status, body and the one header that counts."""

    status: int
    body: bytes
    retry_after: str = ""

    @property
    def text(self) -> str:
        """The start of the body, for people."""
        return self.body[:300].decode("utf-8", errors="replace").strip()

    @property
    def error(self) -> str:
        """cc-backend's error text; the body where there is none."""
        try:
            return str(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return self.text


class CcRest:
    """The Sink of cc-backend's REST interface."""

    name = "cc_rest"
    label = "cc-backend"

    def __init__(
        self, url: str, read_token: Callable[[], str], start_messages: StartMessages, ca_file: str = ""
    ) -> None:
        self._url = url
        self._read_token = read_token
        self._start_messages = start_messages
        self._ca_file = ca_file

    def encode_start(self, run: Run) -> bytes:
        """The body of start_job."""
        return self._start_messages.encode(run)

    def encode_stop(self, key: RunKey, end: End) -> bytes:
        """The body of stop_job."""
        return encode_stop(key, end)

    def cut(self, payload: bytes) -> bytes | None:
        """A start without its longest text."""
        return cut_start(payload)

    def connect(self) -> Connection:
        """A connection with a keep-alive of its own."""
        return CcRestConnection(HttpClient(self._url, self._read_token, self._ca_file))


class HttpClient:
    """One keep-alive connection. Raises SinkError for everything that keeps an answer from coming."""

    def __init__(self, url: str, read_token: Callable[[], str], ca_file: str = "") -> None:
        parts = urlsplit(url)
        self._base = parts.path
        self._where = parts.netloc
        self._tls = _tls_context(ca_file) if parts.scheme == "https" else None
        self._host, self._port = parts.hostname or "", parts.port
        self._read_token = read_token
        self._token = ""
        self._time_limit = TIME_LIMIT
        self._connection: http.client.HTTPConnection | None = None
        self._stopped = False

    def abort(self) -> None:
        """Break off a request that another thread waits for."""
        self._stopped = True
        sock = self._connection.sock if self._connection else None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                log.debug("the connection to %s was closed already", self._where)

    def request(self, method: str, path: str, body: bytes | None = None) -> HttpAnswer:
        """Send a request and read its whole answer.

        A connection that was kept alive may have been closed by the other side in the meantime: then
        the request is sent once more on a new one. cc-backend knows a repeated request again.
        """
        kept = self._connection is not None
        try:
            return self._request_once(method, path, body)
        except SinkError as error:
            if not (kept and isinstance(error.__cause__, ConnectionError)) or self._stopped:
                raise
            return self._request_once(method, path, body)

    def _request_once(self, method: str, path: str, body: bytes | None) -> HttpAnswer:
        began = time.monotonic()
        try:
            connection = self._connected()
            connection.request(method, self._base + path, body, self._headers(body))
            response = connection.getresponse()
            content = _read_bounded(response)
            if response.will_close:
                self.close()
            if response.status in (401, 403):
                self._token = ""  # read again before the next request: it may have been replaced
            self._time_limit = SLOW_TIME_LIMIT if time.monotonic() - began > SLOW else TIME_LIMIT
            return HttpAnswer(response.status, content, response.headers.get("Retry-After", ""))
        except ConfigError as error:
            self.close()
            raise SinkError(str(error)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise SinkError(f"{self._where}: {describe(error)}") from error

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            self._connection = self._new_connection()
            self._connection.connect()
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._stopped:  # looked at after the socket is there: abort() sees one of the two
            raise OSError("the daemon stops")
        self._connection.sock.settimeout(self._time_limit)
        return self._connection

    def _new_connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._time_limit)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._time_limit, context=self._tls)

    def _headers(self, body: bytes | None) -> Mapping[str, str]:
        if not self._token:
            self._token = self._read_token()
        headers = {"X-AUTH-TOKEN": self._token, "Accept": "application/ld+json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return headers

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _tls_context(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ConfigError([f"ccRestCaFile: {ca_file} holds no usable certificate: {describe(error)}"]) from error


def _read_bounded(response: http.client.HTTPResponse) -> bytes:
    """The whole body, in pieces: up to Python 3.11 `read(n)` fills a buffer of n bytes first."""
    pieces: list[bytes] = []
    left = ANSWER_LIMIT
    while left > 0:
        piece = response.read(min(PIECE, left))
        if not piece and response.length:
            raise http.client.IncompleteRead(b"".join(pieces), response.length)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        left -= len(piece)
    raise OSError(f"the answer is longer than {ANSWER_LIMIT} bytes")


class CcRestConnection:
    """Sends rows, and asks cc-backend what it knows when its answer leaves that open."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def deliver(self, delivery: Delivery) -> Answer:
        """Send a row and judge the answer."""
        try:
            answer = self._client.request("POST", PATHS[delivery.kind], delivery.payload)
            if delivery.kind is Kind.START and answer.status == 422:
                return self._judge_refused_start(delivery, answer)
        except SinkError as error:
            return Answer(Verdict.SINK_TROUBLE, str(error))
        return judge(delivery.kind, answer)

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> Answer:
        """Send the states of all nodes."""
        try:
            answer = self._client.request("POST", NODES_PATH, encode_nodes(cluster, nodes))
        except SinkError as error:
            return Answer(Verdict.SINK_TROUBLE, str(error))
        return Answer(Verdict.DELIVERED) if answer.status == 200 else Answer(Verdict.PARKED, _said(answer))

    def running_rows(self, cluster: str) -> Iterator[RunningRow]:
        """All rows in the state running, page by page. Raises SinkError."""
        return self._rows({"state": "running", "cluster": cluster})

    def cluster_names(self) -> list[str]:
        """The clusters that cc-backend is configured for. Raises SinkError."""
        answer = self._client.request("GET", CLUSTERS_PATH)
        if answer.status in (401, 403):
            raise SinkError(_REFUSED + _said(answer))
        try:
            return [str(cluster["name"]) for cluster in json.loads(answer.body)["clusters"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise SinkError(f"cc-backend does not list its clusters: {_said(answer)}") from error

    def abort(self) -> None:
        """Break off whatever is under way."""
        self._client.abort()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _judge_refused_start(self, delivery: Delivery, answer: HttpAnswer) -> Answer:
        """422 says that some run of this job is stored. Only a look tells whether it is this one.

        A start that was sent before may still be on its way into cc-backend's list, so its absence
        proves nothing before COMMIT_SPAN is over.
        """
        key = delivery.key
        at_start = {"cluster": key.cluster, "start-time": f"{key.start_time}-{key.start_time}"}
        if RunningRow(key.job_id, key.start_time) in self._rows(at_start):
            return Answer(Verdict.DELIVERED, "was stored already")
        if delivery.first_sent and time.time() - delivery.first_sent < COMMIT_SPAN:
            return Answer(Verdict.LATER, f"cc-backend may not list it yet: {answer.error}", COMMIT_SPAN / 5)
        return Answer(Verdict.SHADOWED, answer.error)

    def _rows(self, query: Mapping[str, str]) -> Iterator[RunningRow]:
        page = 1
        while True:
            words = urlencode({**query, "items-per-page": PAGE, "page": page})
            rows = _parse_rows(self._client.request("GET", f"{JOBS_PATH}?{words}"))
            yield from rows
            if len(rows) < PAGE:
                return
            page += 1


def _parse_rows(answer: HttpAnswer) -> list[RunningRow]:
    if answer.status != 200:
        raise SinkError(f"cc-backend does not list jobs: {_said(answer)}")
    try:
        return [RunningRow(int(job["jobId"]), int(job["startTime"])) for job in json.loads(answer.body)["jobs"]]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise SinkError(f"cc-backend lists jobs in an unknown form: {error}") from error


_REFUSED = "cc-backend refuses the token (ccRestJwt or ccRestJwtFile): "
WHOLE_SINK = {
    401: (Verdict.HELD, _REFUSED),
    403: (Verdict.HELD, _REFUSED),
    413: (Verdict.TOO_LARGE, ""),
    429: (Verdict.SINK_TROUBLE, ""),
    502: (Verdict.SINK_TROUBLE, ""),
    503: (Verdict.SINK_TROUBLE, ""),
    504: (Verdict.SINK_TROUBLE, ""),
    **dict.fromkeys(range(300, 400), (Verdict.HELD, "ccRestUrl is redirected, set it to the address that answers: ")),
}


def judge(kind: Kind, answer: HttpAnswer) -> Answer:
    """What an answer means, but for 422 on a start, which needs a look at what is stored."""
    status, said = answer.status, _said(answer)
    if status in (200, 201):
        return Answer(Verdict.DELIVERED) if _is_json_object(answer.body) else Answer(Verdict.SINK_TROUBLE, said)
    if status in WHOLE_SINK:
        verdict, why = WHOLE_SINK[status]
        return Answer(verdict, why + said, _seconds(answer.retry_after))
    return _judge_start(answer, said) if kind is Kind.START else _judge_stop(answer, said)


def _judge_start(answer: HttpAnswer, said: str) -> Answer:
    if answer.status in (404, 405):
        return Answer(
            Verdict.HELD, f"ccRestUrl is not cc-backend's address, or cc-backend takes jobs from NATS only: {said}"
        )
    if answer.status == 500 and answer.error.startswith("insert into database failed"):
        if "UNIQUE" in answer.error and "job_cache" in answer.error:
            return Answer(Verdict.DELIVERED, "was stored already")
        return Answer(Verdict.PARKED, said)
    return Answer(Verdict.ROW_TROUBLE if answer.status >= 500 else Verdict.PARKED, said)


def _judge_stop(answer: HttpAnswer, said: str) -> Answer:
    if answer.status == 404:
        return Answer(Verdict.START_FIRST, said)
    if answer.status == 422 and "already been stopped" in answer.error:
        return Answer(Verdict.DELIVERED, "was stored already")
    return Answer(Verdict.ROW_TROUBLE if answer.status >= 500 else Verdict.PARKED, said)


def _said(answer: HttpAnswer) -> str:
    return f"HTTP {answer.status}: {answer.error[:300]}"


def _is_json_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _seconds(retry_after: str) -> float | None:
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None


def describe(error: Exception) -> str:
    """A foreign error in words that an administrator can act on."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}): set ccRestCaFile to the CA's certificate"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(error, socket.timeout):
        return "no answer in time"
    if isinstance(error, http.client.RemoteDisconnected):
        return "closed the connection without an answer"
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved ({error.strerror})"
    return f"{type(error).__name__}: {error}"
