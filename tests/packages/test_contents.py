"""What is in the packages: the same files in both, as this table says, and the same bytes from the same sources."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import build
from packages.__main__ import main, make_packages
from packages.contents import NAME, Problem, day_of
from tests.packages.conftest import write_stand_in
from tests.packages.reading import Rpm, need_root, read_ar, read_deb, read_tar
from tests.project.test_documents import blocks, code, rows, section

PAPERS = f"/usr/share/doc/{NAME}"
SYSTEM = {
    f"/usr/sbin/{NAME}": 0o755,
    f"/usr/lib/systemd/system/{NAME}.service": 0o644,
    f"/usr/lib/systemd/system/{NAME}@.service": 0o644,
    f"/usr/lib/sysusers.d/{NAME}.conf": 0o644,
    f"/usr/lib/tmpfiles.d/{NAME}.conf": 0o644,
    f"/usr/share/man/man5/{NAME}.5.gz": 0o644,
    f"/usr/share/man/man8/{NAME}.8.gz": 0o644,
    f"/usr/share/bash-completion/completions/{NAME}": 0o644,
}
"""The files outside of the documents that both formats have, with their modes."""
ONLY_IN_DEB = {f"/usr/share/zsh/vendor-completions/_{NAME}", f"{PAPERS}/copyright"}
ONLY_IN_RPM = {f"/usr/share/zsh/site-functions/_{NAME}", f"/usr/share/licenses/{NAME}/LICENSE"}
TEXTS = {
    *("README.md", "CHANGELOG.md", "SECURITY.md", f"{NAME}.cdx.json", "docs/architecture.svg"),
    *(f"docs/{path.name}" for path in (build.ROOT / "docs").glob("*.md")),
    *(f"examples/config.{kind}.json" for kind in ("minimal", "full", "cluster")),
    *("examples/slurm.conf.hooks", "examples/nats_consumer.py", "examples/grafana/dashboard.json"),
    *("examples/prometheus/alerts.yml", "examples/prometheus/alerts_test.yml"),
}
FOLDERS = ("docs", "examples", "examples/grafana", "examples/prometheus")


def test_the_deb_has_these_files_with_these_modes_and_all_are_roots(made: tuple[Path, Path]) -> None:
    found = read_deb(made[0])
    files = {path: each.mode for path, each in found.items() if each.content is not None}
    papers = {f"{PAPERS}/{name}" for name in TEXTS}
    assert files == {
        path: mode | stat.S_IFREG for path, mode in {**SYSTEM, **dict.fromkeys({*papers, *ONLY_IN_DEB}, 0o644)}.items()
    }
    folders = {path: each.mode for path, each in found.items() if each.content is None}
    own = [f"/etc/{NAME}", PAPERS, *(f"{PAPERS}/{name}" for name in FOLDERS)]
    assert folders == dict.fromkeys(own, 0o755 | stat.S_IFDIR)
    assert {(each.owner, each.group) for each in found.values()} == {("root", "root")}


def test_nothing_is_put_into_the_administrators_folder(made: tuple[Path, Path]) -> None:
    assert [path for path in read_deb(made[0]) if path.startswith(("/etc/", "/run/", "/var/"))] == [f"/etc/{NAME}"]
    assert "conffiles" not in str(sorted(read_tar(read_ar(made[0])["control.tar.gz"])))


def test_the_units_and_the_hooks_name_the_file_of_the_package(made: tuple[Path, Path]) -> None:
    found = read_deb(made[0])
    for path in (*SYSTEM, f"{PAPERS}/examples/slurm.conf.hooks"):
        content = found[path].content
        assert content is not None
        if path.endswith((".service", ".hooks")):
            assert f"/usr/sbin/{NAME}".encode() in content
        assert b"/usr/local/sbin/cc" not in content
        first = content.partition(b"\n")[0]
        if path.startswith("/usr/lib/"):
            assert re.match(rf"# {re.escape(path)}\b".encode(), first)


def test_the_manual_can_be_unpacked(made: tuple[Path, Path]) -> None:
    found = read_deb(made[0])
    for chapter in (5, 8):
        page = found[f"/usr/share/man/man{chapter}/{NAME}.{chapter}.gz"].content
        assert page is not None
        assert gzip.decompress(page).decode().splitlines()[-1] != ""
        assert b".TH " in gzip.decompress(page)


def test_all_licences_are_there_in_full(made: tuple[Path, Path]) -> None:
    text = read_deb(made[0])[f"{PAPERS}/copyright"].content
    assert text is not None
    for part in (b"MIT License of this program", b"Apache License of nats-py", b"MIT License of six"):
        assert text.count(part) == 1
    assert b"nats-py 2.16.0 (Apache-2.0)" in text


def test_the_document_names_what_is_there(made: tuple[Path, Path]) -> None:
    text = (build.ROOT / "docs/packages.md").read_text(encoding="utf-8")
    installed = {*read_deb(made[0]), *ONLY_IN_RPM}
    named = [path for row in rows(section(text, "What is installed where")) for path in code(row[0]) if path[0] == "/"]
    assert len(named) > 8
    assert [path for path in named if not any(each == path or each.startswith(f"{path}/") for each in installed)] == []
    hooks = read_deb(made[0])[f"{PAPERS}/examples/slurm.conf.hooks"].content
    assert hooks is not None
    active = [line for line in hooks.decode().splitlines() if line and not line.startswith("#")]
    assert "\n".join(active) + "\n" in blocks(text, "")


# --- as dpkg sees it


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg-deb on this machine")
def test_dpkg_reads_it_and_unpacks_what_is_listed(made: tuple[Path, Path], tmp_path: Path) -> None:
    fields = dpkg_deb("--field", made[0])
    assert {line.split(":")[0] for line in fields.splitlines() if line[0] != " "} >= {
        "Package",
        "Maintainer",
        "Section",
    }
    for line in (
        f"Package: {NAME}",
        "Version: 1.2.3",
        "Architecture: all",
        "Depends: python3 (>= 3.9)",
        "Suggests: systemd, slurm-client",
    ):
        assert line in fields.splitlines()
    dpkg_deb("--extract", made[0], tmp_path)
    unpacked = {f"/{path.relative_to(tmp_path)}" for path in tmp_path.rglob("*") if path.is_file()}
    assert unpacked == {path for path, each in read_deb(made[0]).items() if each.content is not None}


@pytest.mark.skipif(not shutil.which("md5sum"), reason="no md5sum on this machine")
@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg-deb on this machine")
def test_its_sums_are_those_of_its_files(made: tuple[Path, Path], tmp_path: Path) -> None:
    """`dpkg --verify` compares with them."""
    dpkg_deb("--raw-extract", made[0], tmp_path)
    command = ["md5sum", "--check", "--strict", "--quiet", "DEBIAN/md5sums"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "DEBIAN"]
    assert len((tmp_path / "DEBIAN/md5sums").read_text().splitlines()) == len(files)


def dpkg_deb(*arguments: object) -> str:
    command = ["dpkg-deb", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


# --- as rpm sees it


def test_rpm_finds_all_digests_right_and_a_changed_byte(made: tuple[Path, Path], rpm: Rpm, tmp_path: Path) -> None:
    said = rpm.output("-K", "-v", made[1], name="rpmkeys")
    digests = [line.strip() for line in said.splitlines()[1:]]
    assert {"Header SHA256 digest: OK", "Payload SHA256 digest: OK", "MD5 digest: OK"} <= set(digests)
    assert [line for line in digests if not line.endswith(": OK")] == []
    content = bytearray(made[1].read_bytes())
    for at in (len(content) // 2, content.index(b"root\0root\0")):
        changed = tmp_path / "changed.rpm"
        changed.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert rpm.run("-K", changed, name="rpmkeys").returncode != 0


def test_rpm_says_what_it_needs(made: tuple[Path, Path], rpm: Rpm) -> None:
    question = "%{NAME} %{VERSION} %{RELEASE} %{ARCH} %{OS} %{LICENSE}"
    assert rpm.output("-qp", "--qf", question, made[1]) == f"{NAME} 1.2.3 1 noarch linux MIT AND Apache-2.0"
    needed = rpm.output("-qp", "--requires", made[1]).splitlines()
    assert "/bin/sh" in needed
    (python,) = [each for each in needed if "python" in each]
    assert python.strip("()").split(" or ")[0] == "python3 >= 3.9"
    assert rpm.output("-qp", "--provides", made[1]) == f"{NAME} = 1.2.3-1\n"
    assert rpm.output("-qp", "--recommends", made[1]) == ""
    assert set(rpm.output("-qp", "--licensefiles", made[1]).splitlines()) >= {f"/usr/share/licenses/{NAME}/LICENSE"}
    assert f"{PAPERS}/README.md" in rpm.output("-qp", "--docfiles", made[1]).splitlines()


def test_what_rpm_needs_it_says_where_it_is_missing(made: tuple[Path, Path], rpm: Rpm, tmp_path: Path) -> None:
    need_root()
    done = rpm.run("--root", tmp_path, "--dbpath", "/var/lib/rpm", "-i", "--test", made[1])
    assert done.returncode != 0
    assert "python3 >= 3.9" in done.stderr
    assert "rpmlib" not in done.stderr


def test_rpm_installs_the_same_files_with_the_same_modes_as_dpkg(
    made: tuple[Path, Path], rpm: Rpm, tmp_path: Path
) -> None:
    need_root()
    installed = rpm.install(made[1], tmp_path)
    own = set(rpm.output("-qpl", made[1]).splitlines())
    assert own <= set(installed)
    assert [path for path, each in installed.items() if each.content is not None and path not in own] == []
    expected = read_deb(made[0])
    common = {path: installed[path] for path in own - ONLY_IN_RPM - {f"/usr/share/licenses/{NAME}"}}
    assert common == {path: each for path, each in expected.items() if path not in {*ONLY_IN_DEB, f"/etc/{NAME}"}}
    for of_rpm, of_deb in zip(sorted(ONLY_IN_RPM), sorted(ONLY_IN_DEB)):
        assert installed[of_rpm] == expected[of_deb]
    assert {(each.owner, each.group) for each in installed.values()} == {("root", "root")}


def test_rpm_lists_the_files_as_they_are(made: tuple[Path, Path], rpm: Rpm) -> None:
    """path size mtime digest mode owner group isconfig isdoc rdev symlink"""
    lines = [line.split() for line in rpm.output("-qp", "--dump", made[1]).splitlines()]
    files = {line[0]: line for line in lines if line[4].startswith("01")}
    for path, mode in SYSTEM.items():
        assert files[path][4:8] == [f"0100{mode:o}", "root", "root", "0"]
    assert {line[7] for line in lines} == {"0"}
    assert {line[2] for line in lines} == {str(day_of("1.2.3", ""))}
    assert [line for line in lines if line[0] == f"/etc/{NAME}"] == []  # rpm would set its mode at each upgrade


# --- always the same bytes


def test_the_same_sources_give_the_same_bytes_anywhere(made: tuple[Path, Path], tmp_path: Path) -> None:
    """Another folder, umask, time zone, user name and order of files, and other modes and times of the sources."""
    copy = tmp_path / "another place"
    copy.mkdir()
    for name in ("README.md", "CHANGELOG.md", "SECURITY.md"):
        shutil.copyfile(build.ROOT / name, copy / name)
    for name in ("packages", "docs", "cc_slurm_adapter"):
        shutil.copytree(build.ROOT / name, copy / name, copy_function=shutil.copyfile)
    shutil.copytree(build.ROOT / "examples", copy / "examples", ignore=shutil.ignore_patterns("practice"))
    for path in copy.rglob("*.md"):
        path.chmod(0o600)
    target = tmp_path / "target"
    target.mkdir()
    write_stand_in(target)
    settings = {**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C", "USER": "somebody", "PYTHONHASHSEED": "7"}
    command = ["/bin/sh", "-c", 'umask 077; exec "$@"', "sh", sys.executable, "-m", "packages", str(target)]
    done = subprocess.run(command, cwd=copy, env=settings, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for path in made:
        assert (target / path.name).read_bytes() == path.read_bytes()


def test_nothing_in_them_says_where_and_by_whom_they_were_made(made: tuple[Path, Path], rpm: Rpm) -> None:
    for path in made:
        assert str(build.ROOT).encode() not in path.read_bytes()
        assert os.uname().nodename.encode() + b"\0" not in path.read_bytes()
    assert rpm.output("-qp", "--qf", "%{BUILDHOST} %{BUILDTIME}", made[1]) == f"localhost {day_of('1.2.3', '')}"


def test_the_time_of_the_files_is_the_day_of_the_version() -> None:
    """In Unix seconds, at midnight in Greenwich: 20,808 days after 1970 is 2026-12-21."""
    changelog = "# Changes\n\n## 0.2.0 (unreleased)\n\n## 0.1.1 - 2026-12-21\n\n## 0.1.0 - 2026-11-30\n"
    assert day_of("0.1.1", changelog) == 20808 * 86400
    assert day_of("0.1.0", changelog) == (20808 - 21) * 86400
    assert day_of("0.2.0", changelog) < day_of("0.1.0", changelog)


def test_a_version_that_the_formats_do_not_compare_alike_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stand_in(tmp_path, "1.2rc1")
    with pytest.raises(Problem, match=r"1\.2rc1"):
        make_packages(tmp_path)
    assert main([str(tmp_path)]) == 1
    assert "write it as 1.2.3" in capsys.readouterr().err


def test_without_a_built_file_it_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert str(tmp_path / NAME) in capsys.readouterr().err
