"""One run of the daemon: startup, main loop and shutdown, and its signals.

Which thread runs which method:

- The main thread runs `Daemon`, the main loop with its activities, all of `jobs/` and all that asks Slurm, one step
  after the other. Only this thread feeds systemd's watchdog (`_pulse`). It checks that the others are not stuck.
- `intake` reads the socket and the events folders, each connection of a sender (`cc_rest-0` to `cc_rest-3`,
  `cc_nats-0`) sends rows, `running-list` polls cc-backend for its running jobs. They are `Worker`s, which survive what
  their turns raise. None of them calls a method of the main thread's parts: they put what they have into the `Inbox`,
  and get rows from the `Outbox`. Apart from these two, only `Counters`, `LateRuns` and what a sender shares among its
  connections are used from several threads; each has a lock.
- A reload happens in the main thread, between two of its steps: the loop or a poll handles the inbox there. It replaces
  frozen values, and single values that other threads read.
- `socket` and `clusters` run for a moment at the start, `stored-runs` while runs are sent anew. They are threads
  because what they do may hang.
- Signal handlers run in the main thread, between any two of its instructions. So they only set flags, put an item into
  the inbox, and end the command under way.

Two things may hang in the main thread: a Slurm command, which has a time limit, and access to a file. If a file system
does not answer for longer than WatchdogSec, systemd ends the daemon.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from cc_slurm_adapter import __version__
from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.daemon.activities import TICK, log_parked
from cc_slurm_adapter.daemon.assembly import DAEMON, Assembly
from cc_slurm_adapter.daemon.checks.cluster_name import find_cluster
from cc_slurm_adapter.daemon.checks.site import find_prolog_flags
from cc_slurm_adapter.daemon.checks.user import find_root
from cc_slurm_adapter.daemon.crash_count import GOOD_LIFE, CrashCount
from cc_slurm_adapter.daemon.destinations import Destinations
from cc_slurm_adapter.daemon.hook_check import check_hooks
from cc_slurm_adapter.daemon.inbox import ClusterNames, Item, Reload, Stop
from cc_slurm_adapter.daemon.main_loop import MainLoop
from cc_slurm_adapter.daemon.report import RUNNING
from cc_slurm_adapter.daemon.state_files import PidFile, check_state_folder
from cc_slurm_adapter.daemon.systemd import Watchdog, notify, rest_before_the_next_start
from cc_slurm_adapter.errors import CommandCancelled, CommandMissing, SlurmError, StateError, ThreadFault
from cc_slurm_adapter.hooks.intake import Intake
from cc_slurm_adapter.log import NOTICE, Reminder
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.outbox.clock_step import is_plausible
from cc_slurm_adapter.outbox.foreign_state import refuse_foreign
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig, read_cluster_config
from cc_slurm_adapter.slurm.privileges import find_missing_privileges
from cc_slurm_adapter.system import backoff
from cc_slurm_adapter.system.backoff import Backoff
from cc_slurm_adapter.system.file_systems import user_name
from cc_slurm_adapter.system.outages import cause_of
from cc_slurm_adapter.system.quantities import counted, full_moment
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

    def __init__(self, config: Config, config_path: str = "", findings: Sequence[Finding] = ()) -> None:
        """`findings` are what the configuration has shown; they are logged already."""
        self._config = config
        self._assembly = Assembly(config, DAEMON, self._pulse, config_path, findings)
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
                self._work(self._loop)
        except CommandCancelled:
            log.debug("stopped while starting")
        finally:
            notify("STOPPING=1")
            self._shutdown()
        if self._fault:
            raise ThreadFault(f"{self._fault}: this process ends, so that systemd starts a new one; nothing is lost")

    def _work(self, loop: MainLoop) -> None:
        """Do the work, until a signal ends it."""
        loop.run()

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
        self._assembly.board.note_progress()
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
        self._start_status_thread()
        self._crashes.begin()  # only now: without the locks the count may be another daemon's
        try:
            return folder, self._open_intake()
        except StateError:
            self._rest_after_crashes(min(self._crashes.wait, LONGEST_UNREADY))
            raise

    def _start_status_thread(self) -> None:
        """Answer on the control socket from now on, also while the start waits. A failure costs nothing else."""
        status = self._assembly.make_status_thread()
        try:
            status.start()
        except RuntimeError as error:  # this system has no thread left
            log.warning("controlSockPath: the status cannot be asked for: %s", error)

    def _open_intake(self) -> Intake:
        address, intake = self._config.prep_sock_listen_path, self._assembly.make_intake()
        self._closers.append(intake.stop)
        opening = Aside("socket", intake.open)
        deadline = time.monotonic() + SOCKET_LIMIT
        while not self._stopping and not opening.is_done(SOCKET_TICK):
            self._pulse()
            if time.monotonic() >= deadline:
                raise StateError(
                    f"prepSockListenPath: {address} cannot be opened within {SOCKET_LIMIT:.0f} s:"
                    " does the name server answer? Give the address instead of the name"
                )
        return intake

    def _rest_after_crashes(self, seconds: float) -> None:
        """Wait before anything is read or asked, if the daemon has ended right after its start again and again."""
        if seconds and not self._stopping:
            line = f"ended {self._crashes.before} times in a row soon after the start, waiting {seconds:.0f} s"
            log.warning("%s: the lines before each end say why", line)
            self._assembly.board.phase = line
            self._await(Stop, seconds)

    def _startup(self, folder: str, intake: Intake) -> MainLoop | None:
        """Build and start all parts, in the order in which mistakes are best reported. Return None if a stop comes."""
        if self._stopping:
            return None
        self._good_at = time.monotonic() + GOOD_LIFE
        self._wait_for_clock()
        if self._stopping:
            return None
        self._assembly.board.phase = f"opening the state file {self._config.state_path}"
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
        for finding in find_missing_privileges(slurm, cluster_config, user_name(os.geteuid())):
            self._assembly.board.report_findings(finding)  # before accounting is asked, which may take long
        intake.start(cluster_config.cluster, cluster_config.slurm_user)
        self._supervisor.watch(intake.workers)
        destinations = self._assembly.make_destinations()
        if destinations.rest:
            self._check_cluster(destinations, cluster, cluster_config.cluster)
        if self._stopping:
            return None
        self._assembly.board.report_findings(*_other_clusters(outbox, cluster))
        loop = self._assembly.make_loop(cluster, cluster_config, slurm, outbox, destinations)
        self._closers.append(lambda: destinations.stop(STOP_LIMIT))
        destinations.start(outbox, cluster, self._inbox.put, self._assembly.event_latency)
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
        self._assembly.board.phase = RUNNING
        self._assembly.board.report_findings(
            *find_root(os.geteuid()),
            *check_hooks(cluster_config, os.uname().nodename),
            *(each for each in [find_prolog_flags(cluster_config)] if each.level >= logging.WARNING),
        )
        return loop

    def _wait_for_clock(self, *, timing: Timing = TIMING) -> None:
        """Wait while the clock shows an impossible time: a host without a battery begins in 1970.

        With such a time all waiting messages would be parked as too old as soon as the clock is set, and all that is
        remembered would be forgotten.
        """
        reminder = Reminder()
        while not (self._stopping or is_plausible(time.time())):
            if reminder.is_due():
                self._assembly.board.phase = "waiting for the clock of this host to be set"
                log.warning(
                    "the clock of this host says %s, which cannot be: waiting until it is set. See `timedatectl` or"
                    " `chronyc tracking`%s",
                    full_moment(time.time()),
                    reminder.note,
                )
            self._await(Stop, timing.clock_check)
        if reminder.over() and not self._stopping:
            log.log(NOTICE, "the clock of this host was set, it says %s", full_moment(time.time()))

    def _wait_for_slurm(self, *, timing: Timing = TIMING) -> ClusterConfig | None:
        """Read Slurm's configuration, and wait while slurmctld does not answer. Return None if a stop comes first."""
        longest = timing.retries.longest_retry
        waits, reminder = Backoff(timing.retries.first_retry, longest, jitter=lambda: 1.0), Reminder()
        self._assembly.board.phase = "waiting for Slurm's answer (scontrol show config)"
        while not self._stopping:
            try:
                cluster_config = read_cluster_config(self._assembly.commands)
            except (CommandCancelled, CommandMissing):
                raise
            except SlurmError as error:
                wait = waits.failed()
                if reminder.is_due(cause_of(str(error))):
                    text = "Slurm does not answer, it is asked again, at least every %.0f s: %s%s"
                    log.error(text, longest, error, reminder.note)
                self._assembly.board.phase = f"waiting for Slurm, which does not answer: {error}"
                self._await(Stop, wait)
            else:
                if reminder.over():
                    log.log(NOTICE, "Slurm answers now%s", reminder.note)
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
                elif not isinstance(item, Stop):
                    others.append(self._postponed(item) if isinstance(item, Reload) else item)
        for item in others:
            self._inbox.put(item)
        return found

    def _postponed(self, reload: Reload) -> Reload:
        """Return a reload that came during the start for the main loop, after a line about that."""
        if not reload.is_postponed:
            log.log(
                NOTICE,
                "%s: done when the start is over (%s); systemctl restart cc-slurm-adapter reads the configuration now",
                reload.by,
                self._assembly.board.phase,
            )
        return replace(reload, is_postponed=True)

    def _check_cluster(self, destinations: Destinations, cluster: str, own_name: str) -> None:
        """Raise StateError if cc-backend does not know the cluster: it would refuse every job.

        The start does not wait for a cc-backend that is away. It is asked in a thread, because a connection that hangs
        must not delay a stop.
        """
        self._assembly.board.phase = "asking cc-backend for its clusters"
        run_beside("clusters", lambda: self._read_clusters(destinations))
        known = self._await(ClusterNames, CLUSTERS_LIMIT)
        if isinstance(known, ClusterNames) and known.names and cluster not in known.names:
            raise StateError(str(find_cluster(self._config.cc_rest_url, cluster, known.names)))
        if isinstance(known, ClusterNames) and cluster != own_name and own_name in known.names:
            self._assembly.board.report_findings(_two_names(cluster, own_name))

    def _read_clusters(self, destinations: Destinations) -> None:
        """Put the clusters that cc-backend knows into the inbox. This runs in a thread of its own."""
        names: list[str] = []
        try:
            names = destinations.cluster_names()
        finally:
            self._inbox.put(ClusterNames(tuple(names)))

    def _shutdown(self) -> None:
        """Undo the startup in reverse order. Each step has a time limit."""
        if self._stopping and not self._fault:
            self._crashes.clear()
        self._assembly.stop_status()  # before the state file is closed: a request may hold that for long
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
            f"{counted(runs, 'run')} of the cluster {other}, open when clusterName was changed to {cluster}, cannot be"
            " followed any more",
            next_step,
        )
        for other, runs in outbox.other_clusters(cluster).items()
    ]


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
