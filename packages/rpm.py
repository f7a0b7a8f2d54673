"""The format of rpm's packages, version 4: a lead, a header with digests, the header, and an archive of the files.

A header is a list of tags, each with a type, a count and the place of its values in one store. The first tag says that
all of it is what was built, so that rpm compares the digests with these very bytes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Union

from packages.contents import AUTHORS, DESCRIPTION, HOMEPAGE, NAME, SUMMARY, Entry, Package
from packages.stored_gzip import stored_gzip

RELEASE = "1"
MAGIC = b"\x8e\xad\xe8\x01\x00\x00\x00\x00"
LEAD_MAGIC = b"\xed\xab\xee\xdb\x03\x00"
SHELL = "/bin/sh"

# Types of values.
INT16, INT32, TEXT, BYTES, TEXTS, LOCAL_TEXT = 3, 4, 6, 7, 8, 9
SIZES = {INT16: 2, INT32: 4}

# Tags of the header with the digests.
SIGNATURES, SHA1, SHA256, SIZE, MD5, PAYLOAD_SIZE = 62, 269, 273, 1000, 1004, 1007
# Tags of the header itself.
IMMUTABLE, LOCALES = 63, 100
SCRIPTS = {"post": (1024, 1086), "preun": (1025, 1087), "postun": (1026, 1088)}
"""The tags of a script and of what runs it."""

# What a dependency is compared with, and what it comes from.
LESS, GREATER, EQUAL = 2, 4, 8
INTERPRETER, RPMLIB = 1 << 8, 1 << 24
NEEDED_BY = {"post": 1 << 10, "preun": 1 << 11, "postun": 1 << 12}

PYTHON = "(python3 >= 3.9 or python39 or python3.11 or python3.12 or python311)"
"""Red Hat 8 and SUSE 15 have newer Pythons beside their own, as packages of these names."""
FORMAT = {
    "CompressedFileNames": "3.0.4-1",
    "FileDigests": "4.6.0-1",
    "PayloadFilesHavePrefix": "4.0-1",
    "RichDependencies": "4.12.0-1",
}
"""What rpm must know to read this, and the versions that began it."""
PAPER, LICENCE = 1 << 1, 1 << 7
"""Flags of files."""
SHA256_ALGORITHM = 8

Value = Union[bytes, str, Sequence[int], Sequence[str]]


class Tag(NamedTuple):
    """A tag with its values: one text, bytes, or a list."""

    number: int
    type: int
    value: Value

    @property
    def length(self) -> int:
        """How many values it has."""
        return 1 if self.type == TEXT else len(self.value)

    def encode(self) -> bytes:
        """Return the values as they are stored."""
        if isinstance(self.value, bytes):
            return self.value
        if isinstance(self.value, str):
            return self.value.encode() + b"\0"
        if self.type in SIZES:
            return struct.pack(f">{len(self.value)}{'H' if self.type == INT16 else 'I'}", *self.value)
        return b"".join(str(each).encode() + b"\0" for each in self.value)


class Dependency(NamedTuple):
    """What is provided or needed."""

    name: str
    flags: int = 0
    version: str = ""


def file_name(version: str) -> str:
    """Return the name that rpm's tools expect."""
    return f"{NAME}-{version}-{RELEASE}.noarch.rpm"


def make_rpm(package: Package) -> bytes:
    """Return the bytes of the .rpm."""
    archive = _cpio(package.entries, package.time)
    payload = stored_gzip(archive)
    header = _header(IMMUTABLE, _tags(package, archive, payload))
    signatures = _header(SIGNATURES, _digests(header, payload, len(archive)))
    return b"".join([_lead(package.version), signatures, b"\0" * (-len(signatures) % 8), header, payload])


def _lead(version: str) -> bytes:
    """Return what was once all that rpm knew of a file; today it only marks one."""
    name = f"{NAME}-{version}-{RELEASE}".encode()
    return LEAD_MAGIC + struct.pack(">HH66sHH16x", 0, 255, name, 1, 5)


def _digests(header: bytes, payload: bytes, unpacked: int) -> list[Tag]:
    both = header + payload
    return [
        Tag(SHA1, TEXT, hashlib.sha1(header, usedforsecurity=False).hexdigest()),
        Tag(SHA256, TEXT, hashlib.sha256(header).hexdigest()),
        Tag(SIZE, INT32, [len(both)]),
        Tag(MD5, BYTES, hashlib.md5(both, usedforsecurity=False).digest()),
        Tag(PAYLOAD_SIZE, INT32, [unpacked]),
    ]


def _header(region: int, tags: Sequence[Tag]) -> bytes:
    """Return a header. Its first tag, `region`, names the place of its own copy at the end, which counts the tags."""
    index, store = b"", b""
    for tag in sorted(tags):
        store += b"\0" * (-len(store) % SIZES.get(tag.type, 1))
        index += struct.pack(">IIII", tag.number, tag.type, len(store), tag.length)
        store += tag.encode()
    count = len(tags) + 1
    first = struct.pack(">IIII", region, BYTES, len(store), 16)
    store += struct.pack(">IIiI", region, BYTES, -16 * count, 16)
    return MAGIC + struct.pack(">II", count, len(store)) + first + index + store


# --- the tags


def _tags(package: Package, archive: bytes, payload: bytes) -> list[Tag]:
    return [
        *_of_package(package),
        *_of_files(package.entries, package.time),
        *_of_scripts(package.scripts),
        *_dependencies((1047, 1113, 1112), _provided(package.version)),
        *_dependencies((1049, 1050, 1048), list(_required(package.scripts))),
        Tag(1124, TEXT, "cpio"),
        Tag(1125, TEXT, "gzip"),
        Tag(1126, TEXT, "9"),
        Tag(5092, TEXTS, [hashlib.sha256(payload).hexdigest()]),
        Tag(5093, INT32, [SHA256_ALGORITHM]),
        Tag(5097, TEXTS, [hashlib.sha256(archive).hexdigest()]),
    ]


def _of_package(package: Package) -> list[Tag]:
    return [
        Tag(LOCALES, TEXTS, ["C"]),
        Tag(1000, TEXT, NAME),
        Tag(1001, TEXT, package.version),
        Tag(1002, TEXT, RELEASE),
        Tag(1004, LOCAL_TEXT, [SUMMARY]),
        Tag(1005, LOCAL_TEXT, ["\n".join(DESCRIPTION)]),
        Tag(1006, INT32, [package.time]),
        Tag(1007, TEXT, "localhost"),
        Tag(1009, INT32, [sum(len(each.content or b"") for each in package.entries)]),
        Tag(1014, TEXT, package.licence),
        Tag(1015, TEXT, AUTHORS),
        Tag(1016, LOCAL_TEXT, ["System Environment/Daemons"]),
        Tag(1020, TEXT, HOMEPAGE),
        Tag(1021, TEXT, "linux"),
        Tag(1022, TEXT, "noarch"),
        Tag(1044, TEXT, f"{NAME}-{package.version}-{RELEASE}.src.rpm"),
        Tag(1064, TEXT, "4.18.0"),
        Tag(5062, TEXT, "utf-8"),
    ]


def _of_files(entries: Sequence[Entry], time: int) -> list[Tag]:
    split = [each.path.rpartition("/") for each in entries]
    folders = sorted({f"{folder}/" for folder, _, _ in split})
    contents = [each.content for each in entries]
    count = len(entries)
    return [
        Tag(1028, INT32, [len(content or b"") for content in contents]),
        Tag(1030, INT16, [_mode(each) for each in entries]),
        Tag(1033, INT16, [0] * count),
        Tag(1034, INT32, [time] * count),
        Tag(1035, TEXTS, ["" if content is None else hashlib.sha256(content).hexdigest() for content in contents]),
        Tag(1036, TEXTS, [""] * count),
        Tag(1037, INT32, [PAPER * each.is_paper | LICENCE * each.is_licence for each in entries]),
        Tag(1039, TEXTS, [each.owner for each in entries]),
        Tag(1040, TEXTS, [each.group for each in entries]),
        Tag(1045, INT32, [0xFFFFFFFF] * count),
        Tag(1095, INT32, [1] * count),
        Tag(1096, INT32, list(range(1, count + 1))),
        Tag(1097, TEXTS, [""] * count),
        Tag(1116, INT32, [folders.index(f"{folder}/") for folder, _, _ in split]),
        Tag(1117, TEXTS, [name for _, _, name in split]),
        Tag(1118, TEXTS, folders),
        Tag(5011, INT32, [SHA256_ALGORITHM]),
    ]


def _mode(entry: Entry) -> int:
    """Return the permissions and what kind of file it is."""
    return entry.mode | (0o040000 if entry.is_folder else 0o100000)


def _of_scripts(scripts: Mapping[str, str]) -> list[Tag]:
    tags = {name: (SCRIPTS[name], text) for name, text in scripts.items()}
    return [tag for (script, runs), text in tags.values() for tag in (Tag(script, TEXT, text), Tag(runs, TEXT, SHELL))]


def _dependencies(tags: tuple[int, int, int], found: Sequence[Dependency]) -> list[Tag]:
    """Return three tags: the names, the versions and the flags."""
    names, versions, flags = tags
    return [
        Tag(names, TEXTS, [each.name for each in found]),
        Tag(versions, TEXTS, [each.version for each in found]),
        Tag(flags, INT32, [each.flags for each in found]),
    ]


def _provided(version: str) -> list[Dependency]:
    return [Dependency(NAME, EQUAL, f"{version}-{RELEASE}")]


def _required(scripts: Mapping[str, str]) -> Iterator[Dependency]:
    yield Dependency(PYTHON)
    yield from (Dependency(SHELL, INTERPRETER | NEEDED_BY[name]) for name in scripts)
    for name, version in FORMAT.items():
        yield Dependency(f"rpmlib({name})", RPMLIB | LESS | EQUAL, version)


# --- the archive


def _cpio(entries: Sequence[Entry], time: int) -> bytes:
    """Return an archive of the format that cpio calls newc."""
    parts: list[bytes] = []
    for number, each in enumerate(entries, 1):
        parts += _cpio_entry(f".{each.path}", number, _mode(each), time, each.content or b"")
    return b"".join([*parts, *_cpio_entry("TRAILER!!!", 0, 0, 0, b"")])


def _cpio_entry(name: str, number: int, mode: int, time: int, content: bytes) -> Iterator[bytes]:
    """Yield an entry: thirteen numbers, the name and the content, each of the two filled up to four bytes."""
    named = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, time, len(content), 0, 0, 0, 0, len(named), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + named
    yield header + b"\0" * (-len(header) % 4)
    yield content + b"\0" * (-len(content) % 4)
