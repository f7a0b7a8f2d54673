"""A stop amid the first sync, state files that are gone or too new, and a machine that gives no space or descriptors.

Each time: nothing is lost, nothing is double, the log says what is wrong, and the daemon goes on when it is over.
"""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path

import pytest

from examples.practice.cc_backend import Delay
from examples.practice.programs import write_program
from examples.practice.site import Site
from examples.practice.slurm.model import JobRequest, Settings
from tests.built.installed import call

STOP_LIMIT = 2.0
LONG = JobRequest("long", gpus_per_node=1, duration=600)
SHORT = JobRequest("short", duration=0.5)
OWN_MOUNTS = """\
#!/bin/sh
exec unshare --mount sh -c 'mount {mount} && exec "$@"' sh {adapter} "$@"
"""
SMALL = "-t tmpfs -o size=1m none {folder}"
IMAGE = "-t ext4 -o loop,errors=remount-ro {image} {{folder}}"
IMAGE_SIZE = 16 * 1024 * 1024
READ_ONLY = "--bind {folder} {folder} && mount -o remount,bind,ro {folder}"
MAX_FILE = 16384
"""Bytes: less than the write-ahead log of the state file has, more than the daemon's log."""


@pytest.fixture
def site(adapter: Path) -> Iterator[Site]:
    """A site without hooks, whose daemon is not started yet."""
    with Site(adapter, hook="", slurmPollInterval=1) as new:
        yield new


def cancel(site: Site, *job_ids: int) -> None:
    for job_id in job_ids:
        site.cluster.cancel(job_id)


def assert_all_is_right(site: Site, runs: int) -> None:
    site.wait_for("all to be reported", site.is_reported)
    assert site.differences() == []
    assert len(site.backend.rows) == runs


def test_sigterm_amid_the_first_sync(adapter: Path) -> None:
    with Site(adapter, cluster=Settings(nodes="node[01-08]"), hook="", slurmPollInterval=1) as site:
        jobs = site.cluster.submit_all([JobRequest("many", duration=600)] * 60)
        site.wait_for("the jobs to run", lambda: len(site.cluster.truth()) == 60)
        slow = site.backend.add_fault(Delay(path="/api/jobs/start_job/", seconds=0.2))
        site.daemon.start()
        site.wait_for("some starts", lambda: len(site.backend.rows) >= 4)
        code, seconds = site.daemon.stop()
        assert (code, len(site.backend.rows) < 60) == (0, True)
        assert seconds <= STOP_LIMIT
        site.backend.remove_fault(slow)
        site.daemon.start()
        site.wait_for("all starts", lambda: site.has_started(*jobs))
        cancel(site, *jobs)
        assert_all_is_right(site, 60)


def state_files(site: Site) -> list[Path]:
    return list(site.daemon.state_folder.glob("state.sqlite*"))


def test_the_state_file_is_deleted_while_the_daemon_runs(site: Site) -> None:
    site.daemon.start()
    jobs = site.cluster.submit_all([LONG] * 2)
    site.wait_for("the starts", lambda: site.has_started(*jobs))
    for path in state_files(site):
        path.unlink()
    jobs += site.cluster.submit_all([LONG] * 2)
    cancel(site, jobs[0])
    site.wait_for("what happened since", lambda: site.has_started(*jobs) and site.has_stopped(jobs[0]))
    site.daemon.kill()
    site.daemon.start()
    cancel(site, *jobs[1:])
    assert_all_is_right(site, 4)


def test_a_state_file_of_a_newer_version_is_left_alone(site: Site) -> None:
    site.daemon.start()
    jobs = site.cluster.submit_all([LONG] * 2)
    site.wait_for("the starts", lambda: site.has_started(*jobs))
    site.daemon.stop()
    state = site.daemon.state_folder / "state.sqlite"
    with closing(sqlite3.connect(state)) as database:
        database.execute("PRAGMA user_version = 1000")
    before = state.read_bytes()
    refused = call(site.daemon.command(), site.daemon.environ)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert "has the format 1000" in line
    assert "or move the file away" in line
    assert state.read_bytes() == before
    for path in state_files(site):
        path.rename(path.with_name(f"old-{path.name}"))
    cancel(site, jobs[0])
    site.daemon.start()
    site.wait_for("the end", lambda: site.has_stopped(jobs[0]))
    cancel(site, jobs[1])
    assert_all_is_right(site, 2)


@pytest.mark.parametrize("kind", ["database", "text", "folder"])
def test_nothing_is_written_beside_what_is_somebody_else_s(site: Site, kind: str) -> None:
    state = site.folder / "others" / "books"
    state.parent.mkdir()
    if kind == "database":
        with closing(sqlite3.connect(state)) as database:
            database.execute("PRAGMA user_version = 1000")
            database.execute("CREATE TABLE book (title TEXT)")
    elif kind == "text":
        state.write_text("notes\n")
    else:
        state.mkdir()
    site.daemon.configure(statePath=str(state))
    before = state.read_bytes() if state.is_file() else b""
    for _ in range(2):
        refused = call(site.daemon.command(), site.daemon.environ)
        assert refused.returncode == 1
        (line,) = refused.stderr.splitlines()
        assert f"statePath names {state}" in line
        assert "set statePath to a file of the daemon's own" in line
    assert [path.name for path in state.parent.iterdir()] == ["books"]
    assert (state.read_bytes() if state.is_file() else b"") == before


@contextmanager
def full_disk(site: Site) -> Iterator[None]:
    """The tiny file system of the state folder, which only the daemon sees, is filled."""
    filler = Path(f"/proc/{site.daemon.pid}/root{site.daemon.state_folder}/filler")
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 512)
    yield
    filler.unlink()


@contextmanager
def limited(site: Site, what: int, limit: int) -> Iterator[None]:
    """As `ulimit`, for the running daemon."""
    before = resource.prlimit(site.daemon.pid, what)
    resource.prlimit(site.daemon.pid, what, (limit, before[1]))
    yield
    if site.daemon.running:
        resource.prlimit(site.daemon.pid, what, before)


def with_own_mounts(site: Site, mount: str) -> Path:
    """The built file in a mount namespace of its own; skips where that cannot be had."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0:
        pytest.skip("no mount namespaces here")
    mounted = mount.format(folder=shlex.quote(str(site.daemon.state_folder)))
    text = OWN_MOUNTS.format(mount=mounted, adapter=shlex.quote(str(site.daemon.adapter)))
    return write_program(site.folder / "own-mounts", text)


def go_through(site: Site, fault: Callable[[], AbstractContextManager[None]], complaint: str) -> None:
    """Jobs before, during and after a fault; the same daemon serves all of them, and says what was wrong."""
    site.daemon.start()
    jobs = site.cluster.submit_all([LONG] * 2)
    site.wait_for("the starts", lambda: site.has_started(*jobs))
    with fault():
        cancel(site, jobs[0])
        jobs += site.cluster.submit_all([LONG, SHORT])
        site.wait_for("the complaint", lambda: complaint in site.daemon.log())
        site.wait_for("the short job to end", lambda: sum(run.end is not None for run in site.cluster.truth()) == 2)
    site.wait_for("all starts", lambda: site.has_started(*jobs))
    cancel(site, *jobs[1:3])
    assert_all_is_right(site, 4)
    assert site.daemon.stop()[0] == 0


def report_from_memory(site: Site) -> list[int]:
    """While the state file cannot be written jobs end and begin: cc-backend is told nevertheless. Returns new jobs."""
    (ended,) = (row.job_id for row in site.backend.rows)
    cancel(site, ended)
    jobs = site.cluster.submit_all([LONG, SHORT])
    site.wait_for("what happens meanwhile", lambda: site.has_started(*jobs) and site.has_stopped(ended, jobs[1]))
    assert "going on from memory" in site.daemon.log()
    return jobs


def start_with_a_job(site: Site) -> None:
    site.daemon.start()
    (job,) = site.cluster.submit_all([LONG])
    site.wait_for("the start", lambda: site.has_started(job))


def test_the_disk_is_full(site: Site) -> None:
    site.daemon.adapter = with_own_mounts(site, SMALL)
    start_with_a_job(site)
    with full_disk(site):
        jobs = report_from_memory(site)
        # What notices it first: a write that fails, or the check of the room before one.
        assert any(words in site.daemon.log() for words in ("disk is full", " MB left, and the last "))
    site.daemon.signal(signal.SIGHUP)
    site.wait_for("the file to be written", lambda: "can be written again" in site.daemon.log())
    cancel(site, jobs[0])
    assert_all_is_right(site, 3)
    assert site.daemon.stop()[0] == 0


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_the_daemon_ends_while_its_file_cannot_be_written(site: Site, end: str) -> None:
    """What was known in memory only is found out from Slurm again, since the time of the last run did not move."""
    site.daemon.configure(slurmQueryMaxSpan=3600)
    start_with_a_job(site)
    last_run = site.daemon.state_folder / "lastrun"
    site.wait_for("a complete pass", last_run.exists)
    with limited(site, resource.RLIMIT_FSIZE, MAX_FILE):
        jobs = report_from_memory(site)
        before = last_run.stat().st_mtime_ns
        jobs += site.cluster.submit_all([LONG])
        site.wait_for("the start", lambda: site.has_started(*jobs))
        assert last_run.stat().st_mtime_ns == before
        if end == "kill":
            site.daemon.kill()
        else:
            assert site.daemon.stop()[0] == 0
    site.daemon.start()
    cancel(site, jobs[0], jobs[2])
    assert_all_is_right(site, 4)


@contextmanager
def immutable(site: Site) -> Iterator[None]:
    """No file of the state folder can be changed any more, also by whoever has it open, and none can be made.

    Without the state file's `-shm`, which SQLite maps: Linux ends who writes to a mapped file that was made immutable.
    A file system that turns read-only does not do so.
    """
    files = [path for path in site.daemon.state_folder.rglob("*") if not path.name.endswith("-shm")]
    words = [str(path) for path in [*files, site.daemon.state_folder]]
    if subprocess.run(["chattr", "+i", *words], capture_output=True, check=False).returncode != 0:
        subprocess.run(["chattr", "-i", *words], capture_output=True, check=False)
        pytest.skip("no immutable files here")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *words], check=True)


def test_no_file_can_be_written_while_the_daemon_runs(site: Site) -> None:
    """What was reported from memory is in the file as soon as that can be written: a kill then loses nothing."""
    start_with_a_job(site)
    last_run = site.daemon.state_folder / "lastrun"
    site.wait_for("a complete pass", last_run.exists)
    with immutable(site):
        before = last_run.stat().st_mtime_ns
        jobs = report_from_memory(site)
        assert last_run.stat().st_mtime_ns == before
    site.daemon.signal(signal.SIGHUP)
    site.wait_for("the file to be written", lambda: "can be written again" in site.daemon.log())
    site.wait_for("a complete pass", lambda: last_run.stat().st_mtime_ns > before)
    site.daemon.kill()
    assert known_runs(site) == sorted(run.job_id for run in site.cluster.truth())
    site.daemon.start()
    cancel(site, jobs[0])
    assert_all_is_right(site, 3)


def known_runs(site: Site) -> list[int]:
    """The jobs of all runs that the state file has; nobody may use it."""
    with closing(sqlite3.connect(site.daemon.state_folder / "state.sqlite")) as state:
        return [job_id for (job_id,) in state.execute("SELECT job_id FROM run ORDER BY job_id")]


def with_own_disk(site: Site) -> Path:
    """The built file with a disk of its own for the state folder, which turns read-only at its first error."""
    image = site.folder / "disk"
    with image.open("wb") as file:
        file.truncate(IMAGE_SIZE)
    if shutil.which("mkfs.ext4") is None or subprocess.run(["mkfs.ext4", "-q", image], check=False).returncode != 0:
        pytest.skip("no file system can be made here")
    program = with_own_mounts(site, IMAGE.format(image=shlex.quote(str(image))))
    if subprocess.run([program, "-version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no loop devices here")
    return program


def test_the_disk_turns_read_only(site: Site) -> None:
    """As at an error of its hardware. It cannot be written again before it was repaired, so the next daemon has none
    of what it held.
    """
    adapter = site.daemon.adapter
    site.daemon.adapter = with_own_disk(site)
    start_with_a_job(site)
    break_disk(site)
    jobs = report_from_memory(site)
    assert site.daemon.stop()[0] == 0
    site.daemon.adapter = adapter
    site.backend.commit()
    site.daemon.start()
    cancel(site, jobs[0])
    assert_all_is_right(site, 3)


def break_disk(site: Site) -> None:
    """Let the kernel believe that it has met an error; skips where that cannot be had."""
    mounts = Path(f"/proc/{site.daemon.pid}/mounts").read_text().splitlines()
    (device,) = (line.split()[0] for line in mounts if line.split()[1] == str(site.daemon.state_folder))
    switch = Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error")
    if not switch.exists():
        pytest.skip("no errors of the disk can be played here")
    switch.write_text("practice")


def test_no_file_descriptors_are_left(site: Site) -> None:
    go_through(site, lambda: limited(site, resource.RLIMIT_NOFILE, 4), "Too many open files")


def test_the_state_folder_is_read_only(site: Site) -> None:
    adapter = site.daemon.adapter
    site.daemon.start()
    jobs = site.cluster.submit_all([LONG] * 2)
    site.wait_for("the starts", lambda: site.has_started(*jobs))
    site.daemon.kill()
    site.daemon.adapter = with_own_mounts(site, READ_ONLY)
    cancel(site, jobs[0])
    refused = call(site.daemon.command(), site.daemon.environ)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert f"the state folder {site.daemon.state_folder} (of lastRunPath) cannot be written: Read-only" in line
    site.daemon.adapter = adapter
    site.daemon.start()
    cancel(site, jobs[1])
    assert_all_is_right(site, 2)
