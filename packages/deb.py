"""The format of Debian's packages (deb(5)): an `ar` of two archives, one for dpkg and one with the files."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from packages.contents import AUTHORS, DESCRIPTION, HOMEPAGE, NAME, SUMMARY, Entry, Package
from packages.stored_gzip import stored_gzip

FIELDS = """\
Package: {name}
Version: {version}
Architecture: all
Maintainer: {authors}
Installed-Size: {size}
Depends: python3 (>= 3.9)
Suggests: systemd, slurm-client
Section: admin
Priority: optional
Homepage: {homepage}
Description: {summary}
{description}
"""


def file_name(version: str) -> str:
    """Return the name that Debian's tools expect."""
    return f"{NAME}_{version}_all.deb"


def make_deb(package: Package) -> bytes:
    """Return the bytes of the .deb."""
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": stored_gzip(_tar(_control(package), package.time)),
        "data.tar.gz": stored_gzip(_tar(_with_parents(package.entries), package.time)),
    }
    return _ar(members, package.time)


def _control(package: Package) -> list[Entry]:
    files = {"control": _fields(package), "md5sums": _sums(package.entries)}
    programs = [Entry(f"/{name}", 0o755, text.encode()) for name, text in package.scripts.items()]
    return _with_parents([*(Entry(f"/{name}", 0o644, text.encode()) for name, text in files.items()), *programs])


def _fields(package: Package) -> str:
    size = sum(-(-len(each.content or b"") // 1024) or 1 for each in package.entries)
    return FIELDS.format(
        name=NAME,
        version=package.version,
        authors=AUTHORS,
        size=size,
        homepage=HOMEPAGE,
        summary=SUMMARY,
        description="\n".join(f" {line}" for line in DESCRIPTION),
    )


def _sums(entries: Sequence[Entry]) -> str:
    """Return what `dpkg --verify` compares the files with."""
    files = [(each.path, each.content) for each in entries if each.content is not None]
    lines = [f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}  {path[1:]}\n" for path, content in files]
    return "".join(lines)


def _with_parents(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries and all the folders that they are in: dpkg wants each before what is in it."""
    folders = {str(parent) for each in entries for parent in PurePosixPath(each.path).parents}
    missing = folders - {each.path for each in entries}
    return sorted([*entries, *(Entry(folder, 0o755, None) for folder in missing)])


def _tar(entries: Sequence[Entry], time: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for each in entries:
            member = tarfile.TarInfo(f".{each.path}")
            member.type = tarfile.DIRTYPE if each.is_folder else tarfile.REGTYPE
            member.mode, member.uname, member.gname, member.mtime = each.mode, each.owner, each.group, time
            member.size = len(each.content or b"")
            archive.addfile(member, io.BytesIO(each.content or b""))
    return buffer.getvalue()


def _ar(members: Mapping[str, bytes], time: int) -> bytes:
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        header = f"{name:<16}{time:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
        parts += [header.encode("ascii"), content, b"\n" * (len(content) % 2)]
    return b"".join(parts)
