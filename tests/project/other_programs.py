"""mandoc and zsh, which judge what is made for them: the machine's own, or Debian's, which are kept in .build.

As a program it prints where the one that is named is, or exits 1 with the reason why there is none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.debian_package import NoPackage, keep_package

KEPT_IN = Path(__file__).parents[2] / ".build"
TRIED_WITH = {"mandoc": ("-T", "lint", "-W", "error"), "zsh": ("-f",)}
"""Arguments with which a program reads its standard input."""


class Zsh(NamedTuple):
    """A zsh, and where its modules and functions are; () if it knows that itself."""

    program: Path
    modules: tuple[Path, ...] = ()
    functions: tuple[Path, ...] = ()


def find(name: str) -> Path:
    """The path of a program: the one that the environment names, that in PATH, or Debian's. Raises NoPackage."""
    variable = f"CC_SLURM_ADAPTER_{name.upper()}"
    named = os.environ.get(variable)
    if named == "none":
        raise NoPackage(f"{variable} says none")
    found = named or shutil.which(name)
    if found and _starts(found, name):
        return Path(found)
    if named:
        raise NoPackage(f"{variable}={named} is no {name} that starts")
    kept = _kept(name, name)
    return next(path for path in (kept / "usr" / "bin" / name, kept / "bin" / name) if path.exists())


def find_zsh() -> Zsh:
    """A zsh with what a session needs. Raises NoPackage."""
    program = find("zsh")
    if KEPT_IN not in program.parents:
        return Zsh(program)
    modules = _kept("zsh", "zsh").glob("usr/lib/*/zsh/*")
    functions = _kept("zsh-common", "zsh") / "usr" / "share" / "zsh" / "functions"
    return Zsh(program, tuple(modules), tuple(sorted(path for path in functions.rglob("*") if path.is_dir())))


def _starts(program: str, name: str) -> bool:
    try:
        done = subprocess.run(
            [program, *TRIED_WITH[name]], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _kept(package: str, folder: str) -> Path:
    """The folder with all files of a package, which is fetched if it is not there. Raises NoPackage."""
    files = KEPT_IN / folder / package
    keep_package(package, files.parent, files.is_dir, lambda fetched: fetched.rename(files))
    return files


def main(name: str) -> int:
    """Print where a program is; of zsh with all that it needs."""
    try:
        print(find_zsh().program if name == "zsh" else find(name))
    except NoPackage as problem:
        print(f"{problem}: install {name}, or name it in CC_SLURM_ADAPTER_{name.upper()}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
