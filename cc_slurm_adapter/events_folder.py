"""The folder in which hooks leave event files: empty files whose names say all.

A file is removed as soon as its event is in the daemon's memory. Nothing is lost if the daemon is
killed right then: when it starts again it asks Slurm for all that runs and all that ended, and that
covers every event of the time before. Files that were left while the daemon was away are taken too.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Callable

from cc_slurm_adapter.admission import Admission, let_in
from cc_slurm_adapter.config_file import reason
from cc_slurm_adapter.inotify import FolderWatch
from cc_slurm_adapter.prep import HookMessage, parse_event_name

logger = logging.getLogger(__name__)

BATCH = 500
"""Events taken at once, so that the socket is served in between."""
GARBAGE_SECONDS = 3600.0
REMEMBERED_NAMES = 10_000
MANY_FOREIGN = 1000
"""Files of other clusters are left to their own daemons; so many mean that none takes them."""
_FOLDER_MODE = 0o2770


class EventsFolder:
    """One folder of event files. It never raises: without the folder the socket alone serves."""

    def __init__(
        self,
        path: str,
        is_ours: Callable[[str], bool],
        refuse: Callable[[str, str], None],
    ) -> None:
        """`is_ours` judges the cluster of a file; `refuse` takes a kind and a line for the log."""
        self.path = path
        self.watch: FolderWatch | None = None
        self.usable = False
        self._said = False
        self._is_ours = is_ours
        self._refuse = refuse
        self._known_garbage: set[str] = set()
        self._stuck: set[str] = set()

    def open(self, admission: Admission) -> None:
        """Make the folder if it is missing and watch it; the log says once what does not work."""
        self.close()
        try:
            new = self._make()
            warning = let_in(self.path, _FOLDER_MODE, 3, admission, new=new)
        except OSError as error:
            self._give_up(reason(error))
            return
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            self._give_up("the daemon needs permission to read, write and search it")
            return
        if warning:
            logger.warning("prepEventsPath: %s", warning)
        self.usable = True
        self._said = False
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
        if not self._said:
            logger.warning(
                "prepEventsPath: cannot use the folder %s: %s; hook events come over the socket only", self.path, why
            )
        self._said = True

    def close(self) -> None:
        """Stop watching."""
        if self.watch is not None:
            self.watch.close()
        self.watch = None
        self.usable = False

    def take(self) -> list[HookMessage]:
        """Take up to `BATCH` events of this cluster; fewer are not a sign that there are no more."""
        taken: list[HookMessage] = []
        garbage: set[str] = set()
        try:
            with os.scandir(self.path) as entries:
                foreign = 0
                for entry in entries:
                    message = parse_event_name(entry.name)
                    if message is None or not entry.is_file(follow_symlinks=False):
                        self._sort_out(entry, garbage)
                    elif not self._is_ours(message.cluster):
                        foreign += 1
                    elif self._remove(entry):
                        taken.append(message)
                    if len(taken) == BATCH:
                        return taken
        except OSError as error:
            self._give_up(reason(error))
            return taken
        self._tell(garbage, foreign)
        return taken

    def _remove(self, entry: os.DirEntry[str]) -> bool:
        """Remove a file; False if its event is not to be taken, or was before."""
        if entry.name in self._stuck or len(self._stuck) >= REMEMBERED_NAMES:
            return False
        try:
            os.unlink(entry.path)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._refuse("folder", f"prepEventsPath: cannot remove {entry.path!r}: {reason(error)}")
            self._stuck.add(entry.name)
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

    def _tell(self, garbage: set[str], foreign: int) -> None:
        for name in sorted(garbage - self._known_garbage):
            self._refuse("garbage", f"prepEventsPath: {name!r} in {self.path} is no event file; removed after an hour")
        self._known_garbage = garbage
        if foreign >= MANY_FOREIGN:
            self._refuse(
                "folder",
                f"prepEventsPath: {foreign} event files of other clusters lie in {self.path}: do their daemons run?",
            )
