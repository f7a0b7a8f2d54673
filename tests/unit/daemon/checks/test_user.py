"""For whom rights are judged, and how that is known."""

from __future__ import annotations

import logging
import os
import pwd
from pathlib import Path

import pytest

from cc_slurm_adapter.daemon.checks.unit import DEFAULT_UNIT, Unit
from cc_slurm_adapter.daemon.checks.user import find_daemon_user, find_root, find_user
from cc_slurm_adapter.system.owner import acting_as, find_account, own_account

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root judges for another user")
NOBODY = pwd.getpwnam("nobody")
NO_UNIT = Unit(DEFAULT_UNIT, "no systemd", has_systemd=False)


def unit(user: str, group: str = "") -> Unit:
    given = {"LoadState": ["loaded"], **({"User": [user]} if user else {}), **({"Group": [group]} if group else {})}
    return Unit(DEFAULT_UNIT, properties=given)


def levels(user_unit: Unit, state: str) -> list[int]:
    return [each.level for each in find_user(find_daemon_user(user_unit, state), user_unit)]


@AS_ROOT
def test_for_root_it_is_the_user_of_the_unit_with_its_group(tmp_path: Path) -> None:
    found = find_daemon_user(unit("nobody", "daemon"), str(tmp_path / "state.sqlite"))
    assert (found.account.name, found.is_assumed) == ("nobody", False)
    assert found.account.gid != NOBODY.pw_gid
    assert levels(unit("nobody"), str(tmp_path)) == [logging.INFO]


@AS_ROOT
def test_a_user_of_the_unit_that_there_is_not_is_a_failure(tmp_path: Path) -> None:
    assert levels(unit("no-such-user"), str(tmp_path)) == [logging.ERROR, logging.WARNING]


@AS_ROOT
def test_without_a_unit_it_is_the_owner_of_the_state(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
    found = find_daemon_user(NO_UNIT, str(folder / "state.sqlite"))
    assert (found.account.name, found.is_assumed) == ("nobody", False)
    assert str(folder) in found.why


@AS_ROOT
def test_without_anything_root_is_assumed_and_that_is_told(tmp_path: Path) -> None:
    assert levels(NO_UNIT, str(tmp_path / "nowhere" / "state.sqlite")) == [logging.WARNING]


@AS_ROOT
def test_a_unit_that_runs_the_daemon_as_root_is_told(tmp_path: Path) -> None:
    assert levels(unit(""), str(tmp_path)) == [logging.INFO, logging.WARNING]


def test_any_other_user_judges_for_itself_and_says_whom_the_unit_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY.pw_uid)
    assert find_daemon_user(unit("root"), "/nowhere").account == own_account()
    assert levels(unit("root"), "/nowhere") == [logging.INFO, logging.WARNING]
    assert levels(unit("nobody"), "/nowhere") == [logging.INFO]


def test_a_daemon_that_runs_as_root_is_told_so() -> None:
    assert [each.level for each in find_root(0)] == [logging.WARNING]
    assert find_root(1000) == []


@AS_ROOT
def test_another_user_s_daemon_is_left_to_that_user() -> None:
    """Else its files would be said to belong to the wrong user, with commands that take them away from it."""
    nobody = find_account("nobody")
    assert nobody is not None
    with acting_as(nobody):
        found = find_daemon_user(NO_UNIT, "/nowhere/state.sqlite", holder=1)
        own = find_daemon_user(NO_UNIT, "/nowhere/state.sqlite", holder=0)
        (_, warning) = find_user(found, NO_UNIT)
    assert (found.runner, own.runner) == ("root", "")
    assert warning.level == logging.WARNING
    assert warning.next_step == "run this as root"


@AS_ROOT
def test_root_judges_for_the_user_of_the_running_daemon(tmp_path: Path) -> None:
    assert find_daemon_user(unit("nobody"), str(tmp_path), holder=1).runner == ""
