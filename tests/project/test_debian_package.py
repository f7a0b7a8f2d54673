"""Packages that the tests fetch: by one at a time, and never by way of what belongs to the machine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.debian_package import NoPackage, keep_package
from tests.fakes.programs import FakePrograms

APT_GET = """
echo "$*" >> "$0.calls"
sleep 0.1
case "$*" in
    *lists=*update) exit 0 ;;
    *update) echo "E: Could not get lock /var/lib/apt/lists/lock" >&2; exit 100 ;;
    *download*lists=*) : > thing_1_all.deb ;;
    *) echo "E: Unable to locate package thing" >&2; exit 100 ;;
esac
"""
"""As on a machine whose package lists are old and are being renewed by another program."""

DPKG_DEB = 'mkdir -p "$3/usr"; : > "$3/usr/thing"'


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePrograms:
    programs = FakePrograms(tmp_path / "bin")
    programs.make("apt-get", APT_GET)
    programs.make("dpkg-deb", DPKG_DEB)
    monkeypatch.setenv("PATH", f"{programs.folder}:/usr/bin:/bin")
    return programs


def test_several_at_once_fetch_it_once(programs: FakePrograms, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    there = kept / "thing"

    def keep(files: Path) -> None:
        (files / "usr/thing").replace(there)

    def want(_number: int) -> None:
        keep_package("thing", kept, there.exists, keep)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(want, range(3)))
    assert there.exists()
    first, update, second = (programs.folder / "apt-get.calls").read_text().splitlines()
    assert first == "-q download thing"
    assert f"Dir::State::lists={kept}" in update
    assert f"Dir::State::lists={kept}" in second
    assert sorted(path.name for path in kept.iterdir()) == ["lock", "thing"]


def test_failure_says_what_was_done_and_leaves_nothing(programs: FakePrograms, tmp_path: Path) -> None:
    programs.make("dpkg-deb", "echo 'dpkg-deb: error: no space left' >&2; exit 2")
    kept = tmp_path / "kept"
    with pytest.raises(NoPackage, match="fetching thing: dpkg-deb exited 2: dpkg-deb: error: no space left"):
        keep_package("thing", kept, lambda: False, lambda files: pytest.fail(f"{files} is no package"))
    assert [path.name for path in kept.iterdir()] == ["lock"]
