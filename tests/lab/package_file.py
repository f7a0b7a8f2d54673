"""Makes the .deb of the built file, as it is or with another version number."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import build
from cc_slurm_adapter import __version__
from packages.__main__ import make_packages

if TYPE_CHECKING:
    from pathlib import Path


def write_package(folder: Path, version: str = __version__) -> Path:
    """The .deb of the built file with another version number."""
    folder.mkdir()
    with zipfile.ZipFile(build.ADAPTER) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for name in ("site-packages/cc_slurm_adapter/__init__.py", "site-packages/cc_slurm_adapter/bundled.json"):
        assert f'"{__version__}"'.encode() in files[name]
        files[name] = files[name].replace(f'"{__version__}"'.encode(), f'"{version}"'.encode(), 1)
    build.pack(files, folder / build.ADAPTER.name)
    (folder / build.SBOM.name).write_bytes(build.SBOM.read_bytes())
    return make_packages(folder)[0]
