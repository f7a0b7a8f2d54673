"""A query that is started while the result of the one before is still handled."""

from __future__ import annotations

from cc_slurm_adapter.slurm.commands import Command
from cc_slurm_adapter.slurm.parts import Part


class Prefetched:
    """Keeps the query of at most one part."""

    def __init__(self) -> None:
        self._part: Part | None = None
        self._command: Command | None = None

    def put(self, part: Part, command: Command | None) -> None:
        """Keep the query of a part; None if it needs none."""
        self._part, self._command = part, command

    def has(self, part: Part) -> bool:
        """Return whether the query of this part was started, or needs none."""
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
