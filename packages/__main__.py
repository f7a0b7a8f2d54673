"""Makes both packages of a built file: `python3 -m packages FOLDER`, where FOLDER has it and its SBOM."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from packages import deb, rpm
from packages.contents import DEB, NAME, RPM, Problem, make_package
from packages.scripts import deb_scripts, rpm_scripts


def make_packages(folder: Path) -> list[Path]:
    """Write the packages beside the built file, and return their paths. Raises Problem and OSError."""
    adapter = folder / NAME
    for_deb = make_package(DEB, adapter, deb_scripts())
    for_rpm = make_package(RPM, adapter, rpm_scripts())
    made = {
        deb.file_name(for_deb.version): deb.make_deb(for_deb),
        rpm.file_name(for_rpm.version): rpm.make_rpm(for_rpm),
    }
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in made]


def main(arguments: Sequence[str]) -> int:
    """Return the exit code."""
    try:
        (folder,) = arguments
        make_packages(Path(folder))
    except (Problem, OSError) as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
