"""A stand-in cc-backend to try the adapter with, as a program or inside a test.

    backend = CcBackend()
    with serving(backend) as url:
        ...                     # let something report to url
        print(backend.rows)

It answers like a real cc-backend 1.5.4 on the paths that reporting needs, and keeps everything in
memory. The modules beside this one hold its parts: `server` the network, `state` what one stand-in
knows, `api` its paths, `store` its tables and rules, `json` how it decodes, `clusters` its clusters, `faults`
what can be made to go wrong.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from examples.practice.cc_backend.api import NodeReport
from examples.practice.cc_backend.clusters import DEFAULT_CLUSTERS, Clusters
from examples.practice.cc_backend.faults import (
    CutAnswer,
    Delay,
    Dropped,
    Fault,
    LostAnswer,
    NoAnswer,
    OtherAnswer,
    Rubbish,
    html_page,
    refused_jobs,
    rest_start_off,
    too_many_requests,
)
from examples.practice.cc_backend.server import CcBackendServer, serving
from examples.practice.cc_backend.state import DEFAULT_TOKEN, CcBackend, Clock, LoggedRequest
from examples.practice.cc_backend.store import JobRow, RowKey

__all__ = [
    "DEFAULT_CLUSTERS",
    "DEFAULT_TOKEN",
    "CcBackend",
    "CcBackendServer",
    "Clock",
    "Clusters",
    "CutAnswer",
    "Delay",
    "Dropped",
    "Fault",
    "JobRow",
    "LoggedRequest",
    "LostAnswer",
    "NoAnswer",
    "NodeReport",
    "OtherAnswer",
    "RowKey",
    "Rubbish",
    "html_page",
    "main",
    "refused_jobs",
    "rest_start_off",
    "serving",
    "too_many_requests",
]


def request_line(request: LoggedRequest) -> str:
    """A request for people: local time, path, job, status, milliseconds."""
    clock_time = time.strftime("%H:%M:%S", time.localtime(request.time))
    job = f"job {request.job[1]} of {request.job[0]}" if request.job else "-"
    status = request.status or "no answer"
    milliseconds = request.seconds * 1000
    return f"{clock_time} {request.method:4} {request.path:22} {job:28} {status} ({milliseconds:.1f} ms)"


def _print_request(request: LoggedRequest) -> None:
    # In one piece: several connections print at the same time.
    print(request_line(request) + "\n", end="", flush=True)


def _parse_cluster(text: str) -> tuple[str, list[str]]:
    name, _, hosts = text.partition("=")
    if not name or not all(hosts.split(",")):
        raise argparse.ArgumentTypeError(f"expected NAME=HOST,HOST,... and not '{text}'")
    return name, hosts.split(",")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m examples.practice.cc_backend",
        description="A stand-in for cc-backend: takes job starts, job stops and node states over REST, keeps them "
        "in memory, and prints a line for each request. It ends on Ctrl-C or SIGTERM.",
        epilog="Put the printed URL into ccRestUrl and the token into ccRestJwt of the adapter's configuration. "
        "Ask it what runs with: curl -H 'X-AUTH-TOKEN: TOKEN' 'URL/api/jobs/?state=running' "
        "(a new job is listed after the commit worker ran).",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="0 chooses a free one (default: %(default)s)")
    parser.add_argument("--token-file", type=Path, required=True, help="file with the token that requests must carry")
    parser.add_argument(
        "--cluster",
        action="append",
        type=_parse_cluster,
        metavar="NAME=HOST,HOST,...",
        help="a cluster and its hosts; can be given several times (default: lab with node01-node09, "
        "big with n001-n100)",
    )
    parser.add_argument(
        "--commit-interval",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how often new jobs move on to where listings see them (default: %(default)g)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = _parser()
    options = parser.parse_args(arguments)
    clusters: Clusters = dict(options.cluster) if options.cluster else DEFAULT_CLUSTERS
    try:
        token = options.token_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        parser.error(str(error))
    if not token:
        parser.error(f"{options.token_file} is empty")
    backend = CcBackend(clusters, token, commit_interval=options.commit_interval, on_request=_print_request)
    try:
        server = CcBackendServer(backend, options.host, options.port)
    except (OSError, OverflowError) as error:
        parser.error(f"cannot listen on {options.host} port {options.port}: {error}")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopping.set())
    server.start()
    print(f"listening on {server.url}", flush=True)
    stopping.wait()
    server.close()
