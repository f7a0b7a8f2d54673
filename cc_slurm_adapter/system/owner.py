"""Acts as another user while files are used or looked at, if this process is root.

Else root would leave files beside a file that its owner cannot use: then the daemon would not start any more. And root
may do everything, so only the other user's own tries show what that user may do.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Account(NamedTuple):
    """A user with the groups that a process of this user has."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    """All of them, `gid` among them."""


def find_account(user: str, group: str = "", others: Sequence[str] = ()) -> Account | None:
    """Return a user by name or number; None if there is no such user.

    `group` and `others` are groups by name or number that a process of the user has instead of the user's own primary
    group, and in addition, as systemd's Group= and SupplementaryGroups= give them. Unknown ones are left out.
    """
    try:
        found = pwd.getpwuid(int(user)) if user.isascii() and user.isdigit() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        return None
    given = group_id(group)
    gid = found.pw_gid if given is None else given
    more = {each for each in map(group_id, others) if each is not None}
    groups = {gid, *more, *os.getgrouplist(found.pw_name, gid)}
    return Account(found.pw_name, found.pw_uid, gid, tuple(sorted(groups)))


def own_account() -> Account:
    """Return the user that this process acts as, with all its groups."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Account(name, uid, gid, tuple(sorted({gid, *os.getgroups()})))


def group_id(group: str) -> int | None:
    """Return the id of a group by its name or number; None for '' and for a name that there is not."""
    if group.isascii() and group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


@contextlib.contextmanager
def acting_as(account: Account) -> Iterator[None]:
    """Have a user and its groups as the effective ones. Nothing changes unless this is root.

    Only for a process with one thread, since all of the process changes.
    """
    if os.geteuid() != 0:
        yield
        return
    before = os.getgroups()
    os.setgroups(account.groups)
    try:
        with _acting(account.uid, account.gid):
            yield
    finally:
        os.setgroups(before)


@contextlib.contextmanager
def acting_as_owner(path: str) -> Iterator[None]:
    """Have the user and the group of a file as the effective ones. Nothing changes unless this is root.

    Nor does it if there is no such file. Only for a process with one thread, since all of the process changes.
    """
    owner = _owner(path) if os.geteuid() == 0 else None
    if owner is None:
        yield
        return
    with _acting(owner.st_uid, owner.st_gid):
        yield


@contextlib.contextmanager
def _acting(uid: int, gid: int) -> Iterator[None]:
    group = os.getegid()
    os.setegid(gid)
    try:
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


def _owner(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None
