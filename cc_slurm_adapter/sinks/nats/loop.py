"""An asyncio loop in a thread of its own, which never keeps the program from ending."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import socket
import threading
from collections.abc import Coroutine
from typing import Any, Callable, NamedTuple, TypeVar

from cc_slurm_adapter.system.threads import run_beside

Result = TypeVar("Result")

logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of every TLS connection that the other side closes

END_LIMIT = 1.0
"""Seconds for the work under way to end after the loop is stopped."""
MAX_RESOLVING = 8
"""Most names that are resolved at the same time. A name that no name server answers occupies a thread for a long
time."""


class Timing(NamedTuple):
    """How long work in the loop may take, in seconds."""

    work_limit: float = 300.0
    """For one piece of work. Each of its steps has its own limit, so only an error of the program takes this long."""


TIMING = Timing()


class LoopStopped(Exception):
    """The loop was stopped before the work was done."""


class LoopThread:
    """A thread with a loop. It starts with the first work, and again with the next work after an error has ended it.

    `at_begin` is called before each start. `at_end` is run when the thread is stopped, before all other work is
    cancelled.
    """

    def __init__(
        self, name: str, at_begin: Callable[[], None], at_end: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._name = name
        self._at_begin = at_begin
        self._at_end = at_end
        self._lock = threading.Lock()
        self._loop: _Loop | None = None
        self._stopped = False
        self._under_way: set[concurrent.futures.Future[Any]] = set()

    def run(self, work: Coroutine[Any, Any, Result], *, timing: Timing = TIMING) -> Result:
        """Do some work in the loop and wait for it. Any thread may call this.

        Raises LoopStopped and what the work raises. Raises RuntimeError if no thread can be started or the work takes
        too long.
        """
        with self._lock:
            if self._stopped:
                work.close()
                raise LoopStopped
            try:
                future = asyncio.run_coroutine_threadsafe(work, self._running_loop())
            except RuntimeError:
                work.close()
                raise
            self._under_way.add(future)
        try:
            return future.result(timing.work_limit)
        except concurrent.futures.CancelledError:
            raise LoopStopped from None
        except concurrent.futures.TimeoutError:
            if future.done():
                raise  # the work's own
            future.cancel()
            raise RuntimeError(f"it has not ended within {timing.work_limit:.0f} s") from None
        finally:
            with self._lock:
                self._under_way.discard(future)

    def stop(self) -> None:
        """End the loop without waiting, and refuse later work. May be called more than once."""
        with self._lock:
            was_stopped, self._stopped = self._stopped, True
            if self._loop is not None and not was_stopped:
                self._loop.call_soon_threadsafe(self._loop.stop)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._at_begin()
            loop = _Loop()
            try:
                run_beside(self._name, lambda: self._work(loop))
            except RuntimeError:  # there can be no more threads now
                loop.close()
                raise
            self._loop = loop
        return self._loop

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            with contextlib.suppress(Exception):  # after an error it ends as well as it can
                loop.run_until_complete(self._end())
            with self._lock:
                self._loop = None
                for future in self._under_way:  # for callers that wait for work that could not be ended
                    future.cancel()
            loop.close()

    async def _end(self) -> None:
        await self._at_end()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=END_LIMIT)


class _Loop(asyncio.SelectorEventLoop):
    """A loop that resolves names in daemon threads.

    Name servers may be slow, and Python would wait for asyncio's own threads at its end.
    """

    resolving = 0

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        if self.resolving >= MAX_RESOLVING:
            raise OSError(f"{args[0]}: the name server has not answered {MAX_RESOLVING} earlier queries")
        found: asyncio.Future[Any] = self.create_future()

        def resolve() -> None:
            try:
                result: Any = socket.getaddrinfo(*args, **options)
            except (OSError, ValueError, OverflowError) as error:  # also for an impossible name
                result = error if isinstance(error, OSError) else OSError(f"{args[0]}: {error}")
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self.call_soon_threadsafe(finish, result)

        def finish(result: Any) -> None:
            self.resolving -= 1
            if not found.done():
                found.set_exception(result) if isinstance(result, OSError) else found.set_result(result)

        run_beside("nats-resolver", resolve)
        self.resolving += 1
        return await found
