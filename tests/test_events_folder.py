"""The folder of event files: what is taken, what is left, what is removed."""

from __future__ import annotations

import errno
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
from cc_slurm_adapter.prep import parse_event_name


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


def test_file_that_cannot_be_removed_is_taken_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    put(Path(folder.path), "1..lab.1")
    monkeypatch.setattr(os, "unlink", forbidden)
    assert [message.job_id for message in folder.take()] == [1]
    assert folder.take() == []
    assert len(folder.refused) == 1
    assert "cannot remove" in folder.refused[0][1]


def test_files_that_cannot_be_removed_are_not_taken_for_ever(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(events_folder, "REMEMBERED_NAMES", 3)
    monkeypatch.setattr(os, "unlink", forbidden)
    put(Path(folder.path), *(f"{number}..lab.1" for number in range(1, 8)))
    assert len(folder.take()) == 3
    assert folder.take() == []


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
