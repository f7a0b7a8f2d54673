"""The folder in which hooks leave event files: empty files whose names hold the whole event.

A file is removed as soon as its event is in the daemon's memory. Nothing is lost if the daemon is killed right then:
when it starts again, it asks Slurm for all jobs that run and all that ended, and that covers every earlier event. So
files that were left while the daemon was away are removed unread.

If files can be listed but not removed, their events are still read, and their names are remembered.

Several clusters may share the folder. Events of other clusters are left to their daemons, for a day. inotify reports
the names of new files, so the number of files costs nothing at each event. All files are listed only now and then.

A folder that holds anything other than events is not used, because it must be the wrong folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from cc_slurm_adapter.config.file import DEFAULT_EVENTS_PATH
from cc_slurm_adapter.config.secrets import reason
from cc_slurm_adapter.hooks.access import AllowedSenders
from cc_slurm_adapter.hooks.folder_check import Place, find_misplacement, find_problems, may_be_here, unsuitable
from cc_slurm_adapter.hooks.inotify import FolderWatch
from cc_slurm_adapter.hooks.message import HookMessage, parse_event_name
from cc_slurm_adapter.log import NOTICE, Reminder
from cc_slurm_adapter.system.event_files import looks_like_event, marker_name
from cc_slurm_adapter.system.own_files import (
    is_empty_file,
    make_shared_folder,
    mark_closed,
    mark_open,
    remove_event_file,
)
from cc_slurm_adapter.system.quantities import counted

logger = logging.getLogger(__name__)

BATCH = 500
"""Most events that are read in a row, so that the socket is served in between ..."""
ENTRIES_AT_ONCE = 5000
"""... and most files that are listed in a row."""
REMEMBERED_NAMES = 10_000
LIST_SECONDS = 0.2
"""Seconds between listings where the folder cannot be watched."""
LIST_SHARE = 100
"""Listing may use a hundredth of the time: the longer one listing takes, the later the next one begins ..."""
LONGEST_LIST_SECONDS = 60.0
"""... but not later than this."""
FOREIGN_SECONDS = 24 * 3600.0
"""Seconds after which an event is of no use any more: a daemon that starts asks Slurm anyway."""
SWEEP_SECONDS = 3600.0
"""Seconds between two checks of the age of other clusters' events."""
MANY_FOREIGN = 1000
"""With this many event files of other clusters the log warns, because their daemons seem not to read them."""
CLOCK_SECONDS = 1.0
"""A file may seem older than it is by this much, because file systems use a coarse clock."""
MARK_SECONDS = 60.0
"""Seconds between two updates of the marker."""
OPEN_SECONDS = 15 * 60.0
"""Seconds after the last update of the marker in which hooks leave events. The daemon may stay away, and the folder is
usually in memory (/run), which the events must not fill."""


class Timing(NamedTuple):
    """How often a folder is looked at, in seconds."""

    retry: float = 60.0
    """Until a file that could not be removed, or a folder that could not be used, is tried again."""
    watched_list: float = 10.0
    """Between listings where the folder is watched: inotify does not report what another host leaves on a shared file
    system. Without a watch it is LIST_SECONDS."""


TIMING = Timing()


class EventsFolder:
    """One folder of event files: whether it can be used, its inotify watch, and the marker for hooks.

    Its methods raise no errors: without the folder, events come over the socket only.
    """

    def __init__(
        self,
        place: Place,
        cluster: str,
        is_ours: Callable[[str], bool],
        refuse: Callable[[str, str], None],
        *,
        timing: Timing = TIMING,
    ) -> None:
        """Prepare the folder; `open` makes and checks it.

        `is_ours` tells whether a cluster's name is ours. `refuse` is called with a kind and a line for the log. Events
        that are older than this object are removed unread.
        """
        self.path = place.path
        self.watch: FolderWatch | None = None
        self.usable = False
        self._place = place
        self._refuse = refuse
        self._timing = timing
        self._files = _EventFiles(place.path, is_ours, refuse, timing)
        self._markers = (marker_name(cluster), marker_name(""))
        self._next_mark = 0.0
        self._next_open = 0.0
        self._warned: set[str] = set()
        """Kinds of warnings that were logged since the folder last worked without a problem."""
        self._given_up = Reminder()

    @property
    def next_scan(self) -> float:
        """Return the time.monotonic() at which `pop_events` is due, or `open` while the folder is not usable."""
        return self._files.next_scan if self.usable else self._next_open

    def open(self, allowed_senders: AllowedSenders) -> None:
        """Make the folder if it is missing, check it and watch it. The log says once why it cannot be used."""
        self.close()
        self.postpone()
        if self._place.former and not os.path.isdir(self.path):
            return
        misplaced = find_misplacement(self._place)
        if misplaced:
            self._give_up(misplaced.kind, str(misplaced))
            return
        try:
            if not self._place.former:
                make_shared_folder(self.path, allowed_senders.group)
            self._check(allowed_senders)
        except OSError as error:
            self._give_up(_kind(error), _unusable(error))
        if self.usable:
            self._files.list_now()
            self._next_mark = 0.0
            self._start_watch()

    def _check(self, allowed_senders: AllowedSenders) -> None:
        """Set `usable` if events can be read here, and log what does not work. Raises OSError."""
        for problem in find_problems(self._place, allowed_senders):
            if problem.is_fatal:
                self._give_up(problem.kind, str(problem))
                return
            self._warn(problem.kind, str(problem))
        self.usable = True

    def _start_watch(self) -> None:
        try:
            self.watch = FolderWatch(self.path)
        except OSError as error:
            logger.info("reading %s five times a second: %s", self.path, reason(error))

    def _give_up(self, kind: str, why: str) -> None:
        """Stop using the folder for a minute, and make hooks report over the socket."""
        self.usable = False
        self.postpone()
        self._files.forget()
        if self._given_up.is_due(kind):
            text = "prepEventsPath: cannot use the folder %s, which is checked again every %.0f s: %s%s"
            logger.warning(text, self.path, self._timing.retry, why, self._given_up.note)
        for marker in () if self._place.former else self._markers:
            # Nothing is made in a folder that belongs to others.
            if self.path == DEFAULT_EVENTS_PATH or os.path.exists(os.path.join(self.path, marker)):
                with contextlib.suppress(OSError):
                    mark_closed(self.path, marker)

    def _warn(self, kind: str, line: str) -> None:
        """Log a warning once for each kind, until a complete listing has worked without a problem."""
        if kind not in self._warned:
            logger.warning("prepEventsPath: %s", line)
        self._warned.add(kind)

    def close(self) -> None:
        """Stop watching."""
        if self.watch is not None:
            self.watch.close()
        self.watch = None
        self.usable = False
        self._files.forget()

    def postpone(self) -> None:
        """Put off the next `open` by a minute."""
        self._next_open = time.monotonic() + self._timing.retry

    def read_watch(self) -> bool:
        """Take the names that inotify reports. Return False if the folder is gone and must be opened again."""
        if self.watch is None:
            return True
        notice = self.watch.drain()
        self._files.add_names(notice.names, is_complete=notice.is_complete)
        return notice.is_alive

    def pop_events(self) -> list[HookMessage]:
        """Return up to `BATCH` events of this cluster, and remove their files.

        `next_scan` tells when to call it again. Afterwards the folder may no longer be `usable`.
        """
        events: list[HookMessage] = []
        try:
            self._mark_open()
            if self._files.read(events, is_watched=self.watch is not None):
                self._all_is_well()
        except FileNotFoundError:
            self._files.forget()
            self.usable = False
            self._next_open = 0.0
        except _UnknownEntry as found:
            problem = unsuitable(self._place, f"it contains {found.name!r}")
            self._give_up(problem.kind, str(problem))
        except OSError as error:
            self._give_up(_kind(error), _unusable(error))
        return events

    def _all_is_well(self) -> None:
        """Log that a folder that was given up is used again. Later problems are logged as new ones."""
        self._warned.clear()
        if self._given_up.over():
            logger.log(NOTICE, "prepEventsPath: the folder %s is used again%s", self.path, self._given_up.note)

    def _mark_open(self) -> None:
        """Tell hooks, once a minute, that a daemon reads what they leave. Raises OSError when the folder is gone."""
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


class _EventFiles:
    """The files in an events folder.

    It finds them by inotify's names or by listing, and decides what happens to each.
    """

    def __init__(
        self, path: str, is_ours: Callable[[str], bool], refuse: Callable[[str, str], None], timing: Timing
    ) -> None:
        self._path = path
        self._is_ours = is_ours
        self._refuse = refuse
        self._timing = timing
        self._named: deque[str] = deque()
        """Names of new files, from inotify."""
        self._listing: _Listing | None = None
        self._next_listing = 0.0
        self._next_sweep = 0.0
        self._next_retry = 0.0
        self._unremovable: set[str] = set()
        """Names of files whose events were read, but which could not be removed."""
        self._old = _OldEvents()

    @property
    def next_scan(self) -> float:
        """Return the time.monotonic() at which `read` has something to do."""
        return 0.0 if self._named or self._listing else self._next_listing

    def list_now(self) -> None:
        """Make the next listing due immediately."""
        self._next_listing = 0.0

    def forget(self) -> None:
        """Drop inotify's names and end the listing under way."""
        self._named.clear()
        if self._listing is not None:
            self._listing.close()
        self._listing = None

    def add_names(self, names: Iterable[str], *, is_complete: bool) -> None:
        """Take the names of new files. If some names are missing, the folder is listed instead."""
        if is_complete:
            self._named += names
        if not is_complete or len(self._named) > REMEMBERED_NAMES:
            self.forget()
            self.list_now()

    def read(self, events: list[HookMessage], *, is_watched: bool) -> bool:
        """Append up to `BATCH` events. Return whether a listing of all files has ended.

        Raises OSError and _UnknownEntry.
        """
        if self._named:
            for _ in range(min(len(self._named), BATCH)):
                self._read_file(self._named.popleft(), events)
        elif self._listing or self._next_listing <= time.monotonic():
            listing = self._continue_listing(events)
            if listing.is_over:
                self._end_listing(listing, is_watched=is_watched)
                return True
        return False

    def _continue_listing(self, events: list[HookMessage]) -> _Listing:
        """Read the next files of the listing under way, or of a new one. Raises OSError and _UnknownEntry."""
        began = time.monotonic()
        if self._listing is None:
            self._listing = _Listing(self._path, retry=self._next_retry <= began, sweep=self._next_sweep <= began)
        listing = self._listing
        removed_before = self._old.removed
        for entry in listing.next_entries():
            if not may_be_here(entry.name, is_file=entry.is_file(follow_symlinks=False)):
                raise _UnknownEntry(entry.name)
            self._read_file(entry.name, events, listing)
            if len(events) + self._old.removed - removed_before >= BATCH:
                break
        listing.elapsed += time.monotonic() - began
        return listing

    def _read_file(self, name: str, events: list[HookMessage], listing: _Listing | None = None) -> None:
        """Append the event of one file, or leave the file, or remove it. Raises OSError and _UnknownEntry."""
        message = parse_event_name(name)
        if message is not None and not self._is_ours(message.cluster):
            if listing is not None:
                self._count_foreign(name, listing)
            return
        try:
            status = os.lstat(os.path.join(self._path, name))
        except FileNotFoundError:
            return
        if not may_be_here(name, is_file=is_empty_file(status)):
            raise _UnknownEntry(name)
        if message is not None:
            self._handle_event(message, name, status.st_mtime, events, listing)
        elif looks_like_event(name) and self._remove(name):
            self._refuse("garbage", f"prepEventsPath: {name!r} in {self._path} names a job that cannot exist: removed")

    def _count_foreign(self, name: str, listing: _Listing) -> None:
        """Leave the event of another cluster to its daemon. A sweep removes those that are a day old."""
        listing.foreign += 1
        if not listing.sweep:
            return
        with contextlib.suppress(FileNotFoundError):
            modified = os.lstat(os.path.join(self._path, name)).st_mtime
            if time.time() - modified > FOREIGN_SECONDS and self._remove(name):
                listing.foreign -= 1

    def _handle_event(
        self, message: HookMessage, name: str, modified: float, events: list[HookMessage], listing: _Listing | None
    ) -> None:
        """Remove the file of an event and append the event, once.

        An event that the first poll covers is only removed.
        """
        if name in self._unremovable:
            if listing is not None and not (listing.retry and self._remove(name)):
                listing.unremovable.add(name)
        elif self._old.covers(modified):
            self._old.count(is_removed=self._remove(name))
        elif self._remove(name):
            message.age = time.time() - modified
            events.append(message)
        elif len(self._unremovable) < REMEMBERED_NAMES:
            self._unremovable.add(name)
            if listing is not None:
                listing.unremovable.add(name)
            events.append(message)
        elif listing is not None:
            listing.ignored += 1

    def _remove(self, name: str) -> bool:
        """Remove a file. Return whether it is gone."""
        try:
            remove_event_file(self._path, name)
        except FileNotFoundError:
            return True
        except OSError as error:
            self._refuse("folder", f"prepEventsPath: cannot remove {name!r} in {self._path}: {reason(error)}")
            return False
        return True

    def _end_listing(self, listing: _Listing, *, is_watched: bool) -> None:
        """Plan the next listing, and report what this one has found."""
        now = time.monotonic()
        self._listing = None
        usual = self._timing.watched_list if is_watched else LIST_SECONDS
        self._next_listing = now + max(usual, min(listing.elapsed * LIST_SHARE, LONGEST_LIST_SECONDS))
        self._unremovable &= listing.unremovable
        if listing.retry:
            self._next_retry = now + self._timing.retry
        if listing.sweep:
            self._next_sweep = now + SWEEP_SECONDS
        self._old.end_listing()
        if listing.foreign >= MANY_FOREIGN:
            self._refuse(
                "foreign files",
                f"prepEventsPath: {listing.foreign} event files of other clusters are in {self._path}:"
                " do their daemons run?",
            )
        if listing.ignored:
            self._refuse(
                "full folder",
                f"prepEventsPath: {REMEMBERED_NAMES} files in {self._path} cannot be removed: {listing.ignored} more"
                " events are not read, these jobs are found by polling. Remove the files",
            )


class _OldEvents:
    """Events from before the daemon's start, which are removed unread because the first poll covers them."""

    def __init__(self) -> None:
        self._began = time.time() - CLOCK_SECONDS
        self._is_first_listing = True
        self._some_remain = False
        """Whether some could not be removed, so that later listings find them again."""
        self.removed = 0

    def covers(self, modified: float) -> bool:
        """Return whether an event of this Unix time is old.

        Clocks may differ, so this counts only while some old events remain.
        """
        return (self._is_first_listing or self._some_remain) and modified < self._began

    def count(self, *, is_removed: bool) -> None:
        """Count an old event that was removed, or could not be."""
        if is_removed:
            self.removed += 1
        else:
            self._some_remain = True

    def end_listing(self) -> None:
        """Log how many old events were removed, and take the first listing as done."""
        if self.removed:
            events = counted(self.removed, "event")
            logger.info("%s from before the start removed unread: the first poll covers that time", events)
        self._is_first_listing = False
        self.removed = 0


class _UnknownEntry(Exception):
    """The folder holds something that is neither an event nor one of our own files."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _kind(error: OSError) -> str:
    return f"error {error.errno}"


def _unusable(error: OSError) -> str:
    return f"{reason(error)}; until it can be used hook events come over the socket only"


class _Listing:
    """One listing of all files, in several parts, and what was found in it.

    `retry` tells whether to try again to remove files that could not be removed. `sweep` tells whether to remove old
    events of other clusters.
    """

    def __init__(self, path: str, *, retry: bool, sweep: bool) -> None:
        """Open the folder. Raises OSError."""
        self._entries = os.scandir(path)
        self.retry = retry
        self.sweep = sweep
        self.is_over = False
        self.elapsed = 0.0
        """Seconds spent on this listing."""
        self.unremovable: set[str] = set()
        self.foreign = 0
        self.ignored = 0

    def next_entries(self) -> Iterator[os.DirEntry[str]]:
        """Yield up to ENTRIES_AT_ONCE more. Raises OSError."""
        for _ in range(ENTRIES_AT_ONCE):
            entry = next(self._entries, None)
            if entry is None:
                self.is_over = True
                return
            yield entry

    def close(self) -> None:
        """Close the directory."""
        self._entries.close()
