"""Linux's inotify for one folder: a file descriptor that becomes readable when a file appears in it."""

from __future__ import annotations

import errno
import os
import struct
from typing import Any

_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
_IN_DELETE_SELF = 0x400
_IN_MOVE_SELF = 0x800
_IN_IGNORED = 0x8000
_IN_ONLYDIR = 0x1000000
_WATCHED = _IN_MOVED_TO | _IN_CREATE | _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_ONLYDIR
_HEADER = struct.Struct("iIII")


class FolderWatch:
    """Watches one folder. Raises OSError when there is no inotify or no watch is to be had."""

    def __init__(self, path: str) -> None:
        libc = _libc()
        self._fd = _checked(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        try:
            _checked(libc.inotify_add_watch(self._fd, os.fsencode(path), _WATCHED))
        except OSError:
            os.close(self._fd)
            raise

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._fd

    def drain(self) -> bool:
        """Forget what was reported; False when the folder is gone or was moved away, so the watch is over."""
        alive = True
        while True:
            try:
                data = os.read(self._fd, 64 * 1024)
            except BlockingIOError:
                return alive
            alive = alive and not _folder_is_gone(data)

    def close(self) -> None:
        """End the watch."""
        os.close(self._fd)


def _folder_is_gone(data: bytes) -> bool:
    offset = 0
    while offset < len(data):
        _, mask, _, name_length = _HEADER.unpack_from(data, offset)
        if mask & (_IN_IGNORED | _IN_DELETE_SELF | _IN_MOVE_SELF):
            return True
        offset += _HEADER.size + name_length
    return False


def _libc() -> Any:
    # Not every Python has ctypes, and not every system has inotify: both mean to look without it.
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
