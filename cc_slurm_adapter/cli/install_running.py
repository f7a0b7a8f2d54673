"""Who reports jobs on this host already, for `-install`: a daemon of this program, or the existing adapter.

It only looks at their files and processes. Whether there was a start before is seen there as well.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from cc_slurm_adapter.cli.install_rights import Presence, presence
from cc_slurm_adapter.cli.stopped import find_holder, read_pid
from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.config.paths import Paths
from cc_slurm_adapter.daemon.checks.unit import unit_of
from cc_slurm_adapter.daemon.screen_text import clipped
from cc_slurm_adapter.outbox.moment_file import moment_path
from cc_slurm_adapter.system.file_systems import user_name

NAME = "cc-slurm-adapter"
"""It is in the command line of every daemon, also of the existing adapter."""


class Running(NamedTuple):
    """A daemon that runs."""

    pid: int
    user: str
    command: str
    unit: str
    """The service that it belongs to; '' if it is in none."""
    locked: str
    """The file that it has locked, as this program does; '' for another program, such as the existing adapter."""
    pid_file: str


class Before(NamedTuple):
    """What earlier daemons have left here."""

    state: Presence = Presence.MISSING
    """Whether there is a file that only this program makes."""
    last_run: float | None = None
    """The time of lastRunPath in Unix seconds, if the first start looks no further back than that; else None."""


NOTHING_BEFORE = Before()


def find_daemon(config: Config, proc: str = "/proc") -> Running | None:
    """Return the daemon that holds a lock of this configuration or is named by its pid file; None if there is none.

    The existing adapter locks nothing. A number that is left in its pid file may belong to any process by now, so its
    command line must have the name of the program.
    """
    paths = Paths(config.control_sock_path, config.pid_file_path, config.last_run_path, config.state_path)
    locked, holder = find_holder(paths)
    named = read_pid(paths.pid_file)
    pid = holder or (int(named) if named.isascii() and named.isdigit() else 0)
    words = _command(pid, proc) if pid else []
    if not holder and not any(NAME in word for word in words):
        return None
    try:
        user = user_name(os.stat(os.path.join(proc, str(pid))).st_uid)
    except OSError:
        if not holder:
            return None
        user = "a user who cannot be seen"
    return Running(pid, user, clipped(" ".join(words)), unit_of(str(pid), proc), locked, paths.pid_file)


def _command(pid: int, proc: str) -> Sequence[str]:
    """Return the command line of a process; [] if there is no such process."""
    try:
        with open(os.path.join(proc, str(pid), "cmdline"), "rb") as file:
            return [os.fsdecode(word) for word in file.read().split(b"\0") if word]
    except OSError:
        return []


def find_before(config: Config, now: float) -> Before:
    """Return what earlier daemons have left. `now` is in Unix seconds."""
    found = {presence(path) for path in (config.state_path, moment_path(config.state_path))}
    state = next((each for each in (Presence.THERE, Presence.UNSEEN) if each in found), Presence.MISSING)
    try:
        last_run = min(os.stat(config.last_run_path).st_mtime, now)
    except OSError:
        return Before(state)
    return Before(state, last_run if last_run > now - config.slurm_query_max_span else None)
