"""Builds the parts for one run of the daemon from the configuration. It starts none of them and waits for nothing.

In `daemon/`, only this module chooses Slurm's client, and only its helper `destinations` chooses the sinks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from cc_slurm_adapter.config.config import Config, read_prep_secret
from cc_slurm_adapter.config.file import DEFAULT_EVENTS_PATH, former_events_paths
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon import activities
from cc_slurm_adapter.daemon.activities import TIMING, LoopSettings, Timing
from cc_slurm_adapter.daemon.destinations import Destinations, sinks_of
from cc_slurm_adapter.daemon.hook_coverage import HookCoverage
from cc_slurm_adapter.daemon.hook_lookups import HookLookups
from cc_slurm_adapter.daemon.inbox import Inbox
from cc_slurm_adapter.daemon.main_loop import Activities, MainLoop
from cc_slurm_adapter.daemon.state_files import LastRun
from cc_slurm_adapter.daemon.status import StatusLine
from cc_slurm_adapter.daemon.written_paths import state_folders
from cc_slurm_adapter.hooks.intake import Intake
from cc_slurm_adapter.hooks.spool import Place
from cc_slurm_adapter.jobs.first_moment import Before, FirstMoment, catch_up_from
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.log import NOTICE, moment_text
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig
from cc_slurm_adapter.slurm.commands import Commands

log = logging.getLogger(__name__)


class Mode(NamedTuple):
    """What differs between ways to run the daemon, for example where it reports to."""

    destinations: Callable[[Config, Counters], Destinations]


DAEMON = Mode(destinations=Destinations)


class Assembly:
    """The parts that one run of the daemon has from the beginning, and a method that makes each of the others.

    The methods are in the order in which a start can use them: each needs what earlier methods have made, or what Slurm
    has answered by then.
    """

    def __init__(self, config: Config, mode: Mode, pulse: Callable[[], None]) -> None:
        """`pulse` is called while the main thread waits, and between the steps of its work."""
        self._config = config
        self._mode = mode
        self._pulse = pulse
        self.counters = Counters()
        self.inbox = Inbox(self.counters)
        self.commands = Commands(
            {"SLURM_CONF": config.slurm_conf} if config.slurm_conf else {},
            pulse,
            lambda: self.counters.count("commands_left_behind"),
        )

    def make_intake(self) -> Intake:
        """Make what accepts hook events. Raises ConfigError if the secret cannot be read."""
        config = self._config
        return Intake(
            address=config.prep_sock_listen_path,
            folders=events_folders(config),
            deliver=self.inbox.put,
            count=self.counters.count,
            secret=read_prep_secret(config),
            allow=config.prep_allow,
        )

    def open_outbox(self, go_on: Callable[[], None]) -> Outbox:
        """Open the state file and bring it to the present format; `go_on` may end that. Raises StateError."""
        config = self._config
        return Outbox(config.state_path, sinks_of(config), go_on, config.state_max_bytes)

    def make_slurm(self, cluster: str, state_folder: str) -> SlurmClient:
        """Make the client that asks Slurm. `cluster` is the name in everything that is sent."""
        config = self._config
        return SlurmClient(self.commands, cluster, state_folder, config.job_script_max_bytes, config.accelerator_gres)

    def make_destinations(self) -> Destinations:
        """Make what jobs and nodes are reported to. Raises ConfigError if a secret or certificate cannot be used."""
        return self._mode.destinations(self._config, self.counters)

    def make_loop(
        self,
        cluster: str,
        cluster_config: ClusterConfig,
        slurm: SlurmClient,
        outbox: Outbox,
        destinations: Destinations,
    ) -> MainLoop:
        """Make the main loop, and settle the first moment: what ended before it is not reported."""
        config, last_run = self._config, LastRun(self._config.last_run_path)
        first_moment, since = self._settle_first_moment(cluster, outbox, last_run)
        coverage = _coverage(cluster_config)
        watch_settings = WatchSettings(
            cluster=cluster,
            ignore=IgnoreRules(config.ignore_hosts, config.ignore_partitions, config.ignore_users),
            has_accounting=cluster_config.has_accounting,
            records_steps=cluster_config.records_steps,
            max_span=config.slurm_query_max_span,
            on_pending=destinations.wake,
            on_nodes=destinations.learn,
            first_moment=first_moment,
            late_runs=destinations.late_runs,
            on_start=coverage.began if coverage else lambda run: None,
        )
        watch = JobWatch(slurm, outbox, destinations.encoder, destinations.sinks, self.counters, watch_settings)
        settings = LoopSettings(
            cluster=cluster,
            poll_interval=config.slurm_poll_interval,
            max_span=config.slurm_query_max_span,
            max_tries=config.slurm_max_retries,
            catch_up_from=since,
            query_delay=config.slurm_query_delay,
            parked_max_age=config.parked_max_age,
        )
        found = make_activities(settings, watch, outbox, destinations, last_run, self.counters, coverage)
        return MainLoop(self.inbox, found, self._pulse)

    def _settle_first_moment(self, cluster: str, outbox: Outbox, last_run: LastRun) -> tuple[FirstMoment, int]:
        """Settle the first moment. Return it, and the Unix time from which accounting is read."""
        before = Before(
            outbox.checkpoint(cluster),
            last_run.read(),
            outbox.is_rebuilt,
            max_span=self._config.slurm_query_max_span,
        )
        first_moment = FirstMoment(self._config.state_path)
        first_moment.settle(before, time.time())
        limit = first_moment.limit(time.time())
        if before.checkpoint is None and before.last_run is not None:
            log.log(
                NOTICE,
                "%s knows nothing yet: Slurm and cc-backend are asked what there is, and what ended before %s is not"
                " reported",
                self._config.state_path,
                moment_text(limit),
            )
        return first_moment, catch_up_from(before, limit, int(time.time()))


def make_activities(  # noqa: PLR0913 - the parts that they share
    settings: LoopSettings,
    watch: JobWatch,
    outbox: Outbox,
    senders: activities.Senders,
    last_run: LastRun,
    counters: Counters,
    coverage: HookCoverage | None = None,
    *,
    timing: Timing = TIMING,
) -> Activities:
    """Make all activities of the main loop, which share one watch and one outbox."""
    hooks = HookLookups(watch, counters, settings.max_tries, settings.query_delay, coverage, timing=timing.retries)
    polls = activities.Polls(watch, hooks, settings.poll_interval, timing=timing)
    nodes = activities.NodeReports(settings.cluster, watch, senders, timing=timing)
    asking = (nodes.query, polls.step)
    for each in (*asking, hooks.step):  # when slurmctld is away that is one failure, and one line
        each.beside = asking
    return Activities(
        hooks=hooks,
        polls=polls,
        nodes=nodes,
        catch_up=activities.CatchUp(
            watch, outbox, last_run, settings.catch_up_from, settings.poll_interval, timing=timing
        ),
        comparison=activities.Comparison(watch, timing=timing),
        upkeep=activities.Upkeep(settings, watch, outbox, counters, timing=timing),
        reloading=activities.Reloading(watch, outbox, senders, timing=timing),
        status=StatusLine(watch, outbox, counters, coverage, timing=timing),
    )


def events_folders(config: Config) -> list[Place]:
    """Return the events folder in use; if it is the default one, also those that older hooks have by default."""
    used = config.prep_events_path
    former = former_events_paths(config.last_run_path) if used == DEFAULT_EVENTS_PATH else ()
    return [Place(used, state_folders(config)), *(Place(path, former=True) for path in former)]


def _coverage(cluster_config: ClusterConfig) -> HookCoverage | None:
    """Return what counts missing hook events; None if no hook announces the start of jobs."""
    hooks = cluster_config.hooks
    if not hooks.prolog_slurmctld and not hooks.prolog:
        return None
    return HookCoverage(int(time.time()), only_batch=not hooks.prolog_slurmctld)
