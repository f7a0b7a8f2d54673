"""Jobs that Slurm itself has lost: their end did not reach slurmdbd, and slurmctld has forgotten them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import BUILT_FILE, log_of
from .debian import SUITES
from .installation import STATE_FOLDER, Installation
from .namespaces import wait_for
from .slurm_jobs import Submission, cancel, submit
from .slurm_lab import SlurmLab

pytestmark = pytest.mark.slurm

LONG = Submission(script="sleep 600", name="long")


@pytest.fixture
def own(release: str, lab: SlurmLab) -> Iterator[Installation]:
    """On a cluster of its own, whose job ids begin anew."""
    log = log_of(f"{release}-lost")
    log.write_bytes(b"")
    with SlurmLab(SUITES[release], lab.root) as cluster:
        cluster.start(BUILT_FILE)
        with Installation(cluster, log) as installed:
            yield installed


def test_jobs_that_slurm_has_lost_are_named_and_over_as_soon_as_an_administrator_says_so(
    release: str, own: Installation
) -> None:
    """`sacctmgr show runawayjobs` lists the same jobs. Accounting then has their start as their end."""
    own.start()
    jobs = [submit(own.lab, LONG) for _ in range(3)]
    own.wait_for_starts(jobs, seconds=60)
    seen = time.time() + 2
    last_run = own.lab.path(f"{STATE_FOLDER}/lastrun")
    wait_for("a later pass", lambda: last_run.exists() and last_run.stat().st_mtime > seen, seconds=60)
    own.kill()
    own.lab.stop_slurmdbd()
    cancel(own.lab, jobs)
    wait_for("slurmctld to forget", lambda: all(is_forgotten(own.lab, job_id) for job_id in jobs), seconds=120)
    own.lab.lose_messages()
    own.start()
    log = log_of(f"{release}-lost")
    wait_for("the word", lambda: "Slurm has lost" in said(log), seconds=180)
    (line,) = (line for line in said(log).splitlines() if "Slurm has lost" in line)
    assert line.endswith(f"jobs {', '.join(map(str, jobs))}")
    assert not own.stopped()
    listed = own.lab.run("sacctmgr", "-nP", "show", "runawayjobs", text="y\n").stdout
    assert {int(found) for found in re.findall(r"^(\d+)\|", listed, re.MULTILINE)} == set(jobs)
    own.wait_for_stops(jobs, seconds=240)
    for job_id in jobs:
        row = own.only_row(job_id)
        assert row.state == "failed"
        assert row.stop_time is not None
        assert row.stop_time > row.start_time


def is_forgotten(lab: SlurmLab, job_id: int) -> bool:
    return "Invalid job id" in lab.run("scontrol", "show", "job", str(job_id)).stderr


def said(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")
