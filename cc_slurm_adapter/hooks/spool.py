"""The folder in which hooks leave event files: empty files whose names say all.

A file is removed as soon as its event is in the daemon's memory. Nothing is lost if the daemon is
killed right then: when it starts again it asks Slurm for all that runs and all that ended, and that
covers every event of the time before. So files that were left while the daemon was away are removed
unread.

Where files can be listed but not removed, they are taken all the same and their names remembered.

Several clusters may share the folder. Events of others are left to their daemons, for a day. inotify tells
the names of new files, so their number costs nothing at each event; only now and then all are listed.

A folder that holds anything but events is not used: somebody has named the wrong one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from cc_slurm_adapter.config.file import DEFAULT_EVENTS_PATH
from cc_slurm_adapter.config.secrets import reason
from cc_slurm_adapter.hooks.access import Admission, sharing_advice, unreachable
from cc_slurm_adapter.hooks.inotify import FolderWatch
from cc_slurm_adapter.hooks.message import HookMessage, parse_event_name
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.system.event_files import is_marker_name, looks_like_event, marker_name
from cc_slurm_adapter.system.own_files import (
    is_empty_file,
    make_shared_folder,
    mark_closed,
    mark_open,
    remove_event_file,
)

logger = logging.getLogger(__name__)

BATCH = 500
"""Events taken at once, so that the socket is served in between ..."""
SEEN_AT_ONCE = 5000
"""... and files listed at once."""
REMEMBERED_NAMES = 10_000
RETRY_SECONDS = 60.0
"""How often it is tried again to remove files that could not be removed, and to use a folder that cannot be used."""
LIST_SECONDS = 0.2
"""How often the folder is listed where it cannot be watched ..."""
WATCHED_LIST_SECONDS = 10.0
"""... and where it is watched: files that another host leaves on a shared file system are not reported."""
LIST_SHARE = 100
"""Listing takes a hundredth of the time at most: a listing that takes longer comes less often ..."""
LONGEST_LIST_SECONDS = 60.0
"""... but at least this often."""
FOREIGN_SECONDS = 24 * 3600.0
"""After this time nobody needs an event any more: a daemon that starts asks Slurm anyway."""
SWEEP_SECONDS = 3600.0
"""How often the events of other clusters are looked at for their age."""
MANY_FOREIGN = 1000
"""Files of other clusters are left to their own daemons; so many mean that none takes them."""
CLOCK_SECONDS = 1.0
"""A file may seem to be older than it is by this much, as file systems do not ask the clock every time."""
MARK_SECONDS = 60.0
OPEN_SECONDS = 15 * 60.0
"""Hooks leave events for so long after the daemon's last mark. It may stay away, and they must not fill the memory."""


class Place(NamedTuple):
    """Which folder it is. `state_folders` are those that it must keep away from.

    A `former` one is where hooks of an older version leave their events: it is emptied where it exists, and neither
    made nor judged by its place.
    """

    path: str
    state_folders: Collection[str] = ()
    former: bool = False


class EventsFolder:
    """One folder of event files. It never raises: without the folder the socket alone serves."""

    def __init__(
        self,
        place: Place,
        cluster: str,
        is_ours: Callable[[str], bool],
        refuse: Callable[[str, str], None],
    ) -> None:
        """`is_ours` judges the cluster of a file; `refuse` takes a kind and a line for the log.

        Files that are older than this object are removed unread.
        """
        self.path = place.path
        self.watch: FolderWatch | None = None
        self.usable = False
        self._place = place
        self._markers = (marker_name(cluster), marker_name(""))
        self._is_ours = is_ours
        self._refuse = refuse
        self._said: set[str] = set()
        self._was_given_up = False
        self._named: deque[str] = deque()
        """Names of files that have appeared."""
        self._listing: _Listing | None = None
        self._next_listing = 0.0
        self._next_mark = 0.0
        self._next_sweep = 0.0
        self._left: set[str] = set()
        """Names that were taken but could not be removed."""
        self._next_retry = 0.0
        self._began = time.time() - CLOCK_SECONDS
        self._first_look = True
        self._old_stay = False
        self._unread = 0

    @property
    def next_look(self) -> float:
        """When `take`, or `open` if it is not usable, is to be called next, in seconds of time.monotonic()."""
        return 0.0 if self._named or self._listing else self._next_listing

    def open(self, admission: Admission) -> None:
        """Make the folder if it is missing and watch it; the log says once what does not work."""
        self.close()
        self.rest()
        if self._place.former and not os.path.isdir(self.path):
            return
        misplaced = self._misplaced()
        if misplaced:
            self._give_up("unsuitable", self._unsuitable(misplaced))
            return
        try:
            if not self._place.former:
                make_shared_folder(self.path, admission.group)
            self._judge(admission)
        except OSError as error:
            self._give_up(_kind(error), _unusable(error))
        if self.usable:
            self._next_listing = 0.0
            self._next_mark = 0.0
            self._start_watch()

    def _judge(self, admission: Admission) -> None:
        """Find out whether it can be used, and tell what does not work. Raises OSError."""
        if not os.access(self.path, os.R_OK | os.X_OK):
            self._give_up(
                "unreadable",
                "the daemon may not read it. If hooks may write there, nobody reads the events that they leave:"
                f" {sharing_advice(self.path, admission)}",
            )
            return
        stranger = self._first_stranger()
        if stranger:
            self._give_up("unsuitable", self._unsuitable(stranger))
            return
        if not os.access(self.path, os.W_OK):
            self._warn(
                "unremovable",
                f"the daemon cannot remove the events that hooks leave in {self.path}: it takes them, but they become"
                f" ever more: {sharing_advice(self.path, admission)}",
            )
        warning = "" if self._place.former else unreachable(self.path, 3, admission)
        if warning:
            self._warn("unreachable", warning)
        self.usable = True

    def _misplaced(self) -> str:
        """Why it lies in a wrong place, or ''."""
        own = os.path.realpath(self.path)
        for folder in () if self._place.former else self._place.state_folders:
            state = os.path.realpath(folder)
            if os.path.commonpath([own, state]) in (own, state):
                return f"it is, holds or lies in the state folder {folder}"
        return ""

    def _first_stranger(self) -> str:
        """Names something in the folder that is neither an event nor one of our own files, or ''. Raises OSError."""
        with os.scandir(self.path) as entries:
            return next((f"it holds {entry.name!r}" for entry in entries if _is_strange(entry)), "")

    def _unsuitable(self, why: str) -> str:
        told = f"{why}, so it is not only for events, and nothing in it is touched"
        if self._place.former:
            return f"{told}. Only hooks of an older version leave events there; take away what does not belong there"
        return (
            f"{told}; hook events come over the socket only. Set prepEventsPath to a folder of its own or remove the"
            " key, or take away what does not belong there"
        )

    def _start_watch(self) -> None:
        try:
            self.watch = FolderWatch(self.path)
        except OSError as error:
            logger.info("looking into %s five times a second: %s", self.path, reason(error))

    def _give_up(self, kind: str, why: str) -> None:
        self.usable = False
        self.rest()
        self._forget_listing()
        self._was_given_up = True
        self._warn(
            kind, f"cannot use the folder {self.path}, which is looked at again every {RETRY_SECONDS:.0f} s: {why}"
        )
        for marker in () if self._place.former else self._markers:
            # Hooks then report over the socket. In a folder of others nothing is made.
            if self.path == DEFAULT_EVENTS_PATH or os.path.exists(os.path.join(self.path, marker)):
                with contextlib.suppress(OSError):
                    mark_closed(self.path, marker)

    def _warn(self, kind: str, line: str) -> None:
        """Once for each kind, until all was seen to be well."""
        if kind not in self._said:
            logger.warning("prepEventsPath: %s", line)
        self._said.add(kind)

    def close(self) -> None:
        """Stop watching."""
        if self.watch is not None:
            self.watch.close()
        self.watch = None
        self.usable = False
        self._forget_listing()

    def rest(self) -> None:
        """It is not opened again before a minute has passed."""
        self._next_listing = time.monotonic() + RETRY_SECONDS

    def _forget_listing(self) -> None:
        self._named.clear()
        if self._listing is not None:
            self._listing.close()
        self._listing = None

    def notice(self) -> bool:
        """Take over what the watch has to tell; False when the folder is gone, so it is to be opened again."""
        if self.watch is None:
            return True
        told = self.watch.drain()
        if told.is_complete:
            self._named += told.names
        if not told.is_complete or len(self._named) > REMEMBERED_NAMES:
            self._forget_listing()
            self._next_listing = 0.0
        return told.is_alive

    def take(self) -> list[HookMessage]:
        """Take up to `BATCH` events of this cluster; `next_look` says whether there may be more.

        Afterwards the folder may be found not `usable`.
        """
        taken: list[HookMessage] = []
        try:
            self._mark_open()
            if self._named:
                self._take_named(taken)
            elif self._listing or self._next_listing <= time.monotonic():
                self._go_on_listing(taken)
        except FileNotFoundError:
            self._forget_listing()
            self.usable = False
            self._next_listing = 0.0
        except _Stranger as found:
            self._give_up("unsuitable", self._unsuitable(f"it holds {found.name!r}"))
        except OSError as error:
            self._give_up(_kind(error), _unusable(error))
        return taken

    def _mark_open(self) -> None:
        """Tell hooks, once a minute, that somebody takes what they leave."""
        if self._place.former or time.monotonic() < self._next_mark:
            return
        self._next_mark = time.monotonic() + MARK_SECONDS
        for marker in self._markers:
            try:
                mark_open(self.path, marker, OPEN_SECONDS)
            except OSError as error:
                if not os.path.isdir(self.path):
                    raise
                self._refuse("marker", f"prepEventsPath: cannot write {marker} in {self.path}: {reason(error)}")

    def _take_named(self, taken: list[HookMessage]) -> None:
        for _ in range(min(len(self._named), BATCH)):
            self._look_at(self._named.popleft(), taken)

    def _go_on_listing(self, taken: list[HookMessage]) -> None:
        """List the next files. Raises OSError."""
        began = time.monotonic()
        if self._listing is None:
            self._listing = _Listing(self.path, retry=self._next_retry <= began, sweep=self._next_sweep <= began)
        listing = self._listing
        unread = self._unread
        for entry in listing.next_entries():
            if not _may_be_here(entry.name, is_file=entry.is_file(follow_symlinks=False)):
                raise _Stranger(entry.name)
            self._look_at(entry.name, taken, listing)
            if len(taken) + self._unread - unread >= BATCH:
                break
        listing.took += time.monotonic() - began
        if listing.is_over:
            self._conclude(listing)

    def _look_at(self, name: str, taken: list[HookMessage], listing: _Listing | None = None) -> None:
        """Take, leave or remove one file. Raises OSError and _Stranger."""
        message = parse_event_name(name)
        if message is not None and not self._is_ours(message.cluster):
            if listing is not None:
                self._leave_to_others(name, listing)
            return
        try:
            status = os.lstat(os.path.join(self.path, name))
        except FileNotFoundError:
            return
        if not _may_be_here(name, is_file=is_empty_file(status)):
            raise _Stranger(name)
        if message is not None:
            self._take(message, name, status.st_mtime, taken, listing)
        elif looks_like_event(name) and self._remove(name):
            self._refuse("garbage", f"prepEventsPath: {name!r} in {self.path} is of no job that there can be: removed")

    def _leave_to_others(self, name: str, listing: _Listing) -> None:
        listing.foreign += 1
        if not listing.sweep:
            return
        with contextlib.suppress(FileNotFoundError):
            if time.time() - os.lstat(os.path.join(self.path, name)).st_mtime > FOREIGN_SECONDS and self._remove(name):
                listing.foreign -= 1

    def _take(
        self, message: HookMessage, name: str, modified: float, taken: list[HookMessage], listing: _Listing | None
    ) -> None:
        if name in self._left:
            if listing is not None and not (listing.retry and self._remove(name)):
                listing.left.add(name)
        elif self._is_old(modified):
            if self._remove(name):
                self._unread += 1
            else:
                self._old_stay = True
        elif self._remove(name):
            taken.append(message)
        elif len(self._left) < REMEMBERED_NAMES:
            self._left.add(name)
            if listing is not None:
                listing.left.add(name)
            taken.append(message)
        elif listing is not None:
            listing.ignored += 1

    def _is_old(self, modified: float) -> bool:
        """Whether the first poll covers this event. Clocks may differ, so this is asked only as long as it matters."""
        return (self._first_look or self._old_stay) and modified < self._began

    def _remove(self, name: str) -> bool:
        """Whether the file is gone."""
        try:
            remove_event_file(self.path, name)
        except FileNotFoundError:
            return True
        except OSError as error:
            self._refuse("folder", f"prepEventsPath: cannot remove {name!r} in {self.path}: {reason(error)}")
            return False
        return True

    def _conclude(self, listing: _Listing) -> None:
        """All files were seen."""
        now = time.monotonic()
        self._listing = None
        usual = LIST_SECONDS if self.watch is None else WATCHED_LIST_SECONDS
        self._next_listing = now + max(usual, min(listing.took * LIST_SHARE, LONGEST_LIST_SECONDS))
        self._said.clear()
        if self._was_given_up:
            self._was_given_up = False
            logger.log(NOTICE, "prepEventsPath: the folder %s is used again", self.path)
        self._left &= listing.left
        if listing.retry:
            self._next_retry = now + RETRY_SECONDS
        if listing.sweep:
            self._next_sweep = now + SWEEP_SECONDS
        if self._unread:
            logger.info("%d events from before the start removed unread: the first poll covers them", self._unread)
        self._first_look = False
        self._unread = 0
        self._tell(listing)

    def _tell(self, listing: _Listing) -> None:
        if listing.foreign >= MANY_FOREIGN:
            self._refuse(
                "foreign files",
                f"prepEventsPath: {listing.foreign} event files of other clusters lie in {self.path}:"
                " do their daemons run?",
            )
        if listing.ignored:
            self._refuse(
                "full folder",
                f"prepEventsPath: {REMEMBERED_NAMES} files in {self.path} cannot be removed: {listing.ignored} more"
                " events are not taken, these jobs are found by polling. Remove the files",
            )


class _Stranger(Exception):
    """Something lies in the folder that is neither an event nor one of our own files."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _may_be_here(name: str, *, is_file: bool) -> bool:
    """Whether this is an event, a mark, or what a file system puts into folders by itself."""
    if name == "lost+found" or name.startswith(".nfs"):
        return True
    return is_file and (looks_like_event(name) or is_marker_name(name))


def _is_strange(entry: os.DirEntry[str]) -> bool:
    """Raises OSError."""
    try:
        return not _may_be_here(entry.name, is_file=is_empty_file(entry.stat(follow_symlinks=False)))
    except FileNotFoundError:
        return False


def _kind(error: OSError) -> str:
    return f"error {error.errno}"


def _unusable(error: OSError) -> str:
    return f"{reason(error)}; until it can be used hook events come over the socket only"


class _Listing:
    """One pass over all files, in several parts; what was found on the way.

    `retry` is whether files that could not be removed are tried again, `sweep` whether old ones of others are removed.
    """

    def __init__(self, path: str, *, retry: bool, sweep: bool) -> None:
        """Raises OSError."""
        self._entries = os.scandir(path)
        self.retry = retry
        self.sweep = sweep
        self.is_over = False
        self.took = 0.0
        """Seconds."""
        self.left: set[str] = set()
        self.foreign = 0
        self.ignored = 0

    def next_entries(self) -> Iterator[os.DirEntry[str]]:
        """Some more. Raises OSError."""
        for _ in range(SEEN_AT_ONCE):
            entry = next(self._entries, None)
            if entry is None:
                self.is_over = True
                return
            yield entry

    def close(self) -> None:
        """Give back what the system holds for it."""
        self._entries.close()
