"""Finds out who has locked a file, without touching the lock: even a short lock could stop a daemon that starts."""

from __future__ import annotations

import os

LOCKS = "/proc/locks"
"""The locks of this host, a line each: `1: FLOCK  ADVISORY  WRITE 4711 00:19:1234 0 EOF` (see proc(5))."""


def holder_of_lock(path: str, locks: str = LOCKS) -> int:
    """Return the pid of the process that has locked a file with flock(2); 0 if there is none, or that is not known."""
    try:
        inode = os.stat(path).st_ino
        with open(locks, encoding="ascii", errors="replace") as file:
            return next((int(words[4]) for words in map(str.split, file) if _is_lock_of(words, inode)), 0)
    except (OSError, ValueError):
        return 0


def _is_lock_of(words: list[str], inode: int) -> bool:
    """Return whether a line is about a lock of this inode. Those that wait for it have an arrow before the kind.

    The device is not compared: some file systems (btrfs, overlayfs) show another one here than to stat(2).
    """
    return len(words) > 5 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode)
