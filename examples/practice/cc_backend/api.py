"""The REST interface of the stand-in cc-backend, without its network side: a request goes in, an answer comes out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Callable, NamedTuple
from urllib.parse import parse_qs

from examples.practice.cc_backend.clusters import KnownClusters
from examples.practice.cc_backend.faults import Answer
from examples.practice.cc_backend.json import (
    DELETE_REQUEST,
    NODE_STATE_REQUEST,
    START_REQUEST,
    STOP_REQUEST,
    DecodeError,
    decode,
    encode,
    parse,
    quoted,
)
from examples.practice.cc_backend.store import STATES, JobFilter, JobTables, Refused, row_json

_STATUS_TEXTS = {
    400: "Bad Request",
    404: "Not Found",
    422: "Unprocessable Entity",
    500: "Internal Server Error",
}
_PAGE = """<!DOCTYPE html>
<html lang="en">
    <head><title>{title} - ClusterCockpit</title></head>
    <body>{title}</body>
</html>
"""


@dataclass
class Request:
    """One HTTP request. `path` is without the query, `token` as it came, '' without one."""

    method: str
    path: str
    query: str = ""
    token: str = ""
    body: bytes = b""

    @cached_property
    def document(self) -> Any:
        """The body, parsed but not checked. Raises DecodeError."""
        return parse(self.body)

    @cached_property
    def job(self) -> tuple[str, int] | None:
        """Cluster and job id that the body names, None if it names no job."""
        try:
            document = self.document
        except DecodeError:
            return None
        if not isinstance(document, dict) or not isinstance(document.get("jobId"), int):
            return None
        return str(document.get("cluster", "")), document["jobId"]


class NodeReport(NamedTuple):
    """The newest that came about a node. `payload` is its part of the request."""

    time: float
    """Unix seconds."""
    payload: dict[str, Any]


class RestApi:
    """Answers requests from the tables and writes into them. Not safe for threads: its owner locks."""

    def __init__(self, tables: JobTables, clusters: KnownClusters, token: str) -> None:
        self.token = token
        self.node_states: dict[tuple[str, str], NodeReport] = {}
        """By cluster and host."""
        self._tables = tables
        self._clusters = clusters

    def answer(self, request: Request, now: float) -> Answer:
        """What cc-backend answers. `now` in Unix seconds."""
        action = _ACTIONS.get((request.method, request.path))
        if action is None:
            return self._answer_elsewhere(request)
        error = self._token_error(request.token)
        if error:
            return _json(401, {"error": error, "status": "Unauthorized"})
        try:
            return action(self, request, now)
        except DecodeError as failure:
            return _error(400, f"parsing request body failed: {failure}")
        except Refused as refusal:
            return _error(refusal.status, str(refusal))

    def _token_error(self, token: str) -> str:
        if not token:
            return "no user for secured check"
        if token == self.token:
            return ""
        if token.count(".") != 2:
            return "token is malformed: token contains an invalid number of segments"
        return "token signature is invalid: ed25519: verification error"

    def _answer_elsewhere(self, request: Request) -> Answer:
        """For paths that take no part in reporting jobs."""
        if any(path == request.path for _method, path in _ACTIONS):
            return Answer(405)
        word = re.fullmatch("/api/jobs/([^/]*[^/0-9][^/]*)", request.path)
        if word and not self._token_error(request.token):
            # Here the real one has jobs by their row number.
            number = f"strconv.ParseInt: parsing {quoted(word.group(1))}: invalid syntax"
            return _error(400, f"integer expected in path for id: {number}")
        if request.path.startswith("/api/"):
            missing = "the requested endpoint does not exist"
            return _json(404, {"error": missing, "status": "Resource not found"})
        if request.path == "/":
            return _page(401, "Authentication failed")
        return _page(404, "Page Not Found")

    def _start_job(self, request: Request, now: float) -> Answer:
        self._tables.start(decode(request.document, START_REQUEST))
        return _json(201, {"msg": "success"})

    def _stop_job(self, request: Request, now: float) -> Answer:
        row = self._tables.stop(decode(request.document, STOP_REQUEST))
        answer = _json(200, row_json(row, now))
        self._tables.archive(row)
        return answer

    def _delete_job(self, request: Request, now: float) -> Answer:
        row = self._tables.delete(decode(request.document, DELETE_REQUEST))
        return _json(200, {"msg": f"Successfully deleted job {row.id}"})

    def _take_node_states(self, request: Request, now: float) -> Answer:
        report = decode(request.document, NODE_STATE_REQUEST)
        cluster = report.get("cluster", "")
        for node in report.get("nodes", []):
            self.node_states[cluster, node.get("hostname", "")] = NodeReport(now, node)
        return Answer(200)

    def _list_jobs(self, request: Request, now: float) -> Answer:
        listing = parse_listing(request.query)
        rows = self._tables.list(listing.wanted, listing.page, listing.items_per_page)
        jobs = [row_json(row, now, listing.with_metadata) for row in rows]
        return _json(200, {"jobs": jobs, "items": listing.items_per_page, "page": listing.page})

    def _list_clusters(self, request: Request, now: float) -> Answer:
        names = parse_qs(request.query, keep_blank_values=True).get("cluster")
        name = names[0] if names else None
        if name is not None and name not in self._clusters:
            raise Refused(400, f"unknown cluster: {name}")
        return _json(200, {"clusters": self._clusters.describe(name)})


_ACTIONS: Mapping[tuple[str, str], Callable[[RestApi, Request, float], Answer]] = {
    ("POST", "/api/jobs/start_job/"): RestApi._start_job,
    ("PUT", "/api/jobs/start_job/"): RestApi._start_job,
    ("POST", "/api/jobs/stop_job/"): RestApi._stop_job,
    ("PUT", "/api/jobs/stop_job/"): RestApi._stop_job,
    ("DELETE", "/api/jobs/delete_job/"): RestApi._delete_job,
    ("POST", "/api/nodestate/"): RestApi._take_node_states,
    ("PUT", "/api/nodestate/"): RestApi._take_node_states,
    ("GET", "/api/jobs/"): RestApi._list_jobs,
    ("GET", "/api/clusters/"): RestApi._list_clusters,
}


def _json(status: int, value: Any) -> Answer:
    return Answer(status, encode(value), "application/json")


def _error(status: int, text: str) -> Answer:
    return _json(status, {"status": _STATUS_TEXTS[status], "error": text})


def _page(status: int, title: str) -> Answer:
    return Answer(status, _PAGE.format(title=title).encode(), "text/html; charset=utf-8")


class Listing(NamedTuple):
    """What a query for jobs asks for."""

    wanted: JobFilter
    items_per_page: int
    page: int
    with_metadata: bool


def parse_listing(query: str) -> Listing:
    """The query of GET /api/jobs/. Raises Refused for a key or a value that cc-backend does not know."""
    given = parse_qs(query, keep_blank_values=True)
    for key in given:
        if key not in _LISTING_KEYS:
            raise Refused(400, f"invalid query parameter: {key}")
    first = {key: values[0] for key, values in given.items()}
    states = tuple(given.get("state", ()))
    if not STATES.issuperset(states):
        raise Refused(400, "invalid query parameter value: state")
    span = _parse_span(first["start-time"]) if "start-time" in first else None
    return Listing(
        JobFilter(states, first.get("cluster"), first.get("project"), span),
        _parse_positive(first.get("items-per-page", "25"), "items-per-page"),
        _parse_positive(first.get("page", "1"), "page"),
        # Its presence counts, not its value.
        "with-metadata" in given,
    )


_LISTING_KEYS = frozenset({"project", "state", "cluster", "start-time", "page", "items-per-page", "with-metadata"})


def _parse_span(text: str) -> tuple[int, int]:
    ends = text.split("-")
    if len(ends) != 2:
        raise Refused(400, "invalid query parameter value: startTime")
    return _parse_number(ends[0], "ParseInt"), _parse_number(ends[1], "ParseInt")


def _parse_positive(text: str, key: str) -> int:
    number = _parse_number(text, "Atoi")
    if number < 1:
        raise Refused(400, f"{key} must be >= 1")
    return number


def _parse_number(text: str, function: str) -> int:
    if not re.fullmatch("[+-]?[0-9]+", text):
        raise Refused(400, f"strconv.{function}: parsing {quoted(text)}: invalid syntax")
    return int(text)
