"""The daemon's life: startup, main loop, shutdown."""

from __future__ import annotations

import logging
import os
import pwd
import queue
import signal
import time
from collections.abc import Callable, Iterator
from typing import Union

from cc_slurm_adapter import __version__
from cc_slurm_adapter.backoff import Backoff
from cc_slurm_adapter.config import Config, read_prep_secret, read_token
from cc_slurm_adapter.errors import AdapterError, CommandCancelled, CommandMissing, SinkError, SlurmError, StateError
from cc_slurm_adapter.hook_queue import MAX_WAITING, HookQueue
from cc_slurm_adapter.intake import Intake
from cc_slurm_adapter.job import HookEvent
from cc_slurm_adapter.job_watch import JobWatch, WatchSettings
from cc_slurm_adapter.outbox import Outbox
from cc_slurm_adapter.reconciler import Reconciler
from cc_slurm_adapter.rights import warn_of_missing_rights
from cc_slurm_adapter.sender import Sender
from cc_slurm_adapter.sinks import RunningRow
from cc_slurm_adapter.sinks.cc_messages import StartMessages
from cc_slurm_adapter.sinks.cc_rest import CcRest
from cc_slurm_adapter.slurm.client import Setup, SlurmClient, read_setup
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.state_files import LastRun, PidFile, catch_up_from, check_state_folder
from cc_slurm_adapter.status import Status
from cc_slurm_adapter.systemd import notify

log = logging.getLogger(__name__)

STOP_LIMIT = 1.0
"""Seconds that threads get to end; with what else a stop needs it takes less than two."""
TIDY_EVERY = 600.0
FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0
"""Seconds until Slurm is asked again after it gave no answer."""


class Stop:
    """SIGTERM or SIGINT came."""


class Reload:
    """SIGHUP came."""


Item = Union[HookEvent, Stop, Reload, "list[RunningRow]"]


class Daemon:
    """Everything that lives while the daemon runs. `run()` returns after SIGTERM or SIGINT."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._stopping = False
        self._status = Status()
        self._commands = Commands({"SLURM_CONF": config.slurm_conf} if config.slurm_conf else {})
        self._hooks = HookQueue(config.slurm_max_retries)
        self._pid_file = PidFile(config.pid_file_path)
        self._state_lock = PidFile(f"{config.state_path}.lock", "statePath")
        self._last_run = LastRun(config.last_run_path)
        self._slurm_backoff = Backoff(FIRST_RETRY, LONGEST_RETRY, jitter=lambda: 1.0)
        self._next_poll = 0.0
        self._catch_up_from = 0
        self._catching_up: Iterator[int] | None = None
        self._pass_began = 0.0
        self._is_up = False
        self._polled = False
        self._running_rows: list[RunningRow] | None = None
        self._next_tidying = 0.0
        self._abort_question: Callable[[], None] = lambda: None
        self._closers: list[Callable[[], None]] = []

    def run(self) -> None:
        """Raises AdapterError when the daemon cannot start."""
        self._watch_signals()
        try:
            if self._startup():
                notify("READY=1")
                self._main_loop()
        except CommandCancelled:
            log.debug("stopped while starting")
        finally:
            notify("STOPPING=1")
            self._shutdown()

    def _watch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ask_to_stop())
        signal.signal(signal.SIGHUP, lambda *_: self._items.put(Reload()))

    def _ask_to_stop(self) -> None:
        """Called by the signal handler: only sets flags, and ends the command that the main loop may wait for."""
        self._stopping = True
        self._commands.cancel()
        self._abort_question()
        self._items.put(Stop())

    def _startup(self) -> bool:
        """Set everything up, in the order in which a mistake is best told. False when a stop came before the end."""
        os.umask(0o077)  # the state holds job scripts
        for lock in (self._pid_file, self._state_lock):
            self._closers.append(lock.release)
        self._pid_file.lock()
        folder = check_state_folder(self._config.last_run_path)
        self._state_lock.lock()
        self._outbox = Outbox(self._config.state_path)
        self._closers.append(self._outbox.close)
        setup = self._wait_for_slurm()
        if setup is None:
            return False
        self._cluster = self._config.cluster_name or setup.cluster
        slurm = SlurmClient(self._commands, self._cluster, folder)
        warn_of_missing_rights(slurm, setup, _user_name())
        self._start_intake(setup)
        self._start_sink(slurm, setup)
        for lock in (self._pid_file, self._state_lock):
            lock.publish()
        self._is_up = True
        log.warning(
            "cc-slurm-adapter %s reports the cluster %s (Slurm %s) to %s",
            __version__,
            self._cluster,
            setup.version,
            self._config.cc_rest_url,
        )
        return True

    def _wait_for_slurm(self) -> Setup | None:
        """Slurm's configuration; waits while slurmctld does not answer. None when a stop came first."""
        while not self._stopping:
            try:
                setup = read_setup(self._commands)
            except (CommandCancelled, CommandMissing):
                raise
            except SlurmError as error:
                wait = self._slurm_backoff.failed()
                log.error("Slurm does not answer, asking again in %.0f s: %s", wait, error)
                self._pause(wait)
            else:
                self._slurm_backoff.succeeded()
                return setup
        return None

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < deadline:
            self._take_item(deadline - time.monotonic())

    def _start_sink(self, slurm: SlurmClient, setup: Setup) -> None:
        config = self._config
        messages = StartMessages(config.gpu_pci_addrs)
        sink = CcRest(config.cc_rest_url, lambda: read_token(config), messages, config.cc_rest_ca_file)
        self._check_cluster(sink)
        self._sender = Sender(sink, self._outbox, self._status)
        settings = WatchSettings(
            cluster=self._cluster,
            ignore_hosts=config.ignore_hosts,
            has_accounting=setup.has_accounting,
            max_span=config.slurm_query_max_span,
            on_owed=self._sender.wake,
        )
        self._watch = JobWatch(slurm, self._outbox, [sink], self._status, settings)
        last_run = None if self._outbox.is_rebuilt else self._last_run.read()
        checkpoint = self._outbox.checkpoint(self._cluster)
        self._catch_up_from = catch_up_from(last_run, checkpoint, config.slurm_query_max_span)
        self._sender.start()
        self._closers.append(lambda: self._sender.stop(STOP_LIMIT))
        reconciler = Reconciler(sink, self._cluster, config.cc_poll_interval, self._items.put)
        reconciler.start()
        self._closers.append(lambda: reconciler.stop(STOP_LIMIT / 2))

    def _check_cluster(self, sink: CcRest) -> None:
        """cc-backend refuses every job of a cluster that it does not know; one that is away is not waited for."""
        connection = sink.connect()
        self._abort_question = connection.abort
        try:
            known = connection.cluster_names()
        except SinkError as error:
            log.warning("cc-backend cannot be asked for its clusters, going on: %s", error)
            return
        finally:
            connection.close()
        if self._cluster not in known:
            raise StateError(
                f"cc-backend at {self._config.cc_rest_url} does not know the cluster {self._cluster}, only"
                f" {', '.join(known) or 'none'}: add it there, or set clusterName to the name it has there"
            )

    def _start_intake(self, setup: Setup) -> None:
        config = self._config
        intake = Intake(
            address=config.prep_sock_listen_path,
            events_path=config.prep_events_path,
            cluster=setup.cluster,
            deliver=self._take_event,
            slurm_user=setup.slurm_user,
            secret=read_prep_secret(config),
            allow=config.prep_allow,
        )
        self._closers.append(intake.stop)
        intake.start()

    def _take_event(self, event: HookEvent) -> None:
        """Called by the intake's thread. A flood must not fill the memory while the main loop waits for Slurm."""
        if self._items.qsize() < 2 * MAX_WAITING:
            self._items.put(event)
        else:
            self._status.count("hook_events_left_to_polls")

    def _main_loop(self) -> None:
        while not self._stopping:
            self._take_item(self._seconds_to_wait())
            self._guarded(self._serve_hooks, "hook events")
            if time.monotonic() >= self._next_poll:
                self._next_poll = time.monotonic() + self._config.slurm_poll_interval
                self._guarded(self._poll, "poll")
            if self._catching_up is not None:
                self._guarded(self._catch_up_a_step, "accounting")
            if self._running_rows is not None and self._polled:
                self._guarded(self._reconcile, "comparison with cc-backend")

    def _seconds_to_wait(self) -> float:
        if self._catching_up is not None:
            return 0
        next_hook = self._hooks.next_due()
        moments = [self._next_poll] if next_hook is None else [self._next_poll, next_hook]
        return max(min(moments) - time.monotonic(), 0)

    def _take_item(self, wait: float) -> None:
        """Wait for something to happen, and take all that has happened."""
        try:
            self._take(self._items.get(timeout=wait) if wait > 0 else self._items.get_nowait())
            while True:
                self._take(self._items.get_nowait())
        except queue.Empty:
            return

    def _take(self, item: Item) -> None:
        if isinstance(item, HookEvent):
            self._status.count("hook_events")
            if not self._hooks.add(item, time.monotonic()):
                self._status.count("hook_events_left_to_polls")
        elif isinstance(item, Reload):
            if self._is_up:
                self._reload()
        elif isinstance(item, list):
            self._running_rows = item

    def _reload(self) -> None:
        log.warning("SIGHUP: trying %d parked messages again", self._outbox.retry_parked())
        self._watch.forget_broken()
        self._sender.retry_now()
        self._next_poll = 0.0

    def _serve_hooks(self) -> None:
        job_ids = self._hooks.due(time.monotonic())
        if not job_ids:
            return
        known = self._watch.look_at(job_ids)
        self._hooks.looked_at(
            job_ids, time.monotonic(), lambda event: self._watch.is_settled(event.job_id, over=event.is_end), known
        )

    def _poll(self) -> None:
        """One pass. Hook events are served between its questions, which are many after a long absence."""
        began = time.time()
        for _ in self._watch.poll():
            self._take_item(0)
            self._serve_hooks()
        self._sender.post_nodes(self._cluster, self._watch.node_states())
        self._polled = True
        self._tidy()
        log.info("%d runs are open, so far: %s", self._watch.open_runs, self._status.counts())
        if self._catching_up is None:
            self._pass_began = began
            self._catching_up = self._watch.catch_up(self._catch_up_from)

    def _tidy(self) -> None:
        if time.monotonic() >= self._next_tidying:
            self._next_tidying = time.monotonic() + TIDY_EVERY
            self._outbox.tidy(self._config.slurm_query_max_span)

    def _catch_up_a_step(self) -> None:
        """Read the next hour of accounting; at the end of it the pass is complete."""
        steps, self._catching_up = self._catching_up, None
        for until in steps or ():
            self._catch_up_from = until
            self._catching_up = steps
            return
        self._last_run.write(self._pass_began)

    def _reconcile(self) -> None:
        rows, self._running_rows = self._running_rows or [], None
        self._watch.reconcile(rows)

    def _guarded(self, action: Callable[[], None], what: str) -> None:
        """Do it; what goes wrong is said, and tried again later."""
        try:
            action()
        except CommandCancelled:
            log.debug("%s broken off: the daemon stops", what)
        except SlurmError as error:
            wait = self._slurm_backoff.failed()
            self._next_poll = min(self._next_poll, time.monotonic() + wait)
            self._hooks.put_off(time.monotonic() + wait)
            log.error("%s: no usable answer from Slurm, asking again in %.0f s: %s", what, wait, error)
        except AdapterError as error:
            log.error("%s: %s", what, error)
        else:
            if self._slurm_backoff.failures and what == "poll":
                log.warning("Slurm answers again")
                self._slurm_backoff.succeeded()

    def _shutdown(self) -> None:
        """Undo the startup from its end; each step has its limit."""
        for close in reversed(self._closers):
            close()
        self._commands.close()
        if self._polled:
            log.warning("stopped; so far: %s", self._status.counts())


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
