"""The rpm for the tests. As a program it prints where it is, or exits 1 with the reason why there is none."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from examples.practice.programs import write_program
from tests.debian_package import fetch_and_unpack, own_lists
from tests.debian_program import NoProgram, Program, print_path

PROGRAMS = ("rpm", "rpmkeys")


class RpmOfDebian(Program):
    """Debian's rpm with the libraries that this machine lacks, all in one folder; small scripts start it there."""

    def _keep(self, files: Path) -> None:
        for number, package in enumerate(missing_packages(files.parent)):
            work = files.parent / f"other-{number}"
            work.mkdir()
            shutil.copytree(fetch_and_unpack(package, work), files, symlinks=True, dirs_exist_ok=True)
        kept = self.kept_in / "files"
        shutil.rmtree(kept, ignore_errors=True)
        files.rename(kept)
        libraries = next(kept.glob("usr/lib/*/librpm.so.*")).parent
        for name in PROGRAMS:
            settings = [f"LD_LIBRARY_PATH={libraries}", f"RPM_CONFIGDIR={kept}/usr/lib/rpm"]
            command = shlex.join(["env", *settings, str(kept / "usr/bin" / name)])
            write_program(self.kept_in / name, f'#!/bin/sh\nexec {command} "$@"\n')
        if not self._runs(self.kept_in / self.name):
            raise NoProgram(f"the {self.name} of Debian's package does not start here: install {self.package}")


def missing_packages(work: Path) -> list[str]:
    """What apt would install beside rpm itself."""
    command = ["apt-get", "-q", *own_lists(work), "--simulate", "--no-install-recommends", "install", "rpm"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    return [name for name in re.findall(r"^Inst (\S+)", said, re.MULTILINE) if name != "rpm"]


RPM = RpmOfDebian(
    name="rpm",
    package="rpm",
    named_by="CC_SLURM_ADAPTER_RPM",
    greeting="RPM version 4",
    kept_in=Path(__file__).parents[2] / ".build" / "rpm",
)

if __name__ == "__main__":
    sys.exit(print_path(RPM))
