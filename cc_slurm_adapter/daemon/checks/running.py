"""What a running daemon says about itself: its version, its faults, and the hook events that have arrived."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from cc_slurm_adapter import __version__
from cc_slurm_adapter.daemon.report import SLURMCTLD_HOOKS, StatusReport
from cc_slurm_adapter.daemon.screen_text import clipped
from cc_slurm_adapter.daemon.status_text import first_line
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig
from cc_slurm_adapter.system.quantities import ago, counted, duration

DAEMON, HOOK_EVENTS = "daemon", "hook events"
LONG_WITHOUT_EVENT = 3600.0
"""Seconds after which a cluster should have started or ended a job."""


def find_running(report: StatusReport, site: ClusterConfig | None) -> Iterator[Finding]:
    """Yield what a daemon that answers says. `site` is None if slurmctld cannot be asked."""
    program = report.program
    if program.version != __version__:
        text = f"the one that runs (pid {program.pid}) is version {program.version}, and this file is {__version__}"
        yield Finding(logging.WARNING, DAEMON, text, "restart it: systemctl restart cc-slurm-adapter")
    level = max((each.level for each in report.faults), default=logging.INFO)
    step = "see cc-slurm-adapter -status, which lists all" if report.faults else ""
    yield Finding(level, DAEMON, f"pid {program.pid}: {clipped(first_line(report))}", step)
    if site is not None:
        yield from _find_events(report, site)


def _find_events(report: StatusReport, site: ClusterConfig) -> Iterator[Finding]:
    """Yield whether the hooks reach the daemon, as far as jobs have shown that since its start."""
    hooks, up = report.hooks, report.time - report.program.started
    missing = [each for each in SLURMCTLD_HOOKS if each not in hooks.from_slurmctld]
    if not (site.hooks.prolog_slurmctld or site.hooks.epilog_slurmctld or hooks.events):
        return  # that no hook is set is said already
    if hooks.events and not missing:
        text = f"{counted(hooks.events, 'event')} since its start, from both hooks"
        yield Finding(logging.INFO, HOOK_EVENTS, f"{text}, the last {ago(hooks.last_event, report.time)}")
    elif hooks.events:
        text = f"{counted(hooks.events, 'event')} since its start {duration(up)} ago, but none of {', '.join(missing)}"
        level = logging.WARNING if up > LONG_WITHOUT_EVENT else logging.INFO
        yield Finding(level, HOOK_EVENTS, text, "see slurmctld's log, if jobs have begun and ended since")
    elif up > LONG_WITHOUT_EVENT:
        text = f"none has arrived since its start {duration(up)} ago"
        step = "if jobs have begun since: see slurmctld's log, and try the hook by hand (docs/operating.md)"
        yield Finding(logging.WARNING, HOOK_EVENTS, text, step)
    else:
        text = f"none since its start {duration(up)} ago: whether hooks reach it is seen when a job begins or ends"
        yield Finding(logging.INFO, HOOK_EVENTS, text)
