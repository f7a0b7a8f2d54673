"""Reads packages without the code that makes them: dpkg's by Python's own tarfile, and rpm's by what rpm prints."""

from __future__ import annotations

import io
import os
import re
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest


class Listed(NamedTuple):
    """A file or folder in a package."""

    mode: int
    """With the bits that say what it is."""
    owner: str
    group: str
    content: bytes | None
    """None for a folder."""


def read_ar(path: Path) -> dict[str, bytes]:
    """The members of an ar archive, as ar(5) says."""
    data, members = path.read_bytes(), {}
    assert data[:8] == b"!<arch>\n"
    at = 8
    while at < len(data):
        header = data[at : at + 60].decode("ascii")
        assert header[58:] == "`\n"
        size = int(header[48:58])
        members[header[:16].strip()] = data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return members


def read_tar(archive: bytes) -> dict[str, Listed]:
    """The entries of a tar.gz, by absolute paths."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        return {f"/{each.name.lstrip('./')}": read_member(opened, each) for each in opened.getmembers()}


def read_member(opened: tarfile.TarFile, member: tarfile.TarInfo) -> Listed:
    file = opened.extractfile(member)
    assert member.isdir() or file is not None
    assert (member.uid, member.gid) == (0, 0)
    kind = stat.S_IFDIR if member.isdir() else stat.S_IFREG
    return Listed(member.mode | kind, member.uname, member.gname, file.read() if file else None)


def read_deb(path: Path) -> dict[str, Listed]:
    """What a .deb installs, without the folders that are there on every machine."""
    entries = read_tar(read_ar(path)["data.tar.gz"])
    own = {"/etc/cc-slurm-adapter", *(name for name in entries if name.startswith("/usr/share/doc/"))}
    own -= {"/usr/share/doc"}
    return {name: each for name, each in entries.items() if each.content is not None or name in own}


class Rpm(NamedTuple):
    """A real rpm."""

    program: Path

    def run(self, *arguments: object, name: str = "rpm") -> subprocess.CompletedProcess[str]:
        """Runs it, or a program beside it."""
        command = [str(self.program.with_name(name)), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def output(self, *arguments: object, name: str = "rpm") -> str:
        """What it prints; it must succeed."""
        done = self.run(*arguments, name=name)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def change(self, root: Path, *arguments: object) -> str:
        """Changes what is installed below a folder, scripts included; returns all that was said."""
        done = self.run("--root", root, "--dbpath", "/var/lib/rpm", "--nodeps", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def install(self, package: Path, root: Path) -> dict[str, Listed]:
        """Everything that it makes below an empty folder, but for its own database."""
        database = ("--dbpath", "/var/lib/rpm")
        done = self.run("--root", root, *database, "-i", "--nodeps", "--noscripts", package)
        assert done.returncode == 0, done.stderr
        made = {f"/{path.relative_to(root)}": path for path in root.rglob("*")}
        return {name: listed(path) for name, path in made.items() if not re.match(r"/(var|root)\b", name)}


def listed(path: Path) -> Listed:
    status = path.lstat()
    assert stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode), path
    owners = {0: "root"}
    content = path.read_bytes() if path.is_file() else None
    return Listed(status.st_mode, owners.get(status.st_uid, "other"), owners.get(status.st_gid, "other"), content)


def need_root() -> None:
    """Skips a test where rpm cannot change its root."""
    if os.geteuid() != 0:
        pytest.skip("only root can install with another root folder")
