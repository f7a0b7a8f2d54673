"""Finds a nats-server for the tests, or fetches Debian's package of it; nothing is installed on the machine.

As a program it prints where the server is, or exits 1 with the reason why there is none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.debian_package import NoPackage, keep_package

NAMED_BY = "CC_SLURM_ADAPTER_NATS_SERVER"
"""This environment variable names the program; the word `none` says that there is none."""
KEPT_IN = Path(__file__).parents[2] / ".build" / "nats"
PLACES_BESIDE_PATH = ("/usr/sbin", "/usr/local/sbin")
"""Debian's package puts it where users often do not look."""


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
    """The copy in `folder`, fetched now if it is not there."""
    program = folder / "nats-server"

    def keep(files: Path) -> None:
        fetched = next(files.glob("usr/*bin/nats-server"), None)
        if not fetched or not runs(fetched):
            raise NoNatsServer("the nats-server of Debian's package does not start here: install one")
        fetched.replace(program)

    try:
        keep_package("nats-server", folder, lambda: runs(program), keep)
    except NoPackage as problem:
        raise NoNatsServer(f"{problem}: install one, or name it in {NAMED_BY}") from problem
    return program


def runs(program: Path) -> bool:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return answer.returncode == 0 and answer.stdout.startswith("nats-server: v")


def main() -> int:
    problems: list[str] = []
    found = find_nats_server(KEPT_IN, problems)
    print(found or problems[0])
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
