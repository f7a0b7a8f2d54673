"""The built file as a daemon: its files, its user, its stop, and never twice."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.daemon.written_paths import patterns
from examples.practice.cc_backend import NoAnswer
from examples.practice.programs import write_program
from examples.practice.site import Site
from examples.practice.slurm.model import JobRequest, Settings
from tests.built import broken_daemon
from tests.built.installed import call

STOP_LIMIT = 2.0
AS_ROOT = "the daemon runs as root, which it does not need"
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
    site.wait_for("its control socket", (site.daemon.run_folder / "control.sock").exists)
    before = {path: path.stat().st_ino for path in site.daemon.run_folder.iterdir()}
    assert {path.name for path in before} == {"daemon.sock", "daemon.pid", "control.sock"}
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
    assert site.daemon.log().count(AS_ROOT) == (os.geteuid() == 0)
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
    assert mode_of(site.daemon.events_folder) == 0o770
    for name in ("state.sqlite", "state.sqlite-wal", "state.sqlite-shm"):
        assert mode_of(site.daemon.state_folder / name) == 0o600
    assert_stops_in_time(site)
    new = {path for path in files_below(site.folder) - others if path.parts[0] != "slurm"}
    state = Path("daemon/state")
    events = {Path("daemon/hooks/events"), *(Path("daemon/hooks/events") / f".{name}.open" for name in ("", "lab"))}
    kept = ("lastrun", "state.sqlite", "state.sqlite.crashes", "first-moment")
    assert new == {state / name for name in kept} | events
    assert list((site.daemon.folder / "home").iterdir()) == []
    listed = patterns(parse_config(site.daemon.config)[0])
    assert [path for path in new if not any(fnmatchcase(str(site.folder / path), each) for each in listed)] == []


class Systemd:
    """Its end of the socket that the daemon reports to; a thread empties it, as its queue is short."""

    def __init__(self, site: Site) -> None:
        self._end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._end.bind(str(site.folder / "notify"))
        site.daemon.environ.update(NOTIFY_SOCKET=str(site.folder / "notify"), WATCHDOG_USEC="4000000")
        self._told: list[str] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while message := self._end.recv(65536):
            self._told.append(message.decode())

    def told(self) -> list[str]:
        """All that has come so far."""
        return list(self._told)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._end.getsockname())
        self._thread.join(STOP_LIMIT)
        self._end.close()


@pytest.fixture
def systemd(site: Site) -> Iterator[Systemd]:
    made = Systemd(site)
    yield made
    made.close()


def test_it_is_ready_before_slurmctld_answers_and_feeds_the_watchdog(site: Site, systemd: Systemd) -> None:
    """A boot must not wait for a slurmctld that is started later."""
    record = site.folder / "hanging"
    let_hang(Path(site.cluster.bin) / "scontrol", record)
    site.daemon.launch()
    site.wait_for("the hanging command", record.exists)
    site.wait_for("a fed watchdog", lambda: systemd.told().count("WATCHDOG=1") >= 4)
    assert systemd.told().count("READY=1") == 1
    statuses = [line for line in systemd.told() if line.startswith("STATUS=")]
    assert statuses[-1] == "STATUS=waiting for Slurm's answer (scontrol show config)"
    assert site.daemon.socket_path.exists()
    assert_stops_in_time(site)
    site.wait_for("its last word", lambda: systemd.told()[-1] == "STOPPING=1")


def test_an_idle_daemon_feeds_the_watchdog(site: Site, systemd: Systemd) -> None:
    site.daemon.start()
    before = len(systemd.told())
    site.wait_for("a fed watchdog", lambda: systemd.told()[before:].count("WATCHDOG=1") >= 3)
    assert any(line.startswith("STATUS=reports lab to cc-backend: ") for line in systemd.told())


def crashes_of(site: Site) -> Path:
    return site.daemon.state_folder / "state.sqlite.crashes"


def test_after_crashes_in_a_row_it_waits_before_it_works(site: Site, systemd: Systemd) -> None:
    for crashes in range(1, 7):
        site.daemon.launch()
        count = f"{crashes}\n"
        site.wait_for("the count", lambda: crashes_of(site).exists() and crashes_of(site).read_text() == count)  # noqa: B023
        site.daemon.kill()
    site.daemon.start()
    line = "ended 6 times in a row soon after the start, waiting 2 s"
    assert line in site.daemon.log()
    assert f"STATUS={line}" in systemd.told()
    job = site.cluster.submit(JobRequest(duration=1))
    site.wait_for("the job", lambda: site.has_stopped(job))
    assert_stops_in_time(site)
    assert crashes_of(site).read_text() == "0\n"


def test_sigterm_ends_the_wait_after_crashes(site: Site, systemd: Systemd) -> None:
    crashes_of(site).write_text("100\n")
    site.daemon.launch()
    site.wait_for("the wait", lambda: "waiting 300 s" in site.daemon.log())
    site.wait_for("readiness", lambda: "READY=1" in systemd.told())
    assert_stops_in_time(site)
    assert crashes_of(site).read_text() == "0\n"


def test_a_start_that_cannot_become_ready_rests_too(site: Site) -> None:
    crashes_of(site).write_text("6\n")
    site.daemon.socket_path.write_text("")
    site.daemon.launch()
    site.wait_for("the wait", lambda: "ended 6 times in a row soon after the start, waiting 2 s" in site.daemon.log())
    assert site.daemon.wait(30) == 1
    assert "exists and is not a socket" in site.daemon.log()
    assert crashes_of(site).read_text() == "7\n"


def test_a_second_daemon_of_systemd_rests_before_it_ends_and_a_stop_ends_that(site: Site) -> None:
    site.daemon.start()
    before = crashes_of(site).read_text()
    command, environ = site.daemon.command(), {**site.daemon.environ, "NOTIFY_SOCKET": str(site.folder / "nobody")}
    second = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(3)
    second.send_signal(signal.SIGTERM)
    _, errors = second.communicate(timeout=STOP_LIMIT)
    assert second.returncode == 1
    assert f"runs already with the pid {site.daemon.pid}" in errors
    assert crashes_of(site).read_text() == before


def break_daemon(site: Site, adapter: Path, fault: str) -> None:
    """Start it from now on with a fault of broken_daemon.py."""
    words = [sys.executable, "-I", "-S", "-B", broken_daemon.__file__, str(adapter), fault]
    quoted = " ".join(map(shlex.quote, words))
    site.daemon.adapter = write_program(site.folder / "broken", f'#!/bin/sh\nexec {quoted} "$@"\n')


def test_sigterm_ends_it_in_time_while_no_name_server_answers(site: Site, systemd: Systemd, adapter: Path) -> None:
    break_daemon(site, adapter, "names")
    secret = site.folder / "secret"
    secret.write_text("the-shared-secret-of-hooks-and-daemon")
    secret.chmod(0o600)
    site.daemon.configure(prepSockListenPath="tcp:controller.example.org:12345", prepSecretFile=str(secret))
    site.daemon.launch()
    site.wait_for("a fed watchdog", lambda: systemd.told().count("WATCHDOG=1") >= 2)
    assert "READY=1" not in systemd.told()
    assert_stops_in_time(site)


def test_a_thread_that_ends_ends_the_daemon_so_that_systemd_starts_it_again(site: Site, adapter: Path) -> None:
    break_daemon(site, adapter, "accept")
    site.daemon.start()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(site.daemon.socket_path))
        assert site.daemon.wait(30) == 1
    last = site.daemon.last_words().splitlines()[-1]
    assert "the thread intake has ended: this process ends, so that systemd starts a new one" in last
    site.daemon.adapter = adapter
    site.daemon.start()
    job = site.cluster.submit(JobRequest(duration=1))
    site.wait_for("the job", lambda: site.has_stopped(job))


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
        assert AS_ROOT not in site.daemon.log()
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
