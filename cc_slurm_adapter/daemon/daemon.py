"""The daemon's life: startup and shutdown, with the main loop in between."""

from __future__ import annotations

import logging
import os
import pwd
import signal
import time
from collections.abc import Callable

from cc_slurm_adapter import __version__
from cc_slurm_adapter.config.config import Config, read_prep_secret
from cc_slurm_adapter.config.file import DEFAULT_EVENTS_PATH, former_events_paths
from cc_slurm_adapter.counters import Status
from cc_slurm_adapter.daemon.crash_count import GOOD_LIFE, CrashCount
from cc_slurm_adapter.daemon.destinations import Destinations, sinks_of
from cc_slurm_adapter.daemon.hook_check import hook_troubles
from cc_slurm_adapter.daemon.hook_coverage import HookCoverage
from cc_slurm_adapter.daemon.main_loop import (
    TICK,
    ClusterNames,
    Inbox,
    Item,
    LoopSettings,
    MainLoop,
    Reload,
    Stop,
    log_parked,
)
from cc_slurm_adapter.daemon.state_files import LastRun, PidFile, check_state_folder
from cc_slurm_adapter.daemon.systemd import Watchdog, notify, rest_before_the_next_start, tell_status
from cc_slurm_adapter.daemon.written_paths import state_folders
from cc_slurm_adapter.errors import CommandCancelled, CommandMissing, SinkError, SlurmError, StateError, ThreadFault
from cc_slurm_adapter.hooks.intake import Intake
from cc_slurm_adapter.hooks.spool import Place
from cc_slurm_adapter.jobs.first_moment import Before, FirstMoment, catch_up_from
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.log import NOTICE, Reminder, moment_text
from cc_slurm_adapter.outbox.clock_step import is_plausible
from cc_slurm_adapter.outbox.foreign_state import refuse_foreign
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig, read_cluster_config
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.privileges import warn_of_missing_rights
from cc_slurm_adapter.system.backoff import FIRST_RETRY, LONGEST_RETRY, Backoff, cause_of
from cc_slurm_adapter.system.threads import Aside, Supervisor, run_beside

log = logging.getLogger(__name__)

LONGEST_UNREADY = 30.0
"""Seconds that a start which cannot become ready waits after many crashes: systemd waits for it (90 s by default)."""
SOCKET_LIMIT, SOCKET_TICK = 30.0, 0.2
"""Seconds for the socket, whose address a name server may have to tell; and how soon a stop ends that wait."""
STOP_LIMIT = 1.0
"""Seconds that threads get to end; with what else a stop needs it takes less than two."""
CLOCK_LOOK = 1.0
"""Seconds between two looks at a clock that is still to be set."""
CLUSTERS_LIMIT = 3.0
"""Seconds that the start waits for cc-backend's list of clusters."""


class Daemon:
    """Everything that lives while the daemon runs. `run()` returns after SIGTERM or SIGINT."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._status = Status()
        self._inbox = Inbox(self._status)
        self._commands = Commands(
            {"SLURM_CONF": config.slurm_conf} if config.slurm_conf else {},
            self._pulse,
            lambda: self._status.count("commands_left_behind"),
        )
        self._watchdog = Watchdog(os.environ)
        self._supervisor = Supervisor()
        self._crashes = CrashCount(config.state_path)
        self._good_at = float("inf")
        """time.monotonic() from which on this start counts as a good one."""
        self._fault = ""
        """Why it ends, when nobody has asked for that."""
        self._pid_file = PidFile(config.pid_file_path)
        self._state_lock = PidFile(f"{config.state_path}.lock", "statePath")
        self._loop: MainLoop | None = None
        self._stopping = False
        self._closers: list[Callable[[], None]] = []

    def run(self) -> None:
        """Raises AdapterError when the daemon cannot start, or must end."""
        self._watch_signals()
        try:
            folder, intake = self._get_ready()
            notify("READY=1")
            self._rest_after_crashes(self._crashes.wait)
            self._loop = self._startup(folder, intake)
            if self._loop is not None and not self._stopping:
                self._loop.run()
        except CommandCancelled:
            log.debug("stopped while starting")
        finally:
            notify("STOPPING=1")
            self._shutdown()
        if self._fault:
            raise ThreadFault(f"{self._fault}: this process ends, so that systemd starts a new one; nothing is lost")

    def _watch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ask_to_stop())
        signal.signal(signal.SIGHUP, lambda *_: self._inbox.put(Reload()))

    def _go_on(self) -> None:
        """While the state file is read as a whole: systemd hears that the daemon lives, and a stop ends it."""
        if self._stopping:
            raise CommandCancelled("the daemon stops")
        self._pulse()

    def _ask_to_stop(self) -> None:
        """Called by the signal handler: only sets flags, and ends the command that the main loop may wait for."""
        self._stopping = True
        self._commands.cancel()
        if self._loop is not None:
            self._loop.stop()
        self._inbox.put(Stop())

    def _pulse(self) -> None:
        """The main thread is well: called by it alone, between the steps of its work and once a second of a wait."""
        self._watchdog.feed()
        if time.monotonic() >= self._good_at:
            self._crashes.clear()
        if not self._fault and not self._stopping:
            self._fault = self._supervisor.find_fault()
            if self._fault:
                log.critical("%s: the daemon ends", self._fault)
                self._ask_to_stop()

    def _get_ready(self) -> tuple[str, Intake]:
        """What needs neither Slurm nor cc-backend: the state folder, locks, the socket. Raises StateError."""
        os.umask(0o077)  # the state holds job scripts
        for lock in (self._pid_file, self._state_lock):
            self._closers.append(lock.release)
        try:
            self._pid_file.lock()
            refuse_foreign(self._config.state_path)  # before anything is written beside it
            folder = check_state_folder(self._config.last_run_path)
            self._state_lock.lock()
        except StateError as error:
            rest_before_the_next_start(str(error), lambda seconds: self._await(Stop, seconds))
            raise
        self._crashes.begin()  # only now: without the locks the count may be another daemon's
        try:
            return folder, self._open_intake()
        except StateError:
            self._rest_after_crashes(min(self._crashes.wait, LONGEST_UNREADY))
            raise

    def _open_intake(self) -> Intake:
        config = self._config
        intake = Intake(
            address=config.prep_sock_listen_path,
            folders=events_folders(config),
            deliver=self._inbox.put,
            count=self._status.count,
            secret=read_prep_secret(config),
            allow=config.prep_allow,
        )
        self._closers.append(intake.stop)
        opening = Aside("socket", intake.open)
        deadline = time.monotonic() + SOCKET_LIMIT
        while not self._stopping and not opening.is_done(SOCKET_TICK):
            self._pulse()
            if time.monotonic() >= deadline:
                raise StateError(
                    f"prepSockListenPath: {config.prep_sock_listen_path} cannot be had within {SOCKET_LIMIT:.0f} s:"
                    " does the name server answer? Give the address in place of the name"
                )
        return intake

    def _rest_after_crashes(self, seconds: float) -> None:
        """One that ended again and again right after its start waits before it reads or asks anything."""
        if seconds and not self._stopping:
            line = f"ended {self._crashes.before} times in a row soon after the start, waiting {seconds:.0f} s"
            log.warning("%s: the lines before each end say why", line)
            tell_status(line)
            self._await(Stop, seconds)

    def _startup(self, folder: str, intake: Intake) -> MainLoop | None:
        """Set everything up, in the order in which a mistake is best told. None when a stop came before the end."""
        if self._stopping:
            return None
        self._good_at = time.monotonic() + GOOD_LIFE
        config = self._config
        self._wait_for_clock()
        if self._stopping:
            return None
        tell_status(f"opening the state file {config.state_path}")
        outbox = Outbox(config.state_path, sinks_of(config), self._go_on, config.state_max_bytes)
        self._closers.append(outbox.close)
        if config.requeued_runs != "last":
            outbox.withdraw_nothing()
        _begin_with(outbox)
        setup = self._wait_for_slurm()
        if setup is None:
            return None
        cluster = config.cluster_name or setup.cluster
        slurm = SlurmClient(self._commands, cluster, folder, config.job_script_max_bytes, config.accelerator_gres)
        warn_of_missing_rights(slurm, setup, _user_name())
        intake.start(setup.cluster, setup.slurm_user)
        self._supervisor.watch(intake.workers)
        destinations = Destinations(config, self._status)
        if destinations.rest:
            self._check_cluster(destinations, cluster, setup.cluster)
        if self._stopping:
            return None
        loop = self._start_reporting(slurm, setup, outbox, destinations, cluster)
        for lock in (self._pid_file, self._state_lock):
            lock.publish()
        log.log(
            NOTICE,
            "cc-slurm-adapter %s reports the cluster %s (Slurm %s) to %s",
            __version__,
            cluster,
            setup.version,
            destinations.label,
        )
        tell_status(f"reports the cluster {cluster} to {destinations.label}")
        if os.geteuid() == 0:
            log.warning(
                "the daemon runs as root, which it does not need: set User= in its systemd unit, see docs/install.md"
            )
        _warn_of_hooks(setup)
        return loop

    def _wait_for_clock(self) -> None:
        """A host without a battery may begin in 1970, until its clock is set: nothing is read and noted by such a time.

        Else all that waits would be parked as too old when it is, and what is remembered would be forgotten.
        """
        reminder = Reminder()
        while not (self._stopping or is_plausible(time.time())):
            if reminder.is_due():
                tell_status("waiting for the clock of this host to be set")
                log.warning(
                    "the clock of this host says %s, which cannot be: waiting until it is set. See `timedatectl` or"
                    " `chronyc tracking`",
                    moment_text(time.time()),
                )
            self._await(Stop, CLOCK_LOOK)
        if reminder.over() and not self._stopping:
            log.log(NOTICE, "the clock of this host was set, it says %s", moment_text(time.time()))

    def _wait_for_slurm(self) -> ClusterConfig | None:
        """Slurm's configuration; waits while slurmctld does not answer. None when a stop came first."""
        backoff, reminder = Backoff(FIRST_RETRY, LONGEST_RETRY, jitter=lambda: 1.0), Reminder()
        tell_status("waiting for Slurm's answer (scontrol show config)")
        while not self._stopping:
            try:
                setup = read_cluster_config(self._commands)
            except (CommandCancelled, CommandMissing):
                raise
            except SlurmError as error:
                wait = backoff.failed()
                if reminder.is_due(cause_of(str(error))):
                    log.error(
                        "Slurm does not answer, it is asked again, every %.0f s at last: %s", LONGEST_RETRY, error
                    )
                tell_status(f"waiting for Slurm, which does not answer: {error}")
                self._await(Stop, wait)
            else:
                if reminder.over():
                    log.log(NOTICE, "Slurm answers now")
                return setup
        return None

    def _await(self, kind: type, seconds: float) -> Item | None:
        """The first thing of a kind that comes in time; the rest waits for the main loop. None also for a stop."""
        deadline = time.monotonic() + seconds
        others: list[Item] = []
        found = None
        while found is None and not self._stopping and time.monotonic() < deadline:
            self._pulse()
            for item in self._inbox.take(min(deadline - time.monotonic(), TICK)):
                if isinstance(item, kind) and found is None:
                    found = item
                elif not isinstance(item, (Stop, Reload)):
                    others.append(item)
        for item in others:
            self._inbox.put(item)
        return found

    def _start_reporting(
        self, slurm: SlurmClient, setup: ClusterConfig, outbox: Outbox, destinations: Destinations, cluster: str
    ) -> MainLoop:
        config = self._config
        last_run = LastRun(config.last_run_path)
        before = Before(
            outbox.checkpoint(cluster), last_run.read(), outbox.is_rebuilt, max_span=config.slurm_query_max_span
        )
        _warn_of_other_clusters(outbox, cluster)
        first_moment = FirstMoment(config.state_path)
        first_moment.settle(before, time.time())
        limit = first_moment.limit(time.time())
        if before.checkpoint is None and before.last_run is not None:
            log.log(
                NOTICE,
                "%s knows nothing yet: Slurm and cc-backend are asked what there is, and what ended before %s is not"
                " reported",
                config.state_path,
                moment_text(limit),
            )
        coverage = _coverage(setup)
        watch_settings = WatchSettings(
            cluster=cluster,
            ignore=IgnoreRules(config.ignore_hosts, config.ignore_partitions, config.ignore_users),
            has_accounting=setup.has_accounting,
            records_steps=setup.records_steps,
            max_span=config.slurm_query_max_span,
            on_pending=destinations.wake,
            on_nodes=destinations.learn,
            first_moment=first_moment,
            late_runs=destinations.late_runs,
            on_start=coverage.began if coverage else lambda run: None,
        )
        watch = JobWatch(slurm, outbox, destinations.encoder, destinations.sinks, self._status, watch_settings)
        settings = LoopSettings(
            cluster=cluster,
            poll_interval=config.slurm_poll_interval,
            max_span=config.slurm_query_max_span,
            max_tries=config.slurm_max_retries,
            catch_up_from=catch_up_from(before, limit, int(time.time())),
            query_delay=config.slurm_query_delay,
            parked_max_age=config.parked_max_age,
        )
        loop = MainLoop(
            self._inbox, watch, destinations, outbox, last_run, self._status, settings, coverage, self._pulse
        )
        self._closers.append(lambda: destinations.stop(STOP_LIMIT))
        destinations.start(outbox, cluster, self._inbox.put)
        self._supervisor.watch(destinations.workers)
        return loop

    def _check_cluster(self, destinations: Destinations, cluster: str, own_name: str) -> None:
        """cc-backend refuses every job of a cluster that it does not know; one that is away is not waited for.

        Asked in a thread, because a connection that hangs must not delay a stop.
        """
        tell_status("asking cc-backend for its clusters")
        run_beside("clusters", lambda: self._ask_for_clusters(destinations))
        known = self._await(ClusterNames, CLUSTERS_LIMIT)
        if isinstance(known, ClusterNames) and known.names and cluster not in known.names:
            raise StateError(
                f"cc-backend at {self._config.cc_rest_url} does not know the cluster {cluster}, only"
                f" {', '.join(known.names)}: add it there, or set clusterName to the name it has there"
            )
        if isinstance(known, ClusterNames) and cluster != own_name and own_name in known.names:
            log.warning(
                "clusterName is %s, but Slurm calls this cluster %s and cc-backend knows both: all jobs are reported as"
                " those of %s. If that is not meant, remove clusterName and restart",
                cluster,
                own_name,
                cluster,
            )

    def _ask_for_clusters(self, destinations: Destinations) -> None:
        names: list[str] = []
        try:
            names = destinations.cluster_names()
        except SinkError as error:
            log.error("cc-backend cannot be asked for its clusters, going on: %s", error)
        finally:
            self._inbox.put(ClusterNames(tuple(names)))

    def _shutdown(self) -> None:
        """Undo the startup from its end; each step has its limit."""
        if self._stopping and not self._fault:
            self._crashes.clear()
        for close in reversed(self._closers):
            close()
        self._commands.close()
        if self._loop is not None:
            log.log(NOTICE, "stopped; since the start: %s", self._status)
        if not self._stopping:  # an error ends it: what follows is to be ended by a signal as any program
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def events_folders(config: Config) -> list[Place]:
    """The one in use. If that is the default one, also those that hooks of an older version have by default."""
    used = config.prep_events_path
    former = former_events_paths(config.last_run_path) if used == DEFAULT_EVENTS_PATH else ()
    return [Place(used, state_folders(config)), *(Place(path, former=True) for path in former)]


def _warn_of_other_clusters(outbox: Outbox, cluster: str) -> None:
    for other, runs in outbox.other_clusters(cluster).items():
        log.warning(
            "%d runs of the cluster %s were open when clusterName was changed to %s: they are not followed. Set it back"
            " until they are over, or end them in cc-backend; after slurmQueryMaxSpan they are forgotten here",
            runs,
            other,
            cluster,
        )


def _warn_of_hooks(setup: ClusterConfig) -> None:
    troubles = hook_troubles(setup.hooks, setup.slurm_user, os.uname().nodename)
    if troubles:
        log.warning(
            "slurmctld does not report every job by its hooks: %s. Jobs are found by polls all the same, but short ones"
            " lose cores and GPUs. Set PrologSlurmctld and EpilogSlurmctld in slurm.conf to this program, or call it in"
            " the scripts that are there, then run scontrol reconfigure",
            "; ".join(troubles),
        )


def _coverage(setup: ClusterConfig) -> HookCoverage | None:
    """None where no hook announces the start of jobs."""
    hooks = setup.hooks
    if not hooks.prolog_slurmctld and not hooks.prolog:
        return None
    return HookCoverage(int(time.time()), only_batch=not hooks.prolog_slurmctld)


def _begin_with(outbox: Outbox) -> None:
    """Nothing waits on: whoever starts a daemon has mended something, or set the clock."""
    before = outbox.counts()
    outbox.retry_all()
    waiting = [f"{before[each]} {each}" for each in ("pending", "parked", "conflict") if each in before]
    if waiting:
        log.log(
            NOTICE,
            "messages from before this start: %s; pending ones are sent now, of parked ones one of each reason first",
            ", ".join(waiting),
        )
    log_parked(outbox.parked_by_reason())


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
