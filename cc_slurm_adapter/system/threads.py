"""The only place that starts threads: watched loops that survive errors, and short work in the background."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from cc_slurm_adapter.log import NOTICE, Reminder, Repeated
from cc_slurm_adapter.system.backoff import Backoff

log = logging.getLogger(__name__)

WAIT = 30.0
"""Most seconds that a turn of a loop waits for something to do. A thread that waits still makes progress."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds to wait after a turn that failed."""
STUCK_AFTER = 1800.0
"""Seconds without progress after which a thread counts as stuck. The longest single step is a request of one minute to
a slow destination. A turn of many requests calls `progress` after each."""
LONGEST_CHECK_INTERVAL = 5.0
"""Most seconds between two checks that count as time without progress: after SIGSTOP a process has no stuck threads."""


class Worker:
    """A thread that calls `turn` repeatedly until `stop`, and survives whatever that raises.

    A turn waits at most WAIT seconds for something to do, and a long turn calls `progress`. `at_end` is called in the
    thread when it ends.
    """

    def __init__(
        self,
        name: str,
        turn: Callable[[], None],
        at_end: Callable[[], None] = lambda: None,
        *,
        longest_pause: float = LONGEST_PAUSE,
        stuck_after: float = STUCK_AFTER,
    ) -> None:
        self.name = name
        self.stuck_after = stuck_after
        self._turn = turn
        self._at_end = at_end
        self._stopping = threading.Event()
        self._backoff = Backoff(min(FIRST_PAUSE, longest_pause), longest_pause, jitter=lambda: 1.0)
        self._reminder = Reminder()
        self._steps = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if this system has no thread left."""
        self._thread.start()

    @property
    def is_stopping(self) -> bool:
        """Return whether `stop` was called."""
        return self._stopping.is_set()

    @property
    def never_ran(self) -> bool:
        """Return whether the thread was never started."""
        return self._thread.ident is None

    @property
    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    @property
    def has_ended(self) -> bool:
        """Return whether the thread has ended although nothing stopped it."""
        return not self.never_ran and not self.is_alive and not self.is_stopping

    @property
    def steps(self) -> int:
        """Return a number that grows with every turn and every `progress`."""
        return self._steps

    @property
    def waits_for_a_disk(self) -> bool:
        """Return whether the thread waits in the kernel where no signal reaches it (state D in proc(5)).

        Then it waits for a file system or a device, and not even the process could end.
        """
        try:
            with open(f"/proc/self/task/{self._thread.native_id}/stat", encoding="ascii", errors="replace") as stat:
                return stat.read().rpartition(")")[2].split()[:1] == ["D"]
        except OSError:
            return False

    def progress(self) -> None:
        """Record that the turn under way makes progress."""
        self._steps += 1

    def wait(self, seconds: float) -> None:
        """Wait this many seconds, or until `stop`."""
        self._stopping.wait(seconds)

    def stop(self) -> None:
        """Begin no further turn. The caller must end the turn under way, if necessary."""
        self._stopping.set()

    def join(self, time_limit: float) -> None:
        """Wait until the thread has ended, for at most `time_limit` seconds.

        A thread that was never started needs no wait.
        """
        if not self.never_ran:
            self._thread.join(max(time_limit, 0.0))

    def _run(self) -> None:
        while not self.is_stopping:
            try:
                self._turn()
                self._note_success()
            except Exception as error:  # noqa: BLE001 - nobody would notice the end of a thread, but jobs would be missing
                self._survive(error)
            self.progress()
        _log_failure_of(f"the end of the thread {self.name}", self._at_end)

    def _note_success(self) -> None:
        if self._backoff.failures:
            self._backoff.succeeded()
            if self._reminder.over():
                log.log(NOTICE, "the thread %s works again%s", self.name, self._reminder.note)

    def _survive(self, error: Exception) -> None:
        wait = self._backoff.failed()
        with contextlib.suppress(Exception):  # memory may be too short even for this line
            if self._reminder.is_due(type(error).__name__):
                _log_error(f"the thread {self.name}", error, f"it goes on in {wait:.0f} s{self._reminder.note}")
        self.wait(wait)


class Stoppable(Protocol):
    """A part of the program that has workers."""

    @property
    def workers(self) -> Sequence[Worker]:
        """Return its threads."""
        ...

    def ask_to_stop(self) -> None:
        """Break off what is under way, without waiting."""
        ...


def stop_all(parts: Sequence[Stoppable], time_limit: float) -> None:
    """End the threads of these parts, within `time_limit` seconds for all of them together."""
    deadline = time.monotonic() + time_limit
    for part in parts:
        part.ask_to_stop()
    for part in parts:
        for worker in part.workers:
            worker.join(deadline - time.monotonic())


def run_beside(name: str, action: Callable[[], None]) -> threading.Thread:
    """Do something once in a thread of its own, which does not keep the program alive.

    What the action raises is logged. Raises RuntimeError if this system has no thread left.
    """
    thread = threading.Thread(target=_log_failure_of, args=(f"the thread {name}", action), name=name, daemon=True)
    thread.start()
    return thread


def _log_failure_of(what: str, action: Callable[[], None]) -> None:
    try:
        action()
    except Exception as error:  # noqa: BLE001 - the standard library would print it past the log
        with contextlib.suppress(Exception):
            _log_error(what, error, "going on")


def _log_error(what: str, error: Exception, consequence: str) -> None:
    if isinstance(error, MemoryError):
        log.error("%s: this host has too little memory, or the daemon's limit is too low; %s", what, consequence)
    else:
        log.error("%s: an error of this program, %s; %s", what, type(error).__name__, consequence, exc_info=error)


class Aside:
    """An action that may hang, done once in a thread of its own, so that the caller decides how long to wait for it.

    Raises RuntimeError if this system has no thread left.
    """

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self._action = action
        self._failure: Exception | None = None
        self._done = threading.Event()
        run_beside(name, self._do)

    def _do(self) -> None:
        try:
            self._action()
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            self._failure = error
        self._done.set()

    def is_done(self, seconds: float) -> bool:
        """Wait for at most this many seconds. Return whether the action is done. Raises what it has raised."""
        is_done = self._done.wait(seconds)
        if self._failure is not None:
            raise self._failure
        return is_done


class Supervisor:
    """Finds threads that have ended or make no progress. The main thread calls it about once a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._checked = clock()
        self._progress: dict[Worker, tuple[int, float]] = {}
        """The steps of each thread when it last made progress, and the seconds since then."""
        self._lines = Repeated(clock)

    def watch(self, workers: Iterable[Worker]) -> None:
        """Also check these threads from now on. They have been started."""
        for worker in workers:
            self._progress[worker] = worker.steps, 0.0

    def find_fault(self) -> str:
        """Return what is wrong with one of the threads, or ''."""
        now = self._clock()
        elapsed, self._checked = min(now - self._checked, LONGEST_CHECK_INTERVAL), now
        for worker, (before, idle_before) in self._progress.items():
            if worker.has_ended:
                return f"the thread {worker.name} has ended"
            idle = idle_before + elapsed if worker.steps == before else 0.0
            self._progress[worker] = worker.steps, idle
            if idle >= worker.stuck_after and not self._waits_in_kernel(worker, idle):
                return f"the thread {worker.name} has made no progress for {idle:.0f} s"
        return ""

    def _waits_in_kernel(self, worker: Worker, idle: float) -> bool:
        """Return whether a thread waits for a disk, and log that. A new process would wait there, too."""
        if not worker.waits_for_a_disk:
            return False
        if self._lines.is_due(worker.name):
            log.error(
                "the thread %s has waited for a file system or a device for %.0f s: what it does waits until that"
                " answers, all else goes on. See the kernel's log (dmesg) and the mounts that this program uses%s",
                worker.name,
                idle,
                self._lines.note,
            )
        return True
