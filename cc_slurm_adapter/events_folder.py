"""The folder in which hooks leave event files: empty files whose names say all.

A file is removed as soon as its event is in the daemon's memory. Nothing is lost if the daemon is
killed right then: when it starts again it asks Slurm for all that runs and all that ended, and that
covers every event of the time before. So files that were left while the daemon was away are removed
unread.

Where files can be listed but not removed, they are taken all the same and their names remembered.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Callable

from cc_slurm_adapter.admission import Admission, let_in, sharing_advice
from cc_slurm_adapter.config_file import reason
from cc_slurm_adapter.inotify import FolderWatch
from cc_slurm_adapter.prep import HookMessage, parse_event_name

logger = logging.getLogger(__name__)

BATCH = 500
"""Events taken at once, so that the socket is served in between."""
GARBAGE_SECONDS = 3600.0
REMEMBERED_NAMES = 10_000
RETRY_SECONDS = 60.0
"""How often it is tried again to remove files that could not be removed."""
MANY_FOREIGN = 1000
"""Files of other clusters are left to their own daemons; so many mean that none takes them."""
CLOCK_SECONDS = 1.0
"""A file may seem to be older than it is by this much, as file systems do not ask the clock every time."""
_FOLDER_MODE = 0o2770


class EventsFolder:
    """One folder of event files. It never raises: without the folder the socket alone serves."""

    def __init__(
        self,
        path: str,
        is_ours: Callable[[str], bool],
        refuse: Callable[[str, str], None],
    ) -> None:
        """`is_ours` judges the cluster of a file; `refuse` takes a kind and a line for the log.

        Files that are older than this object are removed unread.
        """
        self.path = path
        self.watch: FolderWatch | None = None
        self.usable = False
        self.has_more = False
        """Whether the last `take` ended before it had seen all."""
        self.is_gone = False
        """Whether the last `take` found no folder: then it can be made again at once."""
        self._said: set[str] = set()
        self._is_ours = is_ours
        self._refuse = refuse
        self._known_garbage: set[str] = set()
        self._left: set[str] = set()
        """Names that were taken but could not be removed."""
        self._next_retry = 0.0
        self._began = time.time() - CLOCK_SECONDS
        self._first_look = True
        self._old_stay = False
        self._unread = 0

    def open(self, admission: Admission) -> None:
        """Make the folder if it is missing and watch it; the log says once what does not work."""
        self.close()
        self.is_gone = False
        try:
            warning = let_in(self.path, _FOLDER_MODE, 3, admission, new=self._make())
        except OSError as error:
            self._give_up(f"{reason(error)}; hook events come over the socket only")
            return
        if not os.access(self.path, os.R_OK | os.X_OK):
            self._give_up(
                "the daemon may not read it. If hooks may write there, nobody reads the events that they leave:"
                f" {sharing_advice(self.path, admission)}"
            )
            return
        if not os.access(self.path, os.W_OK):
            self._warn(
                f"the daemon cannot remove the events that hooks leave in {self.path}: it takes them, but they become"
                f" ever more: {sharing_advice(self.path, admission)}"
            )
        if warning:
            self._warn(warning)
        self.usable = True
        self._start_watch()

    def _make(self) -> bool:
        if os.path.isdir(self.path):
            return False
        os.mkdir(self.path, 0o770)
        return True

    def _start_watch(self) -> None:
        try:
            self.watch = FolderWatch(self.path)
        except OSError as error:
            logger.info("looking into %s five times a second: %s", self.path, reason(error))

    def _give_up(self, why: str) -> None:
        self.usable = False
        self._warn(f"cannot use the folder {self.path}: {why}")

    def _warn(self, line: str) -> None:
        if line not in self._said:
            logger.warning("prepEventsPath: %s", line)
        self._said.add(line)

    def close(self) -> None:
        """Stop watching."""
        if self.watch is not None:
            self.watch.close()
        self.watch = None
        self.usable = False

    def take(self) -> list[HookMessage]:
        """Take up to `BATCH` events of this cluster; `has_more` tells whether there may be more.

        Afterwards the folder may be found not `usable`.
        """
        look = _Look(retry=self._next_retry <= time.monotonic())
        try:
            with os.scandir(self.path) as entries:
                self.has_more = any(self._look_at(entry, look) for entry in entries)
        except FileNotFoundError:
            self.has_more = self.usable = False
            self.is_gone = True
            return look.taken
        except OSError as error:
            self.has_more = False
            self._give_up(f"{reason(error)}; trying again in a minute, until then hook events come over the socket")
            return look.taken
        if not self.has_more:
            self._conclude(look)
        return look.taken

    def _look_at(self, entry: os.DirEntry[str], look: _Look) -> bool:
        """Take, leave or remove one file; whether the batch is full."""
        message = parse_event_name(entry.name)
        if message is None or not entry.is_file(follow_symlinks=False):
            self._sort_out(entry, look.garbage)
        elif not self._is_ours(message.cluster):
            look.foreign += 1
        elif entry.name in self._left:
            look.left.add(entry.name)
            if look.retry and self._remove(entry):
                self._left.discard(entry.name)
        else:
            self._take(entry, message, look)
        return look.handled == BATCH

    def _take(self, entry: os.DirEntry[str], message: HookMessage, look: _Look) -> None:
        if self._is_old(entry):
            if self._remove(entry):
                look.handled += 1
                self._unread += 1
            else:
                self._old_stay = True
            return
        if not self._remove(entry):
            if len(self._left) >= REMEMBERED_NAMES:
                look.ignored += 1
                return
            self._left.add(entry.name)
            look.left.add(entry.name)
        look.handled += 1
        look.taken.append(message)

    def _is_old(self, entry: os.DirEntry[str]) -> bool:
        """Whether the first poll covers this event. Clocks may differ, so this is asked only as long as it matters."""
        if not self._first_look and not self._old_stay:
            return False
        try:
            return entry.stat(follow_symlinks=False).st_mtime < self._began
        except OSError:
            return False

    def _remove(self, entry: os.DirEntry[str]) -> bool:
        """Whether the file is gone."""
        try:
            os.unlink(entry.path)
        except FileNotFoundError:
            return True
        except OSError as error:
            self._refuse("folder", f"prepEventsPath: cannot remove {entry.path!r}: {reason(error)}")
            return False
        return True

    def _sort_out(self, entry: os.DirEntry[str], garbage: set[str]) -> None:
        if len(garbage) < REMEMBERED_NAMES:
            garbage.add(entry.name)
        try:
            old = time.time() - entry.stat(follow_symlinks=False).st_mtime > GARBAGE_SECONDS
            if old and not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
        except FileNotFoundError:
            garbage.discard(entry.name)
        except OSError as error:
            self._refuse("folder", f"prepEventsPath: cannot remove {entry.path!r}: {reason(error)}")

    def _conclude(self, look: _Look) -> None:
        """All files were seen."""
        self._said.clear()
        self._left &= look.left
        if look.retry:
            self._next_retry = time.monotonic() + RETRY_SECONDS
        if self._unread:
            logger.info("%d events from before the start removed unread: the first poll covers them", self._unread)
        self._first_look = False
        self._unread = 0
        self._tell(look)

    def _tell(self, look: _Look) -> None:
        for name in sorted(look.garbage - self._known_garbage):
            self._refuse("garbage", f"prepEventsPath: {name!r} in {self.path} is no event file; removed after an hour")
        self._known_garbage = look.garbage
        if look.foreign >= MANY_FOREIGN:
            self._refuse(
                "foreign files",
                f"prepEventsPath: {look.foreign} event files of other clusters lie in {self.path}:"
                " do their daemons run?",
            )
        if look.ignored:
            self._refuse(
                "full folder",
                f"prepEventsPath: {REMEMBERED_NAMES} files in {self.path} cannot be removed: {look.ignored} more events"
                " are not taken, these jobs are found by polling. Remove the files",
            )


class _Look:
    """What one look into the folder found; `retry` is whether files that were left are removed again."""

    def __init__(self, *, retry: bool) -> None:
        self.retry = retry
        self.taken: list[HookMessage] = []
        self.handled = 0
        self.garbage: set[str] = set()
        self.left: set[str] = set()
        self.foreign = 0
        self.ignored = 0
