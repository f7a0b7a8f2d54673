"""Finds what keeps an events folder from being used. It only looks, and changes nothing."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import NamedTuple

from cc_slurm_adapter.hooks.access import AllowedSenders, find_barrier, sharing_advice
from cc_slurm_adapter.system.event_files import is_marker_name, looks_like_event
from cc_slurm_adapter.system.own_files import is_empty_file


class Place(NamedTuple):
    """The place of an events folder. It must not be one of `state_folders`, hold one, or lie in one.

    A `former` folder is where hooks of an older version leave their events. It is emptied if it exists, it is never
    made, and it may lie anywhere.
    """

    path: str
    state_folders: Collection[str] = ()
    former: bool = False


class Problem(NamedTuple):
    """Something that is wrong with an events folder."""

    kind: str
    text: str
    next_step: str
    """What to do: a clause."""
    is_fatal: bool = False
    """Whether the folder cannot be used at all."""

    def __str__(self) -> str:
        return f"{self.text}: {self.next_step}"


def find_problems(place: Place, allowed_senders: AllowedSenders) -> Iterator[Problem]:
    """Yield what is wrong with a folder that exists. Nothing follows what is fatal. Raises OSError."""
    path = place.path
    if not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
        text = "the daemon may not read it. If hooks may write there, nobody reads the events that they leave"
        yield Problem("unreadable", text, sharing_advice(path, allowed_senders), is_fatal=True)
        return
    unknown = _first_unknown_entry(path)
    if unknown:
        yield unsuitable(place, f"it contains {unknown!r}")
        return
    if not os.access(path, os.W_OK, effective_ids=True):
        text = (
            f"the daemon cannot remove the events that hooks leave in {path}: it reads them, but there are"
            " more and more of them"
        )
        yield Problem("unremovable", text, sharing_advice(path, allowed_senders))
    barrier = None if place.former else find_barrier(path, 3, allowed_senders)
    if barrier:
        yield Problem("unreachable", *barrier)


def find_misplacement(place: Place) -> Problem | None:
    """Return why the folder is in a wrong place, whether it exists or not; None if the place is right."""
    own = os.path.realpath(place.path)
    for folder in () if place.former else place.state_folders:
        state = os.path.realpath(folder)
        if os.path.commonpath([own, state]) in (own, state):
            return unsuitable(place, f"it is, contains or is inside the state folder {folder}")
    return None


def unsuitable(place: Place, why: str) -> Problem:
    """Return the problem of a folder that is not only for events."""
    text = f"{why}, so it is not only for events, and nothing in it is touched"
    if place.former:
        text += ". Only hooks of an older version leave events there"
        step = "take away what does not belong there"
    else:
        text += "; hook events come over the socket only"
        step = "set prepEventsPath to a folder of its own or remove the key, or take away what does not belong there"
    return Problem("unsuitable", text, step, is_fatal=True)


def may_be_here(name: str, *, is_file: bool) -> bool:
    """Return whether this is an event, a marker, or something that a file system makes in folders by itself.

    `is_file` says that it is an empty file.
    """
    if name == "lost+found" or name.startswith(".nfs"):
        return True
    return is_file and (looks_like_event(name) or is_marker_name(name))


def _first_unknown_entry(path: str) -> str:
    """Return the name of something that is neither an event nor one of our own files, or ''. Raises OSError."""
    with os.scandir(path) as entries:
        return next((entry.name for entry in entries if _is_unknown(entry)), "")


def _is_unknown(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is neither an event nor one of our own files. Raises OSError."""
    try:
        return not may_be_here(entry.name, is_file=is_empty_file(entry.stat(follow_symlinks=False)))
    except FileNotFoundError:
        return False
