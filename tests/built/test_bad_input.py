"""What an administrator can get wrong: one clear line and a non-zero exit code; a hook call stays silent."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from examples.practice.adapter_daemon import AdapterDaemon
from examples.practice.cc_backend import CcBackend, serving
from examples.practice.slurm.cluster import PracticeCluster
from examples.practice.slurm.controller import Controller
from tests.built.installed import JOB, call

MAY_PASS, WRONG = 1, 78
"""Exit codes: systemd tries the first one again."""
ERROR = "<3>cc-slurm-adapter: "
HOOK_SECONDS = 1.0


class Surroundings(NamedTuple):
    """What a daemon needs that makes no mistake."""

    environ: dict[str, str]
    url: str
    token: str


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    """A practice cluster without jobs, and a cc-backend that knows it."""
    cluster = PracticeCluster.create(tmp_path_factory.mktemp("slurm"))
    controller = Controller(cluster)
    controller.start()
    backend = CcBackend({"lab": ["node01", "node02", "node03", "node04"]})
    with serving(backend) as url:
        yield Surroundings(cluster.environ({"PATH": os.environ["PATH"]}), url, backend.token)
    controller.stop()


@pytest.fixture
def daemon(copy: Path, public: Path, surroundings: Surroundings) -> Iterator[AdapterDaemon]:
    """A daemon that would start: each test makes one mistake."""
    config = {"ccRestUrl": surroundings.url, "ccRestJwt": surroundings.token}
    ready = AdapterDaemon(copy, public / "daemon", environ=surroundings.environ, config=config)
    yield ready
    ready.end()


def complaints(daemon: AdapterDaemon, code: int = MAY_PASS) -> list[str]:
    """The lines with which it refuses to start, under the journal."""
    done = call(daemon.command(debug=2), {**daemon.environ, "JOURNAL_STREAM": "8:1"})
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert all(line.startswith(ERROR) for line in lines)
    return [line[len(ERROR) :] for line in lines]


def only_complaint(daemon: AdapterDaemon, code: int = MAY_PASS) -> str:
    (line,) = complaints(daemon, code)
    return line


def assert_silent_hook(daemon: AdapterDaemon, user: int = 0) -> None:
    """A hook call with this configuration exits 0 within a second and says nothing to the job."""
    began = time.monotonic()
    done = call([daemon.adapter, "-config", daemon.config_path], JOB, user=user)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - began < HOOK_SECONDS


def test_without_a_mistake_it_starts(daemon: AdapterDaemon) -> None:
    """Otherwise the tests here would show nothing."""
    daemon.start()
    assert_silent_hook(daemon)
    assert daemon.stop()[0] == 0


def test_no_configuration(daemon: AdapterDaemon) -> None:
    daemon.config_path.unlink()
    assert f"{daemon.config_path} does not exist" in only_complaint(daemon, WRONG)
    assert_silent_hook(daemon)


def test_broken_json(daemon: AdapterDaemon) -> None:
    daemon.config_path.write_text('{\n "ccRestUrl": "http://localhost",\n "ccRestJwt" "x"\n}')
    line = only_complaint(daemon, WRONG)
    assert line.startswith(f"{daemon.config_path}: ")
    assert "not valid JSON: line 3 column 14" in line
    assert_silent_hook(daemon)


def test_wrong_types_are_named_all_at_once(daemon: AdapterDaemon) -> None:
    wrong = {
        "slurmPollInterval": "often",
        "ccRestUrl": 8080,
        "gpuPciAddrs": ["00000000:07:00.0"],
        "ccRestSubmitJobs": "yes",
        "ignoreHosts": "node[",
        "prepSockConnectPath": "ftp:somewhere",
        "lastRunPath": True,
    }
    daemon.configure(**wrong)
    found = complaints(daemon, WRONG)
    assert len(found) == len(wrong)
    for key, value in wrong.items():
        (line,) = [text for text in found if text.startswith(f"{daemon.config_path}: {key}: ")]
        assert f"got {json.dumps(value)}" in line
    assert_silent_hook(daemon)


@pytest.mark.parametrize("kind", ["missing", "folder", "empty"])
def test_unreadable_token(daemon: AdapterDaemon, public: Path, kind: str) -> None:
    token = public / "token"
    if kind == "folder":
        token.mkdir()
    elif kind == "empty":
        token.write_text("\n")
    daemon.configure(ccRestJwt=None, ccRestJwtFile=str(token))
    line = only_complaint(daemon)
    assert f"ccRestJwtFile: {'' if kind == 'empty' else 'cannot read '}{token}" in line
    assert_silent_hook(daemon)


def test_token_that_belongs_to_somebody_else(daemon: AdapterDaemon, public: Path, other_user: int) -> None:
    token = public / "token"
    token.write_text("secret-of-somebody")
    token.chmod(0o000)
    daemon.configure(ccRestJwt=None, ccRestJwtFile=str(token))
    daemon.config_path.chmod(0o644)
    done = call(daemon.command(), daemon.environ, user=other_user)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, f"cannot read {token}: Permission denied" in line) == (1, True)


def test_no_slurm_commands_in_path(daemon: AdapterDaemon, public: Path) -> None:
    daemon.environ["PATH"] = str(public / "nothing")
    line = only_complaint(daemon)
    assert "scontrol is not in PATH" in line
    assert str(public / "nothing") in line
    assert list(daemon.run_folder.iterdir()) == []


def test_cluster_that_cc_backend_does_not_know(daemon: AdapterDaemon) -> None:
    daemon.configure(clusterName="bal")
    line = only_complaint(daemon)
    assert "does not know the cluster bal, only lab" in line
    assert "clusterName" in line
    assert list(daemon.run_folder.iterdir()) == []
    assert_silent_hook(daemon)


def test_socket_path_too_long(daemon: AdapterDaemon) -> None:
    path = f"{daemon.run_folder}/{'x' * 120}"
    daemon.configure(prepSockListenPath=path, prepSockConnectPath=path)
    lines = complaints(daemon, WRONG)
    assert [re.search(r": (\w+): ", line)[1] for line in lines] == ["prepSockListenPath", "prepSockConnectPath"]  # type: ignore[index]
    assert all(f"has {len(path)} bytes, a unix socket's path can have 107" in line for line in lines)
    assert_silent_hook(daemon)


def test_socket_of_another_process(daemon: AdapterDaemon) -> None:
    """One that takes no connection, so that the hook has to give up by itself."""
    with closing(socket.socket(socket.AF_UNIX)) as taken:
        taken.bind(str(daemon.socket_path))
        taken.listen(1)
        line = only_complaint(daemon)
        assert line.startswith(f"prepSockListenPath: {daemon.socket_path} is in use, process {os.getpid()} serves it")
        assert daemon.socket_path.exists()
        assert_silent_hook(daemon)


def test_regular_file_in_place_of_the_socket(daemon: AdapterDaemon) -> None:
    daemon.socket_path.write_text("somebody's")
    line = only_complaint(daemon)
    assert line.startswith(f"prepSockListenPath: {daemon.socket_path} exists and is not a socket")
    assert daemon.socket_path.read_text() == "somebody's"
    assert_silent_hook(daemon)


def test_tcp_port_of_another_process(daemon: AdapterDaemon) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        address = f"tcp:127.0.0.1:{taken.getsockname()[1]}"
        daemon.configure(prepSockListenPath=address, prepSockConnectPath=address)
        assert only_complaint(daemon).startswith(f"prepSockListenPath: cannot listen on {address}: ")
        assert_silent_hook(daemon)


def test_a_name_that_does_not_resolve_may_do_so_later(daemon: AdapterDaemon) -> None:
    address = "tcp:no-such-host.invalid:12345"
    daemon.configure(prepSockListenPath=address, prepAllow=["127.0.0.1"])
    assert only_complaint(daemon, MAY_PASS).startswith(f"prepSockListenPath: cannot listen on {address}: ")


def make_missing(folder: Path) -> None:
    folder.rmdir()


def make_a_file(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("no folder")


@pytest.mark.parametrize("spoil", [make_missing, make_a_file])
def test_state_folder_that_is_none(daemon: AdapterDaemon, spoil: Callable[[Path], None]) -> None:
    spoil(daemon.state_folder)
    line = only_complaint(daemon)
    assert line.startswith(f"the state folder {daemon.state_folder} (of lastRunPath) cannot be written: ")
    assert list(daemon.run_folder.iterdir()) == []
    assert_silent_hook(daemon)


def test_state_folder_of_another_user(daemon: AdapterDaemon, other_user: int) -> None:
    """The run folder is the daemon's own, as with systemd's RuntimeDirectory."""
    if other_user:
        for path in (daemon.run_folder, daemon.config_path):
            shutil.chown(path, other_user, other_user)
    daemon.state_folder.chmod(0o555)
    done = call(daemon.command(), daemon.environ, user=other_user)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert f"the state folder {daemon.state_folder} (of lastRunPath) cannot be written: Permission denied" in line
    assert_silent_hook(daemon, other_user)


@pytest.mark.parametrize("spoil", [make_missing, make_a_file])
def test_folder_of_the_pid_file_that_is_none(daemon: AdapterDaemon, spoil: Callable[[Path], None]) -> None:
    spoil(daemon.run_folder)
    line = only_complaint(daemon)
    assert line.startswith(f"pidFilePath {daemon.run_folder}/daemon.pid cannot be written: ")
    assert "RuntimeDirectory=" in line
    assert_silent_hook(daemon)


def test_folder_of_the_socket_that_is_missing(daemon: AdapterDaemon, public: Path) -> None:
    path = public / "nowhere" / "daemon.sock"
    daemon.configure(prepSockListenPath=str(path), prepSockConnectPath=str(path))
    assert only_complaint(daemon).startswith(f"prepSockListenPath: the folder {path.parent} of the socket")
    assert list(daemon.run_folder.iterdir()) == []
    assert_silent_hook(daemon)


def test_a_state_database_that_is_none(daemon: AdapterDaemon) -> None:
    """It is set aside, said loudly, and made anew: not a reason to report nothing."""
    state = daemon.state_folder / "state.sqlite"
    state.write_text("this is no database, " * 100)
    daemon.start(debug=2)
    assert [line for line in daemon.log().splitlines() if str(state) in line and "ERROR" in line]
    (aside,) = daemon.state_folder.glob("state.sqlite.damaged-*")
    assert aside.read_text().startswith("this is no database")
