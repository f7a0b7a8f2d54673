"""The state file without a daemon: reading changes nothing, and what root does leaves nothing that is root's."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox.admin import QueueAdmin
from cc_slurm_adapter.outbox.offline import OfflineState, _why_not, open_to_change, open_to_read
from cc_slurm_adapter.outbox.outbox import Batch, Message, Outbox
from cc_slurm_adapter.outbox.schema import SCHEMA_VERSION
from cc_slurm_adapter.outbox.selection import Selection
from cc_slurm_adapter.sinks.base import CC_NATS, CC_REST, Encoded, Kind
from cc_slurm_adapter.system.owner import acting_as_owner
from tests.fakes.slurm_and_sinks import NOW

BOTH = {CC_REST: "", CC_NATS: CC_REST}
NOBODY = 65534
Open = Callable[[str], AbstractContextManager[OfflineState]]


def add_start(outbox: Outbox, job_id: int) -> None:
    message = Message((CC_REST,), RunKey("lab", job_id, NOW), Kind.START, Encoded(b"{}"))
    outbox.commit("lab", Batch(messages=[message]))


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(str(tmp_path / "state.sqlite"), BOTH)
    add_start(made, 1)
    yield made
    made.close()


@pytest.fixture
def path(tmp_path: Path, outbox: Outbox) -> str:
    """A file that was closed."""
    outbox.close()
    return str(tmp_path / "state.sqlite")


def content(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def jobs(path: str) -> list[int]:
    with open_to_read(path) as state:
        return [row.job_id for row in QueueAdmin(state, state.leaders()).list_rows(Selection()).rows]


def test_a_closed_file_is_read_and_nothing_is_made(tmp_path: Path, path: str) -> None:
    before = content(tmp_path)
    assert jobs(path) == [1]
    assert content(tmp_path) == before


def test_a_file_that_was_not_closed_is_read_with_its_log(tmp_path: Path, outbox: Outbox) -> None:
    add_start(outbox, 2)
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for each in list(tmp_path.glob("state.sqlite*")):
        shutil.copy(each, crashed)
    before = content(crashed)
    assert set(before) == {"state.sqlite", "state.sqlite-wal", "state.sqlite-shm"}
    assert jobs(str(crashed / "state.sqlite")) == [1, 2]
    assert content(crashed) == before
    (crashed / "state.sqlite-shm").unlink()
    with pytest.raises(StateError, match="start the daemon"):
        jobs(str(crashed / "state.sqlite"))
    assert not (crashed / "state.sqlite-shm").exists()


def test_the_file_of_a_running_daemon_is_read(tmp_path: Path, outbox: Outbox) -> None:
    assert jobs(str(tmp_path / "state.sqlite")) == [1]
    add_start(outbox, 2)
    assert jobs(str(tmp_path / "state.sqlite")) == [1, 2]


def test_a_log_without_content_is_none(tmp_path: Path, path: str) -> None:
    Path(f"{path}-wal").touch()
    assert jobs(path) == [1]
    assert {each.name for each in tmp_path.iterdir()} == {"state.sqlite", "state.sqlite-wal"}


def test_what_is_read_cannot_be_changed(path: str) -> None:
    with open_to_read(path) as state, pytest.raises(StateError):
        QueueAdmin(state, {}).drop(Selection())
    assert jobs(path) == [1]


@pytest.mark.parametrize("opened", [open_to_read, open_to_change])
def test_there_is_no_file(tmp_path: Path, opened: Open) -> None:
    with pytest.raises(StateError, match="there is no state file"), opened(str(tmp_path / "state.sqlite")):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("version", "says"),
    [(SCHEMA_VERSION - 1, "start the daemon once"), (SCHEMA_VERSION + 1, "use the version that"), (0, "nothing was")],
)
@pytest.mark.parametrize("opened", [open_to_read, open_to_change])
def test_another_format_is_left_as_it_is(
    tmp_path: Path,
    path: str,
    version: int,
    says: str,
    opened: Open,
) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {version}")
    before = content(tmp_path)
    with pytest.raises(StateError, match=says), opened(path):
        pass
    assert content(tmp_path) == before


@pytest.mark.parametrize("opened", [open_to_read, open_to_change])
def test_a_file_of_another_program_is_refused(tmp_path: Path, opened: Open) -> None:
    path = str(tmp_path / "state.sqlite")
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE theirs (x)")
    before = content(tmp_path)
    with pytest.raises(StateError, match="another program"), opened(path):
        pass
    assert content(tmp_path) == before


@pytest.mark.parametrize("opened", [open_to_read, open_to_change])
def test_a_damaged_file_is_not_set_aside(tmp_path: Path, path: str, opened: Open) -> None:
    text = bytearray(Path(path).read_bytes())
    text[100:3000] = b"\xff" * 2900
    Path(path).write_bytes(text)
    with pytest.raises(StateError, match="sets it aside"), opened(path) as state:
        QueueAdmin(state, {}).list_rows(Selection())
    assert Path(path).read_bytes() == bytes(text)
    assert [each.name for each in tmp_path.iterdir() if "damaged" in each.name] == []


def test_a_folder_is_no_state_file(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="not a file"), open_to_read(str(tmp_path)):
        pass


def test_the_file_is_changed_and_closed(tmp_path: Path, path: str) -> None:
    with open_to_change(path) as state:
        assert state.leaders() == {CC_NATS: CC_REST}
        assert QueueAdmin(state, state.leaders()).drop(Selection(job_id=1)).messages == 1
    assert jobs(path) == []
    assert [each.name for each in tmp_path.iterdir()] == ["state.sqlite"]


def test_a_change_that_fails_changes_nothing(path: str) -> None:
    def fail(database: sqlite3.Connection) -> None:
        database.execute("DELETE FROM delivery")
        raise ValueError

    with open_to_change(path) as state, pytest.raises(ValueError):
        state.write(fail)
    assert jobs(path) == [1]


@pytest.mark.parametrize(("used", "leaders"), [((CC_REST,), {}), ((CC_NATS,), {}), ((), {})])
def test_who_follows_whom_is_read_from_the_file(path: str, used: tuple[str, ...], leaders: dict[str, str]) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM used_sink")
        database.executemany("INSERT INTO used_sink VALUES (?)", [(sink,) for sink in used])
    with open_to_read(path) as state:
        assert state.leaders() == leaders


# --- as root


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def others(tmp_path: Path, outbox: Outbox) -> Iterator[str]:
    """A file of another user, as the daemon's is, that was not closed. All may enter its folder."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        for each in list(tmp_path.glob("state.sqlite*")):
            shutil.copy(each, folder)
        for each in [folder, *folder.iterdir()]:
            os.chown(each, NOBODY, NOBODY)
        yield str(folder / "state.sqlite")


def owners(folder: Path) -> set[int]:
    return {each.stat().st_uid for each in [folder, *folder.iterdir()]}


@as_root
def test_root_leaves_only_files_of_the_owner(others: str) -> None:
    folder = Path(others).parent
    with acting_as_owner(others), open_to_change(others) as state:
        assert os.geteuid() == NOBODY
        assert os.getegid() == NOBODY
        state.write(lambda database: database.execute("DELETE FROM delivery"))
        assert len(list(folder.iterdir())) == 3
        assert owners(folder) == {NOBODY}
        (folder / "made").touch()
    assert os.geteuid() == 0
    assert os.getegid() == os.getgid()
    assert owners(folder) == {NOBODY}


@as_root
def test_another_user_is_told_who_may(tmp_path: Path, others: str) -> None:
    os.chmod(others, 0o600)
    other = tmp_path / "of-another-user"
    other.touch()
    os.chown(other, NOBODY - 1, NOBODY - 1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(acting_as_owner(str(other)))
        stack.enter_context(pytest.raises(StateError, match="run this as root or as nobody"))
        stack.enter_context(open_to_read(others))


@pytest.mark.parametrize(
    ("owner", "is_read_only", "expected"),
    [
        ("nobody", False, "belongs to nobody: run this as root or as nobody"),
        ("root", False, "belongs to root: run this as root"),
        ("root", True, "is on a read-only file system: make it writable"),
    ],
)
def test_why_a_file_may_not_be_used(owner: str, is_read_only: bool, expected: str) -> None:
    assert _why_not(owner, is_read_only=is_read_only) == expected


def test_a_read_only_file_system_is_named(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For root, nothing but that forbids a change."""
    found = os.statvfs(path)

    def read_only(_: str) -> os.statvfs_result:
        return os.statvfs_result((*tuple(found)[:8], found.f_flag | os.ST_RDONLY, found.f_namemax))

    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(os, "statvfs", read_only)
    with pytest.raises(StateError, match=f"{path} is on a read-only file system"), open_to_change(path):
        pass


@as_root
def test_a_folder_that_may_not_be_entered_is_told_from_a_missing_file(tmp_path: Path, others: str) -> None:
    missing = Path(others).parent / "missing"
    with pytest.raises(StateError, match=r"there is no state file .*no daemon"), open_to_read(str(missing)):
        pass
    Path(others).parent.chmod(0o700)
    other = tmp_path / "of-another-user"
    other.touch()
    os.chown(other, NOBODY - 1, NOBODY - 1)
    with (
        acting_as_owner(str(other)),
        pytest.raises(StateError, match="may not be entered: run this as root"),
        open_to_read(str(missing)),
    ):
        pass


@as_root
def test_a_missing_file_changes_nobody(tmp_path: Path) -> None:
    with acting_as_owner(str(tmp_path / "missing")):
        assert os.geteuid() == 0


def test_after_a_change_the_next_start_still_knows_that_the_daemon_was_killed(path: str) -> None:
    Path(f"{path}-wal").touch()  # as after an unclean end
    with open_to_change(path) as state:
        QueueAdmin(state, state.leaders()).retry(Selection())
    assert os.path.exists(f"{path}-wal")
    assert jobs(path) == [1]


def test_after_a_clean_end_a_change_leaves_nothing_beside_the_file(path: str) -> None:
    with open_to_change(path) as state:
        QueueAdmin(state, state.leaders()).retry(Selection())
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
