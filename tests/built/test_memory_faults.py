"""No memory is left for a large answer, or for anything: nothing is concluded, nothing is lost, and it goes on."""

from __future__ import annotations

import re
import resource
import shlex
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.practice.programs import write_program
from examples.practice.site import Site
from examples.practice.slurm.model import JobRequest
from tests.built.soak_faults import OWN_COPY, keep_commands

LONG = JobRequest("long", gpus_per_node=1, duration=600)
SHORT = JobRequest("short", duration=0.3)
FLOOD = """\
#!/bin/sh
{command} "$@" || exit
case "$*" in *"%A|%T|%S|%e"*) yes '{line}' | head -n 400000 ;; esac
"""
"""Lists a job that nobody knows again and again: what follows from that takes 50 MB."""
SPARE = 8 * 1024 * 1024
"""Bytes that the daemon may still have."""
ASKING = r"(?:asking slurmctld for all jobs|asking for the nodes|reading accounting)"
"""What asks Slurm: where all of it fails for one reason, only the first says so."""
FAILED = re.compile(f"{ASKING} failed, nothing is concluded from that")


@contextmanager
def busy_site(adapter: Path) -> Generator[Site, None, None]:
    """Two jobs run and one is over; the daemon has reported that."""
    with Site(adapter, hook="", slurmPollInterval=1) as site:
        keep_commands(site)
        site.daemon.start()
        jobs = site.cluster.submit_all([LONG, LONG, SHORT])
        site.wait_for("the first jobs", lambda: site.has_started(*jobs) and site.has_stopped(jobs[2]))
        yield site


def size_of(site: Site) -> int:
    """Bytes of the daemon's address space."""
    status = Path(f"/proc/{site.daemon.pid}/status").read_text()
    found = re.search(r"^VmSize:\s+(\d+) kB", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


@contextmanager
def at_most(site: Site, size: int) -> Generator[None, None, None]:
    """As `ulimit -v`, for the running daemon and what it starts from now on. Bytes."""
    before = resource.prlimit(site.daemon.pid, resource.RLIMIT_AS)
    resource.prlimit(site.daemon.pid, resource.RLIMIT_AS, (size, before[1]))
    yield
    resource.prlimit(site.daemon.pid, resource.RLIMIT_AS, before)


@contextmanager
def large_listing(site: Site) -> Generator[None, None, None]:
    """squeue prints far more than it has to."""
    squeue = Path(site.cluster.bin) / "squeue"
    line = f"1000000|RUNNING|{int(time.time())}|N/A|n"
    write_program(squeue, FLOOD.format(command=shlex.quote(f"{squeue}{OWN_COPY}"), line=line))
    yield
    write_program(squeue, Path(f"{squeue}{OWN_COPY}").read_text())


def threads_of(site: Site) -> int:
    return len(list(Path(f"/proc/{site.daemon.pid}/task").iterdir()))


def go_on(site: Site, *new: int) -> None:
    """All that happened is told once memory can be had again."""
    site.wait_for("the new jobs", lambda: site.has_started(*new))
    for job_id in (1, 2, *new):
        site.cluster.cancel(job_id)
    site.wait_for("all to be reported", site.is_reported)
    assert site.differences() == []
    assert len(site.backend.rows) == 3 + len(new)
    assert site.daemon.stop()[0] == 0


def none_for_a_large_answer(adapter: Path) -> str:
    """Returns the log, as the other one does."""
    with busy_site(adapter) as site:
        threads = threads_of(site)
        with at_most(site, size_of(site) + SPARE), large_listing(site):
            new = site.cluster.submit_all([LONG])
            site.wait_for("the complaint", lambda: FAILED.search(site.daemon.log()) is not None)
            assert "too little memory" in site.daemon.log()
            assert not site.has_stopped(1)
            assert not site.has_stopped(2)
        assert threads_of(site) == threads
        go_on(site, *new)
        return site.daemon.log()


def none_for_anything(adapter: Path) -> str:
    """No command can be started. What is owed already is sent."""
    with busy_site(adapter) as site:
        site.server.stop()
        owed = site.cluster.submit_all([LONG])
        site.wait_for("a start in the outbox", lambda: site.daemon.waiting_messages() == 1)
        threads = threads_of(site)
        with at_most(site, 1):
            site.wait_for("the complaint", lambda: FAILED.search(site.daemon.log()) is not None)
            site.cluster.cancel(1)
            new = site.cluster.submit_all([LONG])
            site.server.start()
            site.wait_for("what was owed", lambda: site.has_started(*owed))
            assert not site.has_stopped(1)
        assert threads_of(site) == threads
        go_on(site, *owed, *new)
        return site.daemon.log()


SCENARIOS = {"for a large answer": none_for_a_large_answer, "for anything": none_for_anything}


@pytest.fixture(scope="module")
def logs(adapter: Path) -> Iterator[dict[str, Future[str]]]:
    """Side by side, as each waits most of the time."""
    with ThreadPoolExecutor(len(SCENARIOS)) as pool:
        yield {name: pool.submit(scenario, adapter) for name, scenario in SCENARIOS.items()}


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_memory(logs: dict[str, Future[str]], name: str) -> None:
    log = logs[name].result()
    assert len(FAILED.findall(log)) == 1
    assert len(re.findall(f"{ASKING} works again", log)) == 1


@pytest.mark.parametrize("name", ["for a large answer", "for anything"])
def test_no_memory_is_no_error_of_this_program(logs: dict[str, Future[str]], name: str) -> None:
    assert "traceback" not in logs[name].result().lower()
