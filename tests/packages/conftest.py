"""Packages of a stand-in for the built file: what is in them does not depend on what it does."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from packages.__main__ import make_packages
from tests.packages.reading import Rpm
from tests.packages.rpm_program import RPM

PARTS = {"cc-slurm-adapter": ("1.2.3", "MIT"), "nats-py": ("2.16.0", "Apache-2.0"), "six": ("1.17.0", "MIT")}
"""What the stand-in says that it bundles, with versions and licences."""


def write_stand_in(folder: Path, version: str = "1.2.3") -> None:
    """What `python3 -m packages FOLDER` expects there."""
    listed = [{"name": name, "version": number, "licence": licence} for name, (number, licence) in PARTS.items()]
    listed[0]["version"] = version
    with (folder / "cc-slurm-adapter").open("wb") as file:
        file.write(b"#!/bin/sh\nexit 0\n")
        with zipfile.ZipFile(file, "w") as archive:
            for name, text in {
                "LICENSE": "MIT License of this program",
                "site-packages/nats_py-2.16.0.dist-info/licenses/LICENSE": "Apache License of nats-py",
                "site-packages/six-1.17.0.dist-info/LICENSE": "MIT License of six",
                "site-packages/cc_slurm_adapter/bundled.json": json.dumps(listed),
            }.items():
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    (folder / "cc-slurm-adapter.cdx.json").write_text('{"bomFormat": "CycloneDX"}\n')


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The .deb and the .rpm."""
    folder = tmp_path_factory.mktemp("packages")
    write_stand_in(folder)
    deb, rpm = make_packages(folder)
    return deb, rpm


@pytest.fixture(scope="session")
def rpm() -> Rpm:
    """A real rpm; without one the tests are skipped, and say why."""
    problems: list[str] = []
    program = RPM.find(problems)
    if program is None:
        pytest.skip(problems[0])
    return Rpm(program)
