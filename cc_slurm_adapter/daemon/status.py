"""Collects how all parts of the daemon are into one frozen report.

Any thread may collect it: each part keeps its own report as a value that is replaced as a whole, so nobody waits for
the main thread, for Slurm or for a destination.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from cc_slurm_adapter import __version__
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.destinations import Destinations
from cc_slurm_adapter.daemon.faults import find_faults
from cc_slurm_adapter.daemon.hook_check import HOOKS
from cc_slurm_adapter.daemon.main_loop import Activities
from cc_slurm_adapter.daemon.report import (
    SLURMCTLD_HOOKS,
    DestinationReport,
    HooksReport,
    ProgramReport,
    SlurmReport,
    StatusReport,
)
from cc_slurm_adapter.daemon.resend_requests import ResendRequests
from cc_slurm_adapter.daemon.syncing import Syncing
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.jobs.first_moment import FirstMoment
from cc_slurm_adapter.jobs.report import JobNotes, RunsReport, SyncReport
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.log import Work, log_findings
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.outbox.admin import QueueAdmin
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.outbox.queue_watch import Queues
from cc_slurm_adapter.outbox.report import QueueReport, StateReport
from cc_slurm_adapter.sinks.node_states import CC_BACKEND_STATES, states_for_cc_backend
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig
from cc_slurm_adapter.system.file_systems import user_name

MAX_FINDINGS = 100
"""The most findings that are kept, the newest."""


class Parts(NamedTuple):
    """The parts that exist by now. A start makes one after the other."""

    outbox: Outbox | None = None
    cluster: str = ""
    cluster_config: ClusterConfig | None = None
    format_name: Callable[[], str] = lambda: ""
    destinations: Destinations | None = None
    poll_interval: int = 0
    watch: JobWatch | None = None
    first_moment: FirstMoment | None = None
    activities: Activities | None = None
    resends: ResendRequests | None = None
    syncing: Syncing | None = None


class StatusBoard:
    """What the parts report, and what was found about the site. The main thread writes, any thread reads."""

    def __init__(self, config_path: str, state_path: str, state_max_bytes: int, counters: Counters) -> None:
        self._program = ProgramReport(
            version=__version__,
            python=platform.python_version(),
            pid=os.getpid(),
            user=user_name(os.geteuid()),
            started=time.time(),
            config_path=config_path,
            phase="",
            progress_at=0.0,
        )
        self._no_queues = Queues({}, (), StateReport(state_path, True, 0, state_max_bytes, 0.0))
        self._counters = counters
        self._parts = Parts()
        self._findings: tuple[Finding, ...] = ()
        self._of_config: tuple[Finding, ...] = ()
        """What was found in the configuration when it was last read. Replaced as a whole."""
        self._work: dict[str, Work] = {}
        """What takes long now, by its name. Replaced as a whole."""
        self._progress = time.monotonic()
        self.events_a_minute = 0
        """Hook events in the last full minute."""
        self.phase = "starting"
        """What the daemon does or waits for: RUNNING, or words about a start. Replaced as a whole."""

    def add(self, **parts: Any) -> None:
        """Add parts that were just made, by their names in `Parts`."""
        self._parts = self._parts._replace(**parts)

    @property
    def slurm_user(self) -> str:
        """The user that Slurm's hooks run as; '' before Slurm has answered."""
        found = self._parts.cluster_config
        return found.slurm_user if found else ""

    @property
    def queue_admin(self) -> QueueAdmin | None:
        """What changes the queue on request; None before the state file is open."""
        return self._parts.outbox.admin if self._parts.outbox else None

    @property
    def resends(self) -> ResendRequests | None:
        """What lets runs be sent anew on request; None before the main loop is made."""
        return self._parts.resends

    @property
    def has_accounting(self) -> bool:
        """Whether there is a slurmdbd."""
        found = self._parts.cluster_config
        return bool(found and found.has_accounting)

    @property
    def syncing(self) -> Syncing | None:
        """What brings on request what ended long ago; None before everything runs."""
        return self._parts.syncing

    def notes_of(self, job_id: int) -> JobNotes:
        """Return what is known about a job and is not in the state file."""
        return self._parts.watch.notes_of(job_id) if self._parts.watch else JobNotes()

    def wake_senders(self, *, retry: bool = False) -> None:
        """Let the senders look for messages that are due now; with `retry`, end also every wait for a destination."""
        destinations = self._parts.destinations
        if destinations:
            (destinations.retry_now if retry else destinations.wake)()

    def note_work(self, what: str, work: Work | None) -> None:
        """Keep how far a long piece of work is; None: it is over."""
        others = {name: each for name, each in self._work.items() if name != what}
        self._work = {**others, what: work} if work else others

    def note_progress(self) -> None:
        """Record that the main thread makes progress."""
        self._progress = time.monotonic()

    def report_findings(self, *findings: Finding) -> None:
        """Log what was found about the site, and keep it for the status."""
        log_findings(*findings)
        self.keep_findings(*findings)

    def keep_findings(self, *findings: Finding) -> None:
        """Keep what was found about the site for the status, without logging it."""
        now = time.time()
        new = [replace(each, since=now) for each in findings]
        known = {(each.subject, each.text) for each in new}
        kept = [each for each in self._findings if (each.subject, each.text) not in known]
        self._findings = (*kept, *new)[-MAX_FINDINGS:]

    def keep_of_config(self, *findings: Finding) -> None:
        """Keep what was found in the configuration, in place of what was found there before."""
        before, now = {each.text: each.since for each in self._of_config}, time.time()
        kept = findings[:MAX_FINDINGS]
        self._of_config = tuple(replace(each, since=before.get(each.text, now)) for each in kept)

    def forget_findings(self, subjects: Collection[str]) -> None:
        """Forget what was found about these subjects: it is looked for again."""
        self._findings = tuple(each for each in self._findings if each.subject not in subjects)

    def settle_findings(self, subject: str, *findings: Finding) -> None:
        """Keep these in place of all that was found about a subject before, without logging them."""
        since = next((each.since for each in self._findings if each.subject == subject), time.time())
        others = (each for each in self._findings if each.subject != subject)
        self._findings = (*others, *(replace(each, since=since) for each in findings))[-MAX_FINDINGS:]

    def is_delivered(self) -> bool:
        """Return whether no message waits for an answer, and none may be sent now. Parked ones do not count."""
        outbox, destinations = self._parts.outbox, self._parts.destinations
        try:
            return bool(outbox and destinations and not outbox.has_waiting(more_than=0) and destinations.is_idle())
        except StateError:
            return False  # the senders log that

    def collect(self, *, is_last: bool = False) -> StatusReport:
        """Return how everything is now, with what is wrong. `is_last` says that nobody asks after this."""
        parts, now = self._parts, time.time()
        queues = parts.outbox.watch.report(is_last=is_last) if parts.outbox else self._no_queues
        progress_at = now - (time.monotonic() - self._progress)
        hooks = self._hooks(parts)
        report = StatusReport(
            time=now,
            program=self._program._replace(phase=self.phase, progress_at=progress_at),
            slurm=_slurm(parts),
            steps=parts.activities.steps if parts.activities else {},
            destinations=_destinations(parts, queues),
            parked=queues.parked,
            state=queues.state,
            runs=parts.watch.report if parts.watch else RunsReport(),
            hooks=hooks,
            nodes=_nodes_by_state(parts.activities.nodes.words) if parts.activities else {},
            samples=self._counters.samples(),
            timings=self._counters.timings(),
            histograms=self._counters.histograms(),
            findings=_that_last((*self._of_config, *self._findings), hooks),
            work=tuple(self._work.values()),
            sync=parts.syncing.report if parts.syncing else SyncReport(),
        )
        return replace(report, faults=find_faults(report))

    def _hooks(self, parts: Parts) -> HooksReport:
        report = parts.activities.hooks.report if parts.activities else HooksReport()
        return report._replace(a_minute=self.events_a_minute)


def _that_last(findings: tuple[Finding, ...], hooks: HooksReport) -> tuple[Finding, ...]:
    """Return the findings but for that about missing hooks, if slurmctld's hooks have called meanwhile.

    Hooks are usually set after the first start of the daemon, which is not told of `scontrol reconfigure`.
    """
    if hooks.from_slurmctld != SLURMCTLD_HOOKS:
        return findings
    return tuple(each for each in findings if each.subject != HOOKS)


def _slurm(parts: Parts) -> SlurmReport:
    found = parts.cluster_config
    return SlurmReport(
        cluster=parts.cluster,
        version=found.version if found else "",
        format=parts.format_name(),
        has_accounting=bool(found and found.has_accounting),
        first_moment=parts.first_moment.when if parts.first_moment else 0,
        accounting_read_until=parts.activities.catch_up.read_until if parts.activities else 0,
        poll_interval=parts.poll_interval,
    )


def _nodes_by_state(words: Mapping[tuple[str, ...], int]) -> dict[str, int]:
    """Return how many nodes are reported in each state, from how many nodes Slurm gave which words."""
    found = dict.fromkeys(CC_BACKEND_STATES, 0) if words else {}
    for states, number in words.items():
        found[states_for_cc_backend(states)[0]] += number
    return found


def _destinations(parts: Parts, queues: Queues) -> tuple[DestinationReport, ...]:
    reports = parts.destinations.reports if parts.destinations else ()
    return tuple(DestinationReport(each, queues.queues.get(each.name, QueueReport(each.name))) for each in reports)
