"""Checks what a release needs, and builds all of dist/ twice: `build.py release` calls it.

A release is what anybody can build again, byte for byte, from the commit that has its version.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from packages.contents import NAME, ROOT

VERSION_FILE = "cc_slurm_adapter/__init__.py"
CHANGES = "CHANGELOG.md"
BUILD_LIMIT = 900.0
"""Seconds for one build; the first one may have to fetch what it needs."""
MOST_SHOWN = 5
IN_DOCUMENT = re.compile(rf"{re.escape(NAME)}[ _-]v?(\d+\.\d+\.\d+)")
"""How documents name a version: in a log line, or in the name of a package."""

Build = Callable[[Path], Mapping[str, bytes]]


def find_problems(root: Path) -> list[str]:
    """Return what keeps this checkout from being released, each with what to do."""
    found = re.search(r'^__version__ = "(\d+\.\d+\.\d+)"$', (root / VERSION_FILE).read_text("utf-8"), re.MULTILINE)
    if not found:
        return [f'{VERSION_FILE} has no line like __version__ = "1.2.3": write the version that is released there']
    return [*_in_changes(root, found[1]), *_in_documents(root, found[1]), *_in_checkout(root)]


def _in_changes(root: Path, version: str) -> Iterator[str]:
    text = (root / CHANGES).read_text(encoding="utf-8")
    first = next((line for line in text.splitlines() if line.startswith("## ")), "no section at all")
    if not re.fullmatch(rf"## {re.escape(version)} - \d{{4}}-\d\d-\d\d", first):
        yield (
            f"{CHANGES} begins with `{first}`, and the version is {version}: let it begin with the line"
            f" `## {version} - YYYY-MM-DD`, which has the day of the release, or change {VERSION_FILE}"
        )


def _in_documents(root: Path, version: str) -> Iterator[str]:
    for path in [root / "README.md", root / "SECURITY.md", *sorted((root / "docs").glob("*.md"))]:
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            for other in {each for each in IN_DOCUMENT.findall(line) if each != version}:
                yield f"{path.relative_to(root)}, line {number}, names {NAME} {other}: write {version} there"


def _in_checkout(root: Path) -> Iterator[str]:
    done = _git(root, "status", "--porcelain")
    if done.returncode != 0:
        yield f"{root} is no clone of the repository: run this in one, so that others can build the same"
        return
    changed = done.stdout.decode(errors="replace").splitlines()
    if changed:
        more = f" and {len(changed) - MOST_SHOWN} more" if len(changed) > MOST_SHOWN else ""
        names = ", ".join(line[3:] for line in changed[:MOST_SHOWN])
        yield f"the checkout has changes that are not committed: {names}{more}. Commit or remove them"


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, timeout=60, check=False)


# --- built twice


def build_twice(root: Path, build: Build) -> list[str]:
    """Build here and in a copy of the commit elsewhere, and return what differs, with what to do."""
    here = build(root)
    with tempfile.TemporaryDirectory(prefix="cc-slurm-adapter-release-") as name:
        elsewhere = build(copy_of(root, Path(name) / "copy"))
    differing = sorted(path for path in {*here, *elsewhere} if here.get(path) != elsewhere.get(path))
    return [
        f"dist/{path} is not the same when it is built in another folder: something of the place or of the time gets"
        " into it. Find it with `python3 build.py test -- -k reproducible`, or compare two builds with diffoscope"
        for path in differing
    ]


def copy_of(root: Path, target: Path) -> Path:
    """Make a copy of the commit, which uses the environments of this checkout."""
    done = _git(root, "clone", "--quiet", "--shared", str(root), str(target))
    if done.returncode != 0:
        raise NoBuild(f"no copy can be made in {target}: {done.stderr.decode(errors='replace').strip()}")
    (target / ".build").symlink_to(root / ".build")
    return target


def build_dist(root: Path) -> dict[str, bytes]:
    """Build all, and return the files of dist/."""
    command = [sys.executable, "build.py", "package"]
    print(f"building in {root} ...", flush=True)
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=BUILD_LIMIT, check=False)
    if done.returncode != 0:
        raise NoBuild(f"the build in {root} fails: {done.stderr.strip() or done.stdout.strip()}")
    sums = root / "dist" / "SHA256SUMS"
    names = [line.split()[-1] for line in sums.read_text(encoding="ascii").splitlines()]
    return {path.name: path.read_bytes() for path in (sums, *(sums.with_name(name) for name in names))}


class NoBuild(Exception):
    """The text says what the build says."""


def main() -> int:
    """Return the exit code."""
    problems = find_problems(ROOT)
    if not problems:
        try:
            problems = build_twice(ROOT, build_dist)
        except (NoBuild, subprocess.TimeoutExpired) as problem:
            problems = [str(problem)]
    for each in problems:
        print(f"no release: {each}", file=sys.stderr)
    if problems:
        return 1
    version = re.findall(r'^__version__ = "(.+)"$', (ROOT / VERSION_FILE).read_text("utf-8"), re.MULTILINE)[0]
    print((ROOT / "dist" / "SHA256SUMS").read_text(encoding="ascii"), end="")
    print(f"dist/ is {NAME} {version}: the same bytes twice. Now: git tag -a v{version}, and publish all of dist/")
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
