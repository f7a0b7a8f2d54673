"""Keeps the first moment: another program had to report the runs that ended in Slurm before it.

It is stored in a file of its own beside the state file, so it survives if the state file is lost. It is written once
and never moved. It limits only the starts of runs that are over when they are first seen. This program reports whatever
runs at the first moment or later. Whatever is open here or in cc-backend gets its stop, whenever it ended.
"""

from __future__ import annotations

import glob
import logging
from typing import NamedTuple

from cc_slurm_adapter.log import NOTICE, Reminder
from cc_slurm_adapter.outbox import moment_file
from cc_slurm_adapter.outbox.moment_file import DEFAULT_STATE, moment_path
from cc_slurm_adapter.system.own_files import replace_file
from cc_slurm_adapter.system.quantities import full_moment

log = logging.getLogger(__name__)


class Before(NamedTuple):
    """What earlier daemons have left. Times are in Unix seconds."""

    checkpoint: int | None
    """The time up to which accounting was read, from the state file; None if that file is new or was lost."""
    last_run: int | None
    """The time of lastRunPath; None where there is no such file."""
    is_rebuilt: bool
    """Whether the state file was damaged, and was set aside at this start."""
    max_span: int
    """How many seconds accounting is read back at most."""


class FirstMoment:
    """The first moment and its file. There is no limit before `settle`. Used from one thread."""

    def __init__(self, state_path: str = DEFAULT_STATE) -> None:
        self._path = moment_path(state_path)
        self._state_path = state_path
        self._when = 0
        self._is_kept = True
        """Whether it is in the file, or must not be written there."""
        self._reminder = Reminder()
        self._is_ahead = False
        """Whether it was in the future when `limit` was last called."""

    @classmethod
    def at(cls, when: int) -> FirstMoment:
        """Return a first moment (Unix seconds) that is in no file."""
        made = cls()
        made._when = when
        return made

    @property
    def when(self) -> int:
        """The first moment in Unix seconds; 0 before `settle`."""
        return self._when

    def settle(self, before: Before, now: float) -> None:
        """Read it from the file, or choose it from what there is and write it. No failure here prevents a start.

        Even a file that cannot be used shows that this program ran here before. Then lastRunPath is its own file, with
        the time up to which runs were recorded, not up to which they were delivered.
        """
        try:
            text = moment_file.read(self._path)
        except FileNotFoundError:
            self._decide(before, int(now), is_first=not self._has_lost_state(before))
            return
        except OSError as error:
            self._decide(before, int(now), is_first=False, keep=False)
            log.error(
                "%s cannot be read (%s): what ended before %s is not reported; make it readable and restart",
                self._path,
                error.strerror,
                full_moment(self._when),
            )
            return
        found = moment_file.parse(text)
        if found is None and not moment_file.is_ours(text):
            self._decide(before, int(now), is_first=False, keep=False)
            log.error(
                "%s does not contain a time and was not written by this program: it is left alone, and what ended"
                " before %s is not reported; move it away and restart",
                self._path,
                full_moment(self._when),
            )
            return
        if found is None:
            self._decide(before, int(now), is_first=False)
            log.error(
                "%s contains no time: it is written anew, and what ended before %s is not reported",
                self._path,
                full_moment(self._when),
            )
            return
        self._when = found
        self.limit(now)

    def limit(self, now: float) -> int:
        """Return the first moment in Unix seconds; 0 (no limit) while it is later than `now` (Unix time).

        The start of a run that ended before it and was not known then is not reported. If it is later than now, the
        clock was set back since, and this program has to report what ends now.
        """
        is_ahead = self._when > now
        if is_ahead and not self._is_ahead:
            log.warning(
                "%s contains the time %s, which is in the future: was the clock set back? Until then everything that"
                " accounting has of the last slurmQueryMaxSpan is reported",
                self._path,
                full_moment(self._when),
            )
        self._is_ahead = is_ahead
        return 0 if is_ahead else self._when

    def keep(self) -> None:
        """Write the file if it could not be written before."""
        if self._is_kept:
            return
        try:
            replace_file(self._path, b"%d\n" % self._when)
        except OSError as error:
            if self._reminder.is_due():
                log.error(
                    "%s cannot be written (%s), which is tried again: make room or make it writable before a restart%s",
                    self._path,
                    error.strerror,
                    self._reminder.note,
                )
            return
        self._is_kept = True
        if self._reminder.over():
            log.log(NOTICE, "%s is written now%s", self._path, self._reminder.note)

    def _decide(self, before: Before, now: int, *, is_first: bool, keep: bool = True) -> None:
        """Choose it. `is_first` says that this program never ran here, or never long enough to read accounting once."""
        if before.checkpoint is not None:
            # From a version without such a file. That version read back this far, so no older run is started now.
            self._when = min(before.checkpoint, now) - before.max_span
        elif not is_first or before.last_run is None:
            self._when = now - before.max_span
        elif before.last_run > now:
            log.warning("the time of lastRunPath is in the future: the present time is used instead")
            self._when = now
        else:
            self._when = before.last_run
        self._is_kept = not keep
        self.keep()

    def _has_lost_state(self, before: Before) -> bool:
        return before.is_rebuilt or bool(glob.glob(f"{glob.escape(self._state_path)}.damaged-*"))


def catch_up_from(before: Before, first_moment: int, now: int) -> int:
    """Return the Unix time from which accounting is read at the start: the earlier of checkpoint and lastRunPath.

    Without a checkpoint the messages that were pending are lost, so everything is read that may be read. A time in the
    future is ignored: the clock was set back since.
    """
    longest_ago = max(now - before.max_span, first_moment)
    if before.checkpoint is None:
        return longest_ago
    known = [when for when in (before.last_run, before.checkpoint) if when is not None and when <= now]
    return max(min(known), longest_ago) if known else longest_ago
