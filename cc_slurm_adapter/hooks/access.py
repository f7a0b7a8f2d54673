"""Who may report hook events, and whether they can reach the daemon's folder and socket at all.

Slurm calls the hooks on the controller as SlurmUser. So the folder of event files and the socket get SlurmUser's group
when the daemon makes them, if the daemon is a member of that group. This module changes no permissions. It checks them,
and its warnings tell the administrator what to do.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass

from cc_slurm_adapter.config.values import Network
from cc_slurm_adapter.system.file_systems import group_name


@dataclass(frozen=True)
class AllowedSenders:
    """Who may report events."""

    uids: frozenset[int]
    """The users who may use the unix socket: root, SlurmUser and the daemon's own user."""
    group: int | None = None
    """SlurmUser's group; None when it is not known."""
    networks: tuple[Network, ...] = ()
    """The addresses that may send over TCP."""
    secret: bytes | None = None
    """The secret with which messages over TCP must be signed; None if they need no signature."""

    @property
    def other_uids(self) -> frozenset[int]:
        """Return the users who need permissions. Root and the daemon's own user have them anyway."""
        return self.uids - {0, os.geteuid()}


def find_allowed_senders(slurm_user: str, secret: bytes | None, networks: tuple[Network, ...]) -> AllowedSenders:
    """Return who may report when Slurm's hooks run as this user; no group if the user has no account."""
    uids = {0, os.geteuid()}
    try:
        account = pwd.getpwnam(slurm_user)
    except KeyError:
        return AllowedSenders(frozenset(uids), None, networks, secret)
    return AllowedSenders(frozenset({*uids, account.pw_uid}), account.pw_gid, networks, secret)


def no_account(slurm_user: str) -> str:
    """Return the warning that SlurmUser is not known on this host."""
    return f"SlurmUser {slurm_user} has no account here: hooks that run as this user cannot report"


def access_warning(path: str, needed: int, allowed_senders: AllowedSenders) -> str:
    """Return a warning with advice if SlurmUser cannot use a folder or socket of the daemon, '' otherwise.

    `needed` are the permission bits that SlurmUser must have on it (2 to write, 3 to write and search). Raises OSError.
    """
    return ": ".join(find_barrier(path, needed, allowed_senders) or ())


def find_barrier(path: str, needed: int, allowed_senders: AllowedSenders) -> tuple[str, str] | None:
    """Return what keeps SlurmUser from a folder or socket, and what to do; None if nothing does. Raises OSError."""
    blocked = blocked_at(path, needed, allowed_senders)
    return _of_barrier(path, blocked, allowed_senders) if blocked else None


def blocked_at(path: str, needed: int, allowed_senders: AllowedSenders) -> str:
    """Return the topmost folder on the way, or the path itself, whose permissions keep one of `other_uids` out.

    Return '' if all of them get through. Nothing is changed. Raises OSError.
    """
    parents = []
    parent = os.path.dirname(os.path.abspath(path))
    while parent != os.path.dirname(parent):
        parents.append((parent, 1))
        parent = os.path.dirname(parent)
    for place, bits in (*reversed(parents), (path, needed)):
        status = os.stat(place)
        if not all(_permits(status, uid, allowed_senders.group, bits) for uid in allowed_senders.other_uids):
            return place
    return ""


def _permits(status: os.stat_result, uid: int, group: int | None, bits: int) -> bool:
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid == uid:
        return (mode >> 6) & bits == bits
    if status.st_gid == group:
        return (mode >> 3) & bits == bits
    return mode & bits == bits


def _of_barrier(path: str, blocked: str, allowed_senders: AllowedSenders) -> tuple[str, str]:
    users = ", ".join(map(str, sorted(allowed_senders.other_uids)))
    group = _group_name(allowed_senders.group)
    permissions = "g+rwx" if blocked == path else "g+x"
    return (
        f"SlurmUser (uid {users}) cannot use {path}, the permissions of {blocked} forbid it",
        f"run the daemon with group {group} (Group= in its systemd unit), or run 'chgrp {group} {blocked}' and"
        f" 'chmod {permissions} {blocked}'",
    )


def sharing_advice(path: str, allowed_senders: AllowedSenders) -> str:
    """Return the commands that let hooks and the daemon use a folder that belongs to another user."""
    group = _group_name(allowed_senders.group)
    member = allowed_senders.group in (os.getegid(), *os.getgroups())
    membership = "" if member else f", and run the daemon with group {group} (Group= in its systemd unit)"
    return f"run 'chgrp {group} {path}' and 'chmod 770 {path}'{membership}"


def _group_name(group: int | None) -> str:
    return "GROUP-OF-SLURMUSER" if group is None else group_name(group)
