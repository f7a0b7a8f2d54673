"""mandoc and zsh: named, in PATH or kept; and one clear line where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.debian_package import NoPackage
from tests.fakes.programs import FakePrograms
from tests.project import other_programs
from tests.project.other_programs import Zsh, find, find_zsh, main


@pytest.fixture(autouse=True)
def _nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no other programs than the test makes."""
    for name in ("ZSH", "MANDOC"):
        monkeypatch.delenv(f"CC_SLURM_ADAPTER_{name}", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(other_programs, "KEPT_IN", tmp_path / "kept")


def test_the_machine_s_own_zsh_knows_its_functions(programs: FakePrograms) -> None:
    programs.make("zsh", "exit 0")
    assert find_zsh() == Zsh(programs.folder / "zsh")


def test_the_one_that_is_named(programs: FakePrograms, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.make("zsh", "exit 0")
    programs.make("another", "exit 0")
    monkeypatch.setenv("CC_SLURM_ADAPTER_ZSH", str(programs.folder / "another"))
    assert find("zsh") == programs.folder / "another"


def test_one_that_is_named_and_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC_SLURM_ADAPTER_ZSH", str(tmp_path / "missing"))
    with pytest.raises(NoPackage, match=r"CC_SLURM_ADAPTER_ZSH=.*/missing is no zsh that starts"):
        find("zsh")


def test_none_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CC_SLURM_ADAPTER_ZSH", "none")
    assert main("zsh") == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "CC_SLURM_ADAPTER_ZSH says none: install zsh, or name it in CC_SLURM_ADAPTER_ZSH"


def test_one_that_is_kept_comes_with_modules_and_functions(tmp_path: Path) -> None:
    kept = tmp_path / "kept" / "zsh"
    modules, functions = kept / "zsh/usr/lib/x/zsh/5.9", kept / "zsh-common/usr/share/zsh/functions/Completion"
    for folder in (kept / "zsh/bin", modules, functions):
        folder.mkdir(parents=True)
    (kept / "zsh/bin/zsh").touch()
    assert find_zsh() == Zsh(kept / "zsh/bin/zsh", (modules,), (functions,))


def test_without_apt_there_is_none() -> None:
    with pytest.raises(NoPackage, match="no apt-get"):
        find("mandoc")
