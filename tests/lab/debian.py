"""Makes Debian chroots, those with a Slurm in them above all; nothing is installed on the machine itself.

A chroot is made once and kept: a later call with the same recipe finds it ready. It is never written to
after that, the lab mounts its own folders over the places that change.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from build import BOOTED, RELEASES
from tests.debian_package import NoPackage, keep_package

from .namespaces import LabError, Namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Suite(NamedTuple):
    """A release of Debian and the Slurm that it ships."""

    name: str
    slurm: str
    """The first two numbers of its version."""


class Recipe(NamedTuple):
    """What a chroot is made of; it is made anew when its recipe has changed."""

    name: str
    """That of its folder."""
    debian: str
    purpose: str
    packages: tuple[str, ...]
    folders: tuple[str, ...]
    """They are there in any case, for what is mounted over them."""
    users: str
    """The shell commands that make them."""

    @property
    def stamp(self) -> str:
        """It is in the chroots that were made by this recipe."""
        text = "\n".join([self.debian, self.purpose, *self.packages, *self.folders, CONFIGURE, self.users])
        return hashlib.sha256(text.encode()).hexdigest()


SUITES = {slurm: Suite(debian, slurm) for slurm, debian in RELEASES.items()}

FOLDER = Path(os.environ.get("CC_SLURM_ADAPTER_LAB") or Path(__file__).parents[2] / ".build" / "lab").resolve()
"""Where the chroots are kept."""

NOTE = ".note"
"""A file in a chroot: what whoever runs the tests should know of it."""

PACKAGES = [
    *("slurmctld", "slurmdbd", "slurmd", "slurm-client", "munge", "mariadb-server-core", "mariadb-client-core"),
    *("hostname", "procps", "python3", "util-linux"),
]

CHANGING_FOLDERS = [
    *("run", "tmp", "var/log", "var/spool", "var/lib/mysql", "var/lib/munge", "etc/munge", "etc/slurm"),
    *("opt/cc", "etc/cc-slurm-adapter", "var/lib/cc-slurm-adapter"),
]
"""Where a running lab writes; it mounts memory over each of them."""

OWN_DEV = """
mount -t tmpfs -o mode=755 dev "$1/dev"
cd "$1/dev"
mkdir -m 1777 shm
mkdir pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts pts
ln -s pts/ptmx ptmx
ln -s /proc/self/fd fd
for node in "null 3" "zero 5" "full 7" "random 8" "urandom 9"; do mknod -m 666 ${node% *} c 1 ${node#* }; done
"""
"""A /dev for the root $1, then the current folder. The machine's own is not shared: the lab makes GPUs in it."""

DEVICES = f"""
mount -t proc proc "$1/proc"
mount --bind /sys "$1/sys"
{OWN_DEV}"""
"""The system folders of the chroot $1."""

CONFIGURE = r"""
printf '#!/bin/sh\nexit 101\n' > "$1/usr/sbin/policy-rc.d"
chmod 755 "$1/usr/sbin/policy-rc.d"
echo force-unsafe-io > "$1/etc/dpkg/dpkg.cfg.d/lab"
echo 'path-exclude=/usr/share/doc/*' >> "$1/etc/dpkg/dpkg.cfg.d/lab"
echo 'path-exclude=/usr/share/man/*' >> "$1/etc/dpkg/dpkg.cfg.d/lab"
apt-config dump | grep -E '^Acquire::(http|https|Check)' > "$1/etc/apt/apt.conf.d/lab" || true
cp /etc/resolv.conf "$1/etc/resolv.conf"
echo '127.0.0.1 localhost lab' > "$1/etc/hosts"
cd "$1"
shift
mkdir -p "$@"
"""
"""No service may start by itself, writes need not survive a power cut, and apt reaches what it reaches here."""

USERS = """
useradd --system mysql
useradd --create-home alice
useradd --create-home bob
useradd --create-home carol
useradd --system --groups slurm cc-slurm-adapter
"""


def make_chroot(suite: Suite, folder: Path) -> Path:
    """Gives the chroot of `suite` below `folder`, made now if it is not there; takes about a minute."""
    return make(recipe_of(suite), folder, lambda root: note_version(suite, root))


def recipe_of(suite: Suite) -> Recipe:
    packages = [*PACKAGES, "systemd"] if suite.name in BOOTED else PACKAGES
    return Recipe(suite.name, suite.name, suite.slurm, tuple(packages), tuple(CHANGING_FOLDERS), USERS)


def make(recipe: Recipe, folder: Path, check: Callable[[Path], None] = lambda _root: None) -> Path:
    """Gives the chroot of `recipe` below `folder`, made now if it is not there; `check` may refuse a new one.

    Links are followed: through one, what is mounted over the chroot's folders would not be seen from outside.
    """
    if os.geteuid() != 0:
        raise LabError("a chroot can only be made and used by root")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{recipe.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return find_or_make(recipe, folder, check).resolve()


def find_or_make(recipe: Recipe, folder: Path, check: Callable[[Path], None]) -> Path:
    root = folder / recipe.name
    if root.is_symlink():  # one that several folders share: the lab reaches into it by its own path
        root = root.resolve()
    stamp = root / ".recipe"
    if stamp.exists() and stamp.read_text(encoding="ascii") == recipe.stamp:
        return root
    unfinished = folder / f"{recipe.name}.unfinished"
    remove_tree(unfinished)
    fill(recipe, unfinished, folder)
    check(unfinished)
    remove_tree(root)
    unfinished.rename(root)
    stamp.write_text(recipe.stamp, encoding="ascii")
    return root


def remove_tree(root: Path) -> None:
    """Removes a chroot, but never one that something is mounted in."""
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    mounted = [line.split()[1] for line in mounts if line.split()[1].startswith(f"{root}/")]
    if mounted:
        raise LabError(f"{root} is not removed: {mounted[0]} is mounted in it")
    if root.exists():
        shutil.rmtree(root)


def fill(recipe: Recipe, root: Path, folder: Path) -> None:
    log = folder / f"{recipe.name}.log"
    log.write_bytes(b"")
    debootstrap = find_debootstrap(folder)
    with Namespaces() as place:
        step(place, log, [*debootstrap, "--variant=minbase", recipe.debian, str(root)], seconds=300)
        step(place, log, ["sh", "-ec", DEVICES, "sh", str(root)], seconds=10)
        step(place, log, ["sh", "-ec", CONFIGURE, "sh", str(root), *recipe.folders], seconds=10)
        inside = ["chroot", str(root)]
        step(place, log, [*inside, "apt-get", "-q", "update"], seconds=120)
        install = ["apt-get", "-q", "install", "--yes", "--no-install-recommends", *recipe.packages]
        step(place, log, [*inside, *install], seconds=300)
        step(place, log, [*inside, "sh", "-ec", recipe.users], seconds=10)


def note_version(suite: Suite, root: Path) -> None:
    """Leaves a note in a chroot whose Slurm is newer than expected; raises LabError for an older one."""
    packages = (root / "var/lib/dpkg/status").read_text(encoding="utf-8")
    found = re.search(r"^Package: slurmctld\n(?:.+\n)*?Version: (.+)$", packages, re.MULTILINE)
    (root / NOTE).write_text(judge_version(suite, found[1] if found else ""), encoding="ascii")


def judge_version(suite: Suite, version: str) -> str:
    """A line about a Slurm that is newer than expected, or ''. Raises LabError for an older one."""
    found = re.match(r"(\d+)\.(\d+)\.", version)
    expected = tuple(map(int, suite.slurm.split(".")))
    if not found or (int(found[1]), int(found[2])) < expected:
        raise LabError(f"Debian {suite.name} has Slurm {version or '(none)'}, which is older than {suite.slurm}")
    if version.startswith(f"{suite.slurm}."):
        return ""
    return (
        f"NOTE Debian {suite.name} has moved on to Slurm {version}: the tests of {suite.slurm} ran with that;"
        " RELEASES in build.py and the recorded output must follow"
    )


def read_notes(folder: Path) -> list[str]:
    """What is to be said of the chroots below `folder`."""
    notes = [folder / suite.name / NOTE for suite in SUITES.values()]
    return [text for text in (note.read_text(encoding="ascii") for note in notes if note.exists()) if text]


def step(place: Namespaces, log: Path, argv: Sequence[str], *, seconds: float) -> None:
    """Runs one step of making a chroot; its output goes to the log."""
    with log.open("ab") as output:
        done = place.run(argv, seconds=seconds, log=output)
    if done.returncode != 0:
        raise LabError(f"{describe(argv, done.returncode, seconds)}\n{tail(log)}")


def describe(argv: Sequence[str], code: int, seconds: float) -> str:
    command = " ".join(argv)
    end = f"took more than {seconds:g} s" if code == 124 else f"exited {code}"
    return f"{command[:200]} {end}:"


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error's text."""
    if not log.exists():
        return f"({log} does not exist)"
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def find_debootstrap(folder: Path) -> list[str]:
    """The start of a debootstrap command line: the installed one, or its package unpacked below `folder`."""
    if shutil.which("debootstrap"):
        return ["debootstrap"]
    kept = folder / "debootstrap"
    program, share = kept / "files/usr/sbin/debootstrap", kept / "files/usr/share/debootstrap"
    try:
        keep_package("debootstrap", kept, program.exists, lambda files: files.rename(kept / "files"))
    except NoPackage as problem:
        raise LabError(f"{problem}: install debootstrap") from problem
    return ["env", f"DEBOOTSTRAP_DIR={share}", "sh", str(program)]
