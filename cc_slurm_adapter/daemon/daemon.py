"""One run of the daemon: startup, main loop and shutdown, and its signals.

Which thread runs which method:

- The main thread runs `Daemon`, the main loop with its activities, all of `jobs/` and all that asks Slurm, one step
  after the other. Only this thread feeds systemd's watchdog (`_pulse`). It checks that the others are not stuck.
- `intake` reads the socket and the events folders, each connection of a sender (`cc_rest-0` to `cc_rest-3`,
  `cc_nats-0`) sends rows, `running-list` polls cc-backend for its running jobs. They are `Worker`s, which survive what
  their turns raise. None of them calls a method of the main thread's parts: they put what they have into the `Inbox`,
  and get rows from the `Outbox`. Apart from these two, only `Counters`, `LateRuns` and what a sender shares among its
  connections are used from several threads; each has a lock.
- `socket` and `clusters` run for a moment at the start. They are threads because what they do may hang.
- Signal handlers run in the main thread, between any two of its instructions. So they only set flags, put an item into
  the inbox, and end the command under way.

Two things may hang in the main thread: a Slurm command, which has a time limit, and access to a file. If a file system
does not answer for longer than WatchdogSec, systemd ends the daemon.
"""

from __future__ import annotations

import logging
import os
import pwd
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

from cc_slurm_adapter import __version__
from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.daemon.activities import TICK, log_parked
from cc_slurm_adapter.daemon.assembly import DAEMON, Assembly
from cc_slurm_adapter.daemon.crash_count import GOOD_LIFE, CrashCount
from cc_slurm_adapter.daemon.destinations import Destinations
from cc_slurm_adapter.daemon.hook_check import check_hooks
from cc_slurm_adapter.daemon.inbox import ClusterNames, Item, Reload, Stop
from cc_slurm_adapter.daemon.main_loop import MainLoop
from cc_slurm_adapter.daemon.state_files import PidFile, check_state_folder
from cc_slurm_adapter.daemon.systemd import Watchdog, notify, rest_before_the_next_start, tell_status
from cc_slurm_adapter.errors import CommandCancelled, CommandMissing, SinkError, SlurmError, StateError, ThreadFault
from cc_slurm_adapter.hooks.intake import Intake
from cc_slurm_adapter.log import NOTICE, Reminder, log_findings, moment_text
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.outbox.clock_step import is_plausible
from cc_slurm_adapter.outbox.foreign_state import refuse_foreign
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig, read_cluster_config
from cc_slurm_adapter.slurm.privileges import find_missing_privileges
from cc_slurm_adapter.system import backoff
from cc_slurm_adapter.system.backoff import Backoff, cause_of
from cc_slurm_adapter.system.threads import Aside, Supervisor, run_beside

log = logging.getLogger(__name__)

LONGEST_UNREADY = 30.0
"""The most seconds that a start that cannot become ready waits after many crashes. systemd waits for it meanwhile (90 s
by default)."""
SOCKET_LIMIT, SOCKET_TICK = 30.0, 0.2
"""The most seconds to open the socket, whose address may come from a name server; and how soon a stop ends the wait."""
STOP_LIMIT = 1.0
"""Seconds that threads have to end. A stop takes less than two seconds with everything else that it does."""
CLUSTERS_LIMIT = 3.0
"""Seconds that the start waits for cc-backend's list of clusters."""


class Timing(NamedTuple):
    """How long a start waits, in seconds."""

    clock_check: float = 1.0
    """Between two checks of a clock that was not set yet."""
    retries: backoff.Timing = backoff.TIMING
    """Until Slurm is asked again for its configuration."""


TIMING = Timing()


class Daemon:
    """Everything that exists while the daemon runs. `run()` returns after SIGTERM or SIGINT."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._assembly = Assembly(config, DAEMON, self._pulse)
        self._inbox = self._assembly.inbox
        self._watchdog = Watchdog(os.environ)
        self._supervisor = Supervisor()
        self._crashes = CrashCount(config.state_path)
        self._good_at = float("inf")
        """The time.monotonic() from which on this start counts as a good one."""
        self._fault = ""
        """Why it ends, if it was not asked to end."""
        self._locks = PidFile(config.pid_file_path), PidFile(f"{config.state_path}.lock", "statePath")
        self._loop: MainLoop | None = None
        self._stopping = False
        self._closers: list[Callable[[], None]] = []

    def run(self) -> None:
        """Run until a signal ends it. Raises AdapterError if the daemon cannot start, or must end."""
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
        """Feed the watchdog while the whole state file is read, and end the reading after a stop."""
        if self._stopping:
            raise CommandCancelled("the daemon stops")
        self._pulse()

    def _ask_to_stop(self) -> None:
        """Set flags, and end the command that the main loop may wait for; a signal handler calls it."""
        self._stopping = True
        self._assembly.commands.cancel()
        if self._loop is not None:
            self._loop.stop()
        self._inbox.put(Stop())

    def _pulse(self) -> None:
        """Feed the watchdog and check the threads.

        The main thread calls it between the steps of its work, and once a second while it waits.
        """
        self._watchdog.feed()
        if time.monotonic() >= self._good_at:
            self._crashes.clear()
        if not self._fault and not self._stopping:
            self._fault = self._supervisor.find_fault()
            if self._fault:
                log.critical("%s: the daemon ends", self._fault)
                self._ask_to_stop()

    def _get_ready(self) -> tuple[str, Intake]:
        """Lock the files and open the socket, which needs neither Slurm nor cc-backend. Raises StateError."""
        os.umask(0o077)  # the state holds job scripts
        pid_file, state_lock = self._locks
        self._closers += [pid_file.release, state_lock.release]
        try:
            pid_file.lock()
            refuse_foreign(self._config.state_path)  # before anything is written beside it
            folder = check_state_folder(self._config.last_run_path)
            state_lock.lock()
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
        address, intake = self._config.prep_sock_listen_path, self._assembly.make_intake()
        self._closers.append(intake.stop)
        opening = Aside("socket", intake.open)
        deadline = time.monotonic() + SOCKET_LIMIT
        while not self._stopping and not opening.is_done(SOCKET_TICK):
            self._pulse()
            if time.monotonic() >= deadline:
                raise StateError(
                    f"prepSockListenPath: {address} cannot be had within {SOCKET_LIMIT:.0f} s:"
                    " does the name server answer? Give the address in place of the name"
                )
        return intake

    def _rest_after_crashes(self, seconds: float) -> None:
        """Wait before anything is read or asked, if the daemon has ended right after its start again and again."""
        if seconds and not self._stopping:
            line = f"ended {self._crashes.before} times in a row soon after the start, waiting {seconds:.0f} s"
            log.warning("%s: the lines before each end say why", line)
            tell_status(line)
            self._await(Stop, seconds)

    def _startup(self, folder: str, intake: Intake) -> MainLoop | None:
        """Build and start all parts, in the order in which mistakes are best reported. Return None if a stop comes."""
        if self._stopping:
            return None
        self._good_at = time.monotonic() + GOOD_LIFE
        self._wait_for_clock()
        if self._stopping:
            return None
        tell_status(f"opening the state file {self._config.state_path}")
        outbox = self._assembly.open_outbox(self._go_on)
        self._closers.append(outbox.close)
        if self._config.requeued_runs != "last":
            outbox.withdraw_nothing()
        _begin_with(outbox)
        cluster_config = self._wait_for_slurm()
        if cluster_config is None:
            return None
        return self._start_reporting(folder, intake, outbox, cluster_config)

    def _start_reporting(
        self, folder: str, intake: Intake, outbox: Outbox, cluster_config: ClusterConfig
    ) -> MainLoop | None:
        """Start all threads, after Slurm has answered. Return None if a stop comes before."""
        cluster = self._config.cluster_name or cluster_config.cluster
        slurm = self._assembly.make_slurm(cluster, folder)
        for finding in find_missing_privileges(slurm, cluster_config, _user_name()):
            log_findings(finding)  # before accounting is asked, which may take long
        intake.start(cluster_config.cluster, cluster_config.slurm_user)
        self._supervisor.watch(intake.workers)
        destinations = self._assembly.make_destinations()
        if destinations.rest:
            self._check_cluster(destinations, cluster, cluster_config.cluster)
        if self._stopping:
            return None
        log_findings(*_other_clusters(outbox, cluster))
        loop = self._assembly.make_loop(cluster, cluster_config, slurm, outbox, destinations)
        self._closers.append(lambda: destinations.stop(STOP_LIMIT))
        destinations.start(outbox, cluster, self._inbox.put)
        self._supervisor.watch(destinations.workers)
        for lock in self._locks:
            lock.publish()
        log.log(
            NOTICE,
            "cc-slurm-adapter %s reports the cluster %s (Slurm %s) to %s",
            __version__,
            cluster,
            cluster_config.version,
            destinations.label,
        )
        tell_status(f"reports the cluster {cluster} to {destinations.label}")
        log_findings(*_root(), *check_hooks(cluster_config, os.uname().nodename))
        return loop

    def _wait_for_clock(self, *, timing: Timing = TIMING) -> None:
        """Wait while the clock shows an impossible time: a host without a battery begins in 1970.

        With such a time all waiting messages would be parked as too old as soon as the clock is set, and all that is
        remembered would be forgotten.
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
            self._await(Stop, timing.clock_check)
        if reminder.over() and not self._stopping:
            log.log(NOTICE, "the clock of this host was set, it says %s", moment_text(time.time()))

    def _wait_for_slurm(self, *, timing: Timing = TIMING) -> ClusterConfig | None:
        """Read Slurm's configuration, and wait while slurmctld does not answer. Return None if a stop comes first."""
        first, longest = timing.retries
        waits, reminder = Backoff(first, longest, jitter=lambda: 1.0), Reminder()
        tell_status("waiting for Slurm's answer (scontrol show config)")
        while not self._stopping:
            try:
                cluster_config = read_cluster_config(self._assembly.commands)
            except (CommandCancelled, CommandMissing):
                raise
            except SlurmError as error:
                wait = waits.failed()
                if reminder.is_due(cause_of(str(error))):
                    log.error("Slurm does not answer, it is asked again, every %.0f s at last: %s", longest, error)
                tell_status(f"waiting for Slurm, which does not answer: {error}")
                self._await(Stop, wait)
            else:
                if reminder.over():
                    log.log(NOTICE, "Slurm answers now")
                return cluster_config
        return None

    def _await(self, kind: type, seconds: float) -> Item | None:
        """Return the first item of a kind that arrives in time; None if none does, or at a stop.

        Other items are kept for the main loop.
        """
        deadline = time.monotonic() + seconds
        others: list[Item] = []
        found = None
        while found is None and not self._stopping and time.monotonic() < deadline:
            self._pulse()
            for item in self._inbox.pop_all(min(deadline - time.monotonic(), TICK)):
                if isinstance(item, kind) and found is None:
                    found = item
                elif not isinstance(item, (Stop, Reload)):
                    others.append(item)
        for item in others:
            self._inbox.put(item)
        return found

    def _check_cluster(self, destinations: Destinations, cluster: str, own_name: str) -> None:
        """Raise StateError if cc-backend does not know the cluster: it would refuse every job.

        The start does not wait for a cc-backend that is away. It is asked in a thread, because a connection that hangs
        must not delay a stop.
        """
        tell_status("asking cc-backend for its clusters")
        run_beside("clusters", lambda: self._read_clusters(destinations))
        known = self._await(ClusterNames, CLUSTERS_LIMIT)
        if isinstance(known, ClusterNames) and known.names and cluster not in known.names:
            raise StateError(
                f"cc-backend at {self._config.cc_rest_url} does not know the cluster {cluster}, only"
                f" {', '.join(known.names)}: add it there, or set clusterName to the name it has there"
            )
        if isinstance(known, ClusterNames) and cluster != own_name and own_name in known.names:
            log_findings(_two_names(cluster, own_name))

    def _read_clusters(self, destinations: Destinations) -> None:
        """Put the clusters that cc-backend knows into the inbox. This runs in a thread of its own."""
        names: list[str] = []
        try:
            names = destinations.cluster_names()
        except SinkError as error:
            log.error("cc-backend cannot be asked for its clusters, going on: %s", error)
        finally:
            self._inbox.put(ClusterNames(tuple(names)))

    def _shutdown(self) -> None:
        """Undo the startup in reverse order. Each step has a time limit."""
        if self._stopping and not self._fault:
            self._crashes.clear()
        for close in reversed(self._closers):
            close()
        self._assembly.commands.close()
        if self._loop is not None:
            log.log(NOTICE, "stopped; since the start: %s", self._assembly.counters)
        if not self._stopping:  # an error ends it: from here on a signal must end it like any program
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _two_names(cluster: str, own_name: str) -> Finding:
    text = (
        f"clusterName is {cluster}, but Slurm calls this cluster {own_name} and cc-backend knows both: all jobs are"
        f" reported as those of {cluster}"
    )
    return Finding(logging.WARNING, "clusterName", text, "If that is not meant, remove clusterName and restart")


def _other_clusters(outbox: Outbox, cluster: str) -> list[Finding]:
    """Return a warning for each other cluster that was reported with this state file before and has open runs."""
    next_step = (
        "Set it back until they are over, or end them in cc-backend; after slurmQueryMaxSpan they are forgotten here"
    )
    return [
        Finding(
            logging.WARNING,
            "clusterName",
            f"{runs} runs of the cluster {other} were open when clusterName was changed to {cluster}: they are not"
            " followed",
            next_step,
        )
        for other, runs in outbox.other_clusters(cluster).items()
    ]


def _root() -> list[Finding]:
    """Return a warning if the daemon runs as root."""
    if os.geteuid() != 0:
        return []
    text = "the daemon runs as root, which it does not need"
    return [Finding(logging.WARNING, "user", text, "set User= in its systemd unit, see docs/install.md")]


def _begin_with(outbox: Outbox) -> None:
    """End every wait for a retry: an administrator who starts a daemon has repaired something, or set the clock."""
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
