"""A state folder on a disk that hangs: Slurm's hooks do not notice, and afterwards nothing is missing."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.practice.site import Site
from examples.practice.slurm.model import JobRequest
from tests.lab.conftest import BUILT_FILE
from tests.lab.frozen_disk import FrozenDisk
from tests.lab.namespaces import LabError

pytestmark = pytest.mark.slurm

CALLS = 40
FOR_NO_JOB = 4_000_000_000
"""A job id that Slurm never gives."""
HOOK_LIMIT = 20
SLOWER = 3.0
"""A hook that waited for the disk would take a thousand times as long as one that does not."""
SHORT = JobRequest("short", gpus_per_node=1, duration=1)


@pytest.fixture
def site() -> Iterator[Site]:
    if not BUILT_FILE.exists():
        pytest.fail(f"{BUILT_FILE} does not exist: python3 build.py build", pytrace=False)
    with Site(BUILT_FILE, slurmPollInterval=1) as site:
        yield site


@pytest.fixture
def disk(site: Site, tmp_path: Path) -> Iterator[FrozenDisk]:
    with FrozenDisk(tmp_path, site.daemon.state_folder) as disk:
        yield disk


def shortest_hook_call(site: Site) -> float:
    """Seconds that the built file takes as a hook when nothing else is in its way; each call must succeed."""
    environ = {"SLURM_JOB_ID": str(FOR_NO_JOB), "SLURM_SCRIPT_CONTEXT": "prolog_slurmctld"}
    environ["SLURM_CLUSTER_NAME"] = site.settings.cluster
    took = []
    for _ in range(CALLS):
        began = time.monotonic()
        subprocess.run([str(site.folder / "hook")], env=environ, timeout=HOOK_LIMIT, check=True)
        took.append(time.monotonic() - began)
    return min(took)


def test_hooks_do_not_wait_for_a_frozen_disk_and_nothing_is_lost(
    site: Site, disk: FrozenDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    site.daemon.start()
    (lasting,) = site.cluster.submit_all([JobRequest("lasting", duration=3)])
    site.wait_for("the start", lambda: site.has_started(lasting))
    before = shortest_hook_call(site)
    disk.freeze()
    frozen = shortest_hook_call(site)
    jobs = site.cluster.submit_all([SHORT] * 5)
    site.wait_for("the jobs to end", site.cluster.is_idle, seconds=30)
    assert disk.is_frozen
    disk.thaw()
    with capsys.disabled():
        print(
            f"\n  a hook takes {before * 1000:.1f} ms, {frozen * 1000:.1f} ms while the state folder's disk is frozen",
            end="",
        )
    assert frozen < SLOWER * before
    site.wait_for("all to be reported", site.is_reported)
    told = [(row.job_id, row.start_time, row.stop_time, row.state) for row in site.backend.rows]
    true = [(run.job_id, run.start, run.end, run.state.lower()) for run in site.cluster.truth()]
    assert {job_id for job_id, *_ in true} == {lasting, *jobs}
    assert sorted(told, key=str) == sorted(true, key=str)
    assert [line for line in site.differences() if line.startswith(f"job {lasting} ")] == []
    assert site.daemon.stop()[0] == 0


def test_only_a_file_system_of_its_own_is_frozen(tmp_path: Path) -> None:
    disk = FrozenDisk(tmp_path, tmp_path)
    assert not os.path.ismount(tmp_path)
    with pytest.raises(LabError, match="no file system of its own"):
        disk.freeze()
    assert not disk.is_frozen
