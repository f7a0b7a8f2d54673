"""Finds a program that tests need, or fetches Debian's package of it; nothing is installed on the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.debian_package import NoPackage, keep_package


class NoProgram(Exception):
    """The text is one line: why there is none, and what to do."""


class Program(NamedTuple):
    """A program and where it comes from."""

    name: str
    package: str
    """Debian's."""
    named_by: str
    """This environment variable names the program; the word `none` says that there is none."""
    greeting: str
    """What it prints first with --version."""
    kept_in: Path
    """All programs of the package are kept there, so several may share the folder."""
    beside_path: tuple[str, ...] = ("/usr/sbin", "/usr/local/sbin")
    """Debian's packages put some where users often do not look."""

    def find(self, problems: list[str] | None = None) -> Path | None:
        """Gives the path of the program; when there is none, the reason is added to `problems`.

        It is looked for in the environment variable, in PATH and in the folder, and else fetched into the folder.
        """
        try:
            return self._named() or self._in_path() or self._kept()
        except NoProgram as problem:
            if problems is not None:
                problems.append(str(problem))
            return None

    def _named(self) -> Path | None:
        name = os.environ.get(self.named_by)
        if name == "none":
            raise NoProgram(f"{self.named_by} says none")
        if name and not self._runs(Path(name)):
            raise NoProgram(f"{self.named_by}={name} is no {self.name} that starts")
        return Path(name) if name else None

    def _in_path(self) -> Path | None:
        places = os.pathsep.join([os.environ.get("PATH", os.defpath), *self.beside_path])
        found = shutil.which(self.name, path=places)
        return Path(found) if found and self._runs(Path(found)) else None

    def _kept(self) -> Path:
        program = self.kept_in / self.name
        try:
            keep_package(self.package, self.kept_in, lambda: self._runs(program), self._keep)
        except NoPackage as problem:
            advice = f"install {self.package}, or name {self.name} in {self.named_by}"
            raise NoProgram(f"{problem}: {advice}") from problem
        return program

    def _keep(self, files: Path) -> None:
        fetched = next(files.glob(f"usr/*bin/{self.name}"), None)
        if not fetched or not self._runs(fetched):
            raise NoProgram(f"the {self.name} of Debian's package does not start here: install {self.package}")
        for program in fetched.parent.iterdir():
            program.replace(self.kept_in / program.name)

    def _runs(self, program: Path) -> bool:
        try:
            answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.SubprocessError):
            return False
        return answer.returncode == 0 and answer.stdout.startswith(self.greeting)


def print_path(program: Program) -> int:
    """Prints where the program is, or the reason why there is none; the exit code."""
    problems: list[str] = []
    found = program.find(problems)
    print(found or problems[0])
    return 0 if found else 1
