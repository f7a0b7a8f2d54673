"""One round of the daemon that ends by itself: the same start, everything done once, and all of it delivered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.daemon.daemon import Daemon
from cc_slurm_adapter.daemon.main_loop import MainLoop
from cc_slurm_adapter.daemon.report import StatusReport
from cc_slurm_adapter.daemon.syncing import NO_ACCOUNTING
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.jobs.report import SyncRequest
from cc_slurm_adapter.model import Finding

DELIVERY_LIMIT = 600.0
"""Seconds for the delivery of what was read without a time limit."""
SHOW_EVERY = 0.25
"""The least seconds between two looks at how everything is."""


class RoundEnd(NamedTuple):
    """How a round has ended."""

    report: StatusReport
    """How everything was just before the end."""
    undone: tuple[str, ...]
    """What was not done, by STEPS; empty as well if the start was not complete."""
    is_delivered: bool
    is_late: bool
    """Whether its time was over."""
    is_stopped: bool
    """Whether a signal has ended it."""


class OneRound(Daemon):
    """A daemon that ends by itself. It has a time limit, which also ends whatever the start waits for."""

    def __init__(  # noqa: PLR0913 - what a daemon has, and how this one ends
        self,
        config: Config,
        config_path: str,
        findings: Sequence[Finding],
        limit: float,
        show: Callable[[StatusReport], None] = lambda report: None,
        wanted: SyncRequest | None = None,
    ) -> None:
        """`limit` is in seconds, or infinite. `show` is called about once a second with how everything is.

        If a sync is `wanted`, it takes the place of the catch-up.
        """
        self._wanted = wanted
        self._next_show = 0.0
        self._deadline = time.monotonic() + limit
        self._is_late = False
        self._is_over = False
        self._show = show
        self._end: RoundEnd | None = None
        super().__init__(config, config_path, findings)

    def run_once(self) -> RoundEnd:
        """Do the round. Raises AdapterError if it cannot begin, or must end."""
        self.run()
        assert self._end is not None  # noqa: S101 - the shutdown has set it
        return self._end

    def _work(self, loop: MainLoop) -> None:
        board, wanted = self._assembly.board, self._wanted
        if wanted and not wanted.job and not board.has_accounting:
            raise StateError(NO_ACCOUNTING)
        loop.run_round(self._is_delivered, wanted)
        self._is_over = not self._stopping

    def _is_delivered(self) -> bool:
        """Return whether all is delivered. Without a time limit, that has one of its own from the first call on."""
        if self._deadline == float("inf"):
            self._deadline = time.monotonic() + DELIVERY_LIMIT
        return self._assembly.board.is_delivered()

    def _pulse(self) -> None:
        super()._pulse()
        now = time.monotonic()
        if now >= self._deadline and not self._stopping:
            self._is_late = True
            self._ask_to_stop()
        if now >= self._next_show:
            self._next_show = now + SHOW_EVERY
            self._show(self._assembly.board.collect())

    def _shutdown(self) -> None:
        """Note how everything is, before its parts are closed."""
        board, loop = self._assembly.board, self._loop
        undone = loop.undone() if loop else ()
        delivered = loop is not None and board.is_delivered()
        is_stopped = not self._is_over and not self._is_late
        self._end = RoundEnd(board.collect(is_last=True), undone, delivered, self._is_late, is_stopped)
        self._stopping = True  # it ends by itself, so its end is no crash
        super()._shutdown()
