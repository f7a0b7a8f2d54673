"""Remembers the lines of the last listing that say what is known already, so that the next poll does not read them.

On a large cluster nearly all lines of squeue are the same at each poll. What follows from a line depends only on the
line and on what is known about its run. So a line is left out while both are the same as before: whole lines are
compared, and `OpenRuns` forgets the line of a run as soon as anything about the run changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import filterfalse

from cc_slurm_adapter.model import RunKey


class QuietLines:
    """A line for each open run of which the last listing said nothing new. A run has one line at most."""

    def __init__(self) -> None:
        self._runs: dict[bytes, RunKey] = {}
        self._changed: set[RunKey] = set()
        """Runs that have changed since the last listing: their lines do not count any more."""

    def forget(self, key: RunKey) -> None:
        """Let the next poll read the line of a run, which has changed or is no longer open."""
        self._changed.add(key)

    def begin(self) -> QuietPart:
        """Begin a listing."""
        self._drop_changed()
        return QuietPart(self._runs)

    def finish(self, part: QuietPart, seen: Mapping[RunKey, bytes]) -> None:
        """End a complete listing, before anything follows from it. `seen` are the open runs whose lines were read.

        Lines that were not in the listing are forgotten, and the lines in `seen` that are not b'' are remembered. After
        a listing that failed this is not called, so that what was remembered of the one before still counts.
        """
        for line in part.absent:
            del self._runs[line]
        if seen:
            have_one = {key for key in self._runs.values() if key in seen}
            self._runs.update((line, key) for key, line in seen.items() if line and key not in have_one)

    def without(self, runs: Collection[RunKey]) -> Iterable[RunKey]:
        """Return those of the open runs that have no line."""
        self._drop_changed()
        if len(runs) == len(self._runs):
            return ()
        have_one = set(self._runs.values())
        return [key for key in runs if key not in have_one]

    def _drop_changed(self) -> None:
        if self._changed:
            for line in [line for line, key in self._runs.items() if key in self._changed]:
                del self._runs[line]
            self._changed.clear()


class QuietPart:
    """The lines of a listing under way that are left out, because nothing follows from them."""

    def __init__(self, runs: Mapping[bytes, RunKey]) -> None:
        self._runs = runs
        self.absent = set(runs)
        """Lines of the listing before that this one has not had yet."""

    def sift(self, lines: Sequence[bytes]) -> Iterable[bytes]:
        """Return those lines that must be read."""
        for line in lines:
            self.absent.discard(line)  # `difference_update` would copy what is left now and then, 2 MB of 50,000 lines
        return filterfalse(self._runs.__contains__, lines)
