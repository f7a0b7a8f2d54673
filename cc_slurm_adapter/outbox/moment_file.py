"""The file with the first moment. It is beside the state file, so it survives if the state file is lost."""

from __future__ import annotations

import errno
import os
import re
import stat

NAME, DEFAULT_STATE = "first-moment", "state.sqlite"
MAX_BYTES = 64
_TIME = re.compile(rb"[1-9]\d{0,10}\n")
_OURS = re.compile(rb"[0-9\r\n\0]*")
"""What a power cut or an editor may leave of a time. Anything else, or MAX_BYTES bytes, belongs to another program."""


def read(path: str) -> bytes:
    """Return the content of the file. Raises OSError, also if the path is not a regular file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return os.read(descriptor, MAX_BYTES)
    finally:
        os.close(descriptor)


def parse(text: bytes) -> int | None:
    """Return the Unix time in the content of a file; None if it has none."""
    return int(text) if _TIME.fullmatch(text) else None


def is_ours(text: bytes) -> bool:
    """Return whether this content may be what is left of a time."""
    return len(text) < MAX_BYTES and _OURS.fullmatch(text) is not None


def names_moment(state_path: str) -> bool:
    """Return whether a daemon has used this state file before: then there is a first moment for it."""
    try:
        return parse(read(moment_path(state_path))) is not None
    except OSError:
        return False


def moment_path(state_path: str) -> str:
    """Return the path of the file. Two daemons that share a folder have two files, as they have two state files."""
    folder, name = os.path.split(state_path)
    return os.path.join(folder, NAME if name == DEFAULT_STATE else f"{NAME}.{name}")
