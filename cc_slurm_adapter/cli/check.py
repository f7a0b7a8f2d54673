"""`-check`: looks for everything that can be wrong at a site, a line each. It sends nothing and changes nothing."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from cc_slurm_adapter import lines, log
from cc_slurm_adapter.cli.control_client import get
from cc_slurm_adapter.cli.progress import Waiting
from cc_slurm_adapter.cli.status import find_status, wants_colors
from cc_slurm_adapter.cli.stopped import Stopped
from cc_slurm_adapter.cli.time_limit import TimeLimit
from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.config.paths import DEFAULT_PATHS, read_paths
from cc_slurm_adapter.daemon.assembly import DAEMON, Assembly, RunAs
from cc_slurm_adapter.daemon.checks.cc_backend import find_cc_backend
from cc_slurm_adapter.daemon.checks.configuration import can_be_read, find_configuration, hidden_credentials
from cc_slurm_adapter.daemon.checks.files import find_files
from cc_slurm_adapter.daemon.checks.hooks import Here, find_hooks, find_ways
from cc_slurm_adapter.daemon.checks.nats import find_nats
from cc_slurm_adapter.daemon.checks.proxy import environment_of, find_proxy
from cc_slurm_adapter.daemon.checks.running import DAEMON as DAEMON_SUBJECT
from cc_slurm_adapter.daemon.checks.running import find_running
from cc_slurm_adapter.daemon.checks.slurm import Client, SlurmChecks
from cc_slurm_adapter.daemon.checks.unit import (
    BOOTED,
    DEFAULT_UNIT,
    Unit,
    find_environment,
    find_unit,
    read_own_unit,
)
from cc_slurm_adapter.daemon.checks.user import DaemonUser, find_daemon_user, find_user
from cc_slurm_adapter.daemon.screen_text import clipped, columns, screen_size, wrapped
from cc_slurm_adapter.daemon.status_text import RED, YELLOW, Line, colored
from cc_slurm_adapter.errors import ConfigError, OutputError
from cc_slurm_adapter.lines import is_terminal, output_priority, print_line, write_screen
from cc_slurm_adapter.log import describe_error
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.slurm import commands
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.system.file_locks import holder_of_lock
from cc_slurm_adapter.system.owner import acting_as, own_account
from cc_slurm_adapter.system.quantities import counted

VERSION = 1
"""The version of the JSON form. It grows if a field is removed, renamed or changes its meaning."""
WELL, WARNINGS, FAILURES = 0, 1, 2
"""The exit codes of -check."""
OK, WARN, FAIL = "OK", "WARN", "FAIL"
PRIORITIES = {OK: lines.INFO, WARN: lines.WARNING, FAIL: lines.ERROR}
COLORS = {OK: "", WARN: YELLOW, FAIL: RED}
SLURM = commands.Timing(time_limit=15.0, longest=30.0, slow=5.0)
SYSTEMD = commands.Timing(time_limit=5.0, longest=10.0)
INDENT = 5
"""Columns before what is found: the longest word and a blank."""
LONGEST_TEXT = 1000
"""The most characters of a line's text and of its next step."""
NO_ANSWER = "see why: journalctl -u {} -n 50"


class Group(NamedTuple):
    """Checks that belong together: an error in one of them does not keep the other groups from running."""

    name: str
    find: Callable[[], Iterable[Finding]]


class Report:
    """Prints findings as they come, and counts them. With `as_json` they are printed together at the end."""

    def __init__(self, *, as_json: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts = dict.fromkeys((OK, WARN, FAIL), 0)
        self._as_json = as_json
        self._is_wrapped = is_terminal()
        self._has_colors = self._is_wrapped and wants_colors(os.environ)
        self._findings: list[Finding] = []
        self._waiting = Waiting("-check", clock)
        self.still_waits = self._waiting.still_waits
        """Says on standard error what takes long, if that was not said just now."""

    @property
    def code(self) -> int:
        """The exit code for what was found so far."""
        return FAILURES if self.counts[FAIL] else WARNINGS if self.counts[WARN] else WELL

    def run(self, group: Group) -> None:
        """Print what a group finds. An error of this program in it is a finding of its own."""
        self._waiting.begin(group.name)
        try:
            for finding in group.find():
                self.add(finding)
        except OutputError:
            raise
        except Exception as error:  # noqa: BLE001 - one check must not hide what the others find
            text = f"an error of this program: {describe_error(error)}"
            self.add(Finding(logging.ERROR, group.name, text, "report this line"))

    def add(self, finding: Finding) -> None:
        """Print and count a finding."""
        word = word_of(finding)
        self.counts[word] += 1
        self._findings.append(finding)
        self._waiting.answered()
        if not self._as_json:
            for text in lines_of(finding, screen_size()[0]) if self._is_wrapped else [line_of(finding)]:
                shown = colored(Line(text, COLORS[word])) if self._has_colors else text
                write_screen(f"{output_priority(PRIORITIES[word])}{shown}\n")

    def end(self) -> int:
        """Print the summary, or the JSON object. Return the exit code."""
        if self._as_json:
            print_line(json.dumps(as_object(self._findings)))
        else:
            print_line(summary(self.counts))
        return self.code


def word_of(finding: Finding) -> str:
    """Return the word for a finding's level."""
    return FAIL if finding.level >= logging.ERROR else WARN if finding.level >= logging.WARNING else OK


def line_of(finding: Finding) -> str:
    """Return a finding as one printable line: its word, what it is about, what is found, and what to do."""
    return f"{word_of(finding):<4} {' '.join(_parts(finding))}"


def lines_of(finding: Finding, width: int) -> list[str]:
    """Return a finding in lines of at most `width` columns, unless one of its words is wider.

    What to do begins a line of its own if they are several. A path is never broken, and a command only if it is wider.
    """
    line = line_of(finding)
    if columns(line) <= width:
        return [line]
    found, *next_step = [wrapped(part, width - INDENT, to_paste=True) for part in _parts(finding)]
    first, *others = [*found, *(each for lines in next_step for each in lines)]
    return [f"{word_of(finding):<4} {first}", *(" " * INDENT + each for each in others)]


def _parts(finding: Finding) -> list[str]:
    """Return what is found, and after an arrow what to do, if there is something."""
    text, subject = clipped(finding.text, LONGEST_TEXT), clipped(finding.subject)
    about = text if text.startswith((f"{subject}: ", f"{subject} ")) else f"{subject}: {text}"
    return [about, f"-> {clipped(finding.next_step, LONGEST_TEXT)}"] if finding.next_step else [about]


def summary(counts: dict[str, int]) -> str:
    """Return the last line."""
    return f"{counts[OK]} ok, {counted(counts[WARN], 'warning')}, {counted(counts[FAIL], 'failure')}"


def as_object(findings: Iterable[Finding]) -> dict[str, object]:
    """Return all findings as an object. `ok` says that there is neither a warning nor a failure."""
    found = [
        {"level": word_of(each), "subject": each.subject, "text": each.text, "nextStep": each.next_step}
        for each in findings
    ]
    return {"version": VERSION, "ok": all(each["level"] == OK for each in found), "findings": found}


def check_site(config_path: str, *, explicit: bool, debug: int, as_json: bool) -> int:
    """Look for everything that can be wrong. Return the exit code. Raises OutputError.

    `explicit` says that the caller has named the configuration.
    """
    log.set_up(debug)
    report = Report(as_json=as_json)
    site = Site(config_path, report.still_waits, explicit=explicit)
    try:
        for group in site.groups():
            report.run(group)
    finally:
        site.close()
    return report.end()


class Site:
    """The checks in their order. Each group keeps what later ones need."""

    def __init__(
        self, config_path: str, pulse: Callable[[], None] = lambda: None, *, explicit: bool, booted: str = ""
    ) -> None:
        """`pulse` is called while commands are waited for. `booted` is a folder that only systemd makes."""
        self._path, self._explicit, self._booted = config_path, explicit, booted or BOOTED
        self._pulse = pulse
        self._limit = TimeLimit(pulse)
        self._paths = DEFAULT_PATHS
        self._unit = Unit(DEFAULT_UNIT, "it was not asked for")
        self._user = DaemonUser(own_account(), "the user of this command")
        self._config: Config | None = None
        self._has_file = False
        """Whether the configuration is there. Else its paths are not looked at: they would follow from that mistake."""
        self._slurm: SlurmChecks | None = None
        self._closers: list[Callable[[], None]] = []

    def close(self) -> None:
        """Close what commands have used."""
        for close in self._closers:
            close()

    def groups(self) -> Iterator[Group]:
        """Yield all groups. Each must have run before the next one is taken."""
        yield Group("user", self._find_user)
        yield Group("configuration", self._find_configuration)
        config = self._config
        if config is not None:
            if self._has_file and not self._user.runner:
                yield Group("files", partial(self._as_daemon, find_files, config, self._unit))
            yield Group("Slurm", partial(self._find_slurm, config))
        site = self._slurm.cluster_config if self._slurm else None
        if config is not None and site is not None:
            here = Here(os.uname().nodename, own_program(), self._user.account)
            yield Group("hooks", partial(find_hooks, site, here))
            if self._has_file and not self._user.runner:
                yield Group("hook events", partial(find_ways, config, site, here))
        yield Group("unit", lambda: find_unit(self._unit, self._path, own_program()))
        if config is not None:
            yield Group("environment", partial(self._find_environment, config))
        yield Group("daemon", partial(self._find_daemon, site))
        if config is not None and self._slurm is not None:
            cluster, nodes = self._slurm.cluster, self._slurm.nodes
            hidden = hidden_credentials(config, self._unit, os.environ)
            environment = environment_of(self._unit, os.environ)
            if config.cc_rest_url:
                ask = partial(find_cc_backend, config, cluster, nodes, time.time(), hidden, environment)
                yield Group("cc-backend", partial(self._limit.apply, "cc-backend", ask))
            if config.nats_servers:
                yield Group("NATS", partial(self._limit.apply, "NATS", partial(find_nats, config, hidden)))

    def _as_daemon(self, find: Callable[..., Iterable[Finding]], *arguments: object) -> list[Finding]:
        """Return what is found with the rights of the daemon's user."""
        with acting_as(self._user.account):
            return list(find(*arguments))

    def _find_user(self) -> Iterator[Finding]:
        with contextlib.suppress(ConfigError):  # what is wrong in the file is found later
            self._paths = read_paths(self._path, explicit=self._explicit)
        systemd = Commands(pulse=self._pulse, timing=SYSTEMD)
        self._closers.append(systemd.close)
        holder = holder_of_lock(self._paths.pid_file)
        self._unit = read_own_unit(systemd, holder, os.environ, self._path, self._booted)
        self._user = find_daemon_user(self._unit, self._paths.state, holder)
        yield from find_user(self._user, self._unit)

    def _find_configuration(self) -> list[Finding]:
        with acting_as(self._user.account):
            self._config, found = find_configuration(self._path, self._unit, os.environ, explicit=self._explicit)
            self._has_file = can_be_read(self._path)
        return found

    def _find_slurm(self, config: Config) -> Iterator[Finding]:
        assembly = Assembly(config, DAEMON, self._pulse, self._path, timing=SLURM, run_as=self._run_as())
        self._closers.append(assembly.commands.close)
        folder = os.path.dirname(config.state_path) or "."

        def make_client(cluster: str) -> Client:
            return assembly.make_slurm(cluster, folder, lambda *found: None)  # it is asked for and printed here

        self._slurm = SlurmChecks(config, assembly.commands, make_client, self._user.account.name)
        yield from self._slurm.find()

    def _find_environment(self, config: Config) -> Iterator[Finding]:
        yield from find_environment(self._unit, config.slurm_conf, os.environ)
        yield from find_proxy(config, self._unit, os.environ)

    def _run_as(self) -> RunAs | None:
        """Return whom Slurm's commands are run as, if this is root; with the daemon's PATH."""
        if os.geteuid() != 0:
            return None
        account = self._user.account
        return RunAs(account if account.uid != 0 else None, self._unit.search_path)

    def _find_daemon(self, site: ClusterConfig | None) -> Iterator[Finding]:
        paths = self._paths
        found = find_status(lambda: get("/status", paths.control_sock), paths, lambda: self._unit.short_name).status
        if isinstance(found, Stopped):
            yield from _of_stopped(found)
        else:
            yield from find_running(found, site)


def own_program() -> str:
    """Return the file that runs; '' if that is not known, as in a checkout."""
    return os.path.realpath(sys.argv[0]) if os.path.isfile(sys.argv[0]) else ""


def _of_stopped(stopped: Stopped) -> Iterator[Finding]:
    """Yield what is known about a daemon that does not answer. Whether one should run, the unit says."""
    error = clipped(stopped.error)
    if stopped.is_forbidden:
        yield Finding(logging.WARNING, DAEMON_SUBJECT, f"cannot be seen: {error}")
    elif stopped.holder or not stopped.is_gone:
        yield Finding(logging.ERROR, DAEMON_SUBJECT, f"does not answer: {error}", NO_ANSWER.format(stopped.service))
    else:
        yield Finding(logging.INFO, DAEMON_SUBJECT, "none runs now")
        if stopped.state_error and os.path.exists(stopped.paths.state):
            text = f"{stopped.paths.state} cannot be read: {stopped.state_error}"
            yield Finding(logging.WARNING, "statePath", text, "a start says more in its log")
