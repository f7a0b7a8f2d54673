"""The folder of event files: what is taken, what is left, what is removed."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cc_slurm_adapter import events_folder, inotify
from cc_slurm_adapter.admission import Admission
from cc_slurm_adapter.events_folder import EventsFolder
from cc_slurm_adapter.prep import HookMessage, parse_event_name


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


class Folder(EventsFolder):
    """An events folder of the cluster lab, with what it refused."""

    def __init__(self, path: Path) -> None:
        self.refused: list[tuple[str, str]] = []
        super().__init__(str(path), lambda name: name in ("", "lab"), lambda *told: self.refused.append(told))
        self.open(Admission(frozenset({os.geteuid()})))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    opened = Folder(tmp_path / "events")
    yield opened
    opened.close()


def test_many_files_are_taken_in_batches(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_folder, "BATCH", 10)
    put(Path(folder.path), *(f"{number}..lab.1" for number in range(1, 36)))
    taken = []
    sizes = []
    while batch := folder.take():
        sizes.append(len(batch))
        taken += [message.job_id for message in batch]
    assert max(sizes) == 10
    assert sorted(taken) == list(range(1, 36))
    assert os.listdir(folder.path) == []


def test_garbage_is_counted_once_and_removed_after_an_hour(folder: Folder) -> None:
    path = Path(folder.path)
    put(path, "README", "0..lab.1", "a\nb")
    (path / "5..lab.1").mkdir()
    (path / "6..lab.1").symlink_to("/etc/passwd")
    assert folder.take() == []
    assert folder.take() == []
    assert [kind for kind, _ in folder.refused] == ["garbage"] * 5
    assert all("\n" not in line for _, line in folder.refused)
    assert len(os.listdir(path)) == 5

    an_hour_ago = time.time() - 3601
    for name in os.listdir(path):
        os.utime(path / name, (an_hour_ago, an_hour_ago), follow_symlinks=False)
    assert folder.take() == []
    assert os.listdir(path) == ["5..lab.1"]


def forbid(patch: pytest.MonkeyPatch) -> None:
    """From now on no file can be removed."""

    def unlink(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    patch.setattr(os, "unlink", unlink)


def ids(taken: list[HookMessage]) -> list[int]:
    return sorted(message.job_id for message in taken)


def test_file_that_cannot_be_removed_is_taken_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    put(Path(folder.path), "1..lab.1")
    forbid(monkeypatch)
    assert ids(folder.take()) == [1]
    assert folder.take() == []
    assert "cannot remove" in folder.refused[0][1]


def test_what_cannot_be_removed_is_removed_when_that_is_possible_again(folder: Folder) -> None:
    put(Path(folder.path), "1..lab.1", "2..lab.2")
    with pytest.MonkeyPatch.context() as patch:
        forbid(patch)
        assert ids(folder.take()) == [1, 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events_folder, "RETRY_SECONDS", 0.0)
        folder._next_retry = 0.0
        assert folder.take() == []
    assert os.listdir(folder.path) == []
    put(Path(folder.path), "1..lab.1")
    assert ids(folder.take()) == [1]


def test_names_of_files_that_are_gone_are_forgotten(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(folder.path)
    put(path, "1..lab.1", "2..lab.2")
    with pytest.MonkeyPatch.context() as patch:
        forbid(patch)
        assert ids(folder.take()) == [1, 2]
        os.rename(path / "1..lab.1", path.parent / "elsewhere")
        assert folder.take() == []
        put(path, "1..lab.1")
        assert ids(folder.take()) == [1]


def test_more_than_can_be_remembered_is_told(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_folder, "REMEMBERED_NAMES", 3)
    put(Path(folder.path), *(f"{number}..lab.1" for number in range(1, 8)))
    with pytest.MonkeyPatch.context() as patch:
        forbid(patch)
        assert len(folder.take()) == 3
        folder.refused.clear()
        assert folder.take() == []
    (line,) = [line for kind, line in folder.refused if kind == "full folder"]
    assert "4 more events are not taken" in line
    assert len(folder.take()) == 4


# What lies there when the daemon starts


def put_before(folder: Path, seconds: float, *names: str) -> None:
    put(folder, *names)
    before = time.time() - seconds
    for name in names:
        os.utime(folder / name, (before, before))


def test_events_of_the_time_before_are_removed_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events_folder, "BATCH", 10)
    caplog.set_level(logging.INFO)
    path = tmp_path / "events"
    path.mkdir()
    put_before(path, 90, *(f"{number}..lab.1" for number in range(1, 36)), "99..other.1")
    folder = Folder(path)
    put(path, "40..lab.1")
    taken = []
    looks = 0
    while folder.has_more or not looks:
        taken += folder.take()
        looks += 1
    assert ids(taken) == [40]
    assert looks == 4
    assert os.listdir(path) == ["99..other.1"]
    assert [record.getMessage() for record in caplog.records if "35 events" in record.getMessage()] != []

    put_before(path, 90, "41..lab.1")
    assert ids(folder.take()) == [41], "clocks may differ, so this counts for the first look only"
    folder.close()


def test_old_events_that_cannot_be_removed_stay_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_folder, "REMEMBERED_NAMES", 2)
    path = tmp_path / "events"
    path.mkdir()
    put_before(path, 90, *(f"{number}..lab.1" for number in range(1, 8)))
    folder = Folder(path)
    forbid(monkeypatch)
    assert folder.take() == []
    put(path, "9..lab.1")
    assert ids(folder.take()) == [9]
    assert folder.take() == []
    folder.close()


# Folders that the daemon cannot use as it should


def without_access(patch: pytest.MonkeyPatch, lacking: int) -> None:
    patch.setattr(os, "access", lambda path, mode: not mode & lacking)


def test_folder_whose_files_cannot_be_removed_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without_access(monkeypatch, os.W_OK)
    folder = Folder(tmp_path / "events")
    put(Path(folder.path), "1..lab.1")
    forbid(monkeypatch)
    assert ids(folder.take()) == [1]
    (warning,) = caplog.messages
    assert f"cannot remove the events that hooks leave in {folder.path}" in warning
    assert f"{folder.path}' and 'chmod 2770 {folder.path}'" in warning
    assert "socket only" not in warning
    folder.close()


def test_folder_that_cannot_be_listed_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without_access(monkeypatch, os.R_OK)
    folder = Folder(tmp_path / "events")
    folder.open(Admission(frozenset({os.geteuid()})))
    assert not folder.usable
    (warning,) = caplog.messages
    assert "nobody reads the events that they leave" in warning
    assert "chgrp" in warning
    assert "socket only" not in warning


def test_folder_that_fails_although_it_may_be_read_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(tmp_path / "events")
    admission = Admission(frozenset({os.geteuid()}))

    def exhausted(path: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", exhausted)
        for _ in range(3):
            assert folder.take() == []
            assert not folder.usable
            folder.open(admission)
    assert len(caplog.messages) == 1
    put(Path(folder.path), "1..lab.1")
    assert ids(folder.take()) == [1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", exhausted)
        folder.take()
    assert len(caplog.messages) == 2
    folder.close()


def test_many_files_of_other_clusters_are_told(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_folder, "MANY_FOREIGN", 3)
    put(Path(folder.path), "1..x.1", "2..x.1", "3..x.1")
    assert folder.take() == []
    assert len(folder.refused) == 1
    assert "3 event files of other clusters" in folder.refused[0][1]
    assert len(os.listdir(folder.path)) == 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(name=st.text(alphabet="0123456789.ab_-\n\u00e4\udc80", min_size=1, max_size=20))
def test_any_name_is_taken_or_refused(folder: Folder, name: str) -> None:
    if name in (".", ".."):
        return
    path = Path(folder.path)
    put(path, name)
    taken = folder.take()
    event = parse_event_name(name)
    if event is not None and event.cluster in ("", "lab"):
        assert [message.job_id for message in taken] == [event.job_id]
        assert os.listdir(path) == []
    else:
        assert taken == []
        assert [os.fsencode(left) for left in os.listdir(path)] == [os.fsencode(name)]
        (path / name).unlink()


def test_inotify_says_when_the_folder_is_gone(tmp_path: Path) -> None:
    watched = tmp_path / "w"
    watched.mkdir()
    watch = inotify.FolderWatch(str(watched))
    put(watched, "a" * 200)
    assert watch.drain()
    assert watch.drain()
    (watched / ("a" * 200)).unlink()
    watched.rmdir()
    assert not watch.drain()
    watch.close()
    with pytest.raises(FileNotFoundError):
        inotify.FolderWatch(str(watched))
