"""Programs that tests need: named, in PATH, kept or fetched; and one clear line where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.debian_program import Program
from tests.fakes.programs import FakePrograms
from tests.nats.server_program import NATS_SERVER
from tests.prometheus.programs import PROMETHEUS, PROMTOOL

NAMED_BY = "CC_SLURM_ADAPTER_THING"
STARTS = "echo 'thing, version 2'"
DPKG_DEB = f"""
mkdir -p "$3/usr/bin"
for name in thing thingtool; do printf '#!/bin/sh\\n%s\\n' "{STARTS}" > "$3/usr/bin/$name"; done
chmod 755 "$3/usr/bin/thing" "$3/usr/bin/thingtool"
"""


@pytest.fixture
def thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A program of a package `things`, on a machine that has no other programs than the test makes."""
    monkeypatch.delenv(NAMED_BY, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return Program("thing", "things", NAMED_BY, "thing, version ", tmp_path / "kept", beside_path=())


@pytest.fixture
def programs(tmp_path: Path) -> FakePrograms:
    return FakePrograms(tmp_path / "bin")


def why_not(program: Program) -> str:
    problems: list[str] = []
    assert program.find(problems) is None
    (problem,) = problems
    return problem


def test_named_program(thing: Program, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.make("another-name", STARTS)
    named = programs.folder / "another-name"
    monkeypatch.setenv(NAMED_BY, str(named))
    assert thing.find() == named


def test_named_program_that_is_another(thing: Program, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.make("thing", "echo 'something else, version 2'")
    for path in (programs.folder / "thing", programs.folder / "missing"):
        monkeypatch.setenv(NAMED_BY, str(path))
        assert why_not(thing) == f"{NAMED_BY}={path} is no thing that starts"


def test_none_is_said_by_the_variable(thing: Program, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.make("thing", STARTS)
    monkeypatch.setenv(NAMED_BY, "none")
    assert why_not(thing) == f"{NAMED_BY} says none"


def test_program_in_path_and_beside_it(thing: Program, programs: FakePrograms, tmp_path: Path) -> None:
    beside = FakePrograms(tmp_path / "sbin")
    beside.make("thing", STARTS)
    assert thing._replace(beside_path=(str(beside.folder),)).find() == beside.folder / "thing"
    programs.make("thing", STARTS)
    assert thing._replace(beside_path=(str(beside.folder),)).find() == programs.folder / "thing"


def test_package_is_fetched_once_for_all_its_programs(
    thing: Program, programs: FakePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{programs.folder}:/usr/bin:/bin")
    programs.make("apt-get", 'echo "$*" >> "$0.calls"; : > things_1_all.deb')
    programs.make("dpkg-deb", DPKG_DEB)
    assert thing.find() == tmp_path / "kept/thing"
    assert thing._replace(name="thingtool").find() == tmp_path / "kept/thingtool"
    assert thing.find() == tmp_path / "kept/thing"
    assert (programs.folder / "apt-get.calls").read_text() == "-q download things\n"


def test_machine_without_apt(thing: Program) -> None:
    assert why_not(thing) == (
        f"no things in PATH and no apt-get to fetch one: install things, or name thing in {NAMED_BY}"
    )


def test_apt_that_cannot_fetch(thing: Program, programs: FakePrograms) -> None:
    programs.make("apt-get", "echo 'E: no way' >&2; exit 100")
    programs.make("dpkg-deb", "exit 1")
    assert why_not(thing) == (
        f"fetching things: apt-get exited 100: E: no way: install things, or name thing in {NAMED_BY}"
    )


def test_program_that_does_not_start_here_is_not_kept(
    thing: Program, programs: FakePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{programs.folder}:/usr/bin:/bin")
    programs.make("apt-get", ": > things_1_all.deb")
    programs.make("dpkg-deb", DPKG_DEB.replace(STARTS, "exit 127"))
    assert why_not(thing) == "the thing of Debian's package does not start here: install things"
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["lock"]


@pytest.mark.parametrize("program", [NATS_SERVER, PROMTOOL, PROMETHEUS], ids=lambda program: program.name)
def test_offline_machine_is_told_what_to_install(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(program.named_by, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    elsewhere = program._replace(kept_in=tmp_path / "kept", beside_path=())
    assert f"install {program.package}, or name {program.name} in {program.named_by}" in why_not(elsewhere)
