"""`-once`: does everything that a daemon does, once, and ends when all of it is delivered or the time is over."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cc_slurm_adapter import log
from cc_slurm_adapter.cli.moments import parse_span
from cc_slurm_adapter.cli.progress import Bar, Shown
from cc_slurm_adapter.config.config import Config, load_config
from cc_slurm_adapter.daemon.report import RUNNING, StatusReport
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.lines import ERROR, NOTICE, log_line
from cc_slurm_adapter.outbox.report import SinkReport
from cc_slurm_adapter.system.file_systems import group_name, user_name
from cc_slurm_adapter.system.quantities import counted, duration

if TYPE_CHECKING:
    from cc_slurm_adapter.daemon.one_round import RoundEnd

DELIVERED, NOT_ALL = 0, 1
"""The exit codes of -once."""
LIMIT = 600
"""Seconds that it takes at most, if -timeout does not say another time."""
NEXT = "it is in the state file, and the next -once or daemon sends it"


def run_once(config_path: str, *, explicit: bool, debug: int, timeout: str | None) -> int:
    """Do the round and say how it has ended. Return the exit code. Raises AdapterError."""
    limit = LIMIT if timeout is None else parse_span("timeout", timeout)
    log.set_up(debug)
    config, findings = load_config(config_path, explicit=explicit)
    log.log_findings(*findings)
    refuse_root(config)
    from cc_slurm_adapter.daemon.one_round import OneRound  # noqa: PLC0415 - slow to load: mistakes are reported before

    bar = RoundBar("once")
    try:
        end = OneRound(config, config_path, findings, limit, bar.show).run_once()
    finally:
        bar.close()
    return report_end("once", end, limit)


def refuse_root(config: Config) -> None:
    """Raise StateError if this is root and the state another user's, whose daemon could not use what root makes."""
    if os.geteuid() != 0:
        return
    for path in (config.state_path, os.path.dirname(config.state_path) or "."):
        with contextlib.suppress(OSError):
            found = os.stat(path)
            if found.st_uid != 0:
                name, group = user_name(found.st_uid), group_name(found.st_gid)
                raise StateError(
                    f"{path} belongs to {name}, who could not use what root makes beside it: run this as {name}, with"
                    f" `runuser -u {name} -g {group} -- ` before the command"
                )
            return


class RoundBar:
    """Shows how far a round is: what takes long, and then what is still to be delivered."""

    def __init__(self, name: str) -> None:
        self.bar = Bar(name)
        self._most = 0
        """The most messages that have waited at a time."""

    def show(self, report: StatusReport) -> None:
        """Show how far it is. Where lines are printed, those of the log say how far reading is."""
        if report.work and self.bar.is_drawn:
            work = report.work[0]
            self.bar.show(Shown(work.what, work.done / max(work.total, 1), work.done, f"of {work.total:,}"))
        elif report.program.phase == RUNNING:
            waiting = sum(each.queue.pending for each in report.destinations)
            self._most = max(self._most, waiting)
            if self._most:
                self.bar.show(Shown("delivering", 1 - waiting / self._most, self._most - waiting, "messages"))

    def close(self) -> None:
        """Erase the bar."""
        self.bar.close()


def report_end(name: str, end: RoundEnd, limit: float) -> int:
    """Print how a round has ended, the reasons each in a line. Return the exit code."""
    reasons = list(_reasons(end))
    if end.is_stopped:
        log_line(f"cc-slurm-adapter: {name}: stopped by a signal before its end; what waits is on disk", ERROR)
    elif end.is_late:
        when = f"complete after {duration(limit)}" if limit < float("inf") else "delivered yet"
        log_line(f"cc-slurm-adapter: {name}: not {when} (-timeout allows more)", ERROR)
    elif not reasons:
        log_line(f"cc-slurm-adapter: {name}: all was read and is delivered", NOTICE)
        return DELIVERED
    for reason in reasons:
        log_line(f"cc-slurm-adapter: {name}: {reason}", ERROR)
    return NOT_ALL


def _reasons(end: RoundEnd) -> Iterator[str]:
    """Yield what is not done or not delivered, and why."""
    report = end.report
    if report.program.phase != RUNNING:
        yield f"nothing was read: {report.program.phase}"
        return
    for name in end.undone:
        step = report.steps[name]
        yield f"not done: {step.name}{f': {step.why}' if step.why else ''}"
    for each in report.destinations:
        if each.queue.pending:
            waiting = counted(each.queue.pending, "message waits", "messages wait")
            yield f"{waiting} for {each.sink.label}{_why(each.sink)}: {NEXT}"
        elif each.sink.failing_since:
            yield f"{each.sink.label}{_why(each.sink)}: it was not told the states of the nodes"
        elif each.sink.nodes_why:
            yield f"{each.sink.label} does not take the states of the nodes: {each.sink.nodes_why}"
    for parked in report.parked:
        yield f"parked: {parked}; see -queue list"
    if report.runs.not_understood:
        yield f"{counted(report.runs.not_understood, 'job is', 'jobs are')} not understood: see the lines above"
    if end.is_late and not (end.undone or end.is_delivered or any(each.queue.pending for each in report.destinations)):
        yield "the last answer was still on its way"


def _why(sink: SinkReport) -> str:
    return f", which {sink.trouble}: {sink.why}" if sink.failing_since else ""
