"""The folder of event files: what is taken, what is left, what is removed."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cc_slurm_adapter.hooks import inotify, spool
from cc_slurm_adapter.hooks.access import AllowedSenders
from cc_slurm_adapter.hooks.folder_check import Place
from cc_slurm_adapter.hooks.message import HookMessage, parse_event_name
from cc_slurm_adapter.hooks.spool import EventsFolder
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.system.event_files import is_closed, looks_like_event


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


OWN = AllowedSenders(frozenset({os.geteuid()}))


class Folder(EventsFolder):
    """An events folder of the cluster lab, with what it refused. Each `pop_events` lists it, or goes on listing it."""

    def __init__(
        self,
        path: Path,
        state_folders: tuple[Path, ...] = (),
        *,
        former: bool = False,
        timing: spool.Timing = spool.TIMING,
    ) -> None:
        self.refused: list[tuple[str, str]] = []
        place = Place(str(path), [str(folder) for folder in state_folders], former)
        super().__init__(
            place, "lab", lambda name: name in ("", "lab"), lambda *told: self.refused.append(told), timing=timing
        )
        self.open(OWN)

    def pop_events(self) -> list[HookMessage]:
        self._files._named.clear()
        self._files.list_now()
        return super().pop_events()


def events_in(path: Path) -> list[str]:
    """Without the daemon's own marks."""
    return sorted(name for name in os.listdir(path) if not name.startswith("."))


def age(path: Path, seconds: float) -> None:
    """Set the time of a file to so many seconds ago."""
    then = time.time() - seconds
    os.utime(path, (then, then), follow_symlinks=False)


def content(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that can change of what lies in a folder and below, and of itself."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, data)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    opened = Folder(tmp_path / "events")
    yield opened
    opened.close()


def test_many_files_are_taken_in_batches(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "BATCH", 10)
    put(Path(folder.path), *(f"{number}..lab.1" for number in range(1, 36)))
    listings = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listings.append(path) or scandir(path))  # type: ignore[func-returns-value]
    taken = []
    sizes: list[int] = []
    while not sizes or folder._files._listing:
        batch = folder.pop_events()
        sizes.append(len(batch))
        taken += [message.job_id for message in batch]
    assert max(sizes) == 10
    assert len(listings) == 1, "a batch goes on where the one before ended, however many files there are"
    assert sorted(taken) == list(range(1, 36))
    assert events_in(Path(folder.path)) == []


def test_an_event_is_as_old_as_its_file(folder: Folder) -> None:
    folder.pop_events()  # the first listing leaves old events to the first poll
    put(Path(folder.path), "1..lab.1")
    age(Path(folder.path) / "1..lab.1", 1000)
    (message,) = folder.pop_events()
    assert 1000 <= message.age < 1060


# What is not for events


STRANGERS = {
    "a file": lambda path: (path / "README").touch(),
    "a file with content": lambda path: (path / "1..lab.1").write_text("x"),
    "a folder": lambda path: (path / "backup").mkdir(),
    "a folder with an event's name": lambda path: (path / "5..lab.1").mkdir(),
    "a link with an event's name": lambda path: (path / "6..lab.1").symlink_to("/etc/passwd"),
    "a pipe with an event's name": lambda path: os.mkfifo(path / "7..lab.1"),
    "a name with a line break": lambda path: (path / "a\nb").touch(),
    "a name that is no text": lambda path: (path / "\udcff").touch(),
    "a state file": lambda path: (path / "state.sqlite").touch(),
}


@pytest.mark.parametrize("put_stranger", STRANGERS.values(), ids=STRANGERS)
def test_a_folder_with_anything_else_in_it_is_not_used_and_not_changed(
    put_stranger: Callable[[Path], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However old it is, and whoever else may use the folder."""
    path = tmp_path / "events"
    path.mkdir()
    path.chmod(0o755)
    put_before(path, 90_000, "1..lab.99", "2..other.99")
    put_stranger(path)
    for each in path.iterdir():
        age(each, 90_000)
    before = content(path)
    folder = Folder(path)
    assert not folder.usable
    assert content(path) == before
    (warning,) = caplog.messages
    assert warning.startswith(
        f"prepEventsPath: cannot use the folder {path}, which is checked again every 60 s: it contains "
    )
    assert "\n" not in warning
    assert "hook events come over the socket only" in warning
    (path / "one more").touch()
    folder.open(OWN)
    assert not folder.usable
    assert len(caplog.messages) == 1
    folder.close()


@pytest.mark.parametrize("place", ["state", "state/events", "state/new", ".", "link"])
def test_a_folder_that_is_holds_or_lies_in_the_state_folder_is_not_used(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor one that is it by another name."""
    state = tmp_path / "state"
    (state / "events").mkdir(parents=True)
    (tmp_path / "link").symlink_to(state)
    files = ("state.sqlite", "state.sqlite-wal", "lastrun", "notes.txt") if place == "state" else ()
    put_before(state, 4000, *files)
    before = content(tmp_path)
    folder = Folder(tmp_path / place, (state,))
    assert not folder.usable
    (warning,) = caplog.messages
    assert f"it is, contains or is inside the state folder {state}" in warning
    assert content(tmp_path) == before


def test_a_folder_beside_the_state_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    folder = Folder(tmp_path / "state-events", (tmp_path / "state",))
    assert folder.usable
    folder.close()


def test_what_file_systems_put_into_folders_is_no_unknown_entry(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.mkdir()
    (path / "lost+found").mkdir()
    put(path, ".nfs000000000012345678", ".other.open", "1..lab.1")
    folder = Folder(path)
    assert ids(folder.pop_events()) == [1]
    assert (path / "lost+found").is_dir()
    assert (path / ".nfs000000000012345678").exists()
    folder.close()


def test_an_unknown_entry_that_comes_later_ends_the_use_until_it_is_gone(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    """Hooks are told to use the socket: without a daemon that listens they leave nothing."""
    caplog.set_level(NOTICE)
    path = Path(folder.path)
    folder.pop_events()
    assert not is_closed(str(path), ".lab.open")
    put(path, "notes.txt")
    assert folder.pop_events() == []
    assert not folder.usable
    (line,) = caplog.messages
    assert "checked again every 60 s: it contains 'notes.txt'" in line
    assert is_closed(str(path), ".lab.open")
    folder.open(OWN)
    assert len(caplog.messages) == 1
    (path / "notes.txt").unlink()
    folder.open(OWN)
    put(path, "1..lab.1")
    assert ids(folder.pop_events()) == [1]
    assert not is_closed(str(path), ".lab.open")
    folder.pop_events()
    (line,) = caplog.messages[1:]
    assert line.startswith(f"prepEventsPath: the folder {path} is used again after ")


def test_hooks_leave_nothing_in_the_default_folder_while_it_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told so although no daemon has ever taken anything from it; in a folder of others nothing is made."""
    path, other = tmp_path / "events", tmp_path / "other"
    monkeypatch.setattr(spool, "DEFAULT_EVENTS_PATH", str(path))
    for place in (path, other):
        place.mkdir()
        put(place, "notes.txt")
        folder = Folder(place)
        assert not folder.usable
        folder.close()
    assert is_closed(str(path), ".lab.open")
    assert is_closed(str(path), "..open")
    assert [each.name for each in other.iterdir()] == ["notes.txt"]


def test_events_of_impossible_jobs_are_counted_and_removed(folder: Folder) -> None:
    """A hook that somebody calls by hand can leave them."""
    path = Path(folder.path)
    put(path, "0..lab.1", "9" * 20 + ".prolog_slurmctld.lab.1")
    assert folder.pop_events() == []
    assert [kind for kind, _ in folder.refused] == ["garbage"] * 2
    assert events_in(path) == []
    assert folder.usable


# Who else may use it


def test_the_mode_of_a_folder_that_is_there_is_left(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.mkdir(mode=0o700)
    folder = Folder(path)
    assert folder.usable
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    folder.close()


def test_a_folder_of_its_own_is_for_the_group_too(folder: Folder) -> None:
    assert stat.S_IMODE(os.stat(folder.path).st_mode) == 0o770


# How long hooks leave events


def test_hooks_leave_events_for_a_quarter_of_an_hour_after_the_daemon_ended(folder: Folder) -> None:
    path = Path(folder.path)
    folder.pop_events()
    for marker in (".lab.open", "..open"):
        assert (path / marker).stat().st_size == 0
        assert 14 * 60 < (path / marker).stat().st_mtime - time.time() < 16 * 60
        assert not is_closed(str(path), marker)


def test_the_mark_is_moved_every_minute(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = Path(folder.path) / ".lab.open"
    folder.pop_events()
    age(mark, 5)
    folder.pop_events()
    assert mark.stat().st_mtime < time.time()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    folder.pop_events()
    assert mark.stat().st_mtime > time.time()


@pytest.mark.parametrize("ahead", [-90_000, 90_000])
def test_the_mark_is_by_the_clock_that_dates_the_files(
    folder: Folder, ahead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a server may differ from this host's."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + ahead)
    folder.pop_events()
    assert 14 * 60 < (Path(folder.path) / ".lab.open").stat().st_mtime - now < 16 * 60


def test_a_clock_that_was_set_back_does_not_keep_the_folder_closed(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.mkdir()
    put(path, "1..lab.1")
    age(path, -90_000)
    folder = Folder(path)
    folder.pop_events()
    assert not is_closed(str(path), ".lab.open")
    folder.close()


def test_what_is_in_the_place_of_the_mark_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.mkdir()
    (tmp_path / "precious").write_text("kept")
    (path / ".lab.open").symlink_to(tmp_path / "precious")
    folder = Folder(path)
    assert not folder.usable
    (path / ".lab.open").unlink()
    (tmp_path / "empty").touch()
    age(tmp_path / "empty", 100)
    os.link(tmp_path / "empty", path / ".lab.open")
    folder.open(OWN)
    folder.pop_events()
    assert (tmp_path / "empty").stat().st_mtime < time.time() - 90
    assert "something else has its name" in folder.refused[-1][1]
    (path / ".lab.open").unlink()
    (path / ".lab.open").write_text("kept")
    before = (path / ".lab.open").stat().st_mtime_ns
    folder.open(OWN)
    folder.pop_events()
    assert (path / ".lab.open").read_text() == (tmp_path / "precious").read_text() == "kept"
    assert (path / ".lab.open").stat().st_mtime_ns == before
    folder.close()


# Other clusters


def test_events_of_other_clusters_are_removed_after_a_day(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(folder.path)
    put(path, "1..other.1", "2..other.1", "3..other.1")
    (path / "3..other.1").write_text("somebody's")
    age(path / "1..other.1", 90_000)
    age(path / "3..other.1", 90_000)
    folder.pop_events()
    assert events_in(path) == ["2..other.1", "3..other.1"]
    age(path / "2..other.1", 90_000)
    folder.pop_events()
    assert events_in(path) == ["2..other.1", "3..other.1"], "they are looked at for their age once an hour"
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3601)
    folder.pop_events()
    assert events_in(path) == ["3..other.1"]


def test_the_number_of_files_of_other_clusters_costs_nothing_at_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events"
    path.mkdir()
    put(path, *(f"{number}..other.1" for number in range(1, 2001)))
    folder = EventsFolder(Place(str(path)), "lab", lambda name: name == "lab", lambda *_: None)
    folder.open(OWN)
    while folder.next_scan <= time.monotonic():
        folder.pop_events()
    touched: list[object] = []
    lstat = os.lstat

    def listed(*_: object) -> None:
        raise AssertionError("the folder was listed")

    def noted(path: str) -> os.stat_result:
        touched.append(path)
        return lstat(path)

    monkeypatch.setattr(os, "scandir", listed)
    monkeypatch.setattr(os, "lstat", noted)
    for number in range(1, 6):
        put(path, f"{number}..lab.1", f"{number}..other.7")
        assert folder.read_watch()
        assert ids(folder.pop_events()) == [number]
        assert folder.next_scan > time.monotonic()
    assert [each for each in touched if ".other." in str(each)] == []
    folder.close()


def test_a_listing_that_takes_long_comes_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a hundredth of the time, whatever lies there."""
    now = 1000.0

    def clock() -> float:
        nonlocal now
        now += 0.05
        return now

    monkeypatch.setattr(time, "monotonic", clock)
    for seconds, least in ((10.0, 10.0), (0.2, 4.0)):
        folder = Folder(tmp_path / "events", timing=spool.Timing(watched_list=seconds))
        folder.pop_events()
        assert folder.next_scan - now >= least
        folder.close()


def test_more_names_than_the_watch_can_keep_lead_to_a_listing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    put(Path(folder.path), "1..lab.1", "2..lab.1")
    monkeypatch.setattr(inotify, "MAX_NAMES", 1)
    folder.pop_events()
    put(Path(folder.path), "3..lab.1", "4..lab.1")
    assert folder.read_watch()
    assert folder.next_scan <= time.monotonic()
    assert ids(EventsFolder.pop_events(folder)) == [3, 4]


# The folder of an older version


def test_the_folder_of_before_is_emptied_and_otherwise_left(tmp_path: Path) -> None:
    state = tmp_path / "state"
    path = state / "events"
    path.mkdir(parents=True)
    path.chmod(0o2770)
    put_before(path, 90, "1..lab.1")
    folder = Folder(path, (state,), former=True)
    put(path, "2..lab.1", "3..other.1")
    assert ids(folder.pop_events()) == [2]
    assert sorted(os.listdir(path)) == ["3..other.1"], "and there is no mark in it"
    assert stat.S_IMODE(path.stat().st_mode) == 0o2770
    folder.close()


def test_other_things_in_the_folder_of_before_are_left_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "notes.txt", "1..lab.1")
    folder = Folder(tmp_path, former=True)
    assert sorted(os.listdir(tmp_path)) == ["1..lab.1", "notes.txt"]
    assert not folder.usable
    (warning,) = caplog.messages
    assert "it contains 'notes.txt'" in warning
    assert "Only hooks of an older version leave events there" in warning


def test_the_folder_of_before_is_not_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Folder(tmp_path / "events", former=True)
    assert not folder.usable
    assert not (tmp_path / "events").exists()
    (tmp_path / "events").mkdir()
    folder.open(OWN)
    assert folder.usable
    assert caplog.messages == []
    (tmp_path / "events").rmdir()
    assert folder.pop_events() == []
    folder.open(OWN)
    assert folder.next_scan > time.monotonic()
    folder.close()


# Files that cannot be removed


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
    assert ids(folder.pop_events()) == [1]
    assert folder.pop_events() == []
    assert "cannot remove" in folder.refused[0][1]


def test_what_cannot_be_removed_is_removed_when_that_is_possible_again(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "events", timing=spool.Timing(retry=0.0))
    put(Path(folder.path), "1..lab.1", "2..lab.2")
    with pytest.MonkeyPatch.context() as patch:
        forbid(patch)
        assert ids(folder.pop_events()) == [1, 2]
    assert folder.pop_events() == []
    assert events_in(Path(folder.path)) == []
    put(Path(folder.path), "1..lab.1")
    assert ids(folder.pop_events()) == [1]
    folder.close()


def test_names_of_files_that_are_gone_are_forgotten(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(folder.path)
    put(path, "1..lab.1", "2..lab.2")
    with pytest.MonkeyPatch.context() as patch:
        forbid(patch)
        assert ids(folder.pop_events()) == [1, 2]
        os.rename(path / "1..lab.1", path.parent / "elsewhere")
        assert folder.pop_events() == []
        put(path, "1..lab.1")
        assert ids(folder.pop_events()) == [1]


def test_more_than_can_be_remembered_is_told(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "REMEMBERED_NAMES", 3)
    put(Path(folder.path), *(f"{number}..lab.1" for number in range(1, 8)))
    with pytest.MonkeyPatch.context() as patch:
        forbid(patch)
        assert len(folder.pop_events()) == 3
        folder.refused.clear()
        assert folder.pop_events() == []
    (line,) = [line for kind, line in folder.refused if kind == "full folder"]
    assert "4 more events are not read" in line
    assert len(folder.pop_events()) == 4


# What lies there when the daemon starts


def put_before(folder: Path, seconds: float, *names: str) -> None:
    put(folder, *names)
    before = time.time() - seconds
    for name in names:
        os.utime(folder / name, (before, before))


def test_events_of_the_time_before_are_removed_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spool, "BATCH", 10)
    caplog.set_level(logging.INFO)
    path = tmp_path / "events"
    path.mkdir()
    put_before(path, 90, *(f"{number}..lab.1" for number in range(1, 36)), "99..other.1")
    folder = Folder(path)
    put(path, "40..lab.1")
    taken = []
    looks = 0
    while not looks or folder._files._listing:
        taken += folder.pop_events()
        looks += 1
    assert ids(taken) == [40]
    assert looks == 4
    assert events_in(path) == ["99..other.1"]
    assert [record.getMessage() for record in caplog.records if "35 events" in record.getMessage()] != []

    put_before(path, 90, "41..lab.1")
    assert ids(folder.pop_events()) == [41], "clocks may differ, so this counts for the first look only"
    folder.close()


def test_old_events_that_cannot_be_removed_stay_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "REMEMBERED_NAMES", 2)
    path = tmp_path / "events"
    path.mkdir()
    put_before(path, 90, *(f"{number}..lab.1" for number in range(1, 8)))
    folder = Folder(path)
    forbid(monkeypatch)
    assert folder.pop_events() == []
    put(path, "9..lab.1")
    assert ids(folder.pop_events()) == [9]
    assert folder.pop_events() == []
    folder.close()


# Folders that the daemon cannot use as it should


def without_access(patch: pytest.MonkeyPatch, lacking: int) -> None:
    patch.setattr(os, "access", lambda path, mode, **how: not mode & lacking)


def test_folder_whose_files_cannot_be_removed_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without_access(monkeypatch, os.W_OK)
    folder = Folder(tmp_path / "events")
    put(Path(folder.path), "1..lab.1")
    forbid(monkeypatch)
    assert ids(folder.pop_events()) == [1]
    (warning,) = caplog.messages
    assert f"cannot remove the events that hooks leave in {folder.path}" in warning
    assert f"{folder.path}' and 'chmod 770 {folder.path}'" in warning
    assert "socket only" not in warning
    folder.close()


def test_folder_that_cannot_be_listed_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without_access(monkeypatch, os.R_OK)
    folder = Folder(tmp_path / "events")
    folder.open(OWN)
    assert not folder.usable
    (warning,) = caplog.messages
    assert "nobody reads the events that they leave" in warning
    assert "chgrp" in warning
    assert "socket only" not in warning


def test_folder_that_fails_although_it_may_be_read_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(tmp_path / "events")

    def exhausted(path: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", exhausted)
        for _ in range(3):
            assert folder.pop_events() == []
            assert not folder.usable
            folder.open(OWN)
    assert len(caplog.messages) == 1
    put(Path(folder.path), "1..lab.1")
    assert ids(folder.pop_events()) == [1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", exhausted)
        folder.pop_events()
    assert ["cannot use" in line for line in caplog.messages] == [True, False]  # and again after a minute
    folder.close()


def test_many_files_of_other_clusters_are_told(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MANY_FOREIGN", 3)
    put(Path(folder.path), "1..x.1", "2..x.1", "3..x.1")
    assert folder.pop_events() == []
    assert len(folder.refused) == 1
    assert "3 event files of other clusters" in folder.refused[0][1]
    assert len(events_in(Path(folder.path))) == 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(name=st.text(alphabet="0123456789.ab_-\n\u00e4\udc80", min_size=1, max_size=20))
def test_any_name_is_taken_or_left(tmp_path: Path, name: str) -> None:
    if name in (".", ".."):
        return
    path = tmp_path / "any"
    path.mkdir()
    put(path, name)
    folder = Folder(path)
    taken = folder.pop_events()
    event = parse_event_name(name)
    if event is not None and event.cluster in ("", "lab"):
        assert [message.job_id for message in taken] == [event.job_id]
        assert events_in(path) == []
    else:
        assert taken == []
        assert looks_like_event(name) or (path / name).exists()
    folder.close()
    shutil.rmtree(path)


def test_inotify_says_when_the_folder_is_gone(tmp_path: Path) -> None:
    watched = tmp_path / "w"
    watched.mkdir()
    watch = inotify.FolderWatch(str(watched))
    put(watched, "a" * 200)
    assert watch.drain() == (["a" * 200], True, True)
    assert watch.drain() == ([], True, True)
    (watched / ("a" * 200)).unlink()
    watched.rmdir()
    assert not watch.drain().is_alive
    watch.close()
    with pytest.raises(FileNotFoundError):
        inotify.FolderWatch(str(watched))
