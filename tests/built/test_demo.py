"""The demo as a newcomer starts it, with few jobs: on a terminal, into a file, broken off, and against a Slurm."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import build
from examples.practice.demo import main
from examples.practice.slurm.cluster import PracticeCluster
from examples.practice.slurm.controller import Controller
from examples.practice.slurm.model import JobRequest

LIMIT = 60


def command(adapter: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "examples.practice.demo", "--adapter", str(adapter), *arguments]


@pytest.fixture
def temporary(public: Path) -> Path:
    """The folder for temporary files, to see that nothing is left in it."""
    folder = public / "tmp"
    folder.mkdir()
    return folder


def environment(temporary: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(temporary), "PYTHONWARNINGS": "error", **more}


def test_into_a_file(adapter: Path, temporary: Path) -> None:
    rows = temporary.parent / "rows.json"
    options = ("--seconds", "6", "--jobs", "12", "--rows", str(rows))
    done = subprocess.run(
        command(adapter, *options),
        cwd=build.ROOT,
        env=environment(temporary),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert done.stdout.count(": start sent (") == done.stdout.count(": stop sent (") == 11
    assert "cc-backend is AWAY" in done.stdout
    assert "12 jobs ran, 1 of them opted out; sent: 11 starts, 11 stops" in done.stdout
    assert re.search(r"hook event to accepted request: median \d\.\d\d s, 95 % within", done.stdout)
    assert done.stdout.splitlines()[-1].startswith("nothing is missing, double or wrong")
    assert len([json.loads(line)["start"]["jobId"] for line in rows.read_text().splitlines()]) == 11
    assert list(temporary.iterdir()) == []


@contextlib.contextmanager
def on_terminal(adapter: Path, temporary: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The demo on a terminal: its process, and the other end of the terminal."""
    ours, its = pty.openpty()
    with subprocess.Popen(
        command(adapter, *options),
        cwd=build.ROOT,
        env=environment(temporary, TERM="xterm", COLUMNS="80", LINES="24"),
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    ) as process:
        os.close(its)
        try:
            yield process, ours
            process.wait(LIMIT)
        finally:
            process.terminate()
            os.close(ours)


def read_until(terminal: int, what: str) -> str:
    """What a terminal got, up to a text or to its end."""
    shown = ""
    deadline = time.monotonic() + LIMIT
    while not (what and what in shown):
        assert time.monotonic() < deadline, shown
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # the other end was closed
            return shown
        shown += piece.decode(errors="replace").replace("\r\n", "\n")
    return shown


def test_on_a_terminal(adapter: Path, temporary: Path) -> None:
    with on_terminal(adapter, temporary, "--seconds", "5", "--jobs", "6") as (process, terminal):
        shown = read_until(terminal, "")
    assert process.returncode == 0, shown
    pictures = shown.split("\x1b[?25l")
    assert len(pictures) > 10
    assert all(picture.count("\n") <= 23 for picture in pictures[:-1])
    assert "cc-backend: AWAY" in shown
    assert shown.rstrip().endswith("what was reported is what really ran")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_before_its_time(adapter: Path, temporary: Path, number: signal.Signals) -> None:
    with on_terminal(adapter, temporary) as (process, terminal):
        read_until(terminal, "alice")
        (folder,) = temporary.iterdir()
        daemon = int((folder / "daemon" / "run" / "daemon.pid").read_text())
        process.send_signal(number)
        shown = read_until(terminal, "")
    assert process.returncode == 130
    assert "Traceback" not in shown
    assert "all that it started is gone" in shown
    assert list(temporary.iterdir()) == []
    assert not Path(f"/proc/{daemon}").exists()


def test_without_slurm_it_says_what_to_do(adapter: Path, temporary: Path) -> None:
    done = subprocess.run(
        command(adapter, "--slurm"),
        cwd=build.ROOT,
        env=environment(temporary, PATH=str(temporary)),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "not in PATH: squeue, sacct, scontrol, sinfo" in line
    assert "without --slurm" in line


@pytest.fixture
def cluster(public: Path) -> Iterator[PracticeCluster]:
    """A practice cluster that runs."""
    made = PracticeCluster.create(public / "slurm")
    controller = Controller(made)
    controller.start()
    yield made
    controller.stop()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--jobs", "x"], "--jobs: expected a whole number from 1 to 1000 and not 'x'"),
        (["--seconds", "1"], "--seconds: expected a whole number from 5 to 3600 and not '1'"),
        (["--adapter", "nowhere"], "nowhere is missing: run python3 build.py build"),
        (["--rows", "nowhere/rows"], "--rows: the folder of nowhere/rows is missing"),
    ],
)
def test_wrong_options_are_refused(
    adapter: Path, options: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--adapter", str(adapter), *options])
    assert exit_info.value.code == 2
    assert problem in capsys.readouterr().err


def test_against_a_slurm(adapter: Path, temporary: Path, cluster: PracticeCluster) -> None:
    """The practice cluster's commands lie in PATH as Slurm's would. Ctrl-C ends the watching, not the comparison."""
    before = cluster.submit(JobRequest("before", gpus_per_node=2, duration=600, user="alice"))
    cluster.submit(JobRequest("opted out", duration=600, admin_comment='{"disable_cc_submission": true}'))
    with subprocess.Popen(
        command(adapter, "--slurm"),
        cwd=build.ROOT,
        env=cluster.environ(environment(temporary)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        watch = threading.Timer(LIMIT, process.terminate)
        watch.start()
        shown = next(line for line in process.stdout if f"job {before}: start sent" in line)
        assert shown.rstrip().endswith("threads/GPUs 2/2")
        short = cluster.submit(JobRequest("short", duration=1))
        shown = next(line for line in process.stdout if f"job {short}: stop sent" in line)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        watch.cancel()
    assert process.returncode == 0, rest
    assert "2 starts, 1 stops and " in rest
    assert "\n1 jobs opted out and are not reported\n" in rest
    assert "nothing is missing, double or wrong" in rest
    assert list(temporary.iterdir()) == []
