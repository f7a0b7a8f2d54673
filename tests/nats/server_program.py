"""Finds a nats-server for the tests, or fetches Debian's package of it; nothing is installed on the machine.

As a program it prints where the server is, or exits 1 with the reason why there is none.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

NAMED_BY = "CC_SLURM_ADAPTER_NATS_SERVER"
"""This environment variable names the program; the word `none` says that there is none."""
KEPT_IN = Path(__file__).parents[2] / ".build" / "nats"
DOWNLOAD_LIMIT = 150.0
"""Seconds for all that fetching it takes."""
PLACES_BESIDE_PATH = ("/usr/sbin", "/usr/local/sbin")
"""Debian's package puts it where users often do not look."""

APT_OPTIONS = {"APT::Sandbox::User": "root", "APT::Update::Error-Mode": "any"}
"""apt's own user cannot write into our folder; and a list that cannot be fetched is an error, not a warning."""


class NoNatsServer(Exception):
    """The text is one line: why there is none, and what to do."""


def find_nats_server(folder: Path = KEPT_IN, problems: list[str] | None = None) -> Path | None:
    """The program; when there is none, the reason is added to `problems`.

    It is looked for in CC_SLURM_ADAPTER_NATS_SERVER, in PATH and in `folder`, and else fetched into `folder`.
    """
    try:
        return named_server() or server_in_path() or kept_server(folder)
    except NoNatsServer as problem:
        if problems is not None:
            problems.append(str(problem))
        return None


def named_server() -> Path | None:
    name = os.environ.get(NAMED_BY)
    if name == "none":
        raise NoNatsServer(f"{NAMED_BY} says none")
    if name and not runs(Path(name)):
        raise NoNatsServer(f"{NAMED_BY}={name} is no nats-server that starts")
    return Path(name) if name else None


def server_in_path() -> Path | None:
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), *PLACES_BESIDE_PATH])
    found = shutil.which("nats-server", path=places)
    return Path(found) if found and runs(Path(found)) else None


def kept_server(folder: Path) -> Path:
    """The copy in `folder`, fetched now if it is not there; only one process does that at a time."""
    program = folder / "nats-server"
    if runs(program):
        return program
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not runs(program):
            with tempfile.TemporaryDirectory(dir=folder) as work:
                fetched = fetch(Path(work))
                if not runs(fetched):
                    raise NoNatsServer("the nats-server of Debian's package does not start here: install one")
                fetched.replace(program)
    return program


def runs(program: Path) -> bool:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return answer.returncode == 0 and answer.stdout.startswith("nats-server: v")


def fetch(work: Path) -> Path:
    """The program out of Debian's package, below the folder `work`. Needs no root."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise NoNatsServer(f"no nats-server in PATH and no apt-get to fetch one: install it, or name it in {NAMED_BY}")
    deadline = time.monotonic() + DOWNLOAD_LIMIT
    package = download(work, deadline)
    run(["dpkg-deb", "--extract", str(package), str(work)], work, deadline)
    for program in work.glob("usr/*bin/nats-server"):
        return program
    raise NoNatsServer("Debian's package has no nats-server in it: install one")


def download(work: Path, deadline: float) -> Path:
    """The package. Where the machine's own package lists are missing or old, new ones are fetched into `work`."""
    get = ["apt-get", "-q", "download", "nats-server"]
    try:
        run(get, work, deadline)
    except NoNatsServer:
        (work / "lists" / "partial").mkdir(parents=True)
        options = {"Dir::State::lists": work / "lists", "Dir::Cache": work, **APT_OPTIONS}
        own = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        run(["apt-get", "-q", *own, "update"], work, deadline)
        run([*get, *own], work, deadline)
    return next(work.glob("nats-server_*.deb"))


def run(command: Sequence[str], folder: Path, deadline: float) -> None:
    """Until the monotonic time `deadline`."""
    name = f"fetching nats-server: {' '.join(command[:1])}"
    limit = max(0.0, deadline - time.monotonic())
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NoNatsServer(f"{name} took more than {DOWNLOAD_LIMIT:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise NoNatsServer(f"{name} exited {done.returncode}: {said}")


def main() -> int:
    problems: list[str] = []
    found = find_nats_server(KEPT_IN, problems)
    print(found or problems[0])
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
