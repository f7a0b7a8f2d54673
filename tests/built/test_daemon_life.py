"""The built file as a daemon: its files, its user, its stop, and never twice."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.practice.cc_backend import NoAnswer
from examples.practice.programs import write_program
from examples.practice.site import Site
from examples.practice.slurm.model import JobRequest, Settings
from tests.built.installed import call

STOP_LIMIT = 2.0
HANGING = """\
#!/bin/sh
echo $$ >> {record}
exec sleep 600
"""


def assert_stops_in_time(site: Site) -> None:
    """SIGTERM ends it with 0 within 2 s, and neither pid file nor socket is left."""
    code, seconds = site.daemon.stop()
    assert code == 0
    assert seconds <= STOP_LIMIT
    assert list(site.daemon.run_folder.iterdir()) == []


@pytest.fixture
def site(adapter: Path) -> Iterator[Site]:
    """A site whose daemon is not started yet."""
    with Site(adapter) as new:
        yield new


def test_a_second_daemon_says_so_and_leaves_the_first_alone(site: Site) -> None:
    site.daemon.start()
    before = {path: path.stat().st_ino for path in site.daemon.run_folder.iterdir()}
    assert set(before) == {site.daemon.socket_path, site.daemon.run_folder / "daemon.pid"}
    second = call(site.daemon.command(), site.daemon.environ)
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert f"runs already with the pid {site.daemon.pid}" in line
    assert second.stdout == ""
    assert {path: path.stat().st_ino for path in site.daemon.run_folder.iterdir()} == before
    job = site.cluster.submit(JobRequest(duration=1))
    site.wait_for("the job", lambda: site.has_stopped(job))


def test_sigterm_ends_it_in_time_with_jobs_running(site: Site) -> None:
    site.daemon.start()
    job = site.cluster.submit(JobRequest(duration=600))
    site.wait_for("the start", lambda: site.has_started(job))
    assert_stops_in_time(site)


@pytest.mark.parametrize("path", ["", "/api/jobs/start_job/"], ids=["at the start", "while a job is sent"])
def test_sigterm_ends_it_in_time_while_cc_backend_does_not_answer(site: Site, path: str) -> None:
    silence = site.backend.add_fault(NoAnswer(path=path, count=1000))
    site.cluster.submit(JobRequest(duration=600))
    site.daemon.launch()
    assert site.backend.wait_for(lambda: silence.count != 1000, 20)
    assert_stops_in_time(site)
    site.backend.remove_fault(silence)


@pytest.mark.parametrize(
    ("command", "ready"), [("scontrol", False), ("squeue", True)], ids=["at the start", "in a poll"]
)
def test_sigterm_ends_it_in_time_while_slurm_does_not_answer(site: Site, command: str, ready: bool) -> None:
    record = site.folder / "hanging"
    if ready:
        site.daemon.configure(slurmPollInterval=1)
        site.daemon.start()
    let_hang(Path(site.cluster.bin) / command, record)
    if not ready:
        site.daemon.launch()
    site.wait_for("the hanging command", lambda: record.exists() and record.read_text().endswith("\n"))
    assert_stops_in_time(site)
    for pid in record.read_text().split():
        assert not Path(f"/proc/{pid}").exists()


def let_hang(command: Path, record: Path) -> None:
    """Put a command in its place that does nothing; a call that runs already goes on undisturbed."""
    write_program(command, HANGING.format(record=record))


def test_sigint_ends_it_like_sigterm(site: Site) -> None:
    site.daemon.start()
    site.daemon.signal(signal.SIGINT)
    assert site.daemon.wait(STOP_LIMIT) == 0
    assert list(site.daemon.run_folder.iterdir()) == []


def test_after_kill_9_it_starts_in_spite_of_pid_file_and_socket(site: Site) -> None:
    site.daemon.start()
    site.daemon.kill()
    pid_file = site.daemon.run_folder / "daemon.pid"
    assert site.daemon.socket_path.exists()
    pid_file.write_text(f"{os.getpid()}\n")  # the pid of a process that lives and is something else
    site.daemon.start()
    assert pid_file.read_text() == f"{site.daemon.pid}\n"
    assert_stops_in_time(site)


def files_below(folder: Path) -> set[Path]:
    """Everything in a folder, folders too."""
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_all_that_it_writes_lies_in_its_folders(site: Site) -> None:
    """HOME, the folder for temporary files and the current folder stay as they were."""
    temporary = site.folder / "tmp"
    temporary.mkdir()
    site.daemon.environ["TMPDIR"] = str(temporary)
    site.daemon.launch()
    others = files_below(site.folder) - {path for path in files_below(site.folder) if path.parts[0] == "slurm"}
    site.wait_for("the daemon", site.daemon.is_ready)
    site.cluster.submit(JobRequest(duration=1, array_size=3, gpus_per_node=1))
    site.wait_for("all to be reported", lambda: len(site.backend.rows) == 3 and site.is_reported())
    site.wait_for("a complete pass", (site.daemon.state_folder / "lastrun").exists)
    assert mode_of(site.daemon.state_folder / "events") == 0o2770
    for name in ("state.sqlite", "state.sqlite-wal", "state.sqlite-shm"):
        assert mode_of(site.daemon.state_folder / name) == 0o600
    assert_stops_in_time(site)
    new = {path for path in files_below(site.folder) - others if path.parts[0] != "slurm"}
    state = Path("daemon/state")
    assert new == {state / name for name in ("lastrun", "state.sqlite", "first-moment", "events")}
    assert list((site.daemon.folder / "home").iterdir()) == []


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_serves_as_an_ordinary_user(copy: Path) -> None:
    """With Slurm's hooks as another user. Only root can start it so; others run all tests here as themselves."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a daemon as another user")
    with site_of_nobody(copy) as site:
        site.daemon.start()
        process = Path(f"/proc/{site.daemon.pid}/status").read_text()
        assert "\nUid:\t65534\t65534\t65534\t65534\n" in process
        site.cluster.submit_all([JobRequest(duration=1, gpus_per_node=2), JobRequest(nodes=2, duration=1)])
        site.wait_for("all to be reported", lambda: len(site.backend.rows) == 2 and site.is_reported())
        assert site.differences() == []
        assert site.daemon.state_folder.stat().st_uid == 65534
        assert_stops_in_time(site)


@contextmanager
def site_of_nobody(adapter: Path) -> Iterator[Site]:
    """Skips where the user `nobody` cannot reach this project or its Python."""
    operator = Settings(admin_levels=(("nobody", "Operator"),))
    for python in (sys.executable, "/usr/bin/python3"):
        with Site(adapter, cluster=operator, user="nobody", python=python) as site:
            squeue = f"{site.cluster.bin}/squeue"
            probe = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", squeue, "-h"]
            if subprocess.run(probe, env=site.daemon.environ, capture_output=True, check=False).returncode == 0:
                yield site
                return
    pytest.skip("the user nobody cannot read this folder or start its Python")
