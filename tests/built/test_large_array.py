"""A user's large array with a script of a megabyte: every task is reported with it, and the disk hardly notices.

CC_SLURM_ADAPTER_ARRAY_TASKS says how many tasks, as the 10,000 that a MaxArraySize of 10,001 allows.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from cc_slurm_adapter.outbox.state_file import WAL_BYTES
from examples.practice.site import Site
from examples.practice.slurm.model import JobRequest, Settings
from tests.bench.backend import START, STOP, BenchBackend
from tests.built.test_state_faults import full_disk, state_files, with_own_mounts

TASKS = int(os.environ.get("CC_SLURM_ADAPTER_ARRAY_TASKS", "500"))
SECONDS = 90 + TASKS / 20
MB = 1024 * 1024
SCRIPT = "#!/bin/bash\nsleep 600\n".ljust(MB, "#")
ROW_BYTES = 6_000
"""What a task takes while its start waits: message, slurmInfo and run, and once more in the write-ahead log."""
LEFT = 2 * MB
"""What is left of the array in the state file in the end, beside the write-ahead log that every busy daemon has."""
OWN_DISK = "-t tmpfs -o size=40m none {folder}"
MOST_MEMORY_KB = 50 * 1024
UNRECORDED = 64
"""Accepted messages that may not be recorded yet at any moment."""
CLUSTER = Settings(nodes="node[001-100]", cores_per_socket=64)


def state_bytes(site: Site) -> int:
    return sum(path.stat().st_size for path in state_files(site))


@pytest.fixture
def backend() -> BenchBackend:
    """A port at which a lean cc-backend is going to be."""
    away = BenchBackend(sys.executable, CLUSTER.cluster)
    away.close()
    return away


def test_the_tasks_of_a_large_array_are_all_reported(adapter: Path, backend: BenchBackend) -> None:
    """cc-backend is away while they begin, so that all of them lie in the state file at once."""
    with Site(adapter, cluster=CLUSTER, hook="", ccRestUrl=backend.url, slurmPollInterval=2) as site:
        site.daemon.start()
        before = state_bytes(site)
        array = site.cluster.submit(JobRequest("array", array_size=TASKS, duration=3600, script=SCRIPT))
        site.wait_for("the starts to wait", lambda: site.daemon.waiting_messages() == TASKS, SECONDS)
        assert state_bytes(site) <= before + TASKS * ROW_BYTES + LEFT
        tasks = [run.job_id for run in site.cluster.truth()]
        with BenchBackend(sys.executable, CLUSTER.cluster, port=backend.port) as back:
            back.wait_for(START, tasks, SECONDS)
            assert back.bytes[START] >= TASKS * MB
            site.cluster.cancel(array)
            back.wait_for(STOP, tasks, SECONDS)
            assert len(back.log) - back.count("nodes") == 2 * TASKS
            log = site.daemon.log()
            site.daemon.stop()
            site.daemon.start()  # the file is tidied at the start, as every ten minutes
            site.wait_for("the file to shrink", lambda: state_bytes(site) <= before + LEFT + WAL_BYTES, SECONDS)
        assert "stateMaxBytes" not in log


def test_all_ends_of_a_large_array_arrive_while_the_disk_is_full(adapter: Path) -> None:
    """The state folder has a file system of its own, in which nothing is left once all tasks are reported."""
    with (
        BenchBackend(sys.executable, CLUSTER.cluster) as backend,
        Site(adapter, cluster=CLUSTER, hook="", ccRestUrl=backend.url, slurmPollInterval=2) as site,
    ):
        site.daemon.adapter = with_own_mounts(site, OWN_DISK)
        site.daemon.start()
        array = site.cluster.submit(JobRequest("array", array_size=TASKS, duration=3600))
        site.wait_for("the tasks to run", lambda: len(site.cluster.truth()) == TASKS, SECONDS)
        tasks = [run.job_id for run in site.cluster.truth()]
        backend.wait_for(START, tasks, SECONDS)
        with full_disk(site):
            site.cluster.cancel(array)
            backend.wait_for(STOP, tasks, SECONDS)
            assert "going on from memory" in site.daemon.log()
        peak = Path(f"/proc/{site.daemon.pid}/status").read_text()
        assert int(re.findall(r"VmHWM:\s+(\d+) kB", peak)[0]) <= MOST_MEMORY_KB
        told = Counter((each.kind, each.job_id) for each in backend.log if each.kind in (START, STOP))
        assert set(told) == {(kind, job_id) for kind in (START, STOP) for job_id in tasks}
        # What cc-backend had accepted when the disk was full is sent again, see docs/how-it-works.md.
        assert sum(told.values()) - len(told) <= UNRECORDED
