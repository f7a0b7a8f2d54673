"""What several tests need: Slurm commands that say what a test wants, and something that starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.programs import CountedCommands, FakePrograms


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
