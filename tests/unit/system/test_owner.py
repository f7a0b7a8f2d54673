"""Acting as another user: what root may not do then, and that it is root again afterwards."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from cc_slurm_adapter.system.owner import acting_as, acting_as_owner, find_account, own_account

NOBODY = pwd.getpwnam("nobody")
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


def test_a_user_is_found_by_name_and_by_number() -> None:
    account = find_account("nobody")
    assert account is not None
    assert (account.name, account.uid, account.gid) == ("nobody", NOBODY.pw_uid, NOBODY.pw_gid)
    assert account.gid in account.groups
    assert find_account(str(NOBODY.pw_uid)) == account
    assert find_account("no-such-user") is None
    assert find_account("4294967290") is None
    assert find_account("99999999999999999999") is None


def test_the_groups_of_a_unit_are_those_of_its_process() -> None:
    other, more = grp.getgrnam("daemon").gr_gid, grp.getgrnam("bin").gr_gid
    account = find_account("nobody", "daemon", ["bin", "no-such-group"])
    assert account is not None
    assert account.gid == other
    assert {other, more} <= set(account.groups)


def test_the_own_account_is_that_of_this_process() -> None:
    own = own_account()
    assert (own.uid, own.gid) == (os.geteuid(), os.getegid())
    assert set(os.getgroups()) <= set(own.groups)


@AS_ROOT
def test_root_may_no_longer_do_everything_while_it_acts_as_another_user(tmp_path: Path) -> None:
    account = find_account("nobody")
    assert account is not None
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    before = os.geteuid(), os.getegid(), sorted(os.getgroups())
    with acting_as(account):
        assert os.geteuid() == NOBODY.pw_uid
        assert sorted(os.getgroups()) == sorted(account.groups)
        with pytest.raises(PermissionError):
            secret.read_text()
    assert (os.geteuid(), os.getegid(), sorted(os.getgroups())) == before
    assert secret.read_text() == "x"


@AS_ROOT
def test_root_is_root_again_after_an_error_and_after_acting_as_an_owner(tmp_path: Path) -> None:
    account = find_account("nobody")
    assert account is not None
    with pytest.raises(KeyError), acting_as(account):
        raise KeyError
    assert os.geteuid() == 0
    file = tmp_path / "file"
    file.touch()
    os.chown(file, NOBODY.pw_uid, NOBODY.pw_gid)
    with acting_as_owner(str(file)):
        assert (os.geteuid(), os.getegid()) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert (os.geteuid(), os.getegid()) == (0, 0)


def test_without_root_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(os, "setgroups", lambda groups: pytest.fail("it is not root"))
    account = find_account("nobody")
    assert account is not None
    with acting_as(account):
        assert os.geteuid() == 12345
