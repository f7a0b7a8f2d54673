"""What is in a package: one table of paths with their owners, modes and contents, and what is said of the whole.

Both formats have the same files. The table says where they differ.
"""

from __future__ import annotations

import calendar
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cc_slurm_adapter.cli.examples import packaged
from docs import completion, man_pages
from packages.stored_gzip import stored_gzip

ROOT = Path(__file__).resolve().parents[1]
NAME = "cc-slurm-adapter"
SBOM = f"{NAME}.cdx.json"
SUMMARY = "Reports Slurm jobs and node states to ClusterCockpit's cc-backend"
DESCRIPTION = (
    "It reports the start and the end of every Slurm job, with its nodes, cores and",
    "GPUs, and the states of all nodes, to cc-backend over REST, and to NATS. It is",
    "installed on the host of slurmctld, as the daemon and as the hook that slurmctld",
    "calls. It is not started by the installation: cc-slurm-adapter -install prints",
    "what is to be done on a host.",
)
HOMEPAGE = "https://www.clustercockpit.org"
AUTHORS = "The cc-slurm-adapter authors"

DEB, RPM = "deb", "rpm"
UNITS = "/usr/lib/systemd/system"
MANUAL = "/usr/share/man"
PAPERS = f"/usr/share/doc/{NAME}"
ZSH = {DEB: "/usr/share/zsh/vendor-completions", RPM: "/usr/share/zsh/site-functions"}
LICENCE = {DEB: f"{PAPERS}/copyright", RPM: f"/usr/share/licenses/{NAME}/LICENSE"}

TOP_PAPERS = ("README.md", "CHANGELOG.md", "SECURITY.md")
EXAMPLES = (
    *("config.minimal.json", "config.full.json", "config.cluster.json", "slurm.conf.hooks", "nats_consumer.py"),
    *("grafana/dashboard.json", "prometheus/alerts.yml", "prometheus/alerts_test.yml"),
)
UNRELEASED = (2026, 1, 1)
"""The day of all files of a version that CHANGELOG.md gives no day: in the past of every machine."""


class Problem(Exception):
    """Something that a person has to mend; the text says what."""


class Entry(NamedTuple):
    """A file, or a folder that belongs to the package."""

    path: str
    mode: int
    """The permissions."""
    content: bytes | None
    """None for a folder."""
    owner: str = "root"
    group: str = "root"

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.content is None

    @property
    def is_paper(self) -> bool:
        """Whether it is only there to be read."""
        return self.path.startswith((PAPERS, MANUAL))

    @property
    def is_licence(self) -> bool:
        """Whether it is the licence, or the folder of it."""
        return self.path.startswith("/usr/share/licenses/")


class Package(NamedTuple):
    """Everything that a format needs to know."""

    version: str
    time: int
    """That of all files, in Unix seconds."""
    licence: str
    """All licences in it, as an expression of SPDX."""
    entries: Sequence[Entry]
    """Sorted by their paths."""
    scripts: Mapping[str, str]
    """The maintainer's scripts, by the names that the format has for them."""


class Part(NamedTuple):
    """Something that is bundled in the built file; the first one is this program itself."""

    name: str
    version: str
    licence: str
    text: str
    """Its licence in full."""


def read_parts(adapter: Path) -> list[Part]:
    """Read from the built file what it consists of."""
    with zipfile.ZipFile(adapter) as archive:
        names = archive.namelist()
        listed = json.loads(archive.read(f"site-packages/{NAME.replace('-', '_')}/bundled.json"))
        return [Part(**each, text=archive.read(_licence_file(each["name"], names)).decode()) for each in listed]


def _licence_file(name: str, names: Sequence[str]) -> str:
    if name == NAME:
        return "LICENSE"
    folder = re.escape(f"site-packages/{name.replace('-', '_')}-")
    found = [each for each in names if re.match(rf"{folder}[^/]+\.dist-info/(licenses/)?LICENSE", each)]
    if not found:
        raise Problem(f"the built file has no licence of {name}: build it again")
    return found[0]


def make_package(kind: str, adapter: Path, scripts: Mapping[str, str]) -> Package:
    """Return the package of a built file. The list of what is bundled lies beside that."""
    parts = read_parts(adapter)
    version = parts[0].version
    if not re.fullmatch(r"\d+(\.\d+)+", version):
        raise Problem(f"the version {version} is no number that dpkg and rpm compare alike: write it as 1.2.3")
    licence = " AND ".join(dict.fromkeys(part.licence for part in parts))
    entries = sorted([*_program(kind, adapter), *_system(), *_manual(kind), *_papers(kind, adapter, parts)])
    return Package(version, day_of(version, _read("CHANGELOG.md").decode()), licence, entries, scripts)


def day_of(version: str, changelog: str) -> int:
    """Return the day of a version in Unix seconds, as CHANGELOG.md has it: always the same for the same sources."""
    found = re.search(rf"^## {re.escape(version)} - (\d{{4}})-(\d\d)-(\d\d)$", changelog, re.MULTILINE)
    year, month, day = map(int, found.groups()) if found else UNRELEASED
    return calendar.timegm((year, month, day, 0, 0, 0))


def _read(name: str) -> bytes:
    return (ROOT / name).read_bytes()


def _example(name: str) -> bytes:
    """Return an example as it is right for the places of the packages."""
    return packaged(_read(f"examples/{name}").decode()).encode()


# --- the table


def _program(kind: str, adapter: Path) -> Iterator[Entry]:
    yield Entry(f"/usr/sbin/{NAME}", 0o755, adapter.read_bytes())
    if kind == DEB:  # rpm would set its mode anew at each upgrade: there a script makes it
        yield Entry(f"/etc/{NAME}", 0o755, None)


def _system() -> Iterator[Entry]:
    for name in (f"{NAME}.service", f"{NAME}@.service"):
        yield Entry(f"{UNITS}/{name}", 0o644, _example(name))
    yield Entry(f"/usr/lib/sysusers.d/{NAME}.conf", 0o644, _example(f"{NAME}.sysusers"))
    yield Entry(f"/usr/lib/tmpfiles.d/{NAME}.conf", 0o644, _example(f"{NAME}.tmpfiles"))


def _manual(kind: str) -> Iterator[Entry]:
    pages = {8: man_pages.command_page(), 5: man_pages.configuration_page()}
    for section, text in pages.items():
        yield Entry(f"{MANUAL}/man{section}/{NAME}.{section}.gz", 0o644, stored_gzip(text.encode()))
    yield Entry(f"/usr/share/bash-completion/completions/{NAME}", 0o644, completion.bash().encode())
    yield Entry(f"{ZSH[kind]}/_{NAME}", 0o644, completion.zsh().encode())


def _papers(kind: str, adapter: Path, parts: Sequence[Part]) -> Iterator[Entry]:
    documents = [path.relative_to(ROOT) for suffix in ("md", "svg") for path in (ROOT / "docs").glob(f"*.{suffix}")]
    papers = {name: _read(name) for name in (*TOP_PAPERS, *map(str, documents))}
    papers.update({f"examples/{name}": _example(name) for name in EXAMPLES})
    papers[SBOM] = adapter.with_name(SBOM).read_bytes()
    for name, content in papers.items():
        yield Entry(f"{PAPERS}/{name}", 0o644, content)
    for folder in {str(parent) for name in papers for parent in Path(PAPERS, name).parents}:
        if folder.startswith(PAPERS):
            yield Entry(folder, 0o755, None)
    yield Entry(LICENCE[kind], 0o644, _licences(parts).encode())
    if kind == RPM:
        yield Entry(LICENCE[kind].rpartition("/")[0], 0o755, None)


def _licences(parts: Sequence[Part]) -> str:
    own, *others = parts
    bundled = [f"{each.name} {each.version} ({each.licence})" for each in others]
    headed = [f"{title}\n{'-' * len(title)}\n\n{part.text.strip()}\n" for title, part in zip(bundled, others)]
    named = "".join(f"  {each}\n" for each in bundled)
    return "\n\n".join([f"{NAME} {own.version}\n\n{own.text.strip()}\n", f"The file bundles:\n\n{named}", *headed])
