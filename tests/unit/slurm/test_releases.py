"""The releases of Slurm's commands, as the recorded ones print them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.errors import CommandMissing, UnexpectedOutput
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.releases import read_release, series
from tests.fakes.programs import FakePrograms
from tests.recorded.fixture_files import FIXTURES, VERSIONS


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePrograms:
    made = FakePrograms(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}:/usr/bin:/bin")
    return made


@pytest.fixture
def commands() -> Iterator[Commands]:
    made = Commands()
    yield made
    made.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_each_release_is_read(version: str, programs: FakePrograms, commands: Commands) -> None:
    recorded = FIXTURES / f"slurm-{version}" / "cluster" / "sinfo-version.txt"
    programs.make("sinfo", f"cat {recorded}")
    assert read_release(commands, "sinfo") == version


def test_what_is_no_release_is_not_taken_for_one(programs: FakePrograms, commands: Commands) -> None:
    programs.make("sinfo", "echo something else")
    with pytest.raises(UnexpectedOutput, match="sinfo --version"):
        read_release(commands, "sinfo")
    with pytest.raises(CommandMissing, match="sdiag"):
        read_release(commands, "sdiag")


def test_series_are_in_order() -> None:
    assert series("24.11.5") == "24.11"
    assert series("24.11.0-0rc1") == "24.11"
    assert sorted(map(series, ["26.05.5", "22.05.8", "23.11.11"])) == ["22.05", "23.11", "26.05"]
