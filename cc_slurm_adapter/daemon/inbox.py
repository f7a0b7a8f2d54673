"""What threads and signal handlers pass to the main thread."""

from __future__ import annotations

import contextlib
import queue
from dataclasses import dataclass
from typing import Union

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.resend_requests import ResendRequest
from cc_slurm_adapter.hooks.pending_events import MAX_WAITING
from cc_slurm_adapter.jobs.report import SyncRequest
from cc_slurm_adapter.model import HookEvent
from cc_slurm_adapter.sinks.base import RunningRows


class Stop:
    """SIGTERM or SIGINT came."""


@dataclass(frozen=True)
class Reload:
    """Somebody asks to read the configuration again and to try everything again."""

    by: str = "SIGHUP"
    """Who, for the log."""
    is_postponed: bool = False
    """Whether the log says that it waits for the end of the start."""


class StopSync:
    """Somebody wants the sync under way to end."""


@dataclass(frozen=True)
class ClusterNames:
    """The clusters that cc-backend knows, read at the start; empty when it gave no answer."""

    names: tuple[str, ...]


Item = Union[HookEvent, Stop, Reload, ClusterNames, RunningRows, ResendRequest, SyncRequest, StopSync]


class Inbox:
    """A queue in the order of arrival. Every thread may `put`, only the main thread pops.

    A flood of hook events does not fill the memory: those beyond a limit are counted and left to the polls.
    """

    def __init__(self, counters: Counters) -> None:
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._counters = counters
        self._reload_waits = False
        """Whether a reload already waits in the queue: one is enough."""

    def put(self, item: Item) -> None:
        """Append an item; a signal handler may do it, too."""
        if isinstance(item, HookEvent) and self._items.qsize() >= 2 * MAX_WAITING:
            self._counters.count("hook_events_left_to_polls")
        elif not (isinstance(item, Reload) and self._reload_waits):
            self._reload_waits = self._reload_waits or isinstance(item, Reload)
            self._items.put(item)

    def pop_all(self, wait: float) -> list[Item]:
        """Return all items that have arrived. If there are none, wait for one, at most `wait` seconds."""
        popped: list[Item] = []
        with contextlib.suppress(queue.Empty):
            popped.append(self._items.get(timeout=wait) if wait > 0 else self._items.get_nowait())
            popped += [self._items.get_nowait() for _ in range(self._items.qsize())]  # not more: others come meanwhile
        if any(isinstance(item, Reload) for item in popped):
            self._reload_waits = False
        return popped
