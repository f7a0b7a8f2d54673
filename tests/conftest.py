"""What several tests need: Slurm commands that say what a test wants, something that starts them, and a quick run."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.slurm.parse import left_out
from tests.fakes.programs import CountedCommands, FakePrograms

MEMORY = Path("/dev/shm")
ROOM = 2 << 30
"""Bytes that must be free there: a run of all unit tests has less than 200 MB at any time."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shard", metavar="N/COUNT", default="1/1", help="only each COUNT-th test file, from the N-th on")
    parser.addoption("--in-memory", action="store_true", help="put the folders of tests into memory where it has room")


def pytest_configure(config: pytest.Config) -> None:
    """Puts `tmp_path` into memory if that is wanted: what fsync costs is nothing that unit tests look for.

    It is a third of their time. Where somebody has chosen a place, or memory has no room, it stays on disk.
    """
    is_chosen = {"TMPDIR", "PYTEST_DEBUG_TEMPROOT"} & set(os.environ)
    if config.getoption("--in-memory") and not is_chosen and has_room(MEMORY):
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY)


def has_room(folder: Path) -> bool:
    """Whether a folder takes the files of a run, and programs may run there."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize >= ROOM and not status.f_flag & os.ST_NOEXEC and os.access(folder, os.W_OK)


def pytest_collection(session: pytest.Session) -> None:
    """Collects nothing of what is only made, and stays, while tests are collected."""
    gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leaves 18,000 tests, which stay to the end, out of every garbage collection that follows."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps this process's share of the test files, dealt in their order: neighbours take about the same time."""
    number, count = map(int, config.getoption("--shard").split("/"))
    files = {path: index for index, path in enumerate(sorted({item.path for item in items}))}
    items[:] = [item for item in items if files[item.path] % count == number - 1]


@pytest.fixture
def commands() -> Iterator[CountedCommands]:
    made = CountedCommands()
    yield made
    made.close()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePrograms:
    """A folder of programs that comes first in PATH."""
    made = FakePrograms(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    return made


@pytest.fixture(autouse=True)
def _no_line_was_left_out() -> None:
    """Lets each test see the first line about output that cannot be understood: later ones are logged less often."""
    left_out.forget()
