"""What can be asked over HTTP: the routes of the control socket and those of metricsListen, and who may change what.

docs/control-api.md describes them for whoever asks.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from cc_slurm_adapter.daemon.http_message import TEXT, Request, Response, allow, error_response, json_response
from cc_slurm_adapter.daemon.metrics import CONTENT_TYPE
from cc_slurm_adapter.daemon.report import StatusReport
from cc_slurm_adapter.errors import ConfigError, StateError, UnderWay, UsageError
from cc_slurm_adapter.hooks.listener import Use
from cc_slurm_adapter.hooks.message import MAX_JOB_ID
from cc_slurm_adapter.jobs.report import SyncReport
from cc_slurm_adapter.lines import printable

CONTROL = Use("controlSockPath", "requests")
METRICS = Use("metricsListen", "requests for metrics and the page")

PAGE_HEADERS = (
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)


class Source(Protocol):
    """What the daemon knows. Each method is called in the thread of the server, and must not wait.

    UsageError says what is wrong with the request, StateError why there is no answer now.
    """

    def collect(self) -> StatusReport:
        """Return the report of this moment."""

    def queue_list(self, query: dict[str, str]) -> dict[str, Any]:
        """Return the messages that a query selects, see `outbox.selection`."""

    def queue_retry(self, selection: dict[str, Any], uid: int | None) -> dict[str, Any]:
        """Send some of the selected messages again, for this user.

        Return how many as `messages`, and where to go on as `next`.
        """

    def queue_drop(self, selection: dict[str, Any], uid: int | None) -> dict[str, Any]:
        """Drop some of the selected messages, for this user.

        Return how many as `messages`, and where to go on as `next`.
        """

    def reload(self, uid: int | None) -> dict[str, Any]:
        """Have the configuration read again and everything tried again, for this user, and return what that changes.

        Raises ConfigError with all problems of the configuration: then only everything is tried again.
        """

    def resend(self, words: dict[str, Any], uid: int | None) -> dict[str, Any]:
        """Let some runs be sent anew, for this user. Return the `id` of the request; with `dry_run` only numbers.

        UnderWay says that another such request is not done yet.
        """

    def resend_report(self) -> dict[str, Any]:
        """Return what became of the last such request."""

    def job(self, job_id: int) -> dict[str, Any]:
        """Return what is known about a job."""

    def sync(self, wanted: dict[str, Any], uid: int | None) -> SyncReport:
        """Accept a sync for this user. Raises UnderWay if there is one."""

    def stop_sync(self) -> SyncReport:
        """Let the sync under way end. Return how far it was. Raises UsageError if there is none."""

    def metrics(self) -> str:
        """Return the metrics in Prometheus' text format."""

    def page(self) -> str:
        """Return the page for people, as HTML. It names no user and no job."""

    def healthy(self) -> list[str]:
        """Return why the daemon does not make progress; nothing if it does."""

    def ready(self) -> list[str]:
        """Return what the daemon cannot reach; nothing if all is well."""


class Route(NamedTuple):
    """A path, and what is answered for it. `answer` gets the job id that the path names, else 0."""

    method: str
    path: str
    """In it, ID stands for a job id."""
    answer: Callable[[Source, Request, int], Response]


class Control:
    """Answers requests from a table of routes. An instance is a handler of `HttpServer`."""

    def __init__(self, source: Source, routes: Sequence[Route]) -> None:
        self._source = source
        self._routes = routes
        self._writers = {0, os.geteuid()}

    def __call__(self, request: Request) -> Response:
        """Answer a request. Errors that are not the client's or the moment's are raised."""
        here = [(route, job_id) for route in self._routes for job_id in _matches(route.path, request.path)]
        if not here:
            return error_response(404, f"there is nothing here: expected one of {self._known_paths()}")
        for route, job_id in here:
            if route.method == request.method:
                return self._answer(route, request, job_id)
        methods = [name for route, _ in here for name in _shown_methods(route)]
        return error_response(405, f"expected the method {' or '.join(methods)}", allow(*methods))

    def _known_paths(self) -> str:
        return ", ".join(dict.fromkeys(route.path for route in self._routes))

    def _answer(self, route: Route, request: Request, job_id: int) -> Response:
        if route.method == "POST" and request.uid not in self._writers:
            who = "a client without a user" if request.uid is None else f"uid {request.uid}"
            text = f"{who} may only read: changes are up to root and the daemon's own user (uid {os.geteuid()})"
            return error_response(403, text)
        try:
            return route.answer(self._source, request, job_id)
        except UsageError as error:
            return error_response(400, str(error))
        except UnderWay as error:
            return error_response(409, str(error))
        except StateError as error:
            return error_response(503, str(error))


def _matches(path: str, requested: str) -> list[int]:
    """Return the job id in a requested path, 0 if the path has none, in a list; [] if it is another path.

    Raises nothing: what stands in the place of an id and is none is -1.
    """
    beginning, has_id, _ = path.partition("ID")
    if not has_id:
        return [0] if requested == path else []
    text = requested[len(beginning) :] if requested.startswith(beginning) else ""
    if not text or "/" in text:
        return []
    is_id = re.fullmatch(r"[0-9]{1,10}", text) and 0 < int(text) <= MAX_JOB_ID
    return [int(text) if is_id else -1]


def _shown_methods(route: Route) -> tuple[str, ...]:
    return ("GET", "HEAD") if route.method == "GET" else (route.method,)


def _status(source: Source, request: Request, job_id: int) -> Response:
    return Response(200, f"{source.collect().as_json()}\n".encode())


def _queue(source: Source, request: Request, job_id: int) -> Response:
    return json_response(200, source.queue_list(request.query))


def _job(source: Source, request: Request, job_id: int) -> Response:
    if job_id < 0:
        raise UsageError(f"expected a job id at the end of the path, a whole number from 1 to {MAX_JOB_ID}")
    return json_response(200, source.job(job_id))


def _retry(source: Source, request: Request, job_id: int) -> Response:
    return json_response(200, source.queue_retry(parse_object(request.body), request.uid))


def _drop(source: Source, request: Request, job_id: int) -> Response:
    return json_response(200, source.queue_drop(parse_object(request.body), request.uid))


def _reload(source: Source, request: Request, job_id: int) -> Response:
    try:
        return json_response(202, source.reload(request.uid))
    except ConfigError as error:
        text = "the configuration is refused, the one before stays in force; everything is tried again"
        return json_response(400, {"error": f"{text}: {'; '.join(error.problems)}", "problems": error.problems})


def _resend(source: Source, request: Request, job_id: int) -> Response:
    try:
        answer = source.resend(parse_object(request.body), request.uid)
    except UnderWay as error:
        return error_response(409, str(error))
    return json_response(202 if "id" in answer else 200, answer)


def _resend_report(source: Source, request: Request, job_id: int) -> Response:
    return json_response(200, source.resend_report())


def _sync(source: Source, request: Request, job_id: int) -> Response:
    return json_response(202, source.sync(parse_object(request.body), request.uid)._asdict())


def _stop_sync(source: Source, request: Request, job_id: int) -> Response:
    return json_response(200, source.stop_sync()._asdict())


def _metrics(source: Source, request: Request, job_id: int) -> Response:
    return Response(200, source.metrics().encode(), CONTENT_TYPE)


def _page(source: Source, request: Request, job_id: int) -> Response:
    return Response(200, source.page().encode(), "text/html; charset=utf-8", PAGE_HEADERS)


def _healthy(source: Source, request: Request, job_id: int) -> Response:
    return _health(source.healthy())


def _ready(source: Source, request: Request, job_id: int) -> Response:
    return _health(source.ready())


def _health(reasons: list[str]) -> Response:
    lines = [printable(each) for each in reasons] or ["OK"]
    return Response(503 if reasons else 200, "".join(f"{line}\n" for line in lines).encode(), TEXT)


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body. Raises UsageError."""
    try:
        found = json.loads(body.decode())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError('expected a JSON object, as {"state": "parked"}, {"all": true} or {"since": 1795355361}')
    return found


_BOTH = (
    Route("GET", "/metrics", _metrics),
    Route("GET", "/-/healthy", _healthy),
    Route("GET", "/-/ready", _ready),
)
CONTROL_ROUTES = (
    Route("GET", "/status", _status),
    Route("GET", "/queue", _queue),
    Route("GET", "/jobs/ID", _job),
    *_BOTH,
    Route("POST", "/queue/retry", _retry),
    Route("POST", "/queue/drop", _drop),
    Route("POST", "/reload", _reload),
    Route("GET", "/resend", _resend_report),
    Route("POST", "/resend", _resend),
    Route("POST", "/sync", _sync),
    Route("POST", "/sync/stop", _stop_sync),
)
METRICS_ROUTES = (Route("GET", "/", _page), *_BOTH)
"""They name no user and no job."""
