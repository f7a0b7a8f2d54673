"""The pid file with its lock, the time of the last run, and the folder they need."""

from __future__ import annotations

import errno
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from cc_slurm_adapter.daemon.state_files import LastRun, PidFile, check_state_folder
from cc_slurm_adapter.errors import AlreadyRunning, StateError


def test_a_second_daemon_is_refused_and_the_first_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "daemon.pid"
    first, second = PidFile(str(path)), PidFile(str(path))
    first.lock()
    first.publish()
    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
        second.lock()
    second.release()
    assert path.read_text() == f"{os.getpid()}\n"
    first.release()
    assert not path.exists()


@pytest.mark.parametrize("left_over", ["1\n", f"{os.getpid()}\n", "", "4194304"])
def test_a_pid_file_that_was_left_behind_blocks_nothing(tmp_path: Path, left_over: str) -> None:
    path = tmp_path / "daemon.pid"
    path.write_text(left_over)
    pid_file = PidFile(str(path))
    pid_file.lock()
    pid_file.publish()
    assert path.read_text() == f"{os.getpid()}\n"
    pid_file.release()
    assert not path.exists()


@pytest.mark.parametrize("content", ["nonsense", "9" * 500, "4711\nmore", "\0"])
def test_what_is_no_pid_file_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(content)
    pid_file = PidFile(str(path))
    with pytest.raises(StateError, match=f"pidFilePath {path} is not a pid file"):
        pid_file.lock()
    pid_file.release()
    assert path.read_text() == content


def test_a_refused_start_leaves_the_pid_file_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "daemon.pid"
    path.write_text("4711\n")
    pid_file = PidFile(str(path))
    pid_file.lock()
    pid_file.release()
    assert path.read_text() == "4711\n"


def test_a_full_disk_keeps_nobody_from_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The lock counts, the pid in the file is for people."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "state.sqlite.lock"
    monkeypatch.setattr(os, "pwrite", full)
    first = PidFile(str(path), "statePath")
    first.lock()
    assert f"statePath: the pid cannot be written into {path}: No space left on device" in caplog.text
    with pytest.raises(AlreadyRunning, match="pid unknown"):
        PidFile(str(path), "statePath").lock()
    first.release()
    assert not path.exists()


def test_a_file_of_another_user_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "daemon.pid"
    path.write_text("1\n")

    def denied(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    owner = pwd.getpwuid(os.geteuid()).pw_name
    monkeypatch.setattr(os, "open", denied)
    monkeypatch.setattr(os, "access", lambda *_, **how: False)
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("nobody").pw_uid)
    with pytest.raises(StateError, match=f"it belongs to {owner}: run 'chown nobody {path}'"):
        PidFile(str(path)).lock()


def test_a_refused_start_leaves_no_pid_file_of_its_own(tmp_path: Path) -> None:
    pid_file = PidFile(str(tmp_path / "daemon.pid"))
    pid_file.lock()
    pid_file.release()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_daemon_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "daemon.pid"
    script = (
        "import os, signal; from cc_slurm_adapter.daemon.state_files import PidFile;"
        f" PidFile({str(path)!r}).lock(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[3], check=False)
    assert path.exists()
    pid_file = PidFile(str(path))
    pid_file.lock()
    pid_file.release()


def test_a_pid_file_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="RuntimeDirectory"):
        PidFile(str(tmp_path / "nowhere" / "daemon.pid")).lock()


def test_the_time_of_the_last_run_is_the_time_of_the_file(tmp_path: Path) -> None:
    last_run = LastRun(str(tmp_path / "lastrun"))
    assert last_run.read() is None
    last_run.write(1_700_000_000.5)
    assert last_run.read() == 1_700_000_000
    assert (tmp_path / "lastrun").read_bytes() == b""


def test_a_state_folder_that_is_mounted_read_only_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(StateError, match=r"Read-only file system: mount it writable$"):
        check_state_folder(str(tmp_path / "lastrun"))


def test_a_state_folder_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    assert check_state_folder(str(tmp_path / "lastrun")) == str(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StateError, match="StateDirectory"):
        check_state_folder(str(tmp_path / "nowhere" / "lastrun"))
