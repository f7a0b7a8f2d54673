"""Which file system a path is on, and who owns it: for the advice in an error."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from pathlib import Path

NOT_LOCAL = frozenset(
    ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "9p", "afs", "fuse.glusterfs", "fuse.sshfs")
)
"""File systems that the state file cannot be on: their locks do not work, or not everywhere."""


def file_system_type(path: str) -> str:
    """Return the type of the file system that a path is on, as `nfs4`; '' if /proc/self/mountinfo has none."""
    place = os.path.realpath(path)
    found, longest = "", -1
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            mounted, _, source = line.partition(" - ")
            folder = mounted.split()[4].replace("\\040", " ")
            if len(folder) >= longest and (place + "/").startswith(folder.rstrip("/") + "/"):
                found, longest = source.split()[0], len(folder)
    return found


def belongs_to_another(path: str) -> str:
    """Return what to do about a file of another user, as after a start by root; '' if it is ours or usable."""
    with contextlib.suppress(OSError):
        owner = os.stat(path).st_uid
        if owner != os.geteuid() and not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
            return f"it belongs to {user_name(owner)}: run 'chown {user_name(os.geteuid())} {path}'"
    return ""


def group_name(gid: int) -> str:
    """Return the name of a group, or its number if it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def user_name(uid: int) -> str:
    """Return the name of a user, or the number if there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
