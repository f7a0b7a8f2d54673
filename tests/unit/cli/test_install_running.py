"""Who reports jobs here already: found by a lock, or by a pid file whose process has the name of the program."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from cc_slurm_adapter.cli.install_rights import Presence
from cc_slurm_adapter.cli.install_running import Before, find_before, find_daemon
from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.system.file_systems import user_name
from tests.fakes.hosts import config_of

NOW = 1_800_000_000.0
DAY = 86400


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(pidFilePath=f"{tmp_path}/daemon.pid", lastRunPath=f"{tmp_path}/lastrun")


class Processes:
    """A folder that stands for /proc."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, pid: int, *words: str, service: str = "") -> None:
        place = self.folder / str(pid)
        place.mkdir()
        (place / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
        (place / "cgroup").write_text(f"0::/system.slice/{service}\n" if service else "0::/user.slice/x.scope\n")


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    folder = tmp_path / "proc"
    folder.mkdir()
    return Processes(folder)


def test_nobody_runs_without_a_pid_file(config: Config, processes: Processes) -> None:
    assert find_daemon(config, str(processes.folder)) is None


def test_the_existing_adapter_is_named_by_its_pid_file(config: Config, processes: Processes) -> None:
    processes.add(4711, "/usr/bin/cc-slurm-adapter", "-daemon", service="cc-adapter.service")
    Path(config.pid_file_path).write_text("4711")
    found = find_daemon(config, str(processes.folder))
    assert found is not None
    assert (found.pid, found.command, found.unit) == (4711, "/usr/bin/cc-slurm-adapter -daemon", "cc-adapter.service")
    assert (found.user, found.locked) == (user_name(os.geteuid()), "")


@pytest.mark.parametrize("content", ["4711", "4712", "", "not a number", "\N{SUPERSCRIPT TWO}"])
def test_a_number_that_is_left_over_names_nobody(content: str, config: Config, processes: Processes) -> None:
    processes.add(4711, "/usr/sbin/nginx")
    Path(config.pid_file_path).write_text(content)
    assert find_daemon(config, str(processes.folder)) is None


def test_a_lock_shows_this_program_whatever_it_is_called(config: Config) -> None:
    with open(config.pid_file_path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = find_daemon(config)
    assert found is not None
    assert (found.pid, found.locked) == (os.getpid(), config.pid_file_path)
    assert find_daemon(config) is None


def test_what_earlier_daemons_have_left(config: Config) -> None:
    assert find_before(config, NOW) == Before(Presence.MISSING, None)
    last_run = Path(config.last_run_path)
    last_run.touch()
    for when, expected in ((NOW - DAY, NOW - DAY), (NOW - 8 * DAY, None), (NOW + DAY, NOW)):
        os.utime(last_run, (when, when))
        assert find_before(config, NOW) == Before(Presence.MISSING, expected)
    (last_run.parent / "first-moment").touch()
    assert find_before(config, NOW).state is Presence.THERE
