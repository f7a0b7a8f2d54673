"""Builds the parts for one run of the daemon from the configuration. It starts none of them and waits for nothing.

In `daemon/`, only this module chooses Slurm's client, and only its helper `destinations` chooses the sinks.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from cc_slurm_adapter.config.address import UnixAddress
from cc_slurm_adapter.config.changes import Changes
from cc_slurm_adapter.config.config import Config, read_prep_secret, read_token
from cc_slurm_adapter.config.file import DEFAULT_EVENTS_PATH, former_events_paths
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon import activities
from cc_slurm_adapter.daemon.activities import TIMING, LoopSettings, Timing
from cc_slurm_adapter.daemon.announcer import Announcer
from cc_slurm_adapter.daemon.answers import Answers
from cc_slurm_adapter.daemon.checks.token import key_of
from cc_slurm_adapter.daemon.control import CONTROL, CONTROL_ROUTES, METRICS, METRICS_ROUTES, Control
from cc_slurm_adapter.daemon.destinations import Destinations, sinks_of
from cc_slurm_adapter.daemon.hook_coverage import HookCoverage
from cc_slurm_adapter.daemon.hook_lookups import HookLookups
from cc_slurm_adapter.daemon.inbox import Inbox, Reload
from cc_slurm_adapter.daemon.main_loop import Activities, MainLoop
from cc_slurm_adapter.daemon.reload import ConfigReloader, Found
from cc_slurm_adapter.daemon.resend_requests import ResendRequests
from cc_slurm_adapter.daemon.resending import Resending
from cc_slurm_adapter.daemon.state_files import LastRun
from cc_slurm_adapter.daemon.status import StatusBoard
from cc_slurm_adapter.daemon.status_thread import Place, StatusThread
from cc_slurm_adapter.daemon.syncing import Syncing
from cc_slurm_adapter.daemon.token_watch import TokenWatch
from cc_slurm_adapter.daemon.written_paths import state_folders
from cc_slurm_adapter.errors import ConfigError
from cc_slurm_adapter.hooks.folder_check import Place as EventsPlace
from cc_slurm_adapter.hooks.intake import Intake
from cc_slurm_adapter.jobs.first_moment import Before, FirstMoment, catch_up_from
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.resend import Resend
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.model import Finding, Run
from cc_slurm_adapter.outbox.event_latency import EventLatency
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.slurm import commands
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.system.owner import Account
from cc_slurm_adapter.system.quantities import full_moment

log = logging.getLogger(__name__)


class Mode(NamedTuple):
    """What differs between ways to run the daemon, for example where it reports to."""

    destinations: Callable[[Config, Counters, Callable[..., None]], Destinations]


DAEMON = Mode(destinations=Destinations)


class RunAs(NamedTuple):
    """Whom Slurm's commands are run as."""

    account: Account | None
    """None for the own user."""
    path: str = ""
    """Where they are searched, as in PATH; '' for the own PATH."""


class Assembly:
    """The parts that one run of the daemon has from the beginning, and a method that makes each of the others.

    The methods are in the order in which a start can use them: each needs what earlier methods have made, or what Slurm
    has answered by then.
    """

    def __init__(  # noqa: PLR0913 - what is run, and how Slurm is asked
        self,
        config: Config,
        mode: Mode,
        pulse: Callable[[], None],
        config_path: str = "",
        findings: Sequence[Finding] = (),
        *,
        timing: commands.Timing = commands.TIMING,
        run_as: RunAs | None = None,
    ) -> None:
        """`pulse` is called while the main thread waits, and between the steps of its work.

        `findings` are what the configuration has shown. `timing` says how long Slurm's commands may take. Root may run
        them as the daemon would, with `run_as`.
        """
        path = {"PATH": run_as.path} if run_as and run_as.path else {}
        self._config = config
        self._mode = mode
        self._pulse = pulse
        self.counters = Counters()
        self.event_latency = EventLatency(self.counters)
        self.inbox = Inbox(self.counters)
        self.board = StatusBoard(config_path, config.state_path, config.state_max_bytes, self.counters)
        self._changers: list[Callable[[Config], None]] = []
        """What puts a configuration in force in the parts that exist. Each method that makes a part adds one."""
        self._waiting: tuple[str, ...] = ()
        """The keys that wait for a restart since the last reload."""
        self.reloader = ConfigReloader(config_path, Found(config, tuple(findings)), self.board, self._change)
        self.stop_status: Callable[[], None] = lambda: None
        """Ends the thread that `make_status_thread` has made."""
        self.commands = Commands(
            {**path, **({"SLURM_CONF": config.slurm_conf} if config.slurm_conf else {})},
            pulse,
            lambda: self.counters.count("commands_left_behind"),
            lambda command, result, seconds: self.counters.observe("commands", seconds, command=command, result=result),
            timing=timing,
            run_as=run_as.account if run_as else None,
        )

    def _change(self, config: Config, waiting: tuple[str, ...]) -> None:
        """Put a configuration in force that differs only in keys that a reload changes. The main thread calls this.

        `waiting` are the keys that wait for a restart.
        """
        self._waiting = waiting
        for change in self._changers:
            change(config)

    def make_intake(self) -> Intake:
        """Make what accepts hook events. Raises ConfigError if the secret cannot be read."""
        config = self._config
        intake = Intake(
            address=config.prep_sock_listen_path,
            folders=events_folders(config),
            deliver=self.inbox.put,
            count=self.counters.count,
            secret=read_prep_secret(config),
            allow=config.prep_allow,
        )

        def change(config: Config) -> None:
            with contextlib.suppress(ConfigError):  # prepSecretFile may have changed, which waits for a restart
                intake.use_secret(read_prep_secret(config))

        self._changers.append(change)
        return intake

    def make_status_thread(self) -> StatusThread:
        """Make what answers on the control socket and on metricsListen."""
        config = self._config
        announcer = Announcer(self.board, self.counters)
        answers = Answers(
            self.board, lambda: announcer.points, self._ask_to_reload, self.inbox.put, self.reloader.preview
        )
        places = [Place(UnixAddress(config.control_sock_path), CONTROL, Control(answers, CONTROL_ROUTES))]
        if config.metrics_listen is not None:
            places.append(Place(config.metrics_listen, METRICS, Control(answers, METRICS_ROUTES)))
        thread = StatusThread(places, announcer, lambda: self.board.slurm_user)
        self.stop_status = thread.stop
        return thread

    def _ask_to_reload(self, by: str) -> Changes:
        """Return what a reload changes, and ask the main thread for it. The status thread calls this.

        Raises ConfigError, also then after the main thread was asked: it logs the problems and tries everything again.
        """
        try:
            return self.reloader.preview()  # before the reload, after which nothing differs
        finally:
            self.inbox.put(Reload(by))

    def open_outbox(self, go_on: Callable[[], None]) -> Outbox:
        """Open the state file and bring it to the present format; `go_on` may end that. Raises StateError."""
        config = self._config
        outbox = Outbox(config.state_path, sinks_of(config), go_on, config.state_max_bytes)
        self.board.add(outbox=outbox)
        return outbox

    def make_slurm(self, cluster: str, state_folder: str, report: Callable[..., None] | None = None) -> SlurmClient:
        """Make the client that asks Slurm. `cluster` is the name in everything that is sent.

        What is found about Slurm goes to the status and into the log, or to `report` instead.
        """
        config = self._config
        slurm = SlurmClient(
            self.commands,
            cluster,
            state_folder,
            config.job_script_max_bytes,
            config.accelerator_gres,
            report=report or self.board.report_findings,
        )
        self._changers.append(lambda config: slurm.keep_of_scripts(config.job_script_max_bytes))
        self.board.add(format_name=lambda: slurm.format_name, cluster=cluster)
        return slurm

    def make_destinations(self) -> Destinations:
        """Make what jobs and nodes are reported to. Raises ConfigError if a secret or certificate cannot be used."""
        destinations = self._mode.destinations(self._config, self.counters, self.board.report_findings)
        self._changers.append(lambda config: destinations.use(config, self._waiting))
        self.board.add(destinations=destinations)
        return destinations

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
        on_start = coverage.began if coverage else lambda run: None
        watch = self.make_watch(cluster, cluster_config, slurm, outbox, destinations, first_moment, on_start)
        settings = LoopSettings(
            cluster=cluster,
            poll_interval=config.slurm_poll_interval,
            max_span=config.slurm_query_max_span,
            max_tries=config.slurm_max_retries,
            catch_up_from=since,
            query_delay=config.slurm_query_delay,
            parked_max_age=config.parked_max_age,
        )
        requests, resending = self._make_resending(cluster, slurm, outbox, destinations)
        found = make_activities(
            settings,
            watch,
            outbox,
            destinations,
            last_run,
            self.counters,
            coverage,
            self.event_latency,
            self.reloader.reload,
            self._watch_token(),
            resending,
        )

        def change(config: Config) -> None:
            found.use(_changed(settings, config))
            self.board.add(poll_interval=config.slurm_poll_interval)

        self._changers.append(change)
        self.board.add(
            cluster_config=cluster_config,
            watch=watch,
            first_moment=first_moment,
            activities=found,
            resends=requests,
            syncing=found.syncing,
            poll_interval=config.slurm_poll_interval,
        )
        return MainLoop(self.inbox, found, self._pulse)

    def _make_resending(
        self, cluster: str, slurm: SlurmClient, outbox: Outbox, destinations: Destinations
    ) -> tuple[ResendRequests, Resending | None]:
        """Make what sends runs anew, and what takes the requests for it. Only over REST a run can be removed."""
        rest = destinations.rest if self._config.cc_rest_submit_jobs else None
        requests = ResendRequests(cluster, self.inbox.put, over_rest=rest is not None)
        if rest is None:
            return requests, None
        ignore = _ignore_rules(self._config)
        resend = Resend(slurm, outbox, destinations.encoder, rest.name, cluster, ignore, destinations.wake)
        self._changers.append(lambda config: resend.use(destinations.encoder, _ignore_rules(config)))
        return requests, Resending(requests, resend, rest, cluster)

    def make_watch(  # noqa: PLR0913 - the parts that it uses
        self,
        cluster: str,
        cluster_config: ClusterConfig,
        slurm: SlurmClient,
        outbox: Outbox,
        destinations: Destinations,
        first_moment: FirstMoment,
        on_start: Callable[[Run], None] = lambda run: None,
        max_span: int = 0,
    ) -> JobWatch:
        """Make what follows the jobs. `on_start` is called with each run whose start is enqueued.

        `max_span` is how many seconds accounting is read back at most; 0: as the configuration says.
        """
        config = self._config
        settings = WatchSettings(
            cluster=cluster,
            ignore=_ignore_rules(config),
            has_accounting=cluster_config.has_accounting,
            records_steps=cluster_config.records_steps,
            max_span=max_span or config.slurm_query_max_span,
            on_pending=destinations.wake,
            on_nodes=lambda nodes: self.board.report_findings(*destinations.learn(nodes, self.board.forget_findings)),
            first_moment=first_moment,
            late_runs=destinations.late_runs,
            on_start=on_start,
            on_work=self.board.note_work,
            outages=outbox.outages,
        )
        watch = JobWatch(slurm, outbox, destinations.encoder, destinations.sinks, self.counters, settings)

        def change(config: Config) -> None:
            watch.encode_with(destinations.encoder)
            settings.ignore = _ignore_rules(config)
            settings.max_span = max_span or config.slurm_query_max_span

        self._changers.append(change)  # after that of the destinations, whose encoder it uses
        return watch

    def _watch_token(self) -> Callable[[], None]:
        """Look at the token for cc-backend now. Return what looks at it again."""
        if not self._config.cc_rest_url:
            return lambda: None
        latest = self._config
        watch = TokenWatch(lambda: read_token(latest), key_of(latest), self.board.settle_findings)

        def change(config: Config) -> None:
            nonlocal latest
            latest = config
            watch.look()

        self._changers.append(change)
        watch.look()
        return watch.look

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
                full_moment(limit),
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
    event_latency: EventLatency | None = None,
    read_config: Callable[[str], None] = lambda by: None,
    look_at_token: Callable[[], None] = lambda: None,
    resending: Resending | None = None,
    *,
    timing: Timing = TIMING,
) -> Activities:
    """Make all activities of the main loop, which share one watch and one outbox.

    `read_config` reads the configuration again, for whoever is named.
    """
    shared = watch.outages  # when slurmctld is away that is one failure, and one line, whoever asks
    hooks = HookLookups(
        watch,
        counters,
        settings.max_tries,
        settings.query_delay,
        coverage,
        event_latency,
        timing=timing.retries,
        outages=shared,
    )
    polls = activities.Polls(watch, hooks, settings.poll_interval, timing=timing, outages=shared)
    nodes = activities.NodeReports(settings.cluster, watch, senders, timing=timing, outages=shared)
    made = Activities(
        hooks=hooks,
        polls=polls,
        nodes=nodes,
        catch_up=activities.CatchUp(
            watch,
            outbox,
            last_run,
            settings.catch_up_from,
            settings.poll_interval,
            timing=timing,
            outages=shared,
        ),
        comparison=activities.Comparison(watch, timing=timing, outages=shared),
        upkeep=activities.Upkeep(settings, watch, outbox, counters, look_at_token, timing=timing, outages=shared),
        reloading=activities.Reloading(watch, outbox, senders, read_config, timing=timing, outages=shared),
        resending=resending,
        syncing=Syncing(watch.syncs, timing=timing.retries, outages=shared),
    )
    made.observe(counters)
    return made


def _ignore_rules(config: Config) -> IgnoreRules:
    return IgnoreRules(config.ignore_hosts, config.ignore_partitions, config.ignore_users)


def _changed(settings: LoopSettings, config: Config) -> LoopSettings:
    """Return the settings of the main loop with those of a configuration that a reload has put in force."""
    return replace(
        settings,
        poll_interval=config.slurm_poll_interval,
        max_span=config.slurm_query_max_span,
        max_tries=config.slurm_max_retries,
        query_delay=config.slurm_query_delay,
        parked_max_age=config.parked_max_age,
    )


def events_folders(config: Config) -> list[EventsPlace]:
    """Return the events folder in use; if it is the default one, also those that older hooks have by default."""
    used = config.prep_events_path
    former = former_events_paths(config.last_run_path) if used == DEFAULT_EVENTS_PATH else ()
    return [EventsPlace(used, state_folders(config)), *(EventsPlace(path, former=True) for path in former)]


def _coverage(cluster_config: ClusterConfig) -> HookCoverage | None:
    """Return what counts missing hook events; None if no hook announces the start of jobs."""
    hooks = cluster_config.hooks
    if not hooks.prolog_slurmctld and not hooks.prolog:
        return None
    return HookCoverage(int(time.time()), only_batch=not hooks.prolog_slurmctld)
