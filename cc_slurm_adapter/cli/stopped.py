"""What can be said about a daemon that does not run or does not answer: from its files, which are only read."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from cc_slurm_adapter.config.paths import Paths
from cc_slurm_adapter.daemon.report import to_json
from cc_slurm_adapter.daemon.screen_text import clipped, wrapped
from cc_slurm_adapter.daemon.status_text import MOST_REASONS, RED, Line, item
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.system.file_locks import holder_of_lock
from cc_slurm_adapter.system.quantities import ago, at, counted, duration, size

if TYPE_CHECKING:  # it loads sqlite3, which is needed only if the daemon does not run
    from cc_slurm_adapter.outbox.stored_state import StoredState

SERVICE = "cc-slurm-adapter"
"""The usual unit, as systemctl takes it."""
PID_LENGTH = 20
"""The most characters that are read of a pid file."""


class Stopped(NamedTuple):
    """A daemon that does not answer, and what its files say. Times are in Unix seconds."""

    time: float
    error: str
    """Why it does not answer."""
    is_gone: bool
    """Whether nothing listens on its socket."""
    is_forbidden: bool
    """Whether this user may not ask it."""
    paths: Paths
    pid: str
    """What is in the pid file; '' if it is not there or cannot be read."""
    holder: int
    """The process that has locked one of the daemon's files, so that a daemon runs; 0 if there is none."""
    locked: str
    """Which file that is; '' if there is none."""
    last_poll: float
    """The time of lastRunPath; 0 if that is not known."""
    state: StoredState | None
    """None if it was not or cannot be read."""
    state_error: str
    """Why not."""
    service: str = SERVICE
    """The daemon's unit, as systemctl takes it."""

    def as_json(self) -> str:
        """Return this as one JSON object. Its `error` tells it from the status of a daemon that answers."""
        return to_json(self)


def read_stopped(
    paths: Paths, error: str, *, is_gone: bool, is_forbidden: bool = False, service: str = SERVICE
) -> Stopped:
    """Read the files of a daemon that does not answer.

    `is_gone` says that nothing listens on its socket. The state file is read only if no daemon runs: one that is there
    but does not answer may wait for the disk. `is_forbidden` says that this user may not ask.
    `service` is the daemon's unit, as systemctl takes it.
    """
    pid, (locked, holder) = read_pid(paths.pid_file), find_holder(paths)
    can_read = is_gone and not holder
    state, state_error = _read_state(paths.state) if can_read else (None, "not read while a daemon is there")
    try:
        last_poll = os.stat(paths.last_run).st_mtime
    except OSError:
        last_poll = 0.0
    if holder and is_gone and locked == paths.pid_file:
        error = f"{_why_gone(paths.control_sock)}: systemctl restart {service} makes it again"
    elif holder and is_gone:
        error = (
            f"it was started with another pidFilePath or controlSockPath than the configuration has now, as it has"
            f" locked {locked} but not {paths.pid_file}: systemctl restart {service}"
        )
    found = (pid, holder, locked, last_poll, state, state_error)
    return Stopped(time.time(), error, is_gone, is_forbidden, paths, *found, service)


def find_holder(paths: Paths) -> tuple[str, int]:
    """Return which of its files a daemon has locked, and its pid: the lock of the state shows it under other paths."""
    found = ((path, holder_of_lock(path)) for path in (paths.pid_file, f"{paths.state}.lock"))
    return next((each for each in found if each[1]), ("", 0))


def _why_gone(path: str) -> str:
    """Return why nobody listens on the socket of a daemon that runs, as when somebody has removed it."""
    is_there = os.path.lexists(path)
    return f"nobody listens on its control socket {path}" if is_there else f"its control socket {path} is not there"


def read_pid(path: str) -> str:
    """Return what is in a pid file; '' if it is not there or cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(PID_LENGTH).decode("ascii", errors="replace").strip()
    except OSError:
        return ""


def _read_state(path: str) -> tuple[StoredState | None, str]:
    from cc_slurm_adapter.outbox.stored_state import read_stored_state  # noqa: PLC0415 - it loads sqlite3

    try:
        return read_stored_state(path), ""
    except StateError as error:
        return None, str(error)


def lines_of(stopped: Stopped, width: int) -> Iterator[Line]:
    """Yield what is known and what to do, in lines of at most `width` columns."""
    yield from (Line(each, RED) for each in wrapped(f"{_head(stopped)}{clipped(stopped.error)}", width))
    yield Line("")
    for label, texts in (
        ("pid file", _pid_texts(stopped)),
        ("last poll", _poll_texts(stopped)),
        *_items_of_state(stopped),
    ):
        yield from map(Line, item(label, texts, width))
    steps = list(_next_steps(stopped))
    if steps:
        yield Line("")
    for step in steps:
        yield from map(Line, wrapped(step, width, 2))


def _head(stopped: Stopped) -> str:
    if stopped.is_forbidden:
        return "the daemon cannot be asked: "
    if stopped.holder:
        gone = f"a daemon runs (pid {stopped.holder}), but "
        return gone if stopped.is_gone else "a daemon runs, but does not answer: "
    return "the daemon does not run: " if stopped.is_gone else "the daemon cannot be asked: "


def _pid_texts(stopped: Stopped) -> list[str]:
    path = stopped.paths.pid_file
    if stopped.holder:
        return [f"{stopped.locked} is locked by the process {stopped.holder}"]
    if not stopped.pid:
        return [f"{path} is not there, as after a stop, or may not be read"]
    return [f"{path} names the process {stopped.pid}, which does not hold its lock: the daemon was killed or crashed"]


def _poll_texts(stopped: Stopped) -> list[str]:
    if not stopped.last_poll:
        return [f"not known: {stopped.paths.last_run} is not there, or may not be seen"]
    return [at(stopped.last_poll, stopped.time)]


def _items_of_state(stopped: Stopped) -> Iterator[tuple[str, list[str]]]:
    from cc_slurm_adapter.sinks.base import label_of  # noqa: PLC0415 - needed only if the daemon does not run

    state, now = stopped.state, stopped.time
    if state is None:
        yield "state file", [stopped.state_error]
        return
    until = f"accounting was read until {ago(state.read_until, now)}" if state.read_until else ""
    yield "state file", [f"{stopped.paths.state}: {size(state.bytes)}", counted(state.open_runs, "open run"), until]
    for queue in state.queues:
        oldest = f", the oldest for {duration(now - queue.oldest_pending)}" if queue.pending else ""
        texts = [f"{queue.pending:,} pending{oldest}", f"{queue.parked:,} parked", f"{queue.conflicts:,} in conflict"]
        yield label_of(queue.sink), texts
    for number, parked in enumerate(state.parked[:MOST_REASONS]):
        label = "" if number else "parked"
        yield label, [f"{parked.messages:,} for {label_of(parked.sink)}: {clipped(parked.reason, 160)}"]


def _next_steps(stopped: Stopped) -> Iterator[str]:
    service = stopped.service
    if stopped.is_forbidden:
        return
    if stopped.holder and stopped.is_gone:
        yield f"-> see why: journalctl -u {service} -n 50. A restart loses nothing"
        return
    if stopped.holder:
        socket = clipped(stopped.paths.control_sock)
        yield f"-> see why: journalctl -u {service} -n 50; is {socket} its controlSockPath?"
        yield f"-> if it stays so: systemctl restart {service}, which loses nothing"
        return
    if not stopped.is_gone:
        yield f"-> see whether it runs: systemctl status {service}"
        return
    yield f"-> see why it ended: systemctl status {service}; journalctl -u {service} -p warning -n 20"
    yield f"-> start it: systemctl start {service}. It finds out from Slurm what happened meanwhile"
