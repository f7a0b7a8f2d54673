"""The hooks' files, and each part of the way from a hook to the daemon. No event is sent."""

from __future__ import annotations

import logging
import os
import pwd
import socket
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cc_slurm_adapter.config.config import Config, parse_config
from cc_slurm_adapter.daemon.checks.hooks import Here, find_hooks, find_ways
from cc_slurm_adapter.hooks.spool import OPEN_SECONDS
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig, Hooks
from cc_slurm_adapter.system.owner import own_account
from tests.fakes.open_folders import open_to_all

ME = pwd.getpwuid(os.geteuid()).pw_name
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can try what SlurmUser may do")
SITE = ClusterConfig("lab", "24.11.5", ME, "none", has_accounting=True, records_steps=True, question_rate=None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that every user can get to."""
    return open_to_all(tmp_path)


def archive(path: Path, content: str = "x") -> str:
    """A file like the built one: a shell script with a zip archive behind it."""
    path.write_text("#!/bin/sh\n# cc-slurm-adapter\n")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("content", content)
    path.chmod(0o755)
    return str(path)


def site(*files: str, user: str = ME, controllers: tuple[str, ...] = ("here",)) -> ClusterConfig:
    return replace(SITE, slurm_user=user, hooks=Hooks(files, files, controllers=controllers))


def here(program: str = "") -> Here:
    return Here("here", program, own_account())


def config(folder: Path, **settings: object) -> Config:
    given = {
        "ccRestUrl": "https://cc.example.org",
        "ccRestJwt": "token",
        "lastRunPath": f"{folder}/state/lastrun",
        "prepEventsPath": f"{folder}/events",
        "prepSockListenPath": f"{folder}/daemon.sock",
        "prepSockConnectPath": f"{folder}/daemon.sock",
    }
    return parse_config({**given, **settings})[0]


def bad(found: Iterator[Finding]) -> list[tuple[int, str]]:
    return [(each.level, each.subject) for each in found if each.level > logging.INFO]


def texts(found: Iterator[Finding]) -> str:
    return "\n".join(map(str, found))


# --- the files


def test_hooks_that_are_this_file_are_well(folder: Path) -> None:
    path = archive(folder / "cc-slurm-adapter")
    found = list(find_hooks(site(path), here(path)))
    assert bad(iter(found)) == []
    assert "they report every job" in texts(iter(found))
    assert f"{path} is this file" in texts(iter(found))


def test_hooks_that_are_another_version_are_a_warning(folder: Path) -> None:
    path, other = archive(folder / "cc-slurm-adapter"), archive(folder / "other", "y")
    assert bad(find_hooks(site(path), here(other))) == [(logging.WARNING, "hooks")]
    assert "are not the same version" in texts(find_hooks(site(path), here(other)))


def test_hooks_that_are_not_set_are_a_warning() -> None:
    assert bad(find_hooks(site(), here())) == [(logging.WARNING, "hooks")]


@pytest.mark.parametrize("mode", [None, 0o644])
def test_a_hook_that_slurmctld_would_end_for_is_a_failure(folder: Path, mode: int | None) -> None:
    path = folder / "cc-slurm-adapter"
    if mode is not None:
        path.write_text("#!/bin/sh\n")
        path.chmod(mode)
    (found,) = (each for each in find_hooks(site(str(path)), here()) if each.level > logging.INFO)
    assert (found.level, found.subject) == (logging.ERROR, "hooks")
    step = f"put this program at {path}, or correct slurm.conf," if mode is None else f"run 'chmod a+rx {path}'"
    assert found.next_step == f"{step} before slurmctld is restarted or reconfigured"


def test_a_hook_that_slurmctld_would_end_for_is_to_be_mended_before_the_other_is_set(folder: Path) -> None:
    """Setting it takes a reconfigure, at which slurmctld would end."""
    path = str(folder / "gone")
    hooks = Hooks((), (path,), controllers=("here",))
    (found,) = (each for each in find_hooks(replace(SITE, hooks=hooks), here()) if each.level == logging.ERROR)
    assert "PrologSlurmctld is not set; " in found.text
    assert found.next_step.startswith(f"put this program at {path}")


@AS_ROOT
def test_a_script_that_slurm_user_cannot_read_is_a_failure_although_it_is_executable(folder: Path) -> None:
    path = folder / "cc-slurm-adapter"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o711)
    assert bad(find_hooks(site(str(path), user="nobody"), here())) == [(logging.ERROR, "hooks")]
    path.chmod(0o755)
    assert bad(find_hooks(site(str(path), user="nobody"), here())) == []
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    inner = closed / "cc-slurm-adapter"
    inner.write_text("#!/bin/sh\n")
    inner.chmod(0o755)
    assert bad(find_hooks(site(str(inner), user="nobody"), here())) == [(logging.ERROR, "hooks")]


def test_hooks_on_another_host_cannot_be_seen_which_is_no_warning() -> None:
    found = list(find_hooks(site("/usr/local/sbin/cc-slurm-adapter", controllers=("there",)), here()))
    assert bad(iter(found)) == []
    assert "cannot be seen: slurmctld runs on there" in texts(iter(found))


# --- the events folder


def ways(folder: Path, **settings: object) -> list[Finding]:
    return list(find_ways(config(folder, **settings), SITE, here()))


def test_a_folder_that_a_daemon_reads_is_well_and_stays_as_it_is(folder: Path) -> None:
    (folder / "events").mkdir(mode=0o770)
    marker = folder / "events" / ".lab.open"
    marker.touch()
    os.utime(marker, (0, time.time() + OPEN_SECONDS - 20))
    before = sorted(folder.rglob("*")), marker.stat().st_mtime_ns, (folder / "events").stat().st_mtime_ns
    found = ways(folder)
    assert bad(iter(found)) == []
    assert "a daemon reads" in texts(iter(found))
    assert (sorted(folder.rglob("*")), marker.stat().st_mtime_ns, (folder / "events").stat().st_mtime_ns) == before


def test_a_folder_that_nobody_reads_any_more_is_a_warning(folder: Path) -> None:
    (folder / "events").mkdir(mode=0o770)
    marker = folder / "events" / ".lab.open"
    marker.touch()
    os.utime(marker, (0, time.time() - 60))
    assert bad(iter(ways(folder))) == [(logging.WARNING, "events folder")]


def test_a_folder_that_has_just_been_left_or_never_read_is_no_warning(folder: Path) -> None:
    (folder / "events").mkdir(mode=0o770)
    assert "no daemon has read" in texts(iter(ways(folder)))
    marker = folder / "events" / ".lab.open"
    marker.touch()
    os.utime(marker, (0, time.time() + OPEN_SECONDS - 400))
    found = ways(folder)
    assert bad(iter(found)) == []
    assert "for 6 min; hooks leave events there" in texts(iter(found))


def test_a_folder_that_is_not_there_is_a_warning(folder: Path) -> None:
    assert bad(iter(ways(folder))) == [(logging.WARNING, "events folder")]


def test_a_folder_with_something_else_and_one_in_the_state_folder_are_failures(folder: Path) -> None:
    (folder / "events").mkdir()
    (folder / "events" / "data.txt").write_text("x")
    assert bad(iter(ways(folder)))[0] == (logging.ERROR, "events folder")
    assert "it contains 'data.txt'" in texts(iter(ways(folder)))
    assert ways(folder)[0].next_step.startswith("set prepEventsPath to a folder of its own")
    assert bad(iter(ways(folder, prepEventsPath=f"{folder}/state/sub"))) == [(logging.ERROR, "events folder")]


@AS_ROOT
def test_a_folder_that_slurm_user_cannot_use_is_a_failure(folder: Path) -> None:
    (folder / "events").mkdir(mode=0o700)
    found = list(find_ways(config(folder), replace(SITE, slurm_user="nobody"), here()))
    assert bad(iter(found)) == [(logging.ERROR, "events folder")]
    (problem,) = (each for each in found if each.level == logging.ERROR)
    assert problem.text.endswith(f"the permissions of {folder / 'events'} forbid it")
    assert f"'chmod g+rwx {folder / 'events'}'" in problem.next_step


def test_a_slurm_user_without_account_is_a_warning(folder: Path) -> None:
    (folder / "events").mkdir(mode=0o770)
    found = list(find_ways(config(folder), replace(SITE, slurm_user="no-such-user"), here()))
    assert (logging.WARNING, "SlurmUser") in bad(iter(found))


# --- the socket


def test_a_socket_of_a_daemon_is_not_connected_to(folder: Path) -> None:
    (folder / "events").mkdir(mode=0o770)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(folder / "daemon.sock"))
        listener.listen(5)
        listener.settimeout(0.05)
        found = ways(folder)
        with pytest.raises(socket.timeout):
            listener.accept()
    assert bad(iter(found)) == []
    assert "SlurmUser may use" in texts(iter(found))


def test_an_open_port_without_protection_is_a_warning(folder: Path) -> None:
    (folder / "events").mkdir(mode=0o770)
    assert bad(iter(ways(folder, prepSockListenPath="tcp::12345"))) == [(logging.WARNING, "hook socket")]
    assert bad(iter(ways(folder, prepSockListenPath="tcp::12345", prepAllow=["10.0.0.1"]))) == []


def test_a_hook_that_connects_to_where_nobody_listens_is_a_warning(folder: Path) -> None:
    (folder / "events").mkdir(mode=0o770)
    assert bad(iter(ways(folder, prepSockConnectPath="tcp:127.0.0.1:12345"))) == [(logging.WARNING, "hook socket")]


@AS_ROOT
def test_a_secret_that_slurm_user_cannot_read_is_a_failure(folder: Path) -> None:
    (folder / "events").mkdir(mode=0o770)
    secret = folder / "secret"
    secret.write_text("a secret that is long enough")
    secret.chmod(0o600)
    tcp = {"prepSockListenPath": "tcp::12345", "prepSockConnectPath": "tcp:127.0.0.1:12345"}
    settings = config(folder, prepSecretFile=str(secret), **tcp)
    nobody = replace(SITE, slurm_user="nobody")
    assert (logging.ERROR, "prepSecretFile") in bad(find_ways(settings, nobody, here()))
    secret.chmod(0o644)
    assert (logging.ERROR, "prepSecretFile") not in bad(find_ways(settings, nobody, here()))
