"""A program: the built file's daemon, which kills itself at a chosen step.

    python -I -S -B killed_daemon.py ADAPTER STEP NUMBER [SINCE] -- ARGUMENT ...

At the NUMBERth passage of the step (a key of STEPS) it sends itself SIGKILL; passages are counted only once the step
SINCE was passed. Steps are what the operating system and others can see of the daemon, so that they stay
the same however the program is written: files removed, processes started, transactions closed, requests and answers.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

STEPS = (
    "state file made",
    "state file ready",
    "event file found",
    "event file removed",
    "query begins",
    "query runs",
    "query answered",
    "transaction open",
    "transaction full",
    "transaction closed",
    "start leaves",
    "start left",
    "start answered",
    "stop leaves",
    "stop left",
    "stop answered",
    "withdrawal leaves",
    "withdrawal left",
    "withdrawal answered",
    "last run begins",
    "last run written",
)
KINDS = {"/api/jobs/start_job/": "start", "/api/jobs/stop_job/": "stop", "/api/jobs/delete_job/": "withdrawal"}


class Plan(NamedTuple):
    """Where it is to die."""

    step: str
    number: int
    since: str


class Killer:
    """Counts the passages and kills when it is time."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._left = plan.number
        self._counts = not plan.since
        self._lock = threading.Lock()

    def passes(self, step: str) -> None:
        """The program is at this step."""
        assert step in STEPS
        with self._lock:
            if self._counts and step == self._plan.step:
                self._left -= 1
                if self._left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            self._counts = self._counts or step == self._plan.since


def watch_events(killer: Killer) -> None:
    """Event files are the only ones that are removed in a folder of this name."""
    unlink = os.unlink

    def watched(path: Any, *others: Any, **named: Any) -> None:
        is_event = Path(path).parent.name == "events"
        if is_event:
            killer.passes("event file found")
        unlink(path, *others, **named)
        if is_event:
            killer.passes("event file removed")

    os.unlink = watched


def watch_queries(killer: Killer) -> None:
    """Every process is a question to Slurm."""

    class Watched(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *words: Any, **named: Any) -> None:
            killer.passes("query begins")
            super().__init__(*words, **named)
            killer.passes("query runs")

        def wait(self, timeout: float | None = None) -> int:
            code = super().wait(timeout)
            killer.passes("query answered")
            return code

    subprocess.Popen = Watched  # type: ignore[misc]


def watch_transactions(killer: Killer) -> None:
    """The state file is the only database."""

    class Watched(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if statement == "COMMIT":
                killer.passes("transaction full")
            cursor = super().execute(statement, *values)
            if statement.startswith("BEGIN"):
                killer.passes("transaction open")
            elif statement == "COMMIT":
                killer.passes("transaction closed")
            return cursor

        def executescript(self, script: str) -> sqlite3.Cursor:
            killer.passes("state file made")
            cursor = super().executescript(script)
            killer.passes("state file ready")
            return cursor

    sqlite3.connect = functools.partial(sqlite3.connect, factory=Watched)  # type: ignore[assignment]


def watch_requests(killer: Killer) -> None:
    """Starts, stops and withdrawals on their way to cc-backend. A connection has one request under way."""
    send, receive = socket.socket.sendall, socket.socket.recv
    under_way: dict[socket.socket, str] = {}

    def watched_send(self: socket.socket, data: bytes, *rest: Any) -> None:
        first_line = data[:200].partition(b"\r\n")[0].decode("latin-1")
        kind = next((kind for path, kind in KINDS.items() if f"{path} HTTP/" in first_line), "")
        if kind:
            under_way[self] = kind
            killer.passes(f"{kind} leaves")
        send(self, data, *rest)
        if kind:
            killer.passes(f"{kind} left")

    def watched_receive(self: socket.socket, *words: Any) -> bytes:
        received = receive(self, *words)
        kind = under_way.pop(self, "")
        if kind:
            killer.passes(f"{kind} answered")
        return received

    socket.socket.sendall = watched_send  # type: ignore[assignment,method-assign]
    socket.socket.recv = watched_receive  # type: ignore[assignment,method-assign]


def watch_last_run(killer: Killer) -> None:
    """Only the file of the last run gets another time by its name; marks among the events get theirs when open."""
    utime: Callable[..., None] = os.utime

    def watched(*words: Any, **named: Any) -> None:
        is_last_run = not isinstance(words[0], int)
        if is_last_run:
            killer.passes("last run begins")
        utime(*words, **named)
        if is_last_run:
            killer.passes("last run written")

    os.utime = watched


def main(words: list[str]) -> int:
    """Runs until it kills itself; what the daemon returns when that never comes."""
    adapter, step, number = words[:3]
    rest = words[3:]
    since = rest[: rest.index("--")]
    killer = Killer(Plan(step, int(number), since[0] if since else ""))
    for watch in (watch_events, watch_queries, watch_transactions, watch_requests, watch_last_run):
        watch(killer)
    sys.path.insert(0, f"{adapter}/site-packages")
    from cc_slurm_adapter.__main__ import main as run  # noqa: PLC0415 - only now is its folder known

    return run(rest[rest.index("--") + 1 :])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
