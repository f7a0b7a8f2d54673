"""Which Slurm a chroot may have: the tests go on with a newer one than they know, and not with an older one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.debian import NOTE, SUITES, judge_version, note_version
from tests.lab.namespaces import LabError


@pytest.mark.parametrize(("release", "version"), [("22.05", "22.05.8-4+deb12u3"), ("26.05", "26.05.5-1")])
def test_nothing_is_said_of_the_release_that_is_expected(release: str, version: str) -> None:
    assert judge_version(SUITES[release], version) == ""


@pytest.mark.parametrize("version", ["26.11.0-1", "26.11.3+dfsg-2", "27.05.1-1"])
def test_a_newer_release_is_told_in_one_line(version: str) -> None:
    note = judge_version(SUITES["26.05"], version)
    assert note.startswith(f"NOTE Debian sid has moved on to Slurm {version}:")
    assert "\n" not in note


@pytest.mark.parametrize("version", ["25.11.7-1", "24.11.5-4", "2.6.1-1", "", "unknown"])
def test_an_older_release_or_none_is_an_error(version: str) -> None:
    with pytest.raises(LabError, match=r"older than 26\.05"):
        judge_version(SUITES["26.05"], version)


def test_release_is_found_in_a_chroot(tmp_path: Path) -> None:
    packages = tmp_path / "var/lib/dpkg/status"
    packages.parent.mkdir(parents=True)
    others = ["Package: slurm-client\nVersion: 22.05.8-4\n", "Package: zlib1g\nVersion: 1:1.3-1\n"]
    own = "Package: slurmctld\nStatus: install ok installed\nDepends: libc6,\n munge\nVersion: 26.11.0-1\n"
    packages.write_text("\n".join([others[0], own, others[1]]))
    note_version(SUITES["26.05"], tmp_path)
    assert "has moved on to Slurm 26.11.0-1:" in (tmp_path / NOTE).read_text()
    packages.write_text("\n".join(others))
    with pytest.raises(LabError, match=r"has Slurm \(none\), which is older"):
        note_version(SUITES["26.05"], tmp_path)
