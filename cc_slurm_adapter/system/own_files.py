"""The only place where files and folders are removed, replaced, or given to a group.

Each function itself makes sure that this program made what it changes. An event file is recognised by its name and its
emptiness, a pid file by the lock on it, a socket by its inode, and a folder because it was made right here. Anything
else is left as it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import NamedTuple

from cc_slurm_adapter.system.event_files import is_closed, looks_like_event

SHARED_FOLDER = 0o770
"""It has no setgid bit: the daemon only lists and removes files, so their group does not matter."""
SHARED_SOCKET, OWN_SOCKET = 0o660, 0o600


class Identity(NamedTuple):
    """Identifies a file, even if another file has replaced it under its name."""

    device: int
    inode: int


def identity(path: str) -> Identity | None:
    """Return the identity of a file; None if there is none. A link is not followed."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return Identity(status.st_dev, status.st_ino)


def is_empty_file(status: os.stat_result) -> bool:
    """Return whether this is a regular file of no bytes, neither a link nor a folder."""
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def remove_event_file(folder: str, name: str) -> None:
    """Remove an empty file with an event's name. Raises OSError, which is FileExistsError for anything else."""
    path = os.path.join(folder, name)
    if not looks_like_event(name) or not is_empty_file(os.lstat(path)):
        raise FileExistsError(errno.EEXIST, "it is not an event file")
    os.unlink(path)


def mark_open(folder: str, name: str, seconds: float) -> None:
    """Set the time of the marker to this many seconds from now. It is an empty file, made if it is missing.

    The present is what the file system's clock says. After the clock was set back, the time of the folder may lie
    ahead. Making the file again sets it to the present. Raises OSError.
    """
    _set_time(folder, name, seconds)
    if is_closed(folder, name):
        os.unlink(os.path.join(folder, name))
        _set_time(folder, name, seconds)


def mark_closed(folder: str, name: str) -> None:
    """Set the time of the marker to 1970, so that hooks no longer leave events. Raises OSError."""
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
    """Make a folder that the daemon and a group may use. An existing one is left as it is. Raises OSError."""
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
    """Let a group use a socket that was just bound."""
    _give_to_group(path, SHARED_SOCKET, group)


def share_with_group_alone(path: str, group: int | None) -> bool:
    """Let a group use a socket that was just bound; it stays its owner's while there is none, or if that fails.

    Return whether it is as wanted. Unlike a socket of hooks it may never be open to another group. Raises OSError.
    """
    os.chmod(path, OWN_SOCKET)
    if group is None:
        return True
    if os.lstat(path).st_gid != group:  # under systemd not even chown to the own group may be allowed
        try:
            os.chown(path, -1, group)
        except PermissionError:
            return False
    os.chmod(path, SHARED_SOCKET)
    return True


def _give_to_group(path: str | int, mode: int, group: int | None) -> None:
    # This fails if the daemon is not a member of the group. What SlurmUser then lacks is checked and logged afterwards.
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
    """Let everybody read a pid file. The file is locked. Raises OSError."""
    os.fchmod(descriptor, 0o644)


def remove_locked_file(path: str, descriptor: int) -> None:
    """Remove the file that this descriptor has locked, unless another has taken its place. Raises OSError."""
    if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
        os.unlink(path)


def replace_file(path: str, text: bytes) -> None:
    """Replace a file as a whole or leave the old one, even if the power fails. Raises OSError."""
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
    """Make a file in a folder and remove it. Raises OSError if that fails."""
    probe = os.path.join(folder, f".write-test.{os.getpid()}.{os.urandom(4).hex()}")
    os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    os.unlink(probe)
