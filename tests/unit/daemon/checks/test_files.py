"""What the daemon's user may do with its files. Looking makes nothing and changes nothing."""

from __future__ import annotations

import logging
import os
import pwd
from pathlib import Path

import pytest

from cc_slurm_adapter.config.config import Config, parse_config
from cc_slurm_adapter.daemon.checks import files
from cc_slurm_adapter.daemon.checks.files import find_files
from cc_slurm_adapter.daemon.checks.unit import DEFAULT_UNIT, Unit
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.system.owner import Account, acting_as, find_account
from tests.fakes.open_folders import open_to_all

NO_UNIT = Unit(DEFAULT_UNIT, "no systemd", has_systemd=False)
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can try what another user may do")
NOBODY = pwd.getpwnam("nobody")


def nobody() -> Account:
    account = find_account("nobody")
    assert account is not None
    return account


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of this user that every user can get to, and see what is in it."""
    return open_to_all(tmp_path)


def config_in(folder: Path) -> Config:
    settings = {
        "ccRestUrl": "https://cc.example.org",
        "ccRestJwt": "token",
        "pidFilePath": f"{folder}/run/daemon.pid",
        "prepSockListenPath": f"{folder}/run/daemon.sock",
        "lastRunPath": f"{folder}/state/lastrun",
        "prepEventsPath": f"{folder}/run/events",
    }
    return parse_config(settings)[0]


def bad(found: list[Finding]) -> dict[str, int]:
    assert all(each.next_step for each in found if each.level >= logging.ERROR and each.text.count(":") == 0)
    return {each.subject: each.level for each in found if each.level > logging.INFO}


def make_folders(folder: Path, owner: int = -1) -> None:
    for name in ("run", "state"):
        (folder / name).mkdir(mode=0o750)
        os.chown(folder / name, owner, -1)


def test_folders_that_may_be_written_are_well_and_nothing_is_made(folder: Path) -> None:
    make_folders(folder)
    before = sorted(folder.rglob("*"))
    times = [path.stat().st_mtime_ns for path in before]
    assert bad(list(find_files(config_in(folder), NO_UNIT))) == {}
    assert sorted(folder.rglob("*")) == before
    assert [path.stat().st_mtime_ns for path in before] == times


def test_folders_that_are_not_there_are_failures_unless_systemd_makes_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_in(folder)
    assert bad(list(find_files(config, NO_UNIT))) == {"pidFilePath": logging.ERROR, "lastRunPath": logging.ERROR}
    monkeypatch.setattr("cc_slurm_adapter.daemon.checks.unit.FOLDERS", {"RuntimeDirectory": str(folder)})
    unit = Unit(DEFAULT_UNIT, properties={"RuntimeDirectory": ["run"], "LoadState": ["loaded"]})
    assert bad(list(find_files(config, unit))) == {"lastRunPath": logging.ERROR}


@AS_ROOT
def test_the_rights_are_those_of_the_user_and_not_of_root(folder: Path) -> None:
    make_folders(folder)
    config = config_in(folder)
    with acting_as(nobody()):
        found = list(find_files(config, NO_UNIT))
    assert bad(found) == {"pidFilePath": logging.ERROR, "lastRunPath": logging.ERROR}
    assert any(each.next_step == f"run 'chown nobody {folder}/run'" for each in found)
    for name in ("run", "state"):
        os.chown(folder / name, NOBODY.pw_uid, -1)
    with acting_as(nobody()):
        assert bad(list(find_files(config, NO_UNIT))) == {}


@AS_ROOT
def test_a_file_that_root_left_behind_is_a_failure(folder: Path) -> None:
    make_folders(folder, NOBODY.pw_uid)
    (folder / "state" / "lastrun").touch(mode=0o600)
    with acting_as(nobody()):
        found = list(find_files(config_in(folder), NO_UNIT))
    assert bad(found) == {"lastRunPath": logging.ERROR}
    (failure,) = [each for each in found if each.level == logging.ERROR]
    assert failure.next_step == f"it belongs to root: run 'chown nobody {folder}/state/lastrun'"


def test_what_belongs_to_another_program_is_a_failure(folder: Path) -> None:
    make_folders(folder)
    (folder / "run" / "daemon.pid").write_text("not a number")
    (folder / "state" / "state.sqlite").mkdir()
    assert bad(list(find_files(config_in(folder), NO_UNIT))) == {
        "pidFilePath": logging.ERROR,
        "statePath": logging.ERROR,
    }


def test_a_unit_that_forbids_a_folder_is_a_failure_with_the_line_for_it(folder: Path) -> None:
    make_folders(folder)
    unit = Unit(DEFAULT_UNIT, properties={"ProtectSystem": ["strict"], "ReadWritePaths": [f"{folder}/run"]})
    found = list(find_files(config_in(folder), unit))
    assert bad(found) == {"lastRunPath": logging.ERROR}
    assert any(each.next_step == f"add ReadWritePaths={folder}/state to its [Service]" for each in found)


def test_a_file_system_that_is_not_local_or_full_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folders(folder)
    monkeypatch.setattr(files, "file_system_type", lambda path: "nfs4")
    monkeypatch.setattr(files, "room", lambda path: (100.0, 200.0))
    found = list(find_files(config_in(folder), NO_UNIT))
    assert [(each.level, each.subject) for each in found if each.level > logging.INFO] == [
        (logging.ERROR, "statePath"),
        (logging.ERROR, "pidFilePath"),
        (logging.WARNING, "statePath"),
    ]
