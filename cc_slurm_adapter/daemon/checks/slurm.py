"""Slurm: its commands, slurmctld and slurmdbd, their clocks, and what the daemon's user may see.

Every question is one that the daemon asks as well, or a smaller one. After a failure slurmctld is not asked again, so
that one that is away takes the time limit of one command.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.daemon.checks.site import find_min_job_age, find_prolog_flags
from cc_slurm_adapter.daemon.hook_check import hook_gaps
from cc_slurm_adapter.daemon.host_checks import HostChecks
from cc_slurm_adapter.errors import CommandMissing, SlurmError
from cc_slurm_adapter.model import Finding, ListedJob, NodeState, Phase
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig, read_cluster_config
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.controller_state import ControllerState, read_controller_state
from cc_slurm_adapter.slurm.interface import Slurm
from cc_slurm_adapter.slurm.json_formats import find_format
from cc_slurm_adapter.slurm.privileges import AdminLevels, find_hidden, find_limits
from cc_slurm_adapter.slurm.releases import NEEDED, OF_SLURMDBD, read_release, series
from cc_slurm_adapter.system.quantities import counted

CLOCK_TOLERANCE = 5.0
"""Seconds by which slurmctld's clock may differ. Hooks whose clock differs by 60 s are refused over TCP."""
LARGE_BACKLOG = 1000
"""Messages for slurmdbd with slurmctld. Under load some hundred come and go."""
ACCOUNTING_SPAN = 60
"""Seconds of accounting that are read, to see whether it can be."""
LONGEST = 45.0
"""Seconds after which no further question is asked: systemd may wait for this (TimeoutStartSec=)."""
SLURMCTLD, SLURMDBD, COMMANDS = "slurmctld", "slurmdbd", "Slurm's commands"


class Client(Slurm, AdminLevels, Protocol):
    """What is asked about jobs, nodes, accounting and rights: `SlurmClient` does it."""


class SlurmChecks:
    """Asks Slurm, and keeps what other checks need of its answers."""

    def __init__(
        self,
        config: Config,
        commands: Commands,
        make_client: Callable[[str], Client],
        user: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`make_client` makes a client from the name of the cluster. `user` is the daemon's user."""
        self._config = config
        self._commands = commands
        self._make_client = make_client
        self._user = user
        self._clock = clock
        self._deadline = float("inf")
        self._releases: dict[str, str] = {}
        """Of the commands that work."""
        self.cluster_config: ClusterConfig | None = None
        """None as long as slurmctld has not answered."""
        self.nodes: Sequence[NodeState] | None = None
        """All nodes; None if they are not known."""

    @property
    def cluster(self) -> str:
        """The name of the cluster in everything that is sent; '' if it is not known."""
        own = self.cluster_config.cluster if self.cluster_config else ""
        return self._config.cluster_name or own

    def find(self) -> Iterator[Finding]:
        """Yield what is found, and ask for the next thing only then."""
        self._deadline = self._clock() + LONGEST
        yield from self._find_commands()
        if "scontrol" not in self._releases:
            yield _not_seen(SLURMCTLD, "scontrol does not work here")
            return
        try:
            site = self.cluster_config = read_cluster_config(self._commands)
        except SlurmError as error:
            yield _failure(
                SLURMCTLD, f"does not answer: {error}", "check it with scontrol ping, and munge with munge -n"
            )
            yield from self._find_slurmdbd_alone()
            return
        yield from _find_controllers(site)
        yield from _find_releases(self._releases, site.version)
        client = self._make_client(self.cluster)
        for step in (self._find_state, self._find_jobs, self._find_nodes, self._find_rights, self._find_accounting):
            if self._clock() > self._deadline:
                yield _not_seen("Slurm", f"its answers have taken longer than {LONGEST:.0f} s")
                break
            yield from step(client, site)
        gaps = hook_gaps(site.hooks, site.slurm_user, os.uname().nodename)
        yield find_min_job_age(site, self._config.slurm_poll_interval, gaps)
        yield find_prolog_flags(site)

    def _find_slurmdbd_alone(self) -> Iterator[Finding]:
        """Ask slurmdbd for the daemon's user. Without slurmctld it is not known whether the site has a slurmdbd."""
        try:
            self._make_client(self.cluster).admin_level(self._user)
        except SlurmError as error:
            yield _warning(
                SLURMDBD, f"does not answer, if there is one: {error}", "check it with sacctmgr show cluster"
            )
        else:
            yield Finding(logging.INFO, SLURMDBD, "answers sacctmgr")

    def _find_commands(self) -> Iterator[Finding]:
        """Find the commands that do not work, and keep the releases of the others."""
        releases = self._releases
        missing: dict[str, str] = {}
        for command in NEEDED:
            if self._clock() > self._deadline:
                yield _not_seen(command, f"other commands have taken longer than {LONGEST:.0f} s")
                continue
            try:
                releases[command] = read_release(self._commands, command)
            except CommandMissing as error:
                missing[command] = str(error)
            except SlurmError as error:
                yield _failure(COMMANDS, f"{command} does not work: {error}", f"try {command} --version")
        if missing:
            why = next(iter(missing.values()))
            yield _failure(COMMANDS, f"{', '.join(missing)}: not found: {why}", "see PATH in the unit")
        if releases:
            found = ", ".join(sorted(set(releases.values())))
            yield Finding(logging.INFO, COMMANDS, f"{', '.join(releases)} are of Slurm {found}")

    def _find_state(self, _: Client, site: ClusterConfig) -> Iterator[Finding]:
        try:
            state = read_controller_state(self._commands)
        except SlurmError as error:
            yield _warning(SLURMCTLD, f"its clock cannot be seen: {error}", "try sdiag")
        else:
            yield _of_clock(state)
            if site.has_accounting:
                yield _of_backlog(state.backlog)

    def _find_jobs(self, client: Client, _: ClusterConfig) -> Iterator[Finding]:
        try:
            form = find_format(self._commands)
            jobs = list(client.list_jobs())
        except SlurmError as error:
            yield _failure("jobs", f"cannot be listed: {error}", _of_refusal(error, "squeue"))
            return
        yield form.finding or Finding(logging.INFO, "JSON format", f"squeue is asked with {form.option}")
        yield Finding(logging.INFO, "jobs", f"squeue lists {counted(len(jobs), 'running or just ended job')}")
        yield from _find_details(client, jobs, prints_all=form.lists_all_jobs)

    def _find_nodes(self, client: Client, _: ClusterConfig) -> Iterator[Finding]:
        try:
            self.nodes = client.node_states()
        except SlurmError as error:
            yield _failure("nodes", f"cannot be listed: {error}", _of_refusal(error, "sinfo"))
            return
        if not self.nodes:
            yield _warning("nodes", "sinfo lists no nodes", "see whether the daemon's user may see them (PrivateData)")
            return
        yield Finding(logging.INFO, "nodes", f"sinfo lists {counted(len(self.nodes), 'node')}")
        found = HostChecks(self._config).check(self.nodes)
        yield from found
        if not found:
            yield Finding(logging.INFO, "nodes", "the patterns and lists of the configuration fit them")

    def _find_rights(self, client: Client, site: ClusterConfig) -> Iterator[Finding]:
        yield from find_limits(site, self._user)
        if site.question_rate is None:
            yield Finding(logging.INFO, "rl_enable", "slurmctld does not limit how often it is asked")
        hidden = find_hidden(client, site, self._user)
        yield from hidden
        if site.has_accounting and not hidden:
            text = f"Slurm hides nothing from {self._user} (PrivateData={site.private_data})"
            yield Finding(logging.INFO, "privileges", text)

    def _find_accounting(self, client: Client, site: ClusterConfig) -> Iterator[Finding]:
        if not site.has_accounting:
            return  # the rights say what is missing without it
        if not self._releases.keys() >= set(OF_SLURMDBD):
            yield _not_seen(SLURMDBD, f"{' or '.join(OF_SLURMDBD)} does not work here")
            return
        now = int(time.time())
        try:
            for _ in client.ended_between(now - ACCOUNTING_SPAN, now):
                pass
        except SlurmError as error:
            yield _failure(SLURMDBD, f"accounting cannot be read: {error}", "check slurmdbd, and try sacct")
            return
        yield Finding(logging.INFO, SLURMDBD, "answers sacct")
        text = "its clock cannot be seen: no command prints it. If it is on another host, compare `date +%s` there"
        yield Finding(logging.INFO, SLURMDBD, text)


def _find_controllers(site: ClusterConfig) -> Iterator[Finding]:
    yield Finding(logging.INFO, SLURMCTLD, f"answers for the cluster {site.cluster} (Slurm {site.version})")
    for host in site.silent_controllers:
        yield _warning(SLURMCTLD, f"the one on {host} does not answer, another one does", "see scontrol ping")


def _find_releases(releases: dict[str, str], version: str) -> Iterator[Finding]:
    """Find commands that are newer than slurmctld, which Slurm does not support, or of several series."""
    newer = [name for name, release in releases.items() if series(release) > series(version)]
    if newer:
        text = (
            f"{', '.join(newer)} are newer ({releases[newer[0]]}) than slurmctld ({version}), which may not understand"
        )
        yield _warning(COMMANDS, text, "install the commands of slurmctld's release on this host")
    elif len(set(map(series, releases.values()))) > 1:
        listed = ", ".join(f"{name} {release}" for name, release in releases.items())
        yield _warning(COMMANDS, f"are of several releases: {listed}", "install those of one release on this host")


def _of_clock(state: ControllerState) -> Finding:
    """Return whether slurmctld's clock is ours, as exactly as whole seconds show it."""
    if state.difference > CLOCK_TOLERANCE:
        ahead = "ahead of" if state.least_ahead > 0 else "behind"
        text = f"its clock is at least {state.difference:.0f} s {ahead} that of this host"
        return _warning(SLURMCTLD, text, "let one time server set both clocks (chronyc tracking)")
    span = state.most_ahead - state.least_ahead
    return Finding(logging.INFO, SLURMCTLD, f"its clock is that of this host (sdiag shows that to {span:.1f} s)")


def _of_backlog(backlog: int) -> Finding:
    if backlog >= LARGE_BACKLOG:
        text = f"has not taken {counted(backlog, 'message')} that slurmctld has for it, so accounting is behind"
        return _warning(SLURMDBD, text, "see whether slurmdbd runs and its database answers (sdiag, slurmdbd's log)")
    return Finding(logging.INFO, SLURMDBD, f"slurmctld has {counted(backlog, 'message')} for it")


def _find_details(client: Client, jobs: Sequence[ListedJob], *, prints_all: bool) -> Iterator[Finding]:
    """Read one job in full, if that does not make slurmctld print all of them."""
    running = next((job.job_id for job in jobs if job.phase is Phase.RUNNING), 0)
    if not running or prints_all:
        why = "no job runs" if not running else "this Slurm would print all of them"
        yield Finding(logging.INFO, "jobs", f"whether the details of a job are understood cannot be seen now: {why}")
        return
    try:
        details = list(client.read_details([running]))
    except SlurmError as error:
        yield _failure("jobs", f"the details of job {running} cannot be read: {error}", "try squeue --json")
        return
    broken = [each.broken.get(running) or each.failed.get(running) for each in details]
    why = next((each for each in broken if each), "")
    if why:
        yield _warning("jobs", f"the details of job {running} are not understood: {why}", "report this line")
    elif any(run.key.job_id == running for each in details for run in each.runs):
        yield Finding(logging.INFO, "jobs", f"the details of job {running} are understood")


def _of_refusal(error: SlurmError, command: str) -> str:
    """Return what to do about a command that Slurm did not answer."""
    if "permission denied" in str(error).lower():
        return "PrivateData hides them from the daemon's user: give it the AdminLevel Operator (sacctmgr modify user)"
    return f"try {command} as the daemon's user"


def _failure(subject: str, text: str, next_step: str) -> Finding:
    return Finding(logging.ERROR, subject, text, next_step)


def _warning(subject: str, text: str, next_step: str) -> Finding:
    return Finding(logging.WARNING, subject, text, next_step)


def _not_seen(subject: str, why: str) -> Finding:
    return Finding(logging.WARNING, subject, f"cannot be seen: {why}", "correct that first")
