"""Fetches one of Debian's packages and unpacks it in a folder; nothing is installed on the machine. Needs no root."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

FETCH_LIMIT = 150.0
"""Seconds for all that fetching one takes."""

APT_OPTIONS = {"APT::Sandbox::User": "root", "APT::Update::Error-Mode": "any"}
"""apt's own user cannot write into our folder; and a list that cannot be fetched is an error, not a warning."""


class NoPackage(Exception):
    """The text is one line: why there is none, and what to do."""


def keep_package(name: str, kept: Path, is_there: Callable[[], bool], keep: Callable[[Path], object]) -> None:
    """Unless it is there: fetches the package, and `keep` moves what is wanted of its files out of the folder it gets.

    Only one process or thread does that at a time. `kept` is the folder where the work is done.
    Raises NoPackage, and what `keep` raises.
    """
    if is_there():
        return
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_there():
            return
        with tempfile.TemporaryDirectory(dir=kept) as work:
            keep(fetch_and_unpack(name, Path(work)))


def fetch_and_unpack(name: str, work: Path) -> Path:
    """The folder below `work` with the package's files."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise NoPackage(f"no {name} in PATH and no apt-get to fetch one")
    deadline = time.monotonic() + FETCH_LIMIT
    package = download(name, work, deadline)
    files = work / "files"
    run(name, ["dpkg-deb", "--extract", str(package), str(files)], work, deadline)
    return files


def download(name: str, work: Path, deadline: float) -> Path:
    """The package. Where the machine's own package lists are missing or old, new ones are fetched into `work`.

    The machine's own lists are never renewed: another program may be at that, and apt does not wait for it.
    """
    get = ["apt-get", "-q", "download", name]
    try:
        run(name, get, work, deadline)
    except NoPackage:
        (work / "lists" / "partial").mkdir(parents=True)
        own = own_lists(work)
        run(name, ["apt-get", "-q", *own, "update"], work, deadline)
        run(name, [*get, *own], work, deadline)
    return next(work.glob(f"{name}_*.deb"))


def own_lists(work: Path) -> list[str]:
    """apt's options for the package lists in `work`; none where the machine's own were good enough."""
    if not (work / "lists").exists():
        return []
    options = {"Dir::State::lists": work / "lists", "Dir::Cache": work, **APT_OPTIONS}
    return [word for option, value in options.items() for word in ("-o", f"{option}={value}")]


def run(package: str, command: Sequence[str], folder: Path, deadline: float) -> None:
    """Until the monotonic time `deadline`."""
    what = f"fetching {package}: {command[0]}"
    limit = max(0.0, deadline - time.monotonic())
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NoPackage(f"{what} took more than {FETCH_LIMIT:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise NoPackage(f"{what} exited {done.returncode}: {said}")
