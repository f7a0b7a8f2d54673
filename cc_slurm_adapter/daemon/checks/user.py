"""The user that the daemon runs as, for whom all rights are judged."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import NamedTuple

from cc_slurm_adapter.daemon.checks.unit import Unit
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.system.owner import Account, find_account, own_account

SUBJECT = "user"


class DaemonUser(NamedTuple):
    """The user, and how that is known."""

    account: Account
    why: str
    is_assumed: bool = False
    unknown: str = ""
    """The user that the unit names, if there is no such user."""
    runner: str = ""
    """The other user that a daemon runs as now, whose files and rights this user cannot judge; '' if there is none."""


def find_daemon_user(unit: Unit, state_path: str, holder: int = 0) -> DaemonUser:
    """Return whom the daemon runs as: for root the unit's user, or the owner of the state; else this user.

    `holder` is the process of the running daemon, if there is one.
    """
    own = own_account()
    if own.uid != 0:
        return DaemonUser(own, "the user of this command", runner=_runner(holder, own))
    if unit.is_installed:
        name = unit.get("User") or "root"
        account = find_account(name, unit.get("Group"), unit.get("SupplementaryGroups").split())
        if account:
            return DaemonUser(account, f"User= of {unit.name}")
        return DaemonUser(own, "root, as there is no other", is_assumed=True, unknown=name)
    for path in (state_path, os.path.dirname(state_path) or "."):
        try:
            owner = find_account(str(os.stat(path).st_uid))
        except OSError:
            continue
        if owner:
            return DaemonUser(owner, f"the owner of {path}", is_assumed=owner.uid == 0)
    return DaemonUser(own, "neither a unit nor a state folder names another", is_assumed=True)


def _runner(holder: int, own: Account) -> str:
    """Return the name of the user of a process; '' if that is this user, or not known."""
    try:
        uid = os.stat(f"/proc/{holder}").st_uid if holder else own.uid
    except OSError:
        return ""
    account = find_account(str(uid))
    return "" if uid == own.uid else account.name if account else str(uid)


def find_user(user: DaemonUser, unit: Unit) -> Iterator[Finding]:
    """Yield for whom rights are judged, and what is wrong with that."""
    name = user.account.name
    if user.unknown:
        text = f"User= of {unit.name} is {user.unknown}, and there is no such user here"
        yield Finding(logging.ERROR, SUBJECT, text, "create it as docs/install.md says, step 1")
    if user.is_assumed:
        text = f"whom the daemon runs as cannot be seen, {name} is assumed ({user.why})"
        yield Finding(logging.WARNING, SUBJECT, text, "install the unit, or run this as the daemon's user")
        return
    yield Finding(logging.INFO, SUBJECT, f"rights are those of {name} ({user.why})")
    named = unit.get("User") if unit.is_installed else ""
    if user.runner:
        text = f"a daemon runs as {user.runner}, whose files and rights {name} cannot judge: they are left out here"
        other = f" or as {user.runner}" if user.runner != "root" else ""
        yield Finding(logging.WARNING, SUBJECT, text, f"run this as root{other}")
    elif named and os.geteuid() != 0 and named not in (name, str(user.account.uid)):
        text = f"{unit.name} runs the daemon as {named}, whose rights {name} cannot see"
        yield Finding(logging.WARNING, SUBJECT, text, "run this as root")
    yield from find_root(user.account.uid)


def find_root(uid: int) -> list[Finding]:
    """Return a warning if the daemon runs as root."""
    if uid != 0:
        return []
    text = "the daemon runs as root, which it does not need"
    return [Finding(logging.WARNING, SUBJECT, text, "set User= in its systemd unit, see docs/install.md")]
