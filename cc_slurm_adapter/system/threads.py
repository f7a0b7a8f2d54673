"""The one place that starts threads: loops that go on whatever happens and are watched, and short work beside them."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from cc_slurm_adapter.log import NOTICE, Reminder
from cc_slurm_adapter.system.backoff import Backoff

log = logging.getLogger(__name__)

WAIT = 30.0
"""Seconds that a turn of a loop waits for something to do, at most: whoever waits still makes progress."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds after a turn that failed."""
STUCK_AFTER = 1800.0
"""Seconds without progress after which a thread counts as stuck: a slow destination answers a request in one minute,
and a turn of many requests calls `progress` after each."""
LONGEST_BETWEEN_LOOKS = 5.0
"""Seconds between two looks at the threads that count: a process that was stopped (SIGSTOP) has no stuck threads."""


class Worker:
    """A thread that does `turn` again and again until `stop`, and survives whatever that raises.

    A turn waits at most WAIT seconds for something to do; one that takes long calls `progress`. `at_end` is called in
    the thread when it ends.
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
        self._turns = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin with the first turn. Raises RuntimeError when this system has no thread left."""
        self._thread.start()

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    @property
    def never_ran(self) -> bool:
        """Whether it was never started."""
        return self._thread.ident is None

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def has_ended(self) -> bool:
        """Whether it has ended although nobody stopped it."""
        return not self.never_ran and not self.is_alive and not self.is_stopping

    @property
    def progressed(self) -> int:
        """Grows with every turn."""
        return self._turns

    @property
    def waits_for_a_disk(self) -> bool:
        """Whether the kernel holds the thread where no signal reaches it (state D in proc(5)): in a file system or a
        device. Then the process could not even end.
        """
        try:
            with open(f"/proc/self/task/{self._thread.native_id}/stat", encoding="ascii", errors="replace") as stat:
                return stat.read().rpartition(")")[2].split()[:1] == ["D"]
        except OSError:
            return False

    def progress(self) -> None:
        """The turn under way goes on."""
        self._turns += 1

    def wait(self, seconds: float) -> None:
        """Wait, but not longer than until `stop`."""
        self._stopping.wait(seconds)

    def stop(self) -> None:
        """No further turn begins; the one under way is the owner's to end."""
        self._stopping.set()

    def join(self, time_limit: float) -> None:
        """Wait until the thread has ended, so many seconds at most; returns at once where it was never started."""
        if not self.never_ran:
            self._thread.join(max(time_limit, 0.0))

    def _run(self) -> None:
        while not self.is_stopping:
            try:
                self._turn()
                self._has_worked()
            except Exception as error:  # noqa: BLE001 - a thread that ends would be missed by nobody but the jobs
                self._survive(error)
            self.progress()
        _say_failure(f"the end of the thread {self.name}", self._at_end)

    def _has_worked(self) -> None:
        if self._backoff.failures:
            self._backoff.succeeded()
            if self._reminder.over():
                log.log(NOTICE, "the thread %s works again", self.name)

    def _survive(self, error: Exception) -> None:
        wait = self._backoff.failed()
        with contextlib.suppress(Exception):  # memory may be too short even for this line
            if self._reminder.is_due(type(error).__name__):
                _say_error(f"the thread {self.name}", error, f"it goes on in {wait:.0f} s")
        self.wait(wait)


class Stoppable(Protocol):
    """A part of the program that has workers."""

    @property
    def workers(self) -> Sequence[Worker]:
        """Its threads."""
        ...

    def ask_to_stop(self) -> None:
        """Break off what is under way; does not wait."""
        ...


def stop_all(parts: Sequence[Stoppable], time_limit: float) -> None:
    """End the threads of some parts, within so many seconds for all of them together."""
    deadline = time.monotonic() + time_limit
    for part in parts:
        part.ask_to_stop()
    for part in parts:
        for worker in part.workers:
            worker.join(deadline - time.monotonic())


def run_beside(name: str, action: Callable[[], None]) -> threading.Thread:
    """Do something once in a thread of its own, which keeps the program from nothing; what it raises is said.

    Raises RuntimeError when this system has no thread left.
    """
    thread = threading.Thread(target=_say_failure, args=(f"the thread {name}", action), name=name, daemon=True)
    thread.start()
    return thread


def _say_failure(what: str, action: Callable[[], None]) -> None:
    try:
        action()
    except Exception as error:  # noqa: BLE001 - the standard library would print it past the log
        with contextlib.suppress(Exception):
            _say_error(what, error, "going on")


def _say_error(what: str, error: Exception, consequence: str) -> None:
    if isinstance(error, MemoryError):
        log.error("%s: this host has too little memory, or the daemon's limit is too low; %s", what, consequence)
    else:
        log.error("%s: an error of this program, %s; %s", what, type(error).__name__, consequence, exc_info=error)


class Aside:
    """Something that may hang, done once in a thread of its own: whoever wants it waits as long as it likes.

    Raises RuntimeError when this system has no thread left.
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
        """Whether it is done after so many seconds at most. Raises what it has raised."""
        is_done = self._done.wait(seconds)
        if self._failure is not None:
            raise self._failure
        return is_done


class Supervisor:
    """Notices a thread that has ended or makes no progress. The main thread looks about once a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked = clock()
        self._progress: dict[Worker, tuple[int, float]] = {}
        """What each had done when it last got on, and for how many seconds it has not since."""
        self._reminder = Reminder(clock)

    def watch(self, workers: Iterable[Worker]) -> None:
        """From now on these, too; they have been started."""
        for worker in workers:
            self._progress[worker] = worker.progressed, 0.0

    def find_fault(self) -> str:
        """What is wrong with one of the threads, '' when nothing is."""
        now = self._clock()
        elapsed, self._looked = min(now - self._looked, LONGEST_BETWEEN_LOOKS), now
        for worker, (before, idle_before) in self._progress.items():
            if worker.has_ended:
                return f"the thread {worker.name} has ended"
            idle = idle_before + elapsed if worker.progressed == before else 0.0
            self._progress[worker] = worker.progressed, idle
            if idle >= worker.stuck_after and not self._is_held(worker, idle):
                return f"the thread {worker.name} has made no progress for {idle:.0f} s"
        return ""

    def _is_held(self, worker: Worker, idle: float) -> bool:
        """A new process would wait in the same place, and this one could not end before."""
        if not worker.waits_for_a_disk:
            return False
        if self._reminder.is_due(worker.name):
            log.error(
                "the thread %s has waited for a file system or a device for %.0f s: what it does rests until that"
                " answers, all else goes on. See the kernel's log (dmesg) and the mounts that this program uses",
                worker.name,
                idle,
            )
        return True
