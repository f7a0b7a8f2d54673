"""Who may report hook events, and whether they can reach the daemon's folder and socket at all.

Slurm calls the hooks on the controller as SlurmUser. So the folder of event files and the socket get
SlurmUser's group when the daemon makes them, as far as it is a member of it. What is there already is not changed:
the administrator is told what to do.
"""

from __future__ import annotations

import grp
import logging
import os
import pwd
import stat
from dataclasses import dataclass

from cc_slurm_adapter.config.values import Network

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Admission:
    """Who may report events.

    `uids` may use the unix socket: root, SlurmUser and the daemon's own. `group` is SlurmUser's,
    None when it is not known. `networks` may send over TCP, and with a `secret` they must sign.
    """

    uids: frozenset[int]
    group: int | None = None
    networks: tuple[Network, ...] = ()
    secret: bytes | None = None

    @property
    def guests(self) -> frozenset[int]:
        """The uids that need permissions: not root, not the daemon's own user."""
        return self.uids - {0, os.geteuid()}


def admit(slurm_user: str, secret: bytes | None, networks: tuple[Network, ...]) -> Admission:
    """Who may report when Slurm's hooks run as this user."""
    uids = {0, os.geteuid()}
    try:
        account = pwd.getpwnam(slurm_user)
    except KeyError:
        logger.warning("SlurmUser %s has no account here: hooks that run as this user cannot report", slurm_user)
        return Admission(frozenset(uids), None, networks, secret)
    return Admission(frozenset({*uids, account.pw_uid}), account.pw_gid, networks, secret)


def unreachable(path: str, needed: int, admission: Admission) -> str:
    """A warning with what to do when SlurmUser cannot use a folder or socket of the daemon, or ''.

    `needed` are the permission bits that SlurmUser must have on it (2 to write, 3 to write and search). Raises OSError.
    """
    blocked = _blocked_at(path, needed, admission)
    return _advice(path, blocked, admission) if blocked else ""


def _blocked_at(path: str, needed: int, admission: Admission) -> str:
    """The first path on the way that some guest cannot pass, '' when all can."""
    parents = []
    parent = os.path.dirname(os.path.abspath(path))
    while parent != os.path.dirname(parent):
        parents.append((parent, 1))
        parent = os.path.dirname(parent)
    for place, bits in (*reversed(parents), (path, needed)):
        status = os.stat(place)
        if not all(_permits(status, uid, admission.group, bits) for uid in admission.guests):
            return place
    return ""


def _permits(status: os.stat_result, uid: int, group: int | None, bits: int) -> bool:
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid == uid:
        return (mode >> 6) & bits == bits
    if status.st_gid == group:
        return (mode >> 3) & bits == bits
    return mode & bits == bits


def _advice(path: str, blocked: str, admission: Admission) -> str:
    users = ", ".join(map(str, sorted(admission.guests)))
    group = _group_name(admission.group)
    permissions = "g+rwx" if blocked == path else "g+x"
    return (
        f"SlurmUser (uid {users}) cannot use {path}, the permissions of {blocked} forbid it: run the daemon with"
        f" group {group} (Group= in its systemd unit), or run 'chgrp {group} {blocked}' and"
        f" 'chmod {permissions} {blocked}'"
    )


def sharing_advice(path: str, admission: Admission) -> str:
    """What to do so that hooks and the daemon can use a folder that is somebody else's."""
    group = _group_name(admission.group)
    member = admission.group in (os.getegid(), *os.getgroups())
    membership = "" if member else f", and run the daemon with group {group} (Group= in its systemd unit)"
    return f"run 'chgrp {group} {path}' and 'chmod 770 {path}'{membership}"


def _group_name(group: int | None) -> str:
    if group is None:
        return "GROUP-OF-SLURMUSER"
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)
