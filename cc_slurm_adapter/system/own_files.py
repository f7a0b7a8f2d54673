"""The only place where files and folders are removed, replaced, or given to a group.

Each function makes sure by itself that what it changes was made by this program: an event file by its name and
its emptiness, a pid file by the lock on it, a socket by its inode, a folder because it was made right here. What is
anything else stays as it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import NamedTuple

from cc_slurm_adapter.system.event_files import is_closed, looks_like_event

SHARED_FOLDER = 0o770
"""The daemon lists and removes, so it needs no setgid bit: whose files they are does not matter to it."""
SHARED_SOCKET = 0o660


class Identity(NamedTuple):
    """By which a file is known again although others may have taken its name."""

    device: int
    inode: int


def identity(path: str) -> Identity | None:
    """None when nothing is there. A link is itself."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return Identity(status.st_dev, status.st_ino)


def is_empty_file(status: os.stat_result) -> bool:
    """Whether this is a regular file of no bytes: no link, no folder."""
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def remove_event_file(folder: str, name: str) -> None:
    """Remove an empty file with an event's name, and nothing else. Raises OSError, FileExistsError for what stays."""
    path = os.path.join(folder, name)
    if not looks_like_event(name) or not is_empty_file(os.lstat(path)):
        raise FileExistsError(errno.EEXIST, "it is no event file")
    os.unlink(path)


def mark_open(folder: str, name: str, seconds: float) -> None:
    """Set the time of an empty file, made if it is missing, to so many seconds from now.

    Now is by the clock that dates the files. A folder that is from later, after the clock was set back, gets the time
    of now by making the file anew. Raises OSError.
    """
    _set_time(folder, name, seconds)
    if is_closed(folder, name):
        os.unlink(os.path.join(folder, name))
        _set_time(folder, name, seconds)


def mark_closed(folder: str, name: str) -> None:
    """Set the time of that file to 1970: hooks leave no event any more. Raises OSError."""
    _set_time(folder, name, None)


def _set_time(folder: str, name: str, from_now: float | None) -> None:
    flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(os.path.join(folder, name), flags, 0o644)
    try:
        status = os.fstat(descriptor)
        if not is_empty_file(status) or status.st_nlink > 1:
            raise FileExistsError(errno.EEXIST, "something else has its name")
        os.utime(descriptor)
        when = 0.0 if from_now is None else os.fstat(descriptor).st_mtime + from_now
        os.utime(descriptor, (when, when))
    finally:
        os.close(descriptor)


def make_shared_folder(path: str, group: int | None) -> None:
    """Make a folder that the daemon and a group may use; one that is there is left as it is. Raises OSError."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if os.path.isdir(path):
            return
        raise
    made = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _give_to_group(made, SHARED_FOLDER, group)
    finally:
        os.close(made)


def share_socket(path: str, group: int | None) -> None:
    """Let a group use a socket that was bound right before."""
    _give_to_group(path, SHARED_SOCKET, group)


def _give_to_group(path: str | int, mode: int, group: int | None) -> None:
    # Where the daemon is no member of the group this fails; what is missing then is found and told right after.
    with contextlib.suppress(OSError):
        if group is not None:
            os.chown(path, -1, group)
    with contextlib.suppress(OSError):
        os.chmod(path, mode)


def remove_socket(path: str, made: Identity | None) -> None:
    """Remove a socket unless another file has taken its place. Raises OSError."""
    if made is not None and identity(path) == made and stat.S_ISSOCK(os.lstat(path).st_mode):
        os.unlink(path)


def show_to_all(descriptor: int) -> None:
    """Let everybody read a pid file, which is locked. Raises OSError."""
    os.fchmod(descriptor, 0o644)


def remove_locked_file(path: str, descriptor: int) -> None:
    """Remove a file whose lock is held by this descriptor, unless another has taken its place. Raises OSError."""
    if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
        os.unlink(path)


def replace_file(path: str, text: bytes) -> None:
    """Write a whole file, or leave what was there, also after a power cut. Raises OSError."""
    new = f"{path}.new"
    try:
        with open(new, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # not every file system can do that with a folder
            os.fsync(folder)
    finally:
        os.close(folder)


def try_writing(folder: str) -> None:
    """Make a file in a folder and remove it. Raises OSError when that fails."""
    probe = os.path.join(folder, f".write-test.{os.getpid()}.{os.urandom(4).hex()}")
    os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    os.unlink(probe)
