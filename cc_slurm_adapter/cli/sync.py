"""`-sync`: brings what accounting has of a span of time, or of a job, on purpose, and shows how far that is.

While a daemon runs, it does this, beside all else, and the command only follows it. Without one the command does it
itself, as a single round of the daemon. Runs that are known are left alone, so the same command may be given again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cc_slurm_adapter import log
from cc_slurm_adapter.cli import control_client
from cc_slurm_adapter.cli.control_client import parse_answer
from cc_slurm_adapter.cli.moments import parse_moment, parse_span
from cc_slurm_adapter.cli.once import DELIVERED, NOT_ALL, RoundBar, refuse_root, report_end
from cc_slurm_adapter.cli.progress import Bar, Shown
from cc_slurm_adapter.cli.queue import Client
from cc_slurm_adapter.cli.verdicts import NO_SUCH_JOB
from cc_slurm_adapter.config.config import load_config
from cc_slurm_adapter.config.paths import read_paths
from cc_slurm_adapter.daemon.report import StatusReport, from_json
from cc_slurm_adapter.daemon.syncing import describe
from cc_slurm_adapter.errors import NotRunning, StateError, UsageError
from cc_slurm_adapter.jobs.report import COMPLETE, SyncReport, SyncRequest
from cc_slurm_adapter.lines import ERROR, NOTICE, log_line
from cc_slurm_adapter.slurm.one_job import parse_name
from cc_slurm_adapter.slurm.parse.accounting import EARLIEST
from cc_slurm_adapter.system.quantities import counted

FOREVER = float("inf")
LOOK_EVERY = 1.0
"""Seconds between two looks at how far the daemon is."""
SILENT_FOR = 60.0
"""After so many seconds without an answer a daemon that seems to be there is not followed any more."""
AGAIN = "the same command goes on from there"


def sync(  # noqa: PLR0913 - the flags
    config_path: str,
    *,
    explicit: bool,
    debug: int,
    since: str | None,
    until: str | None,
    job: str | None,
    timeout: str | None,
) -> int:
    """Sync, and say what was brought. Return the exit code. Raises AdapterError."""
    now = time.time()
    limit = FOREVER if timeout is None else parse_span("timeout", timeout)
    span = _span(since, until, job, now)
    log.set_up(debug)
    wanted = span._replace(job=_job_id(job, config_path, explicit=explicit)) if job is not None else span
    socket_path = read_paths(config_path, explicit=explicit).control_sock
    try:
        accepted = parse_answer(*control_client.post("/sync", _request(wanted), socket_path))
    except NotRunning:
        return _sync_alone(wanted, config_path, explicit=explicit, limit=limit)
    return Follower(control_client, socket_path, float(str(accepted.get("began", 0))), limit).follow()


def _request(wanted: SyncRequest) -> dict[str, object]:
    request: dict[str, object] = {"since": wanted.since, "until": wanted.until}
    return {**request, "job": wanted.job} if wanted.job else request


def _span(since: str | None, until: str | None, job: str | None, now: float) -> SyncRequest:
    """Return the span that the flags name. Raises UsageError."""
    if since is None and job is None:
        raise UsageError("-sync needs -since or -job: -sync -since 7d brings what has ended in the last seven days")
    begin = EARLIEST if since is None else max(parse_moment("since", since, now), EARLIEST)
    end = int(now) if until is None else parse_moment("until", until, now)
    if begin >= end:
        raise UsageError(f"-since {since} is not before {f'-until {until}' if until else 'now'}")
    return SyncRequest(begin, end)


def _job_id(job: str, config_path: str, *, explicit: bool) -> int:
    """Return the id of a job; Slurm is asked only if it is a task of an array or a component. Raises AdapterError."""
    name = parse_name(job)
    if not name.mark:
        return name.job_id
    from cc_slurm_adapter.cli.job_sources import find_id, read_lines  # noqa: PLC0415 - only for this
    from cc_slurm_adapter.daemon.assembly import DAEMON, Assembly  # noqa: PLC0415

    config, _ = load_config(config_path, explicit=explicit)
    commands = Assembly(config, DAEMON, lambda: None, config_path).commands
    try:
        queue, failure = read_lines(commands, name, "")
        return find_id(commands, name, queue, failure)
    finally:
        commands.close()


def shown_of(report: SyncReport) -> Shown:
    """Return how far a sync is."""
    share = (report.reached - report.since) / max(report.until - report.since, 1)
    note = f"it fails and is tried again: {report.why}" if report.failing_since else ""
    note = note or (report.waits_for and f"it waits: {report.waits_for}")
    return Shown("sync", share, report.found, "runs", note)


def code_of(report: SyncReport) -> int:
    """Return the exit code for the end of a sync: 2 if Slurm knows no such job."""
    if report.result != COMPLETE or report.unread:
        return NOT_ALL
    return NO_SUCH_JOB if report.job and not report.found else DELIVERED


class Follower:
    """Follows the sync that a daemon does."""

    def __init__(  # noqa: PLR0913 - what it asks, what it shows, and its clock
        self,
        client: Client,
        socket_path: str,
        began: float,
        limit: float = FOREVER,
        bar: Bar | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """`began` names the sync; after `limit` seconds it is stopped."""
        self._client = client
        self._socket_path = socket_path
        self._last = SyncReport(began)
        self._bar = bar or Bar("sync")
        self._clock = clock
        self._deadline = clock() + limit
        self._wait = wait
        self._answered = clock()

    def follow(self) -> int:
        """Show how far it is until it is over. After Ctrl-C it is stopped. Return the exit code."""
        try:
            while self._clock() < self._deadline:
                status = self._ask()
                if status is not None and status.sync.began != self._last.began:
                    return self._say_lost("the daemon was restarted meanwhile")
                if status is not None:
                    self._last = status.sync
                    if status.sync.ended:
                        return self._say_end(status)
                    self._bar.show(shown_of(status.sync))
                self._wait(LOOK_EVERY)
        except KeyboardInterrupt:
            return self._stop("")
        except StateError as error:
            return self._say_lost(str(error))
        finally:
            self._bar.close()
        return self._stop("-timeout: ")

    def _ask(self) -> StatusReport | None:
        """Return the status; None if the daemon does not answer just now. Raises StateError if it is gone."""
        try:
            status, body = self._client.get("/status", self._socket_path)
            if status != 200:
                raise StateError(f"the daemon answers with HTTP {status}")
            report = from_json(body.decode(errors="replace"))
        except NotRunning:
            raise
        except (StateError, ValueError) as error:
            if self._clock() - self._answered >= SILENT_FOR:
                raise StateError(str(error)) from None
            return None
        self._answered = self._clock()
        return report

    def _stop(self, why: str) -> int:
        """Let the daemon stop it, and say what was brought."""
        self._bar.close()
        try:
            parse_answer(*self._client.post("/sync/stop", {}, self._socket_path))
        except (StateError, UsageError) as error:
            log_line(f"cc-slurm-adapter: sync: {error}", ERROR)
        log_line(f"cc-slurm-adapter: sync: {why}stopped, {describe(self._last)}; {AGAIN}", NOTICE)
        return NOT_ALL

    def _say_lost(self, why: str) -> int:
        self._bar.close()
        found = describe(self._last) if self._last.until else "nothing is known of it yet"
        log_line(f"cc-slurm-adapter: sync: not complete, {why}. Until then: {found}; {AGAIN}", ERROR)
        return NOT_ALL

    def _say_end(self, status: StatusReport) -> int:
        self._bar.close()
        waiting = sum(each.queue.pending for each in status.destinations)
        left = f"; {counted(waiting, 'message waits', 'messages wait')} to be delivered (-status)" if waiting else ""
        say_end(status.sync, left)
        return code_of(status.sync)


def say_end(report: SyncReport, more: str = "") -> None:
    """Print what a sync has brought."""
    again = "" if report.result == COMPLETE else f"; {AGAIN}"
    if report.unread:
        again += "; the log says why some could not be read, and the same command tries them again"
    code = code_of(report)
    unknown = "; Slurm knows no such job" if code == NO_SUCH_JOB else ""
    line = f"cc-slurm-adapter: sync {report.result}: {describe(report)}{unknown}{more}{again}"
    log_line(line, ERROR if code else NOTICE)


class _SyncBar(RoundBar):
    """Shows how far a sync without a daemon is, and then how far its delivery is."""

    def show(self, report: StatusReport) -> None:
        """Show how far it is."""
        if report.sync.is_under_way and report.sync.reached > report.sync.since:
            self.bar.show(shown_of(report.sync._replace(failing_since=0.0)))  # the log has that
        else:
            super().show(report)


def _sync_alone(wanted: SyncRequest, config_path: str, *, explicit: bool, limit: float) -> int:
    """Do it as a single round of the daemon."""
    config, findings = load_config(config_path, explicit=explicit)
    log.log_findings(*findings)
    refuse_root(config)
    from cc_slurm_adapter.daemon.one_round import OneRound  # noqa: PLC0415 - slow to load: mistakes are reported before

    bar = _SyncBar("sync")
    try:
        end = OneRound(config, config_path, findings, limit, bar.show, wanted).run_once()
    finally:
        bar.close()
    report = end.report.sync
    if report.began:
        say_end(report if report.ended else report._replace(result="not complete"))
    return report_end("sync", end, limit) or code_of(report)
