"""The daemon's life: startup and shutdown, with the main loop in between."""

from __future__ import annotations

import logging
import os
import pwd
import signal
import threading
import time
from collections.abc import Callable

from cc_slurm_adapter import __version__
from cc_slurm_adapter.activity import FIRST_RETRY, LONGEST_RETRY
from cc_slurm_adapter.backoff import Backoff
from cc_slurm_adapter.config import Config, read_prep_secret
from cc_slurm_adapter.destinations import Destinations, sinks_of
from cc_slurm_adapter.errors import CommandCancelled, CommandMissing, SinkError, SlurmError, StateError
from cc_slurm_adapter.first_moment import Before, FirstMoment, catch_up_from
from cc_slurm_adapter.hook_check import hook_troubles
from cc_slurm_adapter.hook_coverage import HookCoverage
from cc_slurm_adapter.ignore_rules import IgnoreRules
from cc_slurm_adapter.intake import Intake
from cc_slurm_adapter.job_watch import JobWatch, WatchSettings
from cc_slurm_adapter.log import moment_text
from cc_slurm_adapter.main_loop import ClusterNames, Inbox, Item, LoopSettings, MainLoop, Reload, Stop
from cc_slurm_adapter.outbox import Outbox
from cc_slurm_adapter.rights import warn_of_missing_rights
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.setup import Setup, read_setup
from cc_slurm_adapter.state_files import LastRun, PidFile, check_state_folder
from cc_slurm_adapter.status import Status
from cc_slurm_adapter.systemd import notify

log = logging.getLogger(__name__)

STOP_LIMIT = 1.0
"""Seconds that threads get to end; with what else a stop needs it takes less than two."""
CLUSTERS_LIMIT = 3.0
"""Seconds that the start waits for cc-backend's list of clusters."""


class Daemon:
    """Everything that lives while the daemon runs. `run()` returns after SIGTERM or SIGINT."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._status = Status()
        self._inbox = Inbox(self._status)
        self._commands = Commands({"SLURM_CONF": config.slurm_conf} if config.slurm_conf else {})
        self._pid_file = PidFile(config.pid_file_path)
        self._state_lock = PidFile(f"{config.state_path}.lock", "statePath")
        self._loop: MainLoop | None = None
        self._stopping = False
        self._closers: list[Callable[[], None]] = []

    def run(self) -> None:
        """Raises AdapterError when the daemon cannot start."""
        self._watch_signals()
        try:
            self._loop = self._startup()
            if self._loop is not None and not self._stopping:
                notify("READY=1")
                self._loop.run()
        except CommandCancelled:
            log.debug("stopped while starting")
        finally:
            notify("STOPPING=1")
            self._shutdown()

    def _watch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ask_to_stop())
        signal.signal(signal.SIGHUP, lambda *_: self._inbox.put(Reload()))

    def _ask_to_stop(self) -> None:
        """Called by the signal handler: only sets flags, and ends the command that the main loop may wait for."""
        self._stopping = True
        self._commands.cancel()
        if self._loop is not None:
            self._loop.stop()
        self._inbox.put(Stop())

    def _startup(self) -> MainLoop | None:
        """Set everything up, in the order in which a mistake is best told. None when a stop came before the end."""
        config = self._config
        os.umask(0o077)  # the state holds job scripts
        for lock in (self._pid_file, self._state_lock):
            self._closers.append(lock.release)
        self._pid_file.lock()
        folder = check_state_folder(config.last_run_path)
        self._state_lock.lock()
        outbox = Outbox(config.state_path, sinks_of(config))
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
        self._start_intake(setup)
        destinations = Destinations(config, self._status)
        if destinations.rest:
            self._check_cluster(destinations, cluster, setup.cluster)
        if self._stopping:
            return None
        loop = self._start_reporting(slurm, setup, outbox, destinations, cluster)
        for lock in (self._pid_file, self._state_lock):
            lock.publish()
        log.warning(
            "cc-slurm-adapter %s reports the cluster %s (Slurm %s) to %s",
            __version__,
            cluster,
            setup.version,
            destinations.label,
        )
        _warn_of_hooks(setup)
        return loop

    def _wait_for_slurm(self) -> Setup | None:
        """Slurm's configuration; waits while slurmctld does not answer. None when a stop came first."""
        backoff = Backoff(FIRST_RETRY, LONGEST_RETRY, jitter=lambda: 1.0)
        while not self._stopping:
            try:
                return read_setup(self._commands)
            except (CommandCancelled, CommandMissing):
                raise
            except SlurmError as error:
                wait = backoff.failed()
                log.error("Slurm does not answer, asking again in %.0f s: %s", wait, error)
                self._await(Stop, wait)
        return None

    def _await(self, kind: type, seconds: float) -> Item | None:
        """The first thing of a kind that comes in time; the rest waits for the main loop. None also for a stop."""
        deadline = time.monotonic() + seconds
        others: list[Item] = []
        found = None
        while found is None and not self._stopping and time.monotonic() < deadline:
            for item in self._inbox.take(deadline - time.monotonic()):
                if isinstance(item, kind) and found is None:
                    found = item
                elif not isinstance(item, (Stop, Reload)):
                    others.append(item)
        for item in others:
            self._inbox.put(item)
        return found

    def _start_reporting(
        self, slurm: SlurmClient, setup: Setup, outbox: Outbox, destinations: Destinations, cluster: str
    ) -> MainLoop:
        config = self._config
        last_run = LastRun(config.last_run_path)
        before = Before(
            outbox.checkpoint(cluster), last_run.read(), outbox.is_rebuilt, max_span=config.slurm_query_max_span
        )
        first_moment = FirstMoment(config.state_path)
        first_moment.settle(before, time.time())
        limit = first_moment.limit(time.time())
        if before.checkpoint is None and before.last_run is not None:
            log.warning(
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
            on_owed=destinations.wake,
            on_nodes=destinations.learn,
            first_moment=first_moment,
            late_runs=destinations.late_runs,
            on_start=coverage.began if coverage else lambda run: None,
        )
        watch = JobWatch(slurm, outbox, destinations.sinks, self._status, watch_settings)
        settings = LoopSettings(
            cluster=cluster,
            poll_interval=config.slurm_poll_interval,
            max_span=config.slurm_query_max_span,
            max_tries=config.slurm_max_retries,
            catch_up_from=catch_up_from(before, limit, int(time.time())),
            query_delay=config.slurm_query_delay,
        )
        loop = MainLoop(self._inbox, watch, destinations, outbox, last_run, self._status, settings, coverage)
        self._closers.append(lambda: destinations.stop(STOP_LIMIT))
        destinations.start(outbox, cluster, self._inbox.put)
        return loop

    def _check_cluster(self, destinations: Destinations, cluster: str, own_name: str) -> None:
        """cc-backend refuses every job of a cluster that it does not know; one that is away is not waited for.

        Asked in a thread, because a connection that hangs must not delay a stop.
        """
        threading.Thread(target=self._ask_for_clusters, args=(destinations,), name="clusters", daemon=True).start()
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

    def _start_intake(self, setup: Setup) -> None:
        config = self._config
        intake = Intake(
            address=config.prep_sock_listen_path,
            events_path=config.prep_events_path,
            cluster=setup.cluster,
            deliver=self._inbox.put,
            slurm_user=setup.slurm_user,
            secret=read_prep_secret(config),
            allow=config.prep_allow,
        )
        self._closers.append(intake.stop)
        intake.start()

    def _shutdown(self) -> None:
        """Undo the startup from its end; each step has its limit."""
        for close in reversed(self._closers):
            close()
        self._commands.close()
        if self._loop is not None:
            log.warning("stopped; since the start: %s", self._status)


def _warn_of_hooks(setup: Setup) -> None:
    troubles = hook_troubles(setup.hooks, setup.slurm_user, os.uname().nodename)
    if troubles:
        log.warning(
            "slurmctld does not report every job by its hooks: %s. Jobs are found by polls all the same, but short ones"
            " lose cores and GPUs. Set PrologSlurmctld and EpilogSlurmctld in slurm.conf to this program, or call it in"
            " the scripts that are there, then run scontrol reconfigure",
            "; ".join(troubles),
        )


def _coverage(setup: Setup) -> HookCoverage | None:
    """None where no hook announces the start of jobs."""
    hooks = setup.hooks
    if not hooks.prolog_slurmctld and not hooks.prolog:
        return None
    return HookCoverage(int(time.time()), only_batch=not hooks.prolog_slurmctld)


def _begin_with(outbox: Outbox) -> None:
    """Nothing waits on: whoever starts a daemon has mended something, or set the clock."""
    before = outbox.counts()
    outbox.retry_all()
    waiting = [f"{before[each]} {each}" for each in ("owed", "parked", "shadowed") if each in before]
    if waiting:
        log.warning("messages from before this start: %s; what is owed or parked is sent now", ", ".join(waiting))


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
