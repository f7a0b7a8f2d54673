"""Brings up a real Slurm of each release, one after the other, and installs the built file on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .campaign import Campaign, run_campaign
from .debian import SUITES, make_chroot
from .installation import Installation
from .namespaces import LabError
from .slurm_jobs import clear_queue
from .slurm_lab import SlurmLab

ROOT = Path(__file__).parents[2]
BUILT_FILE = ROOT / "dist" / "cc-slurm-adapter"
FOLDER = Path(os.environ.get("CC_SLURM_ADAPTER_LAB") or ROOT / ".build" / "lab").resolve()
"""Where the chroots are kept."""


@pytest.fixture(scope="session")
def chroots(request: pytest.FixtureRequest) -> dict[str, Path | LabError]:
    """The chroot, or why there is none, of every release that a chosen test wants; made side by side."""
    specs = [item.callspec for item in request.session.items if hasattr(item, "callspec")]
    wanted = sorted({spec.params["lab"] for spec in specs if "lab" in spec.params})
    with ThreadPoolExecutor() as threads:
        return dict(zip(wanted, threads.map(chroot_or_error, wanted)))


def chroot_or_error(release: str) -> Path | LabError:
    try:
        return make_chroot(SUITES[release], FOLDER)
    except LabError as error:
        return error


@pytest.fixture(scope="session", params=list(SUITES))
def lab(request: pytest.FixtureRequest, chroots: dict[str, Path | LabError]) -> Iterator[SlurmLab]:
    """A running cluster. That it cannot be had is a failure, never a reason to skip."""
    if not BUILT_FILE.exists():
        pytest.fail(f"{BUILT_FILE} does not exist: python3 build.py build", pytrace=False)
    root = chroots[request.param]
    if isinstance(root, LabError):
        pytest.fail(f"no Slurm {request.param}: {root}", pytrace=False)
    with SlurmLab(SUITES[request.param], root) as cluster:
        try:
            cluster.start(BUILT_FILE)
        except LabError as error:
            pytest.fail(str(error), pytrace=False)
        yield cluster


@pytest.fixture(scope="session")
def daemon_log(lab: SlurmLab) -> Path:
    """What the daemons of all tests on this cluster said; kept for whoever looks into a failure."""
    log = FOLDER / f"daemon-{lab.suite.slurm}.log"
    log.write_bytes(b"")
    return log


@pytest.fixture
def installation(lab: SlurmLab, daemon_log: Path) -> Iterator[Installation]:
    """A daemon that is not yet started and a cc-backend, both without any memory, and an empty queue."""
    with Installation(lab, daemon_log) as installed:
        yield installed
        clear_queue(lab)


@pytest.fixture(scope="session")
def campaign(lab: SlurmLab, daemon_log: Path) -> Campaign:
    """All the jobs of the campaign, run and reported once for each cluster."""
    with Installation(lab, daemon_log) as installed:
        return run_campaign(installed)
