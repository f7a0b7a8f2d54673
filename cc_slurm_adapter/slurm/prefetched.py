"""A query that is started while the result of the one before is still handled."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from cc_slurm_adapter.errors import SlurmError
from cc_slurm_adapter.slurm.commands import Command
from cc_slurm_adapter.slurm.parts import Part


class Prefetched:
    """Keeps the query of at most one part."""

    def __init__(self) -> None:
        self._part: Part | None = None
        self._command: Command | None = None

    def try_to_put(self, part: Part, begin: Callable[[], Command | None]) -> None:
        """Start the query of a part and keep it. If that fails, nothing is kept: the query is started when it is due.

        `begin` returns None if the part needs no query. It is not called again for this part, as it may take long.
        """
        self.close()
        self._part = part
        with contextlib.suppress(SlurmError):
            self._command = begin()

    def was_tried(self, part: Part) -> bool:
        """Return whether it was tried to start the query of this part."""
        return self._part is part

    def pop(self, part: Part) -> Command | None:
        """Return the query of this part, if it was started. One of another part is ended."""
        if self._part is not part:
            self.close()
        command, self._part, self._command = self._command, None, None
        return command

    def close(self) -> None:
        """End the query, if there is one."""
        if self._command:
            self._command.close()
        self._part = self._command = None
