"""Linux's inotify for one folder: a file descriptor that becomes readable when files appear there, with their names."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
_IN_DELETE_SELF = 0x400
_IN_MOVE_SELF = 0x800
_IN_Q_OVERFLOW = 0x4000
_IN_IGNORED = 0x8000
_IN_ONLYDIR = 0x1000000
_WATCHED = _IN_MOVED_TO | _IN_CREATE | _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_ONLYDIR
_READS = 16
"""Buffers that are read in a row. A process that makes files without end must not keep the reader busy."""
_HEADER = struct.Struct("iIII")
MAX_NAMES = 20_000
"""Most names in one notice. The kernel keeps 16,384 by default (fs.inotify.max_queued_events)."""


class Notice(NamedTuple):
    """What has happened in the folder since the last notice."""

    names: list[str]
    """Names of files that appeared, in order."""
    is_complete: bool
    """Whether all files that appeared are named; False when there were more than could be kept."""
    is_alive: bool
    """False when the folder is gone or was moved away, so the watch is over."""


class FolderWatch:
    """Watches one folder. Raises OSError when there is no inotify, or no watch left for this user."""

    def __init__(self, path: str) -> None:
        libc = _libc()
        self._fd = _checked(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        try:
            _checked(libc.inotify_add_watch(self._fd, os.fsencode(path), _WATCHED))
        except OSError:
            os.close(self._fd)
            raise

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._fd

    def drain(self) -> Notice:
        """Return what was reported since the last call; more may be left after _READS buffers."""
        names: list[str] = []
        is_complete = is_alive = True
        for _ in range(_READS):
            try:
                data = os.read(self._fd, 64 * 1024)
            except BlockingIOError:
                break
            for mask, name in _events(data):
                is_alive = is_alive and not mask & (_IN_IGNORED | _IN_DELETE_SELF | _IN_MOVE_SELF)
                is_complete = is_complete and not mask & _IN_Q_OVERFLOW and len(names) < MAX_NAMES
                if name and is_complete:
                    names.append(name)
        return Notice(names, is_complete, is_alive)

    def close(self) -> None:
        """End the watch."""
        os.close(self._fd)


def _events(data: bytes) -> Iterator[tuple[int, str]]:
    """Yield the mask and the name ('' if there is none) of each event."""
    offset = 0
    while offset < len(data):
        _, mask, _, length = _HEADER.unpack_from(data, offset)
        begin = offset + _HEADER.size
        offset = begin + length
        yield mask, os.fsdecode(data[begin:offset].rstrip(b"\0"))


def _libc() -> Any:
    # Not every Python has ctypes, and not every system has inotify. Without them the folder is listed repeatedly.
    try:
        import ctypes  # noqa: PLC0415

        libc = ctypes.CDLL(None, use_errno=True)
        _ = libc.inotify_init1, libc.inotify_add_watch
    except (ImportError, AttributeError) as error:
        raise OSError(errno.ENOSYS, f"no inotify: {error}") from None
    return libc


def _checked(result: int) -> int:
    import ctypes  # noqa: PLC0415 - see _libc

    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
