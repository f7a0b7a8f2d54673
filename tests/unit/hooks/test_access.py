"""Who may report events, and whether SlurmUser can reach the daemon's folder and socket."""

from __future__ import annotations

import errno
import ipaddress
import os
import stat
from pathlib import Path

import pytest

from cc_slurm_adapter.hooks.access import (
    AllowedSenders,
    _permits,
    access_warning,
    find_allowed_senders,
    no_account,
)
from cc_slurm_adapter.system.own_files import make_shared_folder
from tests.fakes.open_folders import open_to_all

OWN = frozenset({os.geteuid()})
SECRET = b"a shared secret of some length"
LOCALHOST = (ipaddress.ip_network("127.0.0.1"),)


def test_root_slurm_user_and_own_user_may() -> None:
    allowed_senders = find_allowed_senders("root", SECRET, LOCALHOST)
    assert allowed_senders.uids == {0, os.geteuid()}
    assert (allowed_senders.group, allowed_senders.secret, allowed_senders.networks) == (0, SECRET, LOCALHOST)


def test_a_slurm_user_without_account_has_no_group() -> None:
    allowed_senders = find_allowed_senders("no-such-user", None, ())
    assert allowed_senders.uids == {0, os.geteuid()}
    assert allowed_senders.group is None
    assert "SlurmUser no-such-user has no account" in no_account("no-such-user")


@pytest.fixture
def reachable(tmp_path: Path) -> Path:
    """A folder that every user can get to."""
    return open_to_all(tmp_path)


@pytest.mark.parametrize(
    ("mode", "group_is_slurms", "allowed"),
    [(0o770, True, True), (0o770, False, False), (0o750, True, False), (0o773, False, True), (0o707, True, False)],
)
def test_permissions_of_slurm_user(mode: int, group_is_slurms: bool, allowed: bool) -> None:
    status = os.stat_result((stat.S_IFDIR | mode, 1, 1, 1, 500, 64030 if group_is_slurms else 7, 0, 0, 0, 0))
    assert _permits(status, 64030, 64030, 3) is allowed


def test_owner_bits_count_for_the_owner() -> None:
    status = os.stat_result((stat.S_IFDIR | 0o077, 1, 1, 1, 64030, 64030, 0, 0, 0, 0))
    assert not _permits(status, 64030, 64030, 1)


def test_folder_that_is_made_gets_slurm_users_group_where_the_daemon_is_a_member(reachable: Path) -> None:
    group = os.getgroups()[0] if os.getgroups() else os.getegid()
    path = reachable / "events"
    make_shared_folder(str(path), group)
    assert access_warning(str(path), 3, AllowedSenders(frozenset({54321}), group)) == ""
    assert path.stat().st_gid == group
    assert stat.S_IMODE(path.stat().st_mode) == 0o770


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o2770])
def test_folder_that_is_there_is_left_as_it_is_and_told_when_nobody_gets_in(reachable: Path, mode: int) -> None:
    path = reachable / "events"
    path.mkdir()
    path.chmod(mode)
    before = path.stat()
    make_shared_folder(str(path), 54322)
    assert access_warning(str(path), 3, AllowedSenders(frozenset({54321}), 54322)) != ""
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_advice_when_the_daemon_is_no_member(reachable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_a_member(path: str, uid: int, gid: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", not_a_member)
    path = reachable / "events"
    make_shared_folder(str(path), 54322)
    advice = access_warning(str(path), 3, AllowedSenders(frozenset({54321}), 54322))
    for part in ("uid 54321", "Group=", f"chgrp 54322 {path}", f"chmod g+rwx {path}"):
        assert part in advice


def test_advice_names_the_folder_that_is_in_the_way(reachable: Path) -> None:
    closed = reachable / "closed"
    closed.mkdir(mode=0o700)
    path = closed / "events"
    path.mkdir()
    advice = access_warning(str(path), 3, AllowedSenders(frozenset({54321}), os.getegid()))
    assert f"the permissions of {closed} forbid it" in advice
    assert f"chmod g+x {closed}" in advice


def test_nobody_needs_permissions_when_root_is_slurm_user(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.mkdir(mode=0o700)
    assert access_warning(str(path), 3, AllowedSenders(OWN | {0}, 0)) == ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
