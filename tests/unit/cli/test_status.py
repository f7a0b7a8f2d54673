"""-status: what it prints, how it ends, and what it says of a daemon that does not run."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import cc_slurm_adapter
from cc_slurm_adapter.__main__ import main
from cc_slurm_adapter.cli.main import CONFIG
from cc_slurm_adapter.cli.status import FAULTS, NOT_RUNNING, WELL, find_status, print_status, wants_colors, watch_status
from cc_slurm_adapter.cli.stopped import read_stopped
from cc_slurm_adapter.config.paths import Paths, read_paths
from cc_slurm_adapter.daemon.faults import find_faults
from cc_slurm_adapter.daemon.state_files import PidFile
from cc_slurm_adapter.errors import ConfigError, NotAllowed, NotRunning
from cc_slurm_adapter.outbox.schema import SCHEMA, SCHEMA_VERSION
from tests.fakes import statuses

LIMIT = 60.0
"""Seconds that a test waits for what must come."""
WIDE = "500"
"""Columns in which no path of a test is broken."""
FAULTY = replace(statuses.WELL, faults=find_faults(statuses.with_rest(failing_since=statuses.NOW - 720, why="refused")))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(*(str(tmp_path / name) for name in ("control.sock", "daemon.pid", "lastrun", "state.sqlite")))


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A configuration that names the same paths, and is wrong elsewhere."""
    path = tmp_path / "config.json"
    names = {"pidFilePath": str(tmp_path / "daemon.pid"), "lastRunPath": str(tmp_path / "lastrun")}
    path.write_text(json.dumps({**names, "slurmPollInterval": "often"}))
    return str(path)


@contextmanager
def daemon(path: str, answer: Callable[[], bytes | None]) -> Iterator[None]:
    """Something that answers each request on a control socket, or reads it and is silent."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(5)
    listener.settimeout(0.1)
    ended = threading.Event()

    def serve() -> None:
        kept = []
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError as error:  # as Python 3.9 calls it
                if "timed out" in str(error):
                    continue
                raise
            kept.append(connection)
            connection.settimeout(LIMIT)
            connection.recv(10_000)
            body = answer()
            if body is not None:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                connection.close()
        for each in kept:
            each.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    ended.set()
    thread.join(LIMIT)
    listener.close()


def fill(path: str) -> sqlite3.Connection:
    """A state file with two open runs, three pending starts, a parked one with its stop, and a conflict."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = wal")
    database.executescript(f"{SCHEMA} PRAGMA user_version = {SCHEMA_VERSION};")
    database.execute("INSERT INTO checkpoint VALUES ('alex', ?)", (int(time.time()) - 7300,))
    database.execute("INSERT INTO used_sink VALUES ('cc_rest'), ('cc_nats')")
    for job, stage in ((1, "started"), (2, "preparing"), (3, "done")):
        database.execute("INSERT INTO run VALUES ('alex', ?, 1000, ?, '', NULL, 0, '')", (job, stage))
    rows = [(job, "start", "pending", 0.0, "") for job in (1, 2, 3)]
    rows += [(4, "start", "parked", 1e15, "HTTP 400: no such cluster: \x1b]0;alex"), (4, "stop", "pending", 1e15, "")]
    rows += [(5, "start", "conflict", 0.0, "")]
    for job, kind, state, next_try, reason in rows:
        database.execute(
            "INSERT INTO delivery (sink, cluster, job_id, start_time, kind, message, created, state, next_try, reason)"
            " VALUES ('cc_rest', 'alex', ?, 1000, ?, 1, ?, ?, ?, ?)",
            (job, kind, int(time.time()) - 650, state, next_try, reason),
        )
    return database


def status(config: str, *flags: str) -> int:
    return main(["-status", "-config", config, *flags])


# --- a daemon that answers


def test_a_daemon_that_is_well(config: str, paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(paths.control_sock, lambda: statuses.WELL.as_json().encode()):
        assert status(config) == WELL == 0
    out, err = capsys.readouterr()
    assert out.startswith("reports alex to cc-backend and NATS: 817 open runs, 0 pending; all is well\n")
    assert out.count("\n") <= 24
    assert err == ""
    assert "\x1b" not in out


def test_faults_make_the_exit_code_1(config: str, paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(paths.control_sock, lambda: FAULTY.as_json().encode()):
        assert status(config) == FAULTS == 1
    assert "ERROR cc-backend cannot be reached: refused (for 12 min) -> see that it" in capsys.readouterr().out


def test_json_is_what_the_daemon_sent_in_one_line(
    config: str, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    with daemon(paths.control_sock, lambda: FAULTY.as_json().encode()):
        assert status(config, "-json") == FAULTS
    assert capsys.readouterr().out == FAULTY.as_json() + "\n"


def test_the_width_is_that_of_columns(
    config: str, paths: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with daemon(paths.control_sock, lambda: FAULTY.as_json().encode()):
        for columns, expected in (("50", 50), ("0", 80), ("x", 80), ("9" * 400, 500)):
            monkeypatch.setenv("COLUMNS", columns)
            status(config)
            longest = max(map(len, capsys.readouterr().out.splitlines()))
            assert expected / 2 < longest <= expected or (columns.startswith("9") and longest <= 500)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_colours_are_for_those_who_want_them(environ: dict[str, str], expected: bool) -> None:
    assert wants_colors(environ) == expected


# --- a daemon that does not


def test_a_daemon_that_does_not_run_is_told_from_its_files(
    config: str, paths: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", WIDE)
    fill(paths.state).close()
    Path(paths.last_run).touch()
    os.utime(paths.last_run, (time.time() - 7230, time.time() - 7230))
    Path(paths.pid_file).write_text("4711\n")
    assert status(config) == NOT_RUNNING == 2
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert out.startswith(f"the daemon does not run: no daemon answers on {paths.control_sock}")
    assert f"{paths.pid_file} names the process 4711, which does not hold its lock" in out
    assert re.search(r"last poll [0-9: -]+ \(2 h ago\)", out)
    assert "2 open runs; accounting was read until 2 h ago" in out
    assert "cc-backend 3 pending, the oldest for 10 min; 1 parked; 1 in conflict" in out
    assert "NATS 0 pending; 0 parked; 0 in conflict" in out
    assert r"parked 1 for cc-backend: HTTP 400: no such cluster: \x1b]0;alex" in out
    assert "systemctl status cc-slurm-adapter; journalctl -u cc-slurm-adapter -p warning -n 20" in out


def test_the_same_as_json(config: str, paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    fill(paths.state).close()
    assert status(config, "-json") == NOT_RUNNING
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["version"], found["holder"], found["last_poll"]) == (1, 0, 0.0)
    assert found["error"].startswith("no daemon answers")
    assert found["state"]["open_runs"] == 2
    assert [each["sink"] for each in found["state"]["queues"]] == ["cc_nats", "cc_rest"]
    assert found["state"]["queues"][1]["pending"] == 3
    assert found["state"]["parked"][0]["first"] == {"cluster": "alex", "job_id": 4, "start_time": 1000}


def test_where_nothing_is_there_all_of_it_is_said(
    config: str, paths: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", WIDE)
    assert status(config) == NOT_RUNNING
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert f"{paths.pid_file} is not there, as after a stop" in out
    assert f"there is no state file {paths.state}" in out
    assert os.listdir(os.path.dirname(paths.state)) == ["config.json"]


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """The files of a folder, with what is in them."""
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in folder.iterdir()}


@pytest.mark.parametrize("lost", [(), ("-shm",), ("-wal", "-shm")], ids=["crash", "no shared memory", "clean"])
def test_the_state_file_is_only_read(paths: Paths, tmp_path: Path, lost: tuple[str, ...]) -> None:
    """Also after a crash, when the newest changes are in its log."""
    running = tmp_path / "running.sqlite"
    with closing(fill(str(running))) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("INSERT INTO run VALUES ('alex', 9, 1000, 'started', '', NULL, 0, '')")
        for suffix in {"", "-wal", "-shm"} - set(lost):
            shutil.copyfile(f"{running}{suffix}", f"{paths.state}{suffix}")
    before = files(tmp_path)
    stopped = read_stopped(paths, "x", is_gone=True)
    assert files(tmp_path) == before
    if lost == ("-shm",):
        assert "start the daemon, which repairs that" in stopped.state_error
    else:
        assert stopped.state is not None, stopped.state_error
        assert stopped.state.open_runs == (2 if lost else 3)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"no database", "it is left alone"), (b"SQLite format 3\0" + b"x" * 5000, "state file"), (b"", "is empty")],
)
def test_what_is_no_state_file_is_named_and_left_alone(paths: Paths, content: bytes, expected: str) -> None:
    other = paths._replace(state=f"{paths.state}.other")
    Path(other.state).write_bytes(content)
    stopped = read_stopped(other, "x", is_gone=True)
    assert stopped.state is None
    assert expected in stopped.state_error or "is left alone" in stopped.state_error
    assert Path(other.state).read_bytes() == content


def test_another_format_is_named(paths: Paths) -> None:
    with closing(fill(paths.state)) as database:
        database.execute("PRAGMA user_version = 6")
    assert (
        f"has the format 6 of an older version, this one has {SCHEMA_VERSION}"
        in read_stopped(paths, "x", is_gone=True).state_error
    )


def test_a_daemon_that_runs_but_does_not_answer(config: str, paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    """The state file is not read then: the daemon may wait for its disk."""
    fill(paths.state).close()
    pid_file = PidFile(paths.pid_file)
    pid_file.lock()
    with daemon(paths.control_sock, lambda: None):
        assert status(config) == NOT_RUNNING
    pid_file.release()
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert out.startswith("a daemon runs, but does not answer: ")
    assert f"is locked by the process {os.getpid()}" in out
    assert "not read while a daemon is there" in out
    assert "systemctl restart cc-slurm-adapter" in out


def test_a_daemon_that_has_other_paths_than_the_configuration_now(
    config: str, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its lock of the state file shows that it runs."""
    lock = PidFile(f"{paths.state}.lock", "statePath")
    lock.lock()
    assert status(config) == NOT_RUNNING
    lock.release()
    out = "".join(capsys.readouterr().out.split())  # a long path is broken anywhere
    assert out.startswith(f"adaemonruns(pid{os.getpid()}),butitwasstartedwithanotherpidFilePathor")
    assert f"{paths.state}.lockislockedbytheprocess{os.getpid()}" in out
    assert "systemctlrestartcc-slurm-adapter" in out
    assert "systemctlstart" not in out


def test_a_broken_configuration_hides_no_daemon(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The daemon has refused it at a reload, and goes on with the one before."""
    broken = tmp_path / "config.json"
    broken.write_text('{"ccRestUrl": ')
    monkeypatch.setattr("cc_slurm_adapter.config.paths.DEFAULT_PATHS", paths)
    reads_it = replace(statuses.REPORT, program=statuses.REPORT.program._replace(config_path=str(broken)))
    with daemon(paths.control_sock, lambda: reads_it.as_json().encode()):
        code = status(str(broken))
    out, err = capsys.readouterr()
    assert code in (WELL, FAULTS)
    assert "reports" in out
    assert f"{broken}: " in err
    assert "the daemon is asked at the default paths" in err


def test_with_a_broken_configuration_no_other_cluster_s_daemon_is_shown(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "alpha.json"
    broken.write_text('{"ccRestUrl": ')
    monkeypatch.setattr("cc_slurm_adapter.config.paths.DEFAULT_PATHS", paths)
    with daemon(paths.control_sock, lambda: statuses.REPORT.as_json().encode()):
        code = status(str(broken))
    out, err = capsys.readouterr()
    assert (code, out) == (78, "")
    assert f"the daemon that answers there reads {statuses.REPORT.program.config_path}" in err


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b'{"version": 99}', b"[" * 100_000])
def test_an_answer_of_another_program_is_none(paths: Paths, body: bytes) -> None:
    found = find_status(lambda: (200, body), paths)
    assert found.code == NOT_RUNNING
    assert "restart it" in found.json
    assert find_status(lambda: (503, body), paths).code == NOT_RUNNING


def test_who_may_not_ask_is_told_so(paths: Paths) -> None:
    def ask() -> tuple[int, bytes]:
        raise NotAllowed("only root may ask: run this as root")

    found = find_status(ask, paths)
    assert found.code == FAULTS
    shown = " ".join(line.text for line in found.lines(80))
    assert shown.startswith("the daemon cannot be asked: only root may ask: run this as root")
    assert "does not run" not in shown
    assert "systemctl" not in shown
    assert json.loads(found.json)["is_forbidden"] is True


@pytest.mark.parametrize("is_there", [False, True])
def test_a_daemon_whose_socket_was_removed_runs(paths: Paths, is_there: bool) -> None:
    def ask() -> tuple[int, bytes]:
        raise NotRunning("no daemon answers: start it")

    if is_there:
        Path(paths.control_sock).touch()
    pid_file = PidFile(paths.pid_file)
    pid_file.lock()
    found = find_status(ask, paths)
    pid_file.release()
    shown = " ".join(line.text.strip() for line in found.lines(500))
    why = f"{'nobody listens on ' if is_there else ''}its control socket {paths.control_sock}"
    assert shown.startswith(
        f"a daemon runs (pid {os.getpid()}), but {why}{'' if is_there else ' is not there'}: systemctl restart"
        " cc-slurm-adapter makes it again"
    )
    assert "start it" not in shown
    assert found.code == NOT_RUNNING


# --- the configuration


def test_the_paths_are_those_of_the_configuration_or_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "config.json"

    def read(**settings: object) -> Paths:
        path.write_text(json.dumps(settings))
        return read_paths(str(path), explicit=True)

    assert read() == (
        "/run/cc-slurm-adapter/control.sock",
        "/run/cc-slurm-adapter/daemon.pid",
        "/var/lib/cc-slurm-adapter/lastrun",
        "/var/lib/cc-slurm-adapter/state.sqlite",
    )
    assert read(PIDFILEPATH="/a/pid", lastRunPath="/b/run") == (
        "/a/control.sock",
        "/a/pid",
        "/b/run",
        "/b/state.sqlite",
    )
    assert read(controlSockPath="unix:/c/s", statePath="/d/s", pidFilePath="")[::3] == ("/c/s", "/d/s")
    for wrong in ({"controlSockPath": "tcp::9517"}, {"pidFilePath": 5}, {"statePath": ["/a"]}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            read(**wrong)


def test_a_configuration_that_is_not_there_is_a_wrong_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(str(tmp_path / "missing.json")) == CONFIG
    assert "check the path after -config" in capsys.readouterr().err


# --- again and again


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, config: str, rows: int, columns: int) -> None:
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        environ = {"TERM": "xterm", "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-B", "-m", "cc_slurm_adapter", "-status", "-watch", "-config", config],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environ,
            start_new_session=True,
        )
        os.close(slave)
        self.text = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, pattern: str) -> str:
        """Read until something is written, and return what was written since the last time, with it."""
        deadline = time.monotonic() + LIMIT
        while not (found := re.search(pattern, self.text, re.DOTALL)):
            assert time.monotonic() < deadline, self.text
            self._read()
        text, self.text = self.text[: found.end()], self.text[found.end() :]
        return text

    def _read(self) -> None:
        try:
            self.text += os.read(self.master, 100_000).decode()
        except OSError as error:
            assert error.errno == errno.EIO  # it has ended
            raise AssertionError(self.text) from None

    def end(self) -> int:
        """Press Ctrl-C and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(LIMIT)
        while True:
            try:
                self._read()
            except AssertionError:
                break
        os.close(self.master)
        return code


ROOT = Path(cc_slurm_adapter.__file__).parents[1]
DRAWN = r"\x1b\[H(?!\x1b\[2J).*?\x1b\[J"
"""One status on the terminal, from the home of the cursor to the erasure of what is below."""


def rows_of(drawn: str) -> list[str]:
    """The rows of one status, without escape sequences."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", drawn[drawn.rindex("\x1b[H") :])
    return plain.replace("\r", "").rstrip("\n").split("\n")


def test_watch_draws_in_place_in_any_size_and_ends_with_ctrl_c(config: str, paths: Paths) -> None:
    answers = [statuses.WELL]
    with daemon(paths.control_sock, lambda: answers[-1].as_json().encode()):
        terminal = Terminal(config, 24, 80)
        first = rows_of(terminal.read_until(DRAWN))
        assert "every 2 s; Ctrl-C ends" in first[0]
        assert first[1] == "reports alex to cc-backend and NATS: 817 open runs, 0 pending; all is well"
        assert len(first) < 24
        answers.append(FAULTY)
        terminal.resize(12, 40)
        second = rows_of(terminal.read_until(r"(?s)1 fault.*?\x1b\[J"))
        assert len(second) <= 11
        assert max(map(len, second)) <= 40
        assert "more lines in a larger window" in second[-1]
        terminal.resize(60, 200)
        third = terminal.read_until(r"-> see that it runs, and that this host reaches it.*?\x1b\[J")
        assert "\x1b[31mERROR cc-backend" in third
        assert max(map(len, rows_of(third))) <= 200
        assert terminal.end() == FAULTS
    assert "Traceback" not in terminal.text
    assert "\x1b[?" not in terminal.text  # no mode was changed that would have to be changed back


def test_watch_goes_on_when_the_daemon_ends(config: str, paths: Paths) -> None:
    with daemon(paths.control_sock, statuses.WELL.as_json().encode):
        terminal = Terminal(config, 40, 80)
        terminal.read_until("all is well.*?\x1b\\[J")
    os.unlink(paths.control_sock)
    terminal.read_until("the daemon does not run.*?\x1b\\[J")
    assert terminal.end() == NOT_RUNNING
    assert "Traceback" not in terminal.text


def test_without_a_terminal_watch_prints_blocks_until_nobody_reads(config: str, paths: Paths) -> None:
    with daemon(paths.control_sock, FAULTY.as_json().encode):
        process = subprocess.Popen(
            [sys.executable, "-B", "-m", "cc_slurm_adapter", "-status", "-watch", "-config", config],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"reports alex")
        process.stdout.close()
        assert process.wait(LIMIT) == FAULTS
        assert process.stderr.read() == b""
        process.stderr.close()


def test_between_two_blocks_it_waits(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) >= 3:
            raise KeyboardInterrupt

    def ask() -> tuple[int, bytes]:
        return 200, statuses.WELL.as_json().encode()

    assert watch_status(lambda: find_status(ask, paths), wait=wait) == WELL
    out = capsys.readouterr().out
    assert out.count("reports alex to") == 3
    assert "\n\nreports alex to" in out
    assert waits == [10.0, 10.0, 10.0]
    assert watch_status(lambda: find_status(ask, paths), as_json=True, wait=wait) == WELL
    assert capsys.readouterr().out == statuses.WELL.as_json() + "\n"


def test_ctrl_c_before_the_first_status_is_no_traceback(paths: Paths) -> None:
    def ask() -> tuple[int, bytes]:
        raise KeyboardInterrupt

    assert watch_status(lambda: find_status(ask, paths)) == NOT_RUNNING
    assert print_status(lambda: find_status(ask, paths)) == NOT_RUNNING


# --- what it costs


@pytest.mark.parametrize(("is_locked", "times"), [(False, 3), (True, 2)])
def test_the_unit_of_an_instance_is_named(paths: Paths, times: int, *, is_locked: bool) -> None:
    def ask() -> tuple[int, bytes]:
        raise NotRunning("nobody listens")

    pid_file = PidFile(paths.pid_file)
    if is_locked:
        pid_file.lock()
    found = find_status(ask, paths, lambda: "cc-slurm-adapter@alpha")
    text = " ".join(line.text for line in found.lines(1000))
    named = re.findall(r"(?:systemctl \w+|journalctl -u) ([\w@-]+)", text)
    assert named == ["cc-slurm-adapter@alpha"] * times


def test_it_loads_nothing_that_is_slow() -> None:
    """-status must be quick, also on a busy controller."""
    code = (
        "import sys; from cc_slurm_adapter.cli import main, status, control_client;"
        " from cc_slurm_adapter.config import paths; print(*sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-S", "-c", code],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    slow = {"sqlite3", "ssl", "http", "email", "urllib", "asyncio", "subprocess", "multiprocessing", "unicodedata"}
    slow |= {"logging.config", "logging.handlers", "shutil", "tempfile", "pathlib", "difflib", "ipaddress", "hashlib"}
    ours = {name for name in done.stdout.split() if name.startswith("cc_slurm_adapter.")}
    assert not slow & set(done.stdout.split())
    heavy = {"cc_slurm_adapter.config.config", "cc_slurm_adapter.outbox.outbox", "cc_slurm_adapter.daemon.daemon"}
    assert not heavy & ours
    assert len(ours) < 32
