"""What the daemon's user may do with files and folders, as root sees it and by their modes."""

from __future__ import annotations

import grp
import os
import tempfile
from pathlib import Path

import pytest

from cc_slurm_adapter.cli import install_rights
from cc_slurm_adapter.cli.install_rights import (
    NOBODY,
    Barrier,
    OwnFolder,
    Presence,
    boot_text,
    daemon_account,
    find_barrier,
    find_own_folders,
    relative_paths,
)
from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.system.owner import Account, own_account
from tests.fakes.hosts import config_of

ONLY_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
UNMADE = Account("cc-slurm-adapter", NOBODY, NOBODY, (NOBODY,))
READ = os.R_OK


@pytest.fixture
def open_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose way from here on is what is judged, wherever pytest has made it."""
    above = len(install_rights._parents(str(tmp_path)))
    parents = install_rights._parents
    monkeypatch.setattr(install_rights, "_parents", lambda path: parents(path)[above:])
    tmp_path.chmod(0o755)
    return tmp_path


def settings(folder: Path, **more: str) -> Config:
    return config_of(pidFilePath=f"{folder}/run/pid", lastRunPath=f"{folder}/state/lastrun", **more)


def test_a_user_that_there_is_not_is_only_in_the_group() -> None:
    group = grp.getgrgid(0)
    assert daemon_account("no-such-user", group.gr_name) == Account("no-such-user", NOBODY, 0, (0,))
    assert daemon_account("no-such-user", "no-such-group") == UNMADE._replace(name="no-such-user")
    assert daemon_account("nobody", "").name == "nobody"


@pytest.mark.parametrize(("mode", "is_blocked"), [(0o644, False), (0o640, True), (0o600, True)])
def test_a_file_is_judged_by_its_mode_for_a_user_that_is_not_made_yet(
    open_path: Path, mode: int, *, is_blocked: bool
) -> None:
    path = open_path / "token"
    path.touch(mode)
    path.chmod(mode)
    barrier = find_barrier(str(path), READ, UNMADE)
    assert (barrier is not None) == is_blocked
    if barrier:
        assert (barrier.place, barrier.mode) == (str(path), mode)
        assert barrier.owner == own_account().name


def test_the_group_may_read_what_is_for_the_group(open_path: Path) -> None:
    path = open_path / "config.json"
    path.touch()
    path.chmod(0o640)
    assert find_barrier(str(path), READ, UNMADE._replace(groups=(path.stat().st_gid,))) is None
    assert find_barrier(str(path), READ, Account("root", 0, 0, (0,))) is None


def test_the_folder_on_the_way_is_what_is_named(open_path: Path) -> None:
    folder = open_path / "private"
    folder.mkdir()
    (folder / "token").touch()
    folder.chmod(0o700)
    barrier = find_barrier(str(folder / "token"), READ, UNMADE)
    assert barrier is not None
    assert (barrier.place, barrier.mode) == (str(folder), 0o700)


def test_what_cannot_be_seen_is_no_barrier(tmp_path: Path) -> None:
    assert find_barrier(str(tmp_path / "nowhere"), READ, own_account()) is None


@ONLY_ROOT
def test_root_tries_as_the_user() -> None:
    nobody = daemon_account("nobody", "")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        Path(folder).chmod(0o711)
        path = Path(folder) / "token"
        path.touch(0o600)
        os.chown(path, nobody.uid, 0)
        assert find_barrier(str(path), READ, nobody) is None
        os.chown(path, 0, 0)
        assert find_barrier(str(path), READ, nobody) == Barrier(str(path), "root", "root", 0o600)
    assert os.geteuid() == 0


# --- folders


def test_the_usual_folders_are_no_matter_of_the_configuration() -> None:
    assert find_own_folders(config_of(), UNMADE, ()) == []
    config = config_of(pidFilePath="/run/x/pid", prepSockListenPath="tcp::1", controlSockPath="/run/x/c")
    assert find_own_folders(config, UNMADE, ["/run/x"]) == []


def test_each_folder_has_the_keys_that_name_it(tmp_path: Path) -> None:
    config = settings(tmp_path, prepEventsPath=f"{tmp_path}/run/events")
    found = [(each.path, each.keys, each.presence) for each in find_own_folders(config, UNMADE, ())]
    assert found == [
        (f"{tmp_path}/run", ("pidFilePath", "controlSockPath"), Presence.MISSING),
        (f"{tmp_path}/run/events", ("prepEventsPath",), Presence.MISSING),
        (f"{tmp_path}/state", ("lastRunPath", "statePath"), Presence.MISSING),
    ]
    assert [each.is_for_events for each in find_own_folders(config, UNMADE, ())] == [False, True, False]


def test_a_folder_with_the_daemon_s_files_can_be_given_to_its_user(open_path: Path) -> None:
    state = open_path / "state"
    state.mkdir()
    for name in ("lastrun", "state.sqlite", "first-moment"):
        (state / name).touch(0o600)
    (found,) = [each for each in find_own_folders(settings(open_path), UNMADE, ()) if each.path == str(state)]
    assert found.barrier is not None
    assert (found.stranger, found.is_shared) == ("", False)
    assert found.files == (f"{state}/lastrun", f"{state}/state.sqlite")


def test_a_folder_with_other_files_stays_whose_it_is(open_path: Path) -> None:
    state = open_path / "state"
    state.mkdir()
    (state / "of-another-program").touch()
    (found,) = [each for each in find_own_folders(settings(open_path), UNMADE, ()) if each.path == str(state)]
    assert (found.stranger, found.is_shared) == ("of-another-program", True)
    usable = find_own_folders(settings(open_path), Account("root", 0, 0, (0,)), ())
    assert [each.is_shared for each in usable] == [False, False]


@pytest.mark.parametrize(("path", "is_shared"), [("/srv", True), ("/var/lib", True), ("/srv/cc", False)])
def test_a_folder_of_the_system_is_shared_even_if_it_is_empty(path: str, *, is_shared: bool) -> None:
    folder = OwnFolder(path, ("lastRunPath",), Presence.THERE, Barrier(path, "root", "root", 0o755))
    assert folder.is_shared == is_shared
    assert not folder._replace(barrier=None).is_shared


def test_relative_paths_are_named() -> None:
    assert relative_paths(config_of(lastRunPath="state/lastrun")) == ["lastRunPath", "statePath"]
    assert relative_paths(config_of()) == []


def test_what_is_in_memory_is_made_again_at_each_boot() -> None:
    folders = [
        OwnFolder("/run/x", ("pidFilePath",)),
        OwnFolder("/run/x/100% events", ("prepEventsPath",)),
        OwnFolder(
            "/run/shared", ("metricsListen",), Presence.THERE, Barrier("/run/shared", "root", "root", 0o755), "y"
        ),
        OwnFolder("/srv/state", ("lastRunPath",)),
    ]
    assert boot_text(folders, "me", "slurm") == ('d /run/x 0750 me slurm -\nd "/run/x/100%% events" 0770 me slurm -\n')
    assert boot_text(folders[-1:], "me", "slurm") == ""
