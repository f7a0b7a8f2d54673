"""What -install prints when the file that runs is that of the .deb or the .rpm."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

import build
from cc_slurm_adapter.cli import install_host
from cc_slurm_adapter.cli.examples import TEMPLATE, TMPFILES, UNIT, packaged, read_example
from cc_slurm_adapter.cli.install_host import (
    OF_PACKAGE,
    PLACES,
    FileState,
    Places,
    places_of,
    site_places,
    tmpfiles_for,
)
from cc_slurm_adapter.cli.install_script import make_script
from cc_slurm_adapter.daemon.checks.unit import Unit
from packages.contents import DEB, RPM, make_package
from tests.fakes.hosts import bare_host
from tests.packages.conftest import write_stand_in

PROGRAM = "/usr/sbin/cc-slurm-adapter"


def script(**changes: object) -> Sequence[str]:
    """The lines for a host on which the package was just installed."""
    loaded = Unit("cc-slurm-adapter.service", properties={"LoadState": ["loaded"], "User": ["cc-slurm-adapter"]})
    return make_script(
        bare_host(
            **{
                "program": PROGRAM,
                "places": OF_PACKAGE,
                "program_state": FileState.SAME,
                "has_user": True,
                "unit": loaded,
                "unit_state": FileState.SAME,
                "tmpfiles_state": FileState.SAME,
                **changes,
            }
        )
    )


def test_the_places_are_those_of_the_file_that_runs(tmp_path: Path) -> None:
    assert places_of(PROGRAM) == OF_PACKAGE
    for other in ("/usr/local/sbin/cc-slurm-adapter", str(tmp_path / "cc-slurm-adapter"), ""):
        assert places_of(other) == PLACES
    link = tmp_path / "link"
    link.symlink_to(PROGRAM)
    assert places_of(str(link)) == OF_PACKAGE


@pytest.mark.parametrize("kind", [DEB, RPM])
def test_the_packages_install_what_is_compared(kind: str, tmp_path: Path) -> None:
    write_stand_in(tmp_path)
    installed = {each.path: each.content for each in make_package(kind, tmp_path / "cc-slurm-adapter", {}).entries}
    assert PROGRAM in installed
    assert installed[OF_PACKAGE.unit] == OF_PACKAGE.fit(read_example(UNIT)).encode()
    template = Unit("cc-slurm-adapter@alpha.service")
    assert installed[OF_PACKAGE.of_unit(template).unit] == OF_PACKAGE.fit(read_example(TEMPLATE)).encode()
    assert installed[OF_PACKAGE.tmpfiles] == tmpfiles_for(OF_PACKAGE, "cc-slurm-adapter", "slurm").encode()


def test_the_file_the_user_and_the_unit_are_done_and_the_hooks_name_the_package_s_file() -> None:
    lines = script()
    assert f"# 1. file: {PROGRAM} is this file" in lines
    assert f"# 4. unit: {OF_PACKAGE.unit} is that of this version" in lines
    assert f"PrologSlurmctld={PROGRAM}" in lines
    assert f"EpilogSlurmctld={PROGRAM}" in lines
    assert [line for line in lines if "/usr/local/" in line or re.search(r"useradd|install .*\.service", line)] == []


def test_a_unit_in_etc_that_differs_is_compared_with_that_of_the_package() -> None:
    shadow = "/etc/systemd/system/cc-slurm-adapter.service"
    loaded = Unit("cc-slurm-adapter.service", properties={"LoadState": ["loaded"], "FragmentPath": [shadow]})
    lines = script(unit=loaded, unit_state=FileState.OTHER)
    assert any(line.startswith(f"# 4. unit: {shadow} is there and differs") for line in lines)
    assert f"ExecStart={PROGRAM} -daemon -config /etc/cc-slurm-adapter/config.json -debug 2" in lines


def test_what_a_site_has_otherwise_is_written_to_etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never into the package's own file, which the next upgrade replaces."""
    mine = tmp_path / "mine.conf"
    monkeypatch.setattr(install_host, "PLACES", Places(tmpfiles=str(mine)))
    assert site_places(OF_PACKAGE, "cc-slurm-adapter", "slurm") == OF_PACKAGE
    other = site_places(OF_PACKAGE, "cc-slurm-adapter", "hpc")
    assert (other.tmpfiles, other.unit) == (str(mine), OF_PACKAGE.unit)
    assert tmpfiles_for(other, "cc-slurm-adapter", "hpc") == read_example(TMPFILES).replace("r slurm ", "r hpc ")
    mine.touch()
    assert site_places(OF_PACKAGE, "cc-slurm-adapter", "slurm").tmpfiles == str(mine)
    assert site_places(PLACES, "cc-slurm-adapter", "hpc") == PLACES


def test_what_a_site_adds_is_in_etc() -> None:
    assert OF_PACKAGE.drop_in == PLACES.drop_in == "/etc/systemd/system/cc-slurm-adapter.service.d/site.conf"
    assert OF_PACKAGE.boot == PLACES.boot == "/etc/tmpfiles.d/cc-slurm-adapter-site.conf"


def test_examples_are_changed_in_nothing_but_the_places() -> None:
    for path in (build.ROOT / "examples").glob("cc-slurm-adapter*"):
        text = path.read_text(encoding="utf-8")
        changed = packaged(text)
        assert len(changed.splitlines()) == len(text.splitlines())
        differing = [pair for pair in zip(text.splitlines(), changed.splitlines()) if pair[0] != pair[1]]
        assert differing
        assert [
            old for old, _ in differing if "/usr/local/sbin/cc-slurm-adapter" not in old and old[:6] != "# /etc"
        ] == []
