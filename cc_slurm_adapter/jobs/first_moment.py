"""Keeps the first moment: runs that ended in Slurm before it were somebody else's to report.

It lies in a file of its own beside the state file, so that it outlives the loss of that. It is written once and never
moved. It limits starts alone, those of runs that are over when they are first seen: whatever runs at the first moment
or later is this program's, and whatever is open here or in cc-backend gets its stop, whenever it ended.
"""

from __future__ import annotations

import glob
import logging
from typing import NamedTuple

from cc_slurm_adapter.log import NOTICE, Reminder, moment_text
from cc_slurm_adapter.outbox import moment_file
from cc_slurm_adapter.outbox.moment_file import DEFAULT_STATE, moment_path
from cc_slurm_adapter.system.own_files import replace_file

log = logging.getLogger(__name__)


class Before(NamedTuple):
    """What the daemons before this one have left. Times in Unix seconds."""

    checkpoint: int | None
    """Until when accounting was read, as the state file has it; None where that is new or was lost."""
    last_run: int | None
    """The time of lastRunPath; None where there is no such file."""
    is_rebuilt: bool
    """The state file was damaged, and set aside at this start."""
    max_span: int
    """Seconds that accounting is read back at most."""


class FirstMoment:
    """No limit before `settle`. Used from one thread."""

    def __init__(self, state_path: str = DEFAULT_STATE) -> None:
        self._path = moment_path(state_path)
        self._state_path = state_path
        self._when = 0
        self._is_kept = True
        """Whether it is in the file, or is not to be written there."""
        self._reminder = Reminder()
        self._is_ahead = False
        """Whether it was still to come when it was last asked for."""

    def settle(self, before: Before, now: float) -> None:
        """Read it from the file, or decide it from what is there and write it. No failure here prevents a start.

        Even a file that cannot be used shows that this program was here before. Then lastRunPath is its own, with the
        time until which runs were recorded, not until which they were delivered.
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
                moment_text(self._when),
            )
            return
        found = moment_file.parse(text)
        if found is None and not moment_file.is_ours(text):
            self._decide(before, int(now), is_first=False, keep=False)
            log.error(
                "%s holds something else than a time and is not this program's: it is left alone, and what ended before"
                " %s is not reported; move it away and restart",
                self._path,
                moment_text(self._when),
            )
            return
        if found is None:
            self._decide(before, int(now), is_first=False)
            log.error(
                "%s holds no time: it is written anew, and what ended before %s is not reported",
                self._path,
                moment_text(self._when),
            )
            return
        self._when = found
        self.limit(now)

    def limit(self, now: float) -> int:
        """The first moment in Unix seconds, at the Unix time `now`; 0, no limit, while it is still to come.

        A run that ended before it and was not known then is not started. When it is still to come the clock was set
        back since, and what ends now is this program's to report.
        """
        is_ahead = self._when > now
        if is_ahead and not self._is_ahead:
            log.warning(
                "%s says %s, which is still to come: was the clock set back? Until then all that accounting has is"
                " reported, slurmQueryMaxSpan back",
                self._path,
                moment_text(self._when),
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
                    "%s cannot be written (%s), which is tried again: make room or make it writable before a restart",
                    self._path,
                    error.strerror,
                )
            return
        self._is_kept = True
        if self._reminder.over():
            log.log(NOTICE, "%s is written now", self._path)

    def _decide(self, before: Before, now: int, *, is_first: bool, keep: bool = True) -> None:
        """Choose it. `is_first` says that this program was never here, or never until it had read accounting once."""
        if before.checkpoint is not None:
            # By a version without such a file: it went back so far from there, so that no older run is started now.
            self._when = min(before.checkpoint, now) - before.max_span
        elif not is_first or before.last_run is None:
            self._when = now - before.max_span
        elif before.last_run > now:
            log.warning("lastRunPath has a time that is still to come: taken as now")
            self._when = now
        else:
            self._when = before.last_run
        self._is_kept = not keep
        self.keep()

    def _has_lost_state(self, before: Before) -> bool:
        return before.is_rebuilt or bool(glob.glob(f"{glob.escape(self._state_path)}.damaged-*"))


def catch_up_from(before: Before, first_moment: int, now: int) -> int:
    """Unix seconds from which accounting is read at the start: the earlier of checkpoint and lastRunPath.

    Without a checkpoint the messages that were pending are lost, so all is read that may be read. A time that is still
    to come counts for nothing: the clock was set back since.
    """
    longest_ago = max(now - before.max_span, first_moment)
    if before.checkpoint is None:
        return longest_ago
    known = [when for when in (before.last_run, before.checkpoint) if when is not None and when <= now]
    return max(min(known), longest_ago) if known else longest_ago
